"""Crop a case to a box, and pad it where a fixed shape reaches beyond the image."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from builder.errors import CaseError, Reason
from builder.model.case import Annotation, Boxes, Case, Landmarks, Mask, Volume
from builder.model.geometry import Geometry
from builder.protocols import Shape, Spacing
from builder.transforms.parts import (
    find_fill,
    find_mask,
    move_parts,
    require_one_grid,
    segment_volumes_mm3,
    select_inside,
)
from builder.transforms.step import Step

Margin = Annotated[float, Field(ge=0, le=1000)]
Count = Annotated[int, Field(ge=1, le=16384)]

BODY_STEP_MM = 4.0
"""Spacing at which the body is searched for: far finer than its outline, and coarser than the slats of the table."""

EDGE_VOXELS = 1e-6
"""Fraction of a voxel by which a point may lie beyond an outer edge and still count as inside."""

BORDER_PERCENT = (5.0, 95.0)
"""Percentiles between which the values of a border row or column lie close together: a mark may cover the rest."""

ALIGNED_VOXELS = 1e-3
"""Largest spread, in voxels, of the four corners on one side of a box that still counts as aligned with the grid."""


class Crop(Step):
    """Crop the case to the box around a mask or the body, to what lies inside its borders, or to a fixed shape.

    ``mask``, ``body_above`` or ``edges_within`` selects a box, and ``margin_mm`` widens it as far as the image reaches.
    ``shape`` then sets the size of the box to exactly that many voxels about its centre, or the centre of the image if
    no box is selected. A larger box is cut. A smaller one takes in more of the image, and beyond the image it is filled
    with ``fill``, where the padding mask becomes True.

    What is cut off is recorded. ``Mask.measures`` gets ``<segment>/crop_outside_mm3``. ``Volume.notes`` gets the number
    of boxes and landmarks that were dropped because they lie outside (``crop_dropped/<name>=n``), and of boxes that
    were cut at the edge (``crop_cut/<name>=n``). A line of landmarks (one group) is kept only if all of it is inside.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["crop"]
    mask: str | None = None
    """Name of the mask to crop to."""
    segments: tuple[str, ...] = ()
    """Segments of that mask; all if empty."""
    body_above: float | None = None
    """Crop to the largest connected part above this value (first channel), e.g. -500 HU."""
    edges_within: Annotated[float, Field(ge=0)] | None = None
    """Cut off outer rows and columns of one value, such as the borders of a film and the marks in them: nine tenths of
    such a row differ by at most this number, e.g. 3; 0 for borders without noise."""
    margin_mm: tuple[Margin, Margin, Margin] = (0.0, 0.0, 0.0)
    """Margin along (slice, row, column), on both sides."""
    shape: tuple[Count, Count, Count] | None = None
    """(slice, row, column) voxels of the result; null keeps the size of the box."""
    fill: float | Literal["minimum"] = "minimum"
    """Value of voxels beyond the image; ``minimum`` is the lowest value of the channel."""

    @model_validator(mode="after")
    def _one_box(self) -> "Crop":
        chosen = [name for name in ("mask", "body_above", "edges_within") if getattr(self, name) is not None]
        if len(chosen) > 1:
            raise ValueError(f"found {' and '.join(chosen)}, expected at most one of mask, body_above and edges_within")
        if not chosen and self.shape is None:
            raise ValueError("found none of mask, body_above, edges_within and shape, expected at least one of them")
        if not chosen and self.margin_mm != (0.0, 0.0, 0.0):
            raise ValueError("found margin_mm without mask, body_above or edges_within, expected one of them")
        if self.segments and self.mask is None:
            raise ValueError("found segments without mask, expected the name of their mask")
        return self

    def __call__(self, case: Case) -> Case:
        """Crop the case. Raises CaseError if the mask is missing, empty or off the grid, or no body is found."""
        require_one_grid(case)
        window = self._window(case)
        grid = case.volume.geometry.box(window.start, window.shape)
        notes: list[str] = []

        def move(annotation: Annotation) -> Annotation:
            if isinstance(annotation, Mask):
                return _cut_mask(annotation, window, grid)
            if isinstance(annotation, Boxes):
                return _cut_boxes(annotation, grid, notes)
            if isinstance(annotation, Landmarks):
                return _cut_landmarks(annotation, grid, notes)
            return annotation

        moved = move_parts(case, self._cut_volume(case.volume, window, grid), move)
        return replace(moved, volume=replace(moved.volume, notes=(*moved.volume.notes, *notes)))

    @property
    def label_options(self) -> tuple[str, ...]:
        """Return ``mask`` if the box is that of a mask."""
        return () if self.mask is None else ("mask",)

    def projected(self, shape: Shape, spacing_mm: Spacing) -> tuple[Shape, Spacing]:
        """Return the fixed shape, or else the shape before the crop, which is an upper bound of any box."""
        return (shape if self.shape is None else self.shape), spacing_mm

    def _window(self, case: Case) -> "Window":
        whole = case.volume.geometry.shape
        window = Window((0, 0, 0), whole)
        if self.edges_within is not None:
            window = _inside_borders(case.volume, self.edges_within).widen(self.margin_mm, case.volume.geometry)
        inside = self._region(case)
        if inside is not None:
            window = _bounding_window(inside).widen(self.margin_mm, case.volume.geometry)
        return window if self.shape is None else window.resize(self.shape)

    def _region(self, case: Case) -> NDArray[np.bool_] | None:
        if self.mask is not None:
            inside = select_inside(find_mask(case, self.mask), self.segments)
            if not inside.any():
                raise CaseError(Reason.LABEL_EMPTY, f"mask {self.mask!r}: found no voxel to crop around, expected one")
            return inside
        return None if self.body_above is None else find_body(case.volume, self.body_above)

    def _cut_volume(self, volume: Volume, window: "Window", grid: Geometry) -> Volume:
        reaches_out = window.overlap(volume.geometry.shape) != tuple((0, n) for n in window.shape)
        channels = [
            _cut(channel, window, fill=find_fill(channel, self.fill) if reaches_out else 0) for channel in volume.voxels
        ]
        padding = volume.padding
        if padding is None and reaches_out:
            padding = np.zeros(volume.geometry.shape, dtype=np.bool_)
        return replace(
            volume,
            voxels=np.stack(channels),
            geometry=grid,
            padding=None if padding is None else _cut(padding, window, fill=True),
        )


