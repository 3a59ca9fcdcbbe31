"""Which builds never hold a resampled image whole: it is made slab by slab while it is written."""

from builder.model.case import Case, Slabs
from builder.patches import Whole
from builder.spec import DatasetSpec
from builder.stages.prepare import Recipe, steps_of
from builder.transforms import Resample


def late_resample(spec: DatasetSpec) -> Resample | None:
    """The resampling that comes last and whose image goes to whole volumes as it is; None where there is none.

    Whether a case's image can be made in slabs also depends on its grid (``Resample.in_slabs``).
    """
    last = spec.transforms[-1] if spec.transforms else None
    stored = spec.shards.fields.get("image")
    if not isinstance(last, Resample) or not isinstance(spec.samples, Whole):
        return None
    if stored is not None and stored.dtype is not None:
        return None
    return last if last.image in ("linear", "nearest") and last.antialias == "none" else None


def transformed_late(case: Case, recipe: Recipe, last: Resample) -> tuple[Case, Slabs | None]:
    """The case after all transforms, ``last`` being the last of them, and its image where that is still to be made.

    Then the voxels of the case are a stand-in (``Resample.in_slabs``). Raises as ``transformed``, and lets go of voxels
    like it.
    """
    for transform in steps_of(case.volume, recipe)[:-1]:
        case = transform(case)
    return last.in_slabs(case) or (last(case), None)
