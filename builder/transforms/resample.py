"""Image and masks sampled anew at a stated spacing.

The grid convention: each axis keeps its field of view, which ends at the outer edges of its outermost voxels. The new
spacing is exactly the one asked for, the new size is the extent divided by it and rounded (half up, at least 1), and
the centre of the field of view stays where it is. New and old outer edges therefore differ by at most a quarter of a
new voxel, every new voxel centre lies inside the old field, and resampling commutes with flipping an axis.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from builder.errors import CaseError, Reason
from builder.kernels.sampling import SlabMaker, aligned_lines, index_map, sample, slab_maker
from builder.kernels.taps import Antialias, Method
from builder.model.case import Annotation, Case, Mask, Slabs, Volume
from builder.model.geometry import Geometry
from builder.protocols import Shape, Spacing
from builder.transforms.orient import AXES, find_turn
from builder.transforms.parts import find_fill, move_parts, require_one_grid, segment_volumes_mm3
from builder.transforms.step import Step

LARGEST_VOXELS = 1 << 32
"""Voxels of a channel beyond which a case is refused: no scanner makes them, a wrong spacing does."""

Millimetres = Annotated[float, Field(gt=0.001, le=1000)]


class Resample(Step):
    """Sample image, padding and masks on an orthogonal grid of the stated spacing.

    A sheared grid (gantry tilt) becomes orthogonal: rows and columns keep their directions, slices follow the normal,
    and the new field encloses the old one. What the old field does not reach is ``fill`` in the image, background in
    masks and True in the padding mask. The padding mask itself follows the nearest voxel; the values under it take
    part in the image's interpolation like any other.

    Each segment's volume before and after is in ``Mask.measures`` (``<segment>/resample_before_mm3`` and
    ``<segment>/resample_after_mm3``).
    """

    VERSION: ClassVar[int] = 2

    kind: Literal["resample"]
    spacing_mm: tuple[Millimetres | None, Millimetres | None, Millimetres | None]
    """(slice, row, column); null keeps an axis' spacing."""
    image: Literal["linear", "cubic", "nearest"] = "linear"
    mask: Literal["nearest", "linear"] = "nearest"
    """``linear``: every label linear, the heaviest wins, a structure before background at a tie."""
    antialias: Literal["none", "lowpass"] = "none"
    """``lowpass`` filters the image along each axis that shrinks."""
    axes: Literal["image", "patient"] = "image"
    """``patient`` turns an oblique grid to the patient's axes."""
    fill: float | Literal["minimum"] = "minimum"
    """Image value outside the old field; ``minimum`` is the lowest value of the channel."""
    threads: Annotated[int, Field(ge=1, le=64, exclude=True)] = 1
    """Threads a case uses; does not change the bytes."""

    def __call__(self, case: Case) -> Case:
        """The case on the new grid. Raises CaseError when a mask is on another grid or the new one is too large."""
        require_one_grid(case)
        geometry = make_grid(case.volume.geometry, self.spacing_mm, axes=self.axes)
        same = _is_same(case.volume, geometry)
        return self._moved(case, case.volume if same else self._resample_volume(case.volume, geometry))

    def in_slabs(self, case: Case) -> tuple[Case, Slabs] | None:
        """The case on the new grid, and its image slab by slab; None where the image is made as a whole only.

        The case's own voxels are a stand-in, one zero seen everywhere, and its padding is left out. Raises as a call.
        """
        if self.antialias != "none":
            return None
        require_one_grid(case)
        old, geometry = case.volume, make_grid(case.volume.geometry, self.spacing_mm, axes=self.axes)
        found = [
            slab_maker(channel, old.geometry, geometry, method=self.image, threads=self.threads)
            for channel in old.voxels
        ]
        makers = [maker for maker in found if maker is not None]
        if _is_same(old, geometry) or len(makers) < len(found):
            return None
        image = Slabs((len(makers), *geometry.shape), old.voxels.dtype, partial(_stacked, makers))
        stand_in = np.broadcast_to(np.zeros((), image.dtype), image.shape)
        return self._moved(case, replace(old, voxels=stand_in, geometry=geometry, padding=None)), image

    def _moved(self, case: Case, volume: Volume) -> Case:
        """The case with its image on the new grid, and its masks brought there."""
        same = volume is case.volume

        def move(annotation: Annotation) -> Annotation:
            if not isinstance(annotation, Mask):
                return annotation
            return _record_volumes(annotation, annotation if same else self._resample_mask(annotation, volume.geometry))

        return move_parts(case, volume, move)

    def projected(self, shape: Shape, spacing_mm: Spacing) -> tuple[Shape, Spacing]:
        """Shape and spacing after resampling an orthogonal grid; a sheared or turned one grows beyond it."""
        spacing = _complete(self.spacing_mm, spacing_mm)
        sizes = [_size(n * old, new) for n, old, new in zip(shape, spacing_mm, spacing, strict=True)]
        return (sizes[0], sizes[1], sizes[2]), spacing

    def scratch_bytes(self, before: Shape, after: Shape, *, item: int) -> int:
        """A float32 stack for splines and filters, in bands where it passes twice the channel's input and output."""
        if self.image != "cubic" and self.antialias == "none":
            return 0
        both = (math.prod(before) + math.prod(after)) * item
        return min(4 * before[0] * after[1] * after[2], 2 * both)

    def _resample_volume(self, volume: Volume, geometry: Geometry) -> Volume:
        antialias = Antialias(self.antialias)
        source = volume.geometry
        if antialias is not Antialias.NONE and aligned_lines(index_map(source, geometry), geometry.shape) is None:
            raise CaseError(
                Reason.SHEARED,
                "found an oblique or sheared grid with antialias: lowpass, expected aligned axes; "
                "resample to null spacing without antialias first",
            )
        outside = _reaches_outside(source, geometry)
        channels = [
            sample(
                channel,
                source,
                geometry,
                method=self.image,
                fill=find_fill(channel, self.fill) if outside else 0.0,
                antialias=antialias,
                threads=self.threads,
            )
            for channel in volume.voxels
        ]
        padding = volume.padding
        if padding is None and outside:
            padding = np.zeros(source.shape, dtype=np.bool_)
        if padding is not None:  # what the old field does not reach is padding too
            padding = sample(padding, source, geometry, method=Method.NEAREST, fill=1, threads=self.threads)
        return replace(volume, voxels=_stack(channels), geometry=geometry, padding=padding)

    def _resample_mask(self, mask: Mask, geometry: Geometry) -> Mask:
        method = Method.NEAREST
        if self.mask == "linear":
            method = Method.LINEAR if mask.fractional else Method.MAJORITY
        channels = [
            sample(channel, mask.geometry, geometry, method=method, fill=0, threads=self.threads)
            for channel in mask.voxels
        ]
        return replace(mask, voxels=_stack(channels), geometry=geometry)


