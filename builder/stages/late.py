"""Decide which builds make the resampled image slab by slab while writing, and so never hold it whole."""

from builder.model.case import Case, Slabs
from builder.patches import Images, Whole
from builder.spec import DatasetSpec
from builder.stages.prepare import Recipe, steps_of
from builder.transforms import Resample


def late_resample(spec: DatasetSpec) -> Resample | None:
    """Return the resampling that comes last if its image goes unchanged into whole volumes; otherwise None.

    Whether a case's image can be made in slabs also depends on its grid (``Resample.in_slabs``).
    """
    last = spec.transforms[-1] if spec.transforms else None
    stored = spec.shards.fields.get("image")
    if not isinstance(last, Resample) or not isinstance(spec.samples, Whole | Images) or spec.cohort.images:
        return None
    if stored is not None and stored.dtype is not None:
        return None
    return last if last.image in ("linear", "nearest") and last.antialias == "none" else None


def transformed_late(case: Case, recipe: Recipe, last: Resample) -> tuple[Case, Slabs | None]:
    """Return the case after all transforms (``last`` is the last), and its image if that is still to be made.

    In that case the voxels are a placeholder (``Resample.in_slabs``). Raises and releases voxels as ``transformed``
    does.
    """
    for transform in steps_of(case.volume, recipe)[:-1]:
        case = transform(case)
    return last.in_slabs(case) or (last(case), None)
