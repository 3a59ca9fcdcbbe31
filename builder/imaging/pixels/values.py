"""The values of a stack's instances in one array: decoded, rescaled, in their places."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.imaging.pixels.format import BIG_ENDIAN, PixelFormat
from builder.imaging.pixels.rescale import Rescale
from builder.imaging.pixels.stored import masked, native_values, stored_values

PixelFill: TypeAlias = Callable[[str, memoryview], None]
"""Writes the native pixel bytes of the instance with this SOPInstanceUID into the memory given: the way around
data sets in memory for pixels that lie in a file."""

INT16 = (-(2**15), 2**15 - 1)
UINT16 = (0, 2**16 - 1)
UINT8 = (0, 2**8 - 1)


@dataclass(frozen=True)
class Slice:
    """Where one frame of an instance goes, and how its values are read."""

    channel: int
    index: int
    frame: int
    rescale: Rescale
    padding: tuple[int, int] | None


@dataclass(frozen=True)
class Instance:
    """One object and the slices it holds; ``dataset`` is None when its native pixels come from a ``PixelFill``.

    ``tiles`` counts the tiles along a side of a mosaic; 0 for everything else.
    """

    uid: str
    form: PixelFormat
    slices: tuple[Slice, ...]
    dataset: Dataset | None = None
    tiles: int = 0

    @property
    def has_pixels(self) -> bool:
        """Whether the data set itself carries Pixel Data."""
        return self.dataset is not None and "PixelData" in self.dataset


def dtype_of(instances: Sequence[Instance]) -> np.dtype[Any]:
    """The narrowest integer for whole offsets, float32 for everything else.

    16 stored bits and an offset may reach past int16; values that do are found while decoding.
    """
    if any(i.form.real or i.form.bits_allocated > 16 or not all(s.rescale.whole for s in i.slices) for i in instances):
        return np.dtype(np.float32)
    low = min(int(s.rescale.intercept) + i.form.limits[0] for i in instances for s in i.slices)
    high = max(int(s.rescale.intercept) + i.form.limits[1] for i in instances for s in i.slices)
    for kind, (least, most) in ((np.uint8, UINT8), (np.int16, INT16), (np.uint16, UINT16)):
        if least <= low and high <= most:
            return np.dtype(kind)
    return np.dtype(np.int16)


def decode(
    instances: Sequence[Instance],
    shape: tuple[int, ...],
    *,
    dtype: np.dtype[Any],
    factor: float,
    fill: PixelFill | None,
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Decode every slice into its place of one array.

    Parameters
    ----------
    shape
        (channel, slice, row, column).
    dtype
        Of ``dtype_of``; a value that does not fit it makes the whole array float32.
    factor
        Multiplies the rescaled values; 1 for integers.

    Returns
    -------
    tuple
        The voxels, and (slice, row, column) bool, True where a stored value is padding; None when there is none.
    """
    voxels = np.empty(shape, dtype)
    padding = np.zeros(shape[1:], dtype=np.bool_) if any(s.padding for i in instances for s in i.slices) else None
    for instance in instances:
        if fill is not None and _is_direct(instance, dtype):
            frames = _filled_in_place(instance, voxels, fill)
        else:
            frames = _frames(instance, fill)
        for item in instance.slices:
            stored = frames[item.frame]
            if padding is not None and item.padding is not None:
                low, high = item.padding
                padding[item.index] |= stored == low if low == high else (stored >= low) & (stored <= high)
            if not _place(
                stored, voxels[item.channel, item.index], form=instance.form, rescale=item.rescale, factor=factor
            ):
                return decode(instances, shape, dtype=np.dtype(np.float32), factor=factor, fill=fill)
    return voxels, padding if padding is not None and padding.any() else None


def _is_direct(instance: Instance, dtype: np.dtype[Any]) -> bool:
    """Whether the bytes of an instance can be read straight into the volume and made values there."""
    form = instance.form
    alike = form.native and form.syntax != BIG_ENDIAN and form.dtype.itemsize == dtype.itemsize and dtype.kind in "iu"
    return alike and form.frames == 1 and not instance.tiles and not instance.has_pixels


def _filled_in_place(instance: Instance, voxels: NDArray[Any], fill: PixelFill) -> NDArray[Any]:
    """(1, row, column) stored values that lie where the volume's values will be."""
    (item,) = instance.slices
    place = voxels[item.channel, item.index]
    fill(instance.uid, place.data.cast("B"))
    stored: NDArray[Any] = place.view(instance.form.dtype)
    kept = masked(stored, instance.form)
    if kept is not stored:
        stored[...] = kept
    return stored[None]


def _frames(instance: Instance, fill: PixelFill | None) -> NDArray[Any]:
    """(frame, row, column) stored values of an instance; the tiles of a mosaic are its frames."""
    form = instance.form
    if fill is not None and form.native and not instance.has_pixels:
        scratch = np.empty(form.frames * form.frame_values, dtype=form.dtype)
        fill(instance.uid, scratch.data.cast("B"))
        frames = masked(native_values(scratch.data.cast("B"), form), form)
    elif instance.dataset is None:
        raise CaseError(Reason.UNDECODABLE_PIXELS, "encoded pixels without their data set")
    else:
        frames = stored_values(instance.dataset, form)
    return frames if not instance.tiles else _cut_tiles(frames[0], instance.tiles)


def _cut_tiles(picture: NDArray[Any], side: int) -> NDArray[Any]:
    """(row, column) mosaic of ``side`` by ``side`` tiles to (slice, row, column); tiles run along rows first."""
    rows, columns = picture.shape[0] // side, picture.shape[1] // side
    return picture.reshape(side, rows, side, columns).swapaxes(1, 2).reshape(-1, rows, columns)


def _place(stored: NDArray[Any], target: NDArray[Any], *, form: PixelFormat, rescale: Rescale, factor: float) -> bool:
    """Write rescaled values into ``target``, which may be the same memory; False when they do not fit its integers."""
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
    # In range at the end, so arithmetic that wraps on the way (uint16 - 1024) comes out right.
    np.add(stored.astype(target.dtype, casting="unsafe", copy=False), np.array(offset).astype(target.dtype), out=target)
    return True