def make_grid(
    geometry: Geometry,
    spacing_mm: tuple[float | None, float | None, float | None],
    *,
    axes: Literal["image", "patient"] = "image",
) -> Geometry:
    """The orthogonal grid of ``spacing_mm`` (slice, row, column) over the field of view of ``geometry``.

    Parameters
    ----------
    geometry
        Any grid. An orthogonal one keeps its directions with ``image``; otherwise the new field is the box, along
        the new axes, that encloses the old field.
    spacing_mm
        mm; None keeps the spacing of an axis (for a sheared grid: the distance along the new axis).
    axes
        ``image``: the directions of columns and rows, slices along their normal; ``patient``: the nearest patient axes.

    Raises
    ------
    CaseError
        ``too_large`` when the grid would have more than 2**32 voxels.
    """
    directions = _patient_axes(geometry) if axes == "patient" else _image_axes(geometry)
    steps = (geometry.affine[:3, :3, None] * directions[:, None, :]).sum(axis=0)  # [source axis, new axis] in mm
    if np.abs(geometry.directions - directions).max() < 1e-9:
        steps = np.diag(np.diag(steps))
    own = tuple(float(step) for step in np.diag(steps))
    spacing = _complete(spacing_mm, (own[0], own[1], own[2]))
    counts = np.asarray(geometry.shape, dtype=np.float64)
    extent_mm = (np.abs(steps) * counts[:, None]).sum(axis=0)
    sizes = [_size(float(extent), step) for extent, step in zip(extent_mm, spacing, strict=True)]
    if math.prod(sizes) > LARGEST_VOXELS:
        raise CaseError(
            Reason.TOO_LARGE, f"found a grid of {sizes} voxels at {spacing} mm, expected at most {LARGEST_VOXELS}"
        )
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(spacing)
    middle = geometry.affine[:3, 3] + (geometry.affine[:3, :3] * ((counts - 1) / 2)).sum(axis=1)
    affine[:3, 3] = middle - (affine[:3, :3] * ((np.asarray(sizes) - 1) / 2)).sum(axis=1)
    return Geometry((sizes[0], sizes[1], sizes[2]), affine, geometry.frame_of_reference)


