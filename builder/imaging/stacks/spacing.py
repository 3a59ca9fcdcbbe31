"""Judging whether slice positions form a regular grid, with the numbers behind the verdict and the slice step."""

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from builder.model.geometry import ORTHOGONAL_TOLERANCE

SPACING_TOLERANCE = 0.05
"""Largest deviation of a gap from the mean gap, as a fraction of the mean, that still counts as jitter."""

DRIFT_TOLERANCE = 0.10
"""Largest distance of any slice from its place on the fitted regular grid, as a fraction of the gap."""

IN_PLANE_TOLERANCE = 0.10
"""Largest sideways distance of any slice from the fitted line of slice origins, as a fraction of a pixel."""

SLIGHT_SHEAR = 3e-3
"""Largest cosine between slice step and image plane that can still be rounding of positions (0.17 degrees)."""

SAME_POSITION_MM = 1e-2
"""Slices closer than this along the normal share a position."""


class Verdict(StrEnum):
    """What a stack is. Every stack has exactly one verdict."""

    REGULAR = "regular"
    SHEARED = "sheared"
    IRREGULAR = "irregular"
    GAPPED = "gapped"
    DUPLICATE_POSITIONS = "duplicate_positions"
    MIXED_ORIENTATION = "mixed_orientation"
    SINGLE_SLICE = "single_slice"
    TIME_SERIES = "time_series"
    CHANNELS = "channels"
    UNKNOWN_GEOMETRY = "unknown_geometry"
    MULTIFRAME = "multiframe"
    MOSAIC = "mosaic"
    LOCALIZER = "localizer"
    PROJECTION = "projection"
    STILL = "still"
    CINE = "cine"
    SECONDARY_CAPTURE = "secondary_capture"
    WHOLE_SLIDE = "whole_slide"
    NOT_AN_IMAGE = "not_an_image"


@dataclass(frozen=True, eq=False)
class Judgement:
    """The verdict on slice positions.

    Parameters
    ----------
    step_mm
        (3,) LPS vector from one slice to the next. For an irregular or gapped stack on a straight line, the step of the
        regular grid that it can be resampled to; None when there is no such grid.
    notes
        Short codes, with numbers, for tolerated jitter or drift.
    """

    verdict: Verdict
    detail: str
    step_mm: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()


def judge(positions: NDArray[np.float64], *, axes: NDArray[np.float64], pixel_mm: tuple[float, float]) -> Judgement:
    """Judge slice origins that are sorted along the normal.

    Parameters
    ----------
    positions
        (n, 3) ImagePositionPatient (0020,0032), mm.
    axes
        (3, 3) rows: unit vectors along an image row, along an image column, and their cross product (the normal).
    pixel_mm
        PixelSpacing (0028,0030): between rows, between columns.
    """
    count = len(positions)
    if count == 1:
        return Judgement(Verdict.SINGLE_SLICE, "1 slice")
    along = positions @ axes[2]
    gaps = np.diff(along)
    if gaps.min() < SAME_POSITION_MM:
        same = int((gaps < SAME_POSITION_MM).sum()) + 1
        return Judgement(Verdict.DUPLICATE_POSITIONS, f"{same} of {count} slices share a position")
    step = (positions[-1] - positions[0]) / (count - 1)
    uneven = _uneven(along, gaps, tilt=_tilt_degrees(step, axes))
    if uneven is not None:
        return _with_line(uneven, positions, axes=axes, pixel_mm=pixel_mm)
    residual = positions - (positions[0] + np.arange(count)[:, None] * step)
    sideways = np.abs(residual @ axes[:2].T) / np.array([pixel_mm[1], pixel_mm[0]])
    if sideways.max() > IN_PLANE_TOLERANCE:
        off = float(np.abs(residual @ axes[:2].T).max())
        return Judgement(Verdict.IRREGULAR, f"slice origins leave a straight line by up to {off:.3g} mm")
    return _regular_or_sheared(step, axes=axes, pixel_mm=pixel_mm, gaps=gaps)


