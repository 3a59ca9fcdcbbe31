"""Nearest-neighbour resampling along axes. Voxels are copied, never computed."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.kernels.slabs import lay_slabs, run_slabs
from builder.kernels.taps import Line, nearest_index
from builder.model.compiled import compiled


def resample_nearest(volume: NDArray[Any], lines: tuple[Line, Line, Line], *, threads: int) -> NDArray[Any]:
    """Take the nearest voxel of ``volume`` at the given lines; a point midway between two takes the higher index."""
    (whole,) = nearest_slabs(volume, lines, slices=lines[0].size, rows=lines[1].size, threads=threads)
    return whole


def nearest_slabs(
    volume: NDArray[Any], lines: tuple[Line, Line, Line], *, slices: int, rows: int, threads: int
) -> Iterator[NDArray[Any]]:
    """Yield the result of ``resample_nearest`` in slabs, in C order of slices and rows. All slabs share one buffer."""
    all_z, all_y, xs = (nearest_index(line, count) for line, count in zip(lines, volume.shape, strict=True))
    bits = np.dtype(f"u{volume.dtype.itemsize}")  # one compiled kernel per width serves all types
    source = volume.view(bits)

    def work(start: int, stop: int) -> None:
        _pick(source, out.view(bits), start, stop, zs, ys, xs)

    shape = (lines[0].size, lines[1].size, lines[2].size)
    for out, across, down in lay_slabs(shape, volume.dtype, slices=slices, rows=rows):
        zs, ys = all_z[across], all_y[down]
        run_slabs(work, out.shape[0], threads=threads)
        yield out


@compiled
def _pick(source: Any, out: Any, z0: int, z1: int, zs: Any, ys: Any, xs: Any) -> None:
    for z in range(z0, z1):
        again = z > z0 and zs[z] == zs[z - 1]
        for y in range(ys.shape[0]):
            b = out[z, y]
            if again or (y > 0 and ys[y] == ys[y - 1]):  # the same row was made before: copy it
                a = out[z - 1, y] if again else out[z, y - 1]
                for x in range(xs.shape[0]):
                    b[x] = a[x]
                continue
            a = source[zs[z], ys[y]]
            for x in range(xs.shape[0]):
                b[x] = a[xs[x]]
