"""Decide which builds make the resampled image slab by slab while writing, and so never hold it whole."""

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.cohort import Cohort
from builder.model.case import Case, Slabs
from builder.patches import AnySamples, Images, Whole
from builder.protocols import Shape, Spacing
from builder.shards import FieldStorage
from builder.stages.prepare import Recipe, steps_of
from builder.transforms import AnyTransform, Intensity, Resample


def late_resample(
    transforms: Sequence[AnyTransform], samples: AnySamples, stored: FieldStorage | None
) -> Resample | None:
    """Return the resampling that comes last if its image goes unchanged into whole volumes; otherwise None.

    Whether a case's image can be made in slabs also depends on its grid (``Resample.in_slabs``).

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


def late_images(cohort: Cohort, transforms: Sequence[AnyTransform]) -> frozenset[str]:
    """Return the images of a set that are made slab by slab if that holds fewer voxels (``grows``); empty for none.

    ``late_resample`` must have given the last transform. They are the reference and the images that the spec says lie
    on its very grid. Only the build learns where another image lies, and the plan must know what is held: it is sampled
    first. Nothing is made in slabs where a case has several grids, or where a registrar looks at the sampled reference.
    """
    registrars = any(image.registrar is not None for image in cohort.members.values())
    if len(cohort.grids) != 1 or registrars:
        return frozenset()
    straight = cohort.visits is None and all(isinstance(step, Intensity | Resample) for step in transforms)
    alike = [name for name, image in cohort.partners.items() if straight and image.aligned == "grid"]
    return frozenset({cohort.reference, *alike})


def grows(last: Resample, shape: Shape, spacing_mm: Spacing) -> bool:
    """Return whether an image has fewer voxels before the resampling than after it."""
    return prod(shape) < prod(last.projected(shape, spacing_mm)[0])


def transformed_late(case: Case, recipe: Recipe, last: Resample) -> tuple[Case, Slabs | None]:
    """Return the case after all transforms (``last`` is the last), and its image if that is still to be made.

    In that case the voxels are a placeholder (``Resample.in_slabs``). Raises and releases voxels as ``transformed``
    does.
    """
    for transform in steps_of(case.volume, recipe)[:-1]:
        case = transform(case)
    return last.in_slabs(case) or (last(case), None)


def side_by_side(parts: Sequence[NDArray[Any] | Slabs]) -> Slabs:
    """Return the channels of images on one grid, in this order, some of which are still to be made."""
    channels = sum(part.shape[0] for part in parts)
    _, slices, rows, columns = parts[0].shape
    return Slabs((channels, slices, rows, columns), parts[0].dtype, partial(_together, parts))


def _together(parts: Sequence[NDArray[Any] | Slabs], slices: int, rows: int) -> Iterator[NDArray[Any]]:
    start = top = 0
    for made in zip(*(part.make(slices, rows) for part in parts if isinstance(part, Slabs)), strict=True):
        deep, high = made[0].shape[1:3]
        given = iter(made)
        yield np.concatenate(
            [next(given) if isinstance(p, Slabs) else p[:, start : start + deep, top : top + high] for p in parts]
        )
        top += high
        if top == parts[0].shape[2]:
            start, top = start + deep, 0
