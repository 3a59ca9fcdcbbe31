"""Functions for the parts of a case that a transform must keep together."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.model.case import Annotation, Case, Mask, Segment, Volume


def require_one_grid(case: Case) -> None:
    """Raise CaseError (``label_off_grid``) unless every mask lies on the volume's grid."""
    for mask in case.masks:
        if not mask.geometry.same_grid(case.volume.geometry):
            raise CaseError(
                Reason.LABEL_OFF_GRID,
                f"mask {mask.name!r}: found a grid of {mask.geometry.shape} voxels that is not the image's "
                f"{case.volume.geometry.shape}, expected one grid for both",
            )


def move_parts(case: Case, volume: Volume, move: Callable[[Annotation], Annotation | None]) -> Case:
    """Return the case with a new volume and moved annotations. Those for which ``move`` returns None are dropped."""
    moved = (move(annotation) for annotation in case.annotations)
    return replace(case, volume=volume, annotations=tuple(a for a in moved if a is not None))


def find_mask(case: Case, name: str) -> Mask:
    """Return the mask called ``name``. Raises CaseError (``label_missing``) if there is none."""
    found = next((mask for mask in case.masks if mask.name == name), None)
    if found is None:
        raise CaseError(
            Reason.LABEL_MISSING, f"found the masks {[m.name for m in case.masks]}, expected one called {name!r}"
        )
    return found


def select_inside(mask: Mask, segments: tuple[str, ...]) -> NDArray[np.bool_]:
    """Return (slice, row, column) bool, True inside any of the named segments, or of all segments if none is named."""
    chosen = [s for s in mask.segments if not segments or s.name in segments]
    if len(chosen) < len(segments):
        raise CaseError(
            Reason.LABEL_MISSING,
            f"mask {mask.name!r}: found the segments {[s.name for s in mask.segments]}, expected {list(segments)}",
        )
    inside = np.zeros(mask.geometry.shape, np.bool_)  # a case without this label has no segment
    for segment in chosen:
        inside |= mask.inside(segment)
    return inside


def find_fill(channel: NDArray[Any], wanted: float | Literal["minimum"]) -> float:
    """Return the value of voxels beyond the image. Raises CaseError if the type of the channel cannot hold it."""
    if wanted == "minimum":
        return float(channel.min())
    if channel.dtype.kind in "iu":
        limits = np.iinfo(channel.dtype)
        if not limits.min <= wanted <= limits.max or wanted != round(wanted):
            raise CaseError(
                Reason.INCONSISTENT_PIXELS,
                f"fill: found {wanted:g}, expected a whole number from {limits.min} to {limits.max} ({channel.dtype})",
            )
    return float(wanted)


def segment_volumes_mm3(mask: Mask) -> dict[str, float]:
    """Return the volume of each segment in mm3. Fractional voxels count by their fraction."""
    from builder.kernels.statistics import count_values

    totals = {channel: count_values(mask.voxels[channel]) for channel in sorted({s.channel for s in mask.segments})}
    size = mask.geometry.voxel_volume_mm3
    return {s.name: float(_segment_voxels(mask, s, totals[s.channel]) * size) for s in mask.segments}


def _segment_voxels(mask: Mask, segment: Segment, totals: NDArray[np.int64]) -> float:
    if mask.fractional:
        return float((totals * np.arange(totals.size)).sum()) / 255.0
    return float(totals[segment.value])
