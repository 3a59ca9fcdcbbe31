"""Resampling unevenly spaced slices to a regular grid, linearly along the slice axis only."""

from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.imaging.stacks.stack import Stack
from builder.model.geometry import Geometry

ON_GRID = 1e-3
"""Distance from a grid place, in grid steps, up to which a slice is used for it unchanged."""


def even_geometry(stack: Stack) -> Geometry | None:
    """Return the regular grid of an irregular or gapped stack, or None. The grid does not reach past the last slice."""
    if stack.uneven is None:
        return None
    count = floor(stack.offsets[-1] + ON_GRID) + 1
    return Geometry((count, *stack.shape[1:]), np.array(stack.uneven), stack.frame_of_reference)


def evened(
    voxels: NDArray[Any], padding: NDArray[np.bool_] | None, offsets: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Resample (channel, slice, row, column) voxels to whole offsets.

    Parameters
    ----------
    offsets
        (slice,) positions of the slices on the new slice axis, ascending from 0.

    Returns
    -------
    tuple
        The voxels in their dtype, integers rounded to the nearest (half to even), and the padding mask, which is True
        where either neighbour has no data.
    """
    count = floor(offsets[-1] + ON_GRID) + 1
    result = np.empty((voxels.shape[0], count, *voxels.shape[2:]), dtype=voxels.dtype)
    mask = None if padding is None else np.empty(result.shape[1:], dtype=np.bool_)
    for place in range(count):
        low, high, weight = _between(offsets, place)
        if weight == 0.0:
            result[:, place] = voxels[:, low]
        else:
            mixed = voxels[:, low] * np.float32(1.0 - weight) + voxels[:, high] * np.float32(weight)
            result[:, place] = np.rint(mixed) if result.dtype.kind in "iu" else mixed
        if mask is not None and padding is not None:
            mask[place] = padding[low] | padding[high]
    return result, mask


def _between(offsets: NDArray[np.float64], place: int) -> tuple[int, int, float]:
    """Return the slices below and above a place, and the weight of the upper one."""
    nearest = int(np.argmin(np.abs(offsets - place)))
    if abs(float(offsets[nearest]) - place) <= ON_GRID:
        return nearest, nearest, 0.0
    high = int(np.searchsorted(offsets, place))
    low = high - 1
    return low, high, float((place - offsets[low]) / (offsets[high] - offsets[low]))