def _is_same(volume: Volume, geometry: Geometry) -> bool:
    return geometry.same_grid(volume.geometry, tolerance_voxels=1e-9)


def _stacked(makers: Sequence[SlabMaker], slices: int, rows: int) -> Iterator[NDArray[Any]]:
    """(channel, slice, row, column) slabs of the channels' own."""
    for slabs in zip(*[maker(slices, rows) for maker in makers], strict=True):
        yield _stack(list(slabs))


def _record_volumes(before: Mask, after: Mask) -> Mask:
    """``after`` with the volumes of its segments; of several resamplings the first one's "before" stays."""
    measures = dict(before.measures)
    for name, value in segment_volumes_mm3(before).items():
        measures.setdefault(f"{name}/resample_before_mm3", value)
    for name, value in segment_volumes_mm3(after).items():
        measures[f"{name}/resample_after_mm3"] = value
    return replace(after, measures=measures)


def _size(extent_mm: float, spacing_mm: float) -> int:
    """Extent over spacing, rounded half up; the last digits of the quotient are rounding errors."""
    return max(1, math.floor(round(extent_mm / spacing_mm, 6) + 0.5))


def _complete(wanted: tuple[float | None, float | None, float | None], own: Spacing) -> Spacing:
    full = [o if w is None else w for w, o in zip(wanted, own, strict=True)]
    return full[0], full[1], full[2]


def _image_axes(geometry: Geometry) -> NDArray[np.float64]:
    """(3, 3) unit columns: the grid's own directions, made perpendicular where they are not."""
    own = geometry.directions
    if geometry.is_orthogonal:
        return own
    column = own[:, 2]
    row = own[:, 1] - column * (own[:, 1] * column).sum()
    row = row / np.sqrt((row * row).sum())
    normal = np.cross(row, column)
    return np.stack([normal * np.sign((normal * own[:, 0]).sum()), row, column], axis=1)


def _patient_axes(geometry: Geometry) -> NDArray[np.float64]:
    """(3, 3) unit columns: the patient axis nearest to each of the grid's, each used once."""
    order, signs = find_turn(geometry, "LPS")  # which of the grid's axes is nearest to S, P and L
    axes = np.zeros((3, 3))
    for world, axis, sign in zip(reversed([AXES[letter][0] for letter in "LPS"]), order, signs, strict=True):
        axes[world, axis] = sign
    return axes


def _reaches_outside(source: Geometry, target: Geometry) -> bool:
    """Whether any voxel centre of ``target`` is outside of the field of view of ``source``."""
    aligned = aligned_lines(index_map(source, target), target.shape)
    if aligned is None:
        return True
    order, lines = aligned
    return any(line.inside(source.shape[axis]) != (0, line.size) for axis, line in zip(order, lines, strict=True))


def _stack(channels: list[NDArray[Any]]) -> NDArray[Any]:
    return channels[0][None] if len(channels) == 1 else np.stack(channels)
