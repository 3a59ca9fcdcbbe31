"""Decide which builds make the resampled image slab by slab while writing, and so never hold it whole."""

from collections.abc import Sequence

from builder.model.case import Case, Slabs
from builder.patches import AnySamples, Images, Whole
from builder.shards import FieldStorage
from builder.stages.prepare import Recipe, steps_of
from builder.transforms import AnyTransform, Resample


def late_resample(
    transforms: Sequence[AnyTransform], samples: AnySamples, stored: FieldStorage | None
) -> Resample | None:
    """Return the resampling that comes last if its image goes unchanged into whole volumes; otherwise None.

    Whether a case's image can be made in slabs also depends on its grid (``Resample.in_slabs``). Images that are
    joined with others are never made so.

    Parameters
    ----------
    stored
        What the spec states of how images are stored.
    """
    last = transforms[-1] if transforms else None
    if not isinstance(last, Resample) or not isinstance(samples, Whole | Images):
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