@dataclass(frozen=True)
class Window:
    """A box of voxels of a grid. It may reach beyond the grid, so ``start`` may be negative."""

    start: Shape
    shape: Shape

    def widen(self, margin_mm: Spacing, geometry: Geometry) -> "Window":
        """Return the box with a margin on both sides, rounded up to whole voxels and limited to the grid."""
        spacing = geometry.spacing_mm
        more = [math.ceil(round(m / s, 6)) for m, s in zip(margin_mm, spacing, strict=True)]
        first = [max(0, a - m) for a, m in zip(self.start, more, strict=True)]
        stop = [
            min(n, a + size + m) for n, a, size, m in zip(geometry.shape, self.start, self.shape, more, strict=True)
        ]
        size = [b - a for a, b in zip(first, stop, strict=True)]
        return Window((first[0], first[1], first[2]), (size[0], size[1], size[2]))

    def resize(self, shape: Shape) -> "Window":
        """Return the box of ``shape`` about the same centre, or half a voxel lower if the difference is odd."""
        first = [a + (have - want) // 2 for a, have, want in zip(self.start, self.shape, shape, strict=True)]
        return Window((first[0], first[1], first[2]), shape)

    def overlap(self, whole: Shape) -> tuple[tuple[int, int], ...]:
        """Return the first and past-the-last indices, within this box, of the part on a grid of shape ``whole``."""
        spans = []
        for first, size, n in zip(self.start, self.shape, whole, strict=True):
            low = min(max(0, -first), size)
            spans.append((low, max(low, min(size, n - first))))
        return tuple(spans)


def find_body(volume: Volume, above: float) -> NDArray[np.bool_]:
    """Return (slice, row, column) bool: blocks of about 4 mm in or next to the largest connected part above a value.

    Padding does not count. Parts are connected by faces, and of two equal parts the first one is taken. Raises
    CaseError if no voxel is above the value.
    """
    from scipy import ndimage

    step = [max(1, int(BODY_STEP_MM / s)) for s in volume.geometry.spacing_mm]
    coarse = tuple(slice(None, None, n) for n in step)
    over = volume.voxels[0][coarse] > above
    if volume.padding is not None:
        over &= ~volume.padding[coarse]
    parts, count = ndimage.label(over)
    if count == 0:
        raise CaseError(
            Reason.NO_SAMPLES, f"crop: found no voxel above {above:g} to crop around, expected a lower body_above"
        )
    body = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    # Only one voxel per block was looked at, so the outline may lie up to one block further out
    body = ndimage.binary_dilation(body)
    for axis, n in enumerate(step):
        body = np.repeat(body, n, axis=axis)
    shape = volume.geometry.shape
    return np.asarray(body[: shape[0], : shape[1], : shape[2]])


def _inside_borders(volume: Volume, spread: float) -> Window:
    """Return the box that is left when border rows and columns are taken off, one after the other from all four sides.

    A row is judged by what is left of it, so that a border on one side does not hide one on another. Raises CaseError
    if nothing is left.
    """
    slices, rows, columns = volume.geometry.shape
    top, bottom, left, right = 0, rows, 0, columns
    voxels = volume.voxels

    def flat(values: NDArray[Any]) -> bool:
        low, high = np.percentile(values, BORDER_PERCENT, axis=(-2, -1))  # of each channel
        return bool(np.all(high - low <= spread))

    before = None
    while before != (top, bottom, left, right):
        before = (top, bottom, left, right)
        while top < bottom and left < right and flat(voxels[:, :, top, left:right]):
            top += 1
        while top < bottom and left < right and flat(voxels[:, :, bottom - 1, left:right]):
            bottom -= 1
        while top < bottom and left < right and flat(voxels[:, :, top:bottom, left]):
            left += 1
        while top < bottom and left < right and flat(voxels[:, :, top:bottom, right - 1]):
            right -= 1
    if top == bottom or left == right:
        raise CaseError(
            Reason.NO_SAMPLES,
            f"crop: found no row or column whose values differ by more than {spread:g}, expected a lower edges_within",
        )
    return Window((0, top, left), (slices, bottom - top, right - left))


def _bounding_window(inside: NDArray[np.bool_]) -> Window:
    start, shape = [], []
    for axis in range(3):
        hits = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        start.append(int(hits[0]))
        shape.append(int(hits[-1]) + 1 - int(hits[0]))
    return Window((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))


def _cut(array: NDArray[Any], window: Window, *, fill: Any) -> NDArray[Any]:
    """Return the window of the (slice, row, column) array, filled where it lies off the array."""
    out = np.full(window.shape, fill, dtype=array.dtype)
    spans = window.overlap(array.shape)
    here = tuple(slice(a, b) for a, b in spans)
    there = tuple(slice(first + a, first + b) for first, (a, b) in zip(window.start, spans, strict=True))
    if all(b > a for a, b in spans):
        out[here] = array[there]
    return out


def _cut_mask(mask: Mask, window: Window, grid: Geometry) -> Mask:
    channels = np.stack([_cut(channel, window, fill=0) for channel in mask.voxels])
    moved = replace(mask, voxels=channels, geometry=grid)
    left = segment_volumes_mm3(moved)
    measures = dict(mask.measures)
    for name, before in segment_volumes_mm3(mask).items():
        lost = f"{name}/crop_outside_mm3"
        measures[lost] = measures.get(lost, 0.0) + max(0.0, before - left[name])
    return replace(moved, measures=measures)


def _cut_boxes(boxes: Boxes, grid: Geometry, notes: list[str]) -> Boxes:
    """Drop boxes that lie outside, and cut boxes that are aligned with the grid at its outer edges."""
    end = np.asarray(grid.shape) - 0.5
    kept, classes, cut = [], [], 0
    for corners_mm, name in zip(boxes.corners_mm, boxes.classes, strict=True):
        corners = grid.to_voxel(corners_mm)
        low, high = corners.min(axis=0), corners.max(axis=0)
        if (high <= -0.5 + EDGE_VOXELS).any() or (low >= end - EDGE_VOXELS).any():
            continue
        if (low < -0.5 - EDGE_VOXELS).any() or (high > end + EDGE_VOXELS).any():
            cut += 1
            if _lies_along(corners):
                corners_mm = grid.to_world(np.clip(corners, -0.5, end))
        kept.append(corners_mm)
        classes.append(name)
    _note(notes, "crop_dropped", boxes.name, len(boxes.classes) - len(kept))
    _note(notes, "crop_cut", boxes.name, cut)
    return replace(boxes, corners_mm=np.asarray(kept, dtype=np.float64).reshape(-1, 8, 3), classes=tuple(classes))


def _lies_along(corners: NDArray[np.float64]) -> bool:
    """Return whether every corner has the lowest or the highest index of the box along every axis."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    return bool(np.minimum(np.abs(corners - low), np.abs(corners - high)).max() <= ALIGNED_VOXELS)


def _cut_landmarks(marks: Landmarks, grid: Geometry, notes: list[str]) -> Landmarks:
    """Drop points that lie outside, together with all points of their group."""
    at = grid.to_voxel(marks.points_mm)
    end = np.asarray(grid.shape) - 0.5
    inside = np.asarray(((at >= -0.5 - EDGE_VOXELS) & (at <= end + EDGE_VOXELS)).all(axis=1))
    if marks.groups:
        broken = {group for group, fine in zip(marks.groups, inside, strict=True) if group and not fine}
        inside &= np.array([group not in broken for group in marks.groups], dtype=np.bool_)
    keep = np.flatnonzero(inside)
    _note(notes, "crop_dropped", marks.name, len(inside) - len(keep))
    return replace(
        marks,
        points_mm=marks.points_mm[keep],
        classes=tuple(marks.classes[i] for i in keep),
        groups=tuple(marks.groups[i] for i in keep) if marks.groups else (),
    )


def _note(notes: list[str], code: str, name: str, count: int) -> None:
    if count:
        notes.append(f"{code}/{name}={count}")
