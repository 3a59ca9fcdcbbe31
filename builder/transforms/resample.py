"""Resample the image and masks to a given spacing.

Grid convention: each axis keeps its field of view, which ends at the outer edges of its outermost voxels. The new
spacing is exactly the requested one. The new size is the extent divided by the spacing, rounded (half up, at least 1),
and the centre of the field of view does not move. New and old outer edges therefore differ by at most a quarter of a
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
"""Largest number of voxels of a channel. More are refused, since a wrong spacing makes them and no scanner does."""

Millimetres = Annotated[float, Field(gt=0.001, le=1000)]


class Resample(Step):
    """Resample image, padding and masks to an orthogonal grid of the given spacing.

    A sheared grid (gantry tilt) becomes orthogonal: rows and columns keep their directions, slices follow the normal,
    and the new field encloses the old one. Voxels outside the old field become ``fill`` in the image, background in
    masks and True in the padding mask. The padding mask is resampled by nearest neighbour. Image values under it take
    part in the interpolation like any others.

    ``Mask.measures`` gets the volume of each segment before and after (``<segment>/resample_before_mm3`` and
    ``<segment>/resample_after_mm3``).
    """

    VERSION: ClassVar[int] = 2

    kind: Literal["resample"]
    spacing_mm: tuple[Millimetres | None, Millimetres | None, Millimetres | None]
    """Spacing along (slice, row, column); null keeps the spacing of an axis."""
    image: Literal["linear", "cubic", "nearest"] = "linear"
    """How image values are interpolated."""
    mask: Literal["nearest", "linear"] = "nearest"
    """``linear`` interpolates every label and takes the one with the largest weight; a structure wins a tie with
    background."""
    antialias: Literal["none", "lowpass"] = "none"
    """``lowpass`` filters the image along each axis that shrinks."""
    axes: Literal["image", "patient"] = "image"
    """``patient`` turns an oblique grid to the patient's axes."""
    fill: float | Literal["minimum"] = "minimum"
    """Value of image voxels outside the old field; ``minimum`` is the lowest value of the channel."""
    threads: Annotated[int, Field(ge=1, le=64, exclude=True)] = 1
    """Number of threads per case. It does not change the bytes."""

    def __call__(self, case: Case) -> Case:
        """Resample the case. Raises CaseError if a mask is on another grid or the new grid is too large."""
        require_one_grid(case)
        geometry = make_grid(case.volume.geometry, self.spacing_mm, axes=self.axes)
        same = _is_same(case.volume, geometry)
        return self._moved(case, case.volume if same else self._resample_volume(case.volume, geometry))

    def in_slabs(self, case: Case, geometry: Geometry | None = None) -> tuple[Case, Slabs] | None:
        """Return the resampled case and its image slab by slab, or None if the image can only be made as a whole.

        ``geometry`` is the grid to sample on if that is another image's. The voxels of the returned case are a
        placeholder (a single zero, broadcast), and its padding is left out. Raises the same errors as ``__call__``.
        """
        if self.antialias != "none":
            return None
        require_one_grid(case)
        old = case.volume
        geometry = geometry or make_grid(old.geometry, self.spacing_mm, axes=self.axes)
        found = [
            slab_maker(channel, old.geometry, geometry, method=self.image, threads=self.threads)
            for channel in old.voxels
        ]
        makers = [maker for maker in found if maker is not None]
        if _is_same(old, geometry) or len(makers) < len(found):
            return None
        image = Slabs((len(makers), *geometry.shape), old.voxels.dtype, partial(_stacked, makers))
        return self._moved(case, replace(old, voxels=image.stand_in, geometry=geometry, padding=None)), image

    def onto(self, case: Case, geometry: Geometry, *, fill: float) -> Case:
        """Return the case sampled on another grid, with ``fill`` outside its field. Raises as ``__call__`` does."""
        return self.model_copy(update={"fill": fill}).to_grid(case, geometry)

    def to_grid(self, case: Case, geometry: Geometry) -> Case:
        """Return the case sampled on another grid, with the step's own ``fill`` outside its field."""
        require_one_grid(case)
        same = _is_same(case.volume, geometry)
        return self._moved(case, case.volume if same else self._resample_volume(case.volume, geometry))

    def _moved(self, case: Case, volume: Volume) -> Case:
        """Return the case with the new volume, and with its masks resampled to the new grid."""
        same = volume is case.volume

        def move(annotation: Annotation) -> Annotation:
            if not isinstance(annotation, Mask):
                return annotation
            return _record_volumes(annotation, annotation if same else self._resample_mask(annotation, volume.geometry))

        return move_parts(case, volume, move)

    def projected(self, shape: Shape, spacing_mm: Spacing) -> tuple[Shape, Spacing]:
        """Return shape and spacing after resampling an orthogonal grid. A sheared or turned grid becomes larger."""
        spacing = _complete(self.spacing_mm, spacing_mm)
        sizes = [_size(n * old, new) for n, old, new in zip(shape, spacing_mm, spacing, strict=True)]
        return (sizes[0], sizes[1], sizes[2]), spacing

    def scratch_bytes(self, before: Shape, after: Shape, *, item: int) -> int:
        """Return the bytes of the float32 stack for splines and filters.

        The stack is processed in bands if it exceeds twice the channel's input and output.
        """
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
        if padding is not None:  # voxels outside the old field are padding too
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
    """Return the orthogonal grid of ``spacing_mm`` (slice, row, column) over the field of view of ``geometry``.

    Parameters
    ----------
    geometry
        Any grid. An orthogonal grid keeps its directions with ``image``. Otherwise the new field is the box along the
        new axes that encloses the old field.
    spacing_mm
        Spacing in mm. None keeps the spacing of an axis (for a sheared grid, the distance along the new axis).
    axes
        ``image``: the directions of columns and rows, slices along their normal; ``patient``: the nearest patient axes.

    Raises
    ------
    CaseError
        ``too_large`` if the grid would have more than 2**32 voxels.
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
            Reason.TOO_LARGE, f"found a grid of {sizes} voxels at {spacing} mm, expected at most {LARGEST_VOXELS:,}"
        )
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(spacing)
    middle = geometry.affine[:3, 3] + (geometry.affine[:3, :3] * ((counts - 1) / 2)).sum(axis=1)
    affine[:3, 3] = middle - (affine[:3, :3] * ((np.asarray(sizes) - 1) / 2)).sum(axis=1)
    return Geometry((sizes[0], sizes[1], sizes[2]), affine, geometry.frame_of_reference)


def _is_same(volume: Volume, geometry: Geometry) -> bool:
    return geometry.same_grid(volume.geometry, tolerance_voxels=1e-9)


def _stacked(makers: Sequence[SlabMaker], slices: int, rows: int) -> Iterator[NDArray[Any]]:
    """Yield (channel, slice, row, column) slabs, made by stacking the slabs of the channels."""
    for slabs in zip(*[maker(slices, rows) for maker in makers], strict=True):
        yield _stack(list(slabs))


def _record_volumes(before: Mask, after: Mask) -> Mask:
    """Return ``after`` with the volumes of its segments. If resampled repeatedly, the first "before" is kept."""
    measures = dict(before.measures)
    for name, value in segment_volumes_mm3(before).items():
        measures.setdefault(f"{name}/resample_before_mm3", value)
    for name, value in segment_volumes_mm3(after).items():
        measures[f"{name}/resample_after_mm3"] = value
    return replace(after, measures=measures)


def _size(extent_mm: float, spacing_mm: float) -> int:
    """Return extent over spacing, rounded half up, without the last digits of the quotient, which are noise."""
    return max(1, math.floor(round(extent_mm / spacing_mm, 6) + 0.5))


def _complete(wanted: tuple[float | None, float | None, float | None], own: Spacing) -> Spacing:
    full = [o if w is None else w for w, o in zip(wanted, own, strict=True)]
    return full[0], full[1], full[2]


def _image_axes(geometry: Geometry) -> NDArray[np.float64]:
    """Return (3, 3) unit columns: the directions of the grid, made perpendicular where they are not."""
    own = geometry.directions
    if geometry.is_orthogonal:
        return own
    column = own[:, 2]
    row = own[:, 1] - column * (own[:, 1] * column).sum()
    row = row / np.sqrt((row * row).sum())
    normal = np.cross(row, column)
    return np.stack([normal * np.sign((normal * own[:, 0]).sum()), row, column], axis=1)


def _patient_axes(geometry: Geometry) -> NDArray[np.float64]:
    """Return (3, 3) unit columns: the patient axis nearest to each axis of the grid, each used once."""
    order, signs = find_turn(geometry, "LPS")  # which of the grid's axes is nearest to S, P and L
    axes = np.zeros((3, 3))
    for world, axis, sign in zip(reversed([AXES[letter][0] for letter in "LPS"]), order, signs, strict=True):
        axes[world, axis] = sign
    return axes


def _reaches_outside(source: Geometry, target: Geometry) -> bool:
    """Return whether any voxel centre of ``target`` lies outside the field of view of ``source``."""
    aligned = aligned_lines(index_map(source, target), target.shape)
    if aligned is None:
        return True
    order, lines = aligned
    return any(line.inside(source.shape[axis]) != (0, line.size) for axis, line in zip(order, lines, strict=True))


def _stack(channels: list[NDArray[Any]]) -> NDArray[Any]:
    return channels[0][None] if len(channels) == 1 else np.stack(channels)
