"""Finding the pixels of a frame that hold no data (PS3.3 C.7.5.1.1.2)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.decode.format import RLE, PixelFormat
from builder.errors import CaseError, Reason
from builder.imaging.pixels.stored import masked

_TOUCHING = np.ones((3, 3), dtype=np.bool_)


def padded(raw: NDArray[Any], form: PixelFormat, limits: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a (row, column) mask that is True where a frame holds padding.

    A declared value is compared with the stored bits only, because overlays may use the other bits. A value that the
    stored bits cannot hold is compared with all bits of the pixel, because scanners write such values there.

    A declared value of 0 is doubtful, because tissue may have it too. Such pixels are padding only in regions that are
    at least three pixels thick somewhere; scattered ones are data.

    Parameters
    ----------
    raw
        Values before the bits that are not stored are cleared.
    limits
        Smallest and largest padding value, in the sign of the pixels.

    Raises
    ------
    CaseError
        INCONSISTENT_PIXELS when the value does not fit the stored bits, the encoding kept only those, and the rest of
        the value also occurs in the data.
    """
    low, high = limits
    beyond = not form.real and (low < form.limits[0] or high > form.limits[1])
    values = raw if beyond else masked(raw, form)
    found = values == low if low == high else (values >= low) & (values <= high)
    if beyond and not form.native and form.syntax != RLE:
        _check_cut(raw, form, limits, found)
    if low == high == 0 and found.any():
        found = _thick(found)
    return np.asarray(found)


def _check_cut(raw: NDArray[Any], form: PixelFormat, limits: tuple[int, int], found: NDArray[np.bool_]) -> None:
    """Refuse a frame whose codec reduced the padding value to the stored bits, where data may have the same value."""
    if found.any():
        return
    width = 1 << form.bits_stored
    remains = {end % width for end in limits}
    if np.isin(raw.astype(np.int64) % width, list(remains)).any():
        raise CaseError(
            Reason.INCONSISTENT_PIXELS,
            f"PixelPaddingValue {limits[0]} does not fit {form.bits_stored} stored bits, and what the encoding left of "
            "it cannot be told from data",
        )


def _thick(found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the connected regions that contain a square of 3 x 3 pixels; pixels beyond the frame count as padding."""
    from scipy import ndimage  # needs half a second to load, and few images declare a padding value of 0

    cores = ndimage.binary_erosion(found, _TOUCHING, border_value=1)
    if not cores.any():
        return np.zeros_like(found)
    regions, _ = ndimage.label(found, _TOUCHING)
    kept = np.zeros(int(regions.max()) + 1, dtype=np.bool_)
    kept[np.unique(regions[cores])] = True
    kept[0] = False
    return np.asarray(kept[regions])
