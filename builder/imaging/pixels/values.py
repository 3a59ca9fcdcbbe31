"""Decoding and rescaling the values of a stack's instances into their places in one array."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from builder.decode.format import BIG_ENDIAN, PixelFormat
from builder.errors import CaseError, Reason
from builder.imaging.pixels.padding import padded
from builder.imaging.pixels.rescale import Rescale
from builder.imaging.pixels.stored import masked, native_values, raw_values
from builder.imaging.pixels.types import narrowest

PixelFill: TypeAlias = Callable[[str, memoryview], None]
"""Writes the native pixel bytes of the instance with this SOPInstanceUID into the given memory, so that pixels can be
read straight from a file without a data set in memory."""


@dataclass(frozen=True)
class Slice:
    """Where one frame of an instance goes, and how its values are rescaled."""

    channel: int
    index: int
    frame: int
    rescale: Rescale
    padding: tuple[int, int] | None


@dataclass(frozen=True)
class Instance:
    """One object and the slices it holds; ``dataset`` is None when its native pixels come from a ``PixelFill``.

    ``tiles`` counts the tiles of a mosaic down and across; None for everything else.
    """

    uid: str
    form: PixelFormat
    slices: tuple[Slice, ...]
    dataset: Dataset | None = None
    tiles: tuple[int, int] | None = None

    @property
    def has_pixels(self) -> bool:
        """Whether the data set itself contains Pixel Data."""
        return self.dataset is not None and "PixelData" in self.dataset


def dtype_of(instances: Sequence[Instance], filling: float | None = None) -> np.dtype[Any]:
    """Return the narrowest integer type when every rescale is a whole offset, else float32.

    16 stored bits with an offset may exceed int16; decoding finds the values that do.

    Parameters
    ----------
    filling
        The value that replaces padding, which the type must hold when an instance states padding; None keeps padding.
    """
    if any(i.form.real or i.form.bits_allocated > 16 or not all(s.rescale.whole for s in i.slices) for i in instances):
        return np.dtype(np.float32)
    low = min(int(s.rescale.intercept) + i.form.limits[0] for i in instances for s in i.slices)
    high = max(int(s.rescale.intercept) + i.form.limits[1] for i in instances for s in i.slices)
    if filling is not None and any(s.padding for i in instances for s in i.slices):
        low, high = min(low, int(filling)), max(high, int(filling))
    return np.dtype(narrowest(low, high).name)


def decode(
    instances: Sequence[Instance],
    shape: tuple[int, ...],
    *,
    dtype: np.dtype[Any],
    factor: float,
    fill: PixelFill | None,
    filling: float | None = None,
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Decode every slice into its place of one array.

    Parameters
    ----------
    shape
        (channel, slice, row, column).
    dtype
        The type from ``dtype_of``. A value that does not fit it makes the whole array float32.
    factor
        Multiplies the rescaled values; 1 for integers.
    filling
        The value that replaces padding in a slice, whatever other channels hold there; None keeps the stored numbers.

    Returns
    -------
    tuple
        The voxels, and a (slice, row, column) bool mask that is True where any channel has padding, or None when there
        is no padding.
    """
    voxels = np.empty(shape, dtype)
    padding = np.zeros(shape[1:], dtype=np.bool_) if any(s.padding for i in instances for s in i.slices) else None
    for instance in instances:
        if fill is not None and _is_direct(instance, dtype):
            frames = _filled_in_place(instance, voxels, fill)
        else:
            frames = _frames(instance, fill)
        for item in instance.slices:
            target = voxels[item.channel, item.index]
            stored, none = _told_apart(frames[item.frame], instance.form, item.padding)
            if none is not None and padding is not None:
                padding[item.index] |= none
                if filling is not None:  # so that the padding number itself need not fit the type
                    stored = np.where(none, _any_datum(stored, none), stored)
            if not _place(stored, target, form=instance.form, rescale=item.rescale, factor=factor):
                wider = np.dtype(np.float32)
                return decode(instances, shape, dtype=wider, factor=factor, fill=fill, filling=filling)
            if none is not None and filling is not None:
                target[none] = filling
    return voxels, padding if padding is not None and padding.any() else None