def _uneven(along: NDArray[np.float64], gaps: NDArray[np.float64], *, tilt: float) -> Judgement | None:
    """Return the verdict on gaps that are not one repeated step, or None when they are."""
    mean = float(gaps.mean())
    place = along - (along[0] + np.arange(len(along)) * mean)
    if np.abs(gaps - mean).max() <= SPACING_TOLERANCE * mean and np.abs(place).max() <= DRIFT_TOLERANCE * mean:
        return None
    tilted = f", tilted {tilt:.1f} deg" if tilt > 0.1 else ""
    base = float(np.median(gaps[gaps <= 1.25 * gaps.min()]))
    multiples = np.rint(gaps / base)
    whole = np.abs(gaps / base - multiples).max() <= SPACING_TOLERANCE
    if whole and multiples.max() > 1 and (multiples == 1).sum() * 2 >= len(gaps):
        missing = int(multiples.sum()) - len(gaps)
        detail = f"{missing} missing between {len(along)} slices of {base:.4g} mm{tilted}"
        return Judgement(Verdict.GAPPED, detail, np.array([base, 0.0, 0.0]))
    return Judgement(Verdict.IRREGULAR, f"spacings {_listed(gaps)} mm{tilted}", np.array([np.median(gaps), 0.0, 0.0]))


def _with_line(
    uneven: Judgement, positions: NDArray[np.float64], *, axes: NDArray[np.float64], pixel_mm: tuple[float, float]
) -> Judgement:
    """Turn the gap of an uneven stack into a step along the line of its slice origins, if they lie on a line."""
    along = (positions - positions[0]) @ axes[2]
    line = (positions[-1] - positions[0]) / along[-1]
    sideways = np.abs((positions - positions[0] - along[:, None] * line) @ axes[:2].T)
    assert uneven.step_mm is not None
    straight = bool((sideways <= IN_PLANE_TOLERANCE * np.array([pixel_mm[1], pixel_mm[0]])).all())
    if np.abs(axes[:2] @ line).max() <= ORTHOGONAL_TOLERANCE:
        line = axes[2]
    return replace(uneven, step_mm=uneven.step_mm[0] * line if straight else None)


def _regular_or_sheared(
    step: NDArray[np.float64], *, axes: NDArray[np.float64], pixel_mm: tuple[float, float], gaps: NDArray[np.float64]
) -> Judgement:
    """Return the verdict on evenly spaced slices: regular along the normal, or sheared."""
    gap = float(step @ axes[2])
    notes: tuple[str, ...] = ()
    jitter = float(np.abs(gaps - gap).max())
    if jitter > 1e-3 * gap:
        notes = (f"jitter_mm={jitter:.3g}",)
    spread = f"{gap:.4g} mm" if not notes else f"{gaps.min():.4g}..{gaps.max():.4g} mm"
    sideways = axes[:2] @ step
    drift = np.abs(sideways) * len(gaps)
    if np.abs(sideways).max() <= ORTHOGONAL_TOLERANCE * np.linalg.norm(step):
        return Judgement(Verdict.REGULAR, f"{len(gaps) + 1} slices, {spread}", gap * axes[2], notes)
    slight = np.abs(sideways).max() <= SLIGHT_SHEAR * np.linalg.norm(step)
    if slight and drift[0] <= IN_PLANE_TOLERANCE * pixel_mm[1] and drift[1] <= IN_PLANE_TOLERANCE * pixel_mm[0]:
        found = (*notes, f"drift_mm={drift.max():.2g}")
        return Judgement(Verdict.REGULAR, f"{len(gaps) + 1} slices, {spread}", gap * axes[2], found)
    tilt = _tilt_degrees(step, axes)
    return Judgement(Verdict.SHEARED, f"{len(gaps) + 1} slices, {spread}, tilted {tilt:.2f} deg", step, notes)


def _tilt_degrees(step: NDArray[np.float64], axes: NDArray[np.float64]) -> float:
    """Return the angle between the slice step and the normal, in degrees."""
    across = float(np.linalg.norm(axes[:2] @ step))
    return float(np.degrees(np.arctan2(across, abs(float(step @ axes[2])))))


def _listed(gaps: NDArray[np.float64]) -> str:
    """List up to six distinct gaps with their counts, largest count first."""
    values, counts = np.unique(np.round(gaps, 2), return_counts=True)
    order = np.lexsort((values, -counts))[:6]
    more = ", ..." if len(values) > 6 else ""
    return ", ".join(f"{values[i]:.4g} (x{counts[i]})" for i in order) + more
