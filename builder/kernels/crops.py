"""Boxes out of chunks: decompress one after another and copy what lies in the box, in one call without the lock."""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numcodecs.blosc as blosc
import numpy as np
from numba import types
from numpy.typing import NDArray

from builder.model.compiled import compiled

Three = tuple[int, int, int]

_HEADER_BYTES = 16
_CALLED = ("blosc_cbuffer_validate", "blosc_decompress_ctx")


UNCHECKED = -2


def decode_box(
    stored: NDArray[np.uint8],
    places: NDArray[np.int64],
    checked: NDArray[np.bool_],
    grid: Three,
    chunk: Three,
    start: Three,
    out: NDArray[Any],
) -> int:
    """Fill a box of a volume from the Blosc chunks that it touches.

    Parameters
    ----------
    stored
        Bytes that hold the chunks.
    places
        (chunk, 2): offset and length in ``stored`` of every chunk of the volume, the last axis fastest.
    checked
        (chunk,): whether the bytes of a chunk are known to be good.
    grid
        Number of chunks along (slice, row, column).
    chunk
        (slice, row, column) of a chunk.
    start
        (slice, row, column) of the first voxel of the box, which must lie inside the volume.
    out
        (channel, slice, row, column), C-contiguous; its channels are those of a chunk.

    Returns
    -------
    -1; the number of the first chunk that cannot be decompressed to exactly the bytes of a chunk; or ``UNCHECKED`` if
    the box touches a chunk that was not checked. Only after -1 is ``out`` filled.
    """
    size = out.dtype.itemsize
    (s, r, c), (height, width, depth) = start, chunk
    inside = (height, width, depth * size)
    return int(_kernel()(stored, places, checked, grid, inside, (s, r, c * size), out.view(np.uint8)))


@cache
def can_decode_boxes() -> bool:
    """Return whether the Blosc of this installation can be called by ``decode_box``."""
    library = ctypes.CDLL(blosc.__file__)
    return all(hasattr(library, name) for name in _CALLED)


@cache
def _kernel() -> Callable[..., int]:
    """Return the kernel, after telling the compiler where the functions of numcodecs' Blosc are."""
    import llvmlite.binding as llvm

    library = ctypes.CDLL(blosc.__file__)
    for name in _CALLED:
        address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        llvm.add_symbol(f"builder_{name}", address)
    return _decode


_validate = types.ExternalFunction("builder_blosc_cbuffer_validate", types.int32(types.uintp, types.uintp, types.uintp))
_decompress = types.ExternalFunction(
    "builder_blosc_decompress_ctx", types.int32(types.uintp, types.uintp, types.uintp, types.int32)
)
_copy = types.ExternalFunction("memcpy", types.uintp(types.uintp, types.uintp, types.uintp))


@compiled
def _decode(stored: Any, places: Any, checked: Any, grid: Any, chunk: Any, start: Any, out: Any) -> Any:
    height, width, depth = chunk
    first_s, first_r, first_c = start
    channels, slices, rows, columns = out.shape
    scratch = np.empty(channels * height * width * depth, np.uint8)
    stated = np.zeros(1, np.uint64)
    for s in range(first_s // height, (first_s + slices - 1) // height + 1):
        low_s, high_s = max(s * height, first_s), min((s + 1) * height, first_s + slices)
        for r in range(first_r // width, (first_r + rows - 1) // width + 1):
            low_r, high_r = max(r * width, first_r), min((r + 1) * width, first_r + rows)
            for c in range(first_c // depth, (first_c + columns - 1) // depth + 1):
                low_c, high_c = max(c * depth, first_c), min((c + 1) * depth, first_c + columns)
                number = (s * grid[1] + r) * grid[2] + c
                if not checked[number]:
                    return UNCHECKED
                begin, length = places[number, 0], places[number, 1]
                if begin < 0 or length < _HEADER_BYTES or begin > stored.size - length:
                    return number
                source = stored.ctypes.data + begin
                if _validate(source, length, stated.ctypes.data) < 0 or stated[0] != scratch.size:
                    return number
                if _decompress(source, scratch.ctypes.data, scratch.size, 1) != scratch.size:
                    return number
                for channel in range(channels):
                    for i in range(low_s, high_s):
                        line = ((channel * height + i - s * height) * width + low_r - r * width) * depth
                        target = ((channel * slices + i - first_s) * rows + low_r - first_r) * columns
                        line += scratch.ctypes.data + low_c - c * depth
                        target += out.ctypes.data + low_c - first_c
                        for _ in range(low_r, high_r):
                            _copy(target, line, high_c - low_c)
                            line += depth
                            target += columns
    return -1
