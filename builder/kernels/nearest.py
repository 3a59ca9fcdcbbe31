"""Nearest-neighbour resampling along axes: copies, never arithmetic."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.kernels.buffers import borrow
from builder.kernels.compiled import compiled
from builder.kernels.slabs import run_slabs
from builder.kernels.taps import Line, nearest_index


def resample_nearest(volume: NDArray[Any], lines: tuple[Line, Line, Line], *, threads: int) -> NDArray[Any]:
    """Take the nearest voxel of ``volume`` at the given lines; the middle between two goes to the higher index."""
    (whole,) = nearest_slabs(volume, lines, slices=lines[0].size, threads=threads)
    return whole


def nearest_slabs(
    volume: NDArray[Any], lines: tuple[Line, Line, Line], *, slices: int, threads: int
) -> Iterator[NDArray[Any]]:
    """The result of ``resample_nearest``, ``slices`` slices at a time; each slab lies where the one before it lay."""
    slab = borrow((min(slices, lines[0].size), lines[1].size, lines[2].size), volume.dtype)
    indices, ys, xs = (nearest_index(line, count) for line, count in zip(lines, volume.shape, strict=True))
    bits = np.dtype(f"u{volume.dtype.itemsize}")  # one compiled kernel a width, whatever the type
    source = volume.view(bits)

    def work(start: int, stop: int) -> None:
        _pick(source, out.view(bits), start, stop, zs, ys, xs)

    for first in range(0, lines[0].size, slices):
        zs = indices[first : first + slices]
        out = slab[: zs.size]
        run_slabs(work, out.shape[0], threads=threads)
        yield out


@compiled
def _pick(source: Any, out: Any, z0: int, z1: int, zs: Any, ys: Any, xs: Any) -> None:
    for z in range(z0, z1):
        again = z > z0 and zs[z] == zs[z - 1]
        for y in range(ys.shape[0]):
            b = out[z, y]
            if again or (y > 0 and ys[y] == ys[y - 1]):  # a row made before
                a = out[z - 1, y] if again else out[z, y - 1]
                for x in range(xs.shape[0]):
                    b[x] = a[x]
                continue
            a = source[zs[z], ys[y]]
            for x in range(xs.shape[0]):
                b[x] = a[xs[x]]