def _told_apart(
    raw: NDArray[Any], form: PixelFormat, limits: tuple[int, int] | None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return the stored values of a frame, and the mask of its padding, or None when it has none."""
    if limits is None:
        return masked(raw, form), None
    none = padded(raw, form, limits)
    return masked(raw, form), none if none.any() else None


def _any_datum(stored: NDArray[Any], none: NDArray[np.bool_]) -> Any:
    """Return any stored value that is data, or 0 when all are padding."""
    place = int(np.argmin(none))
    return stored.flat[place] if not none.flat[place] else stored.dtype.type(0)


def _is_direct(instance: Instance, dtype: np.dtype[Any]) -> bool:
    """Return whether the bytes of an instance can be read straight into the volume and rescaled there."""
    form = instance.form
    alike = form.native and form.syntax != BIG_ENDIAN and form.dtype.itemsize == dtype.itemsize and dtype.kind in "iu"
    return alike and form.frames == 1 and not instance.tiles and not instance.has_pixels


def _filled_in_place(instance: Instance, voxels: NDArray[Any], fill: PixelFill) -> NDArray[Any]:
    """Read an instance into its place in the volume, and return that memory as (1, row, column) unmasked values."""
    (item,) = instance.slices
    place = voxels[item.channel, item.index]
    fill(instance.uid, place.data.cast("B"))
    raw: NDArray[Any] = place.view(instance.form.dtype)
    return raw[None]


def _frames(instance: Instance, fill: PixelFill | None) -> NDArray[Any]:
    """Return the (frame, row, column) values of an instance, not yet masked; tiles of a mosaic count as frames."""
    form = instance.form
    if fill is not None and form.native and not instance.has_pixels:
        scratch = np.empty(form.frames * form.frame_values, dtype=form.dtype)
        fill(instance.uid, scratch.data.cast("B"))
        frames = native_values(scratch.data.cast("B"), form)
    elif instance.dataset is None:
        raise CaseError(Reason.UNDECODABLE_PIXELS, "encoded pixels without their data set")
    else:
        frames = raw_values(instance.dataset, form)
    if not instance.tiles:
        return frames
    tiles = _cut_tiles(frames[0], instance.tiles)
    _check_blank(tiles, {part.frame for part in instance.slices})
    return tiles


def _check_blank(tiles: NDArray[Any], used: Set[int]) -> None:
    """Refuse a mosaic whose tiles after the last slice hold an image.

    Scanners leave them blank. Pixels there show that the stated number of slices, which decides how the picture is cut,
    is wrong: it is nowhere else in the file. May raise CaseError INCONSISTENT_PIXELS.
    """
    rest = tiles[len(used) :]
    if used == set(range(len(used))) and rest.size and int(rest.min()) != int(rest.max()):
        detail = f"found an image in the tiles of a mosaic after its {len(used)} slices, expected blank tiles"
        raise CaseError(Reason.INCONSISTENT_PIXELS, detail)


def _cut_tiles(picture: NDArray[Any], tiles: tuple[int, int]) -> NDArray[Any]:
    """Cut a (row, column) mosaic of tiles down and across into (slice, row, column); tiles run along rows first."""
    down, across = tiles
    rows, columns = picture.shape[0] // down, picture.shape[1] // across
    return picture.reshape(down, rows, across, columns).swapaxes(1, 2).reshape(-1, rows, columns)


def _place(stored: NDArray[Any], target: NDArray[Any], *, form: PixelFormat, rescale: Rescale, factor: float) -> bool:
    """Write rescaled values to ``target``, which may be the same memory; return False when integers do not fit it."""
    if rescale.table is not None:
        stored = rescale.looked_up(stored)
    if target.dtype.kind == "f":
        np.multiply(stored, np.float64(rescale.slope * factor), out=target, casting="same_kind")
        if rescale.intercept:
            target += np.float32(rescale.intercept * factor)
        return True
    offset = int(rescale.intercept)
    limits = np.iinfo(target.dtype)
    fits = limits.min <= form.limits[0] + offset and form.limits[1] + offset <= limits.max
    if not fits and (int(stored.min()) + offset < limits.min or int(stored.max()) + offset > limits.max):
        return False
    if offset == 0:
        target[...] = stored.astype(target.dtype, casting="unsafe", copy=False)
        return True
    # The result is in range, so wrapping on the way (uint16 - 1024) still gives the right value.
    np.add(stored.astype(target.dtype, casting="unsafe", copy=False), np.array(offset).astype(target.dtype), out=target)
    return True
