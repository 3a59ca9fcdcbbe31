"""Linear resampling along axes: each slice is shrunk in its plane once, then neighbouring slices are blended."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.kernels.compiled import compiled
from builder.kernels.slabs import run_slabs
from builder.kernels.taps import Line, linear_pairs

BAND = 64
"""Target rows worked on together, so that two planes of them stay in the second-level cache."""


def resample_linear(volume: NDArray[Any], lines: tuple[Line, Line, Line], *, threads: int) -> NDArray[Any]:
    """Interpolate ``volume`` linearly at the given lines, each inside the field of view.

    Sums are float32; integers are rounded to the nearest, ties to even. No float copy of the volume is made: the
    buffers hold two planes of 64 rows a thread.
    """
    out = np.empty((lines[0].size, lines[1].size, lines[2].size), dtype=volume.dtype)
    tables = []
    for line, count in zip(lines, volume.shape, strict=True):
        low, high, weight = linear_pairs(line, count)
        tables.append((low, high, weight.astype(np.float32)))
    whole = volume.dtype.kind in "iu"

    def work(start: int, stop: int) -> None:
        _blend(volume, out, start, stop, tables[0], tables[1], tables[2], whole)

    run_slabs(work, out.shape[0], threads=threads)
    return out


@compiled
def _plane(source: Any, y0: int, y1: int, ys: Any, xs: Any, row: Any, plane: Any) -> None:
    (ylow, yhigh, yweight), (xlow, xhigh, xweight) = ys, xs
    for y in range(y0, y1):
        a, b, t = source[ylow[y]], source[yhigh[y]], yweight[y]
        for x in range(row.shape[0]):
            p = np.float32(a[x])
            row[x] = p + t * (np.float32(b[x]) - p)
        target = plane[y - y0]
        for x in range(xlow.shape[0]):
            p = row[xlow[x]]
            target[x] = p + xweight[x] * (row[xhigh[x]] - p)


@compiled
def _mix(a: Any, b: Any, t: Any, target: Any, whole: Any) -> None:
    if whole:
        for x in range(target.shape[0]):
            target[x] = np.rint(a[x] + t * (b[x] - a[x]))
    else:
        for x in range(target.shape[0]):
            target[x] = a[x] + t * (b[x] - a[x])


@compiled
def _blend(source: Any, out: Any, z0: int, z1: int, zs: Any, ys: Any, xs: Any, whole: Any) -> None:
    zlow, zhigh, zweight = zs
    rows, columns = out.shape[1], out.shape[2]
    row = np.empty(source.shape[2], np.float32)
    planes = np.empty((2, BAND, columns), np.float32)
    for y0 in range(0, rows, BAND):
        y1 = min(y0 + BAND, rows)
        held_low, held_high, side = -1, -1, 0  # the slices that planes[side] and planes[1 - side] hold
        for z in range(z0, z1):
            low, high, t = int(zlow[z]), int(zhigh[z]), zweight[z]
            if held_low != low and held_high == low:
                side = 1 - side
                held_low, held_high = held_high, held_low
            if held_low != low:
                _plane(source[low], y0, y1, ys, xs, row, planes[side])
                held_low = low
            if t == 0:  # never touch a neighbour that has no weight
                for y in range(y0, y1):
                    _mix(planes[side, y - y0], planes[side, y - y0], t, out[z, y], whole)
                continue
            if held_high != high:
                _plane(source[high], y0, y1, ys, xs, row, planes[1 - side])
                held_high = high
            for y in range(y0, y1):
                _mix(planes[side, y - y0], planes[1 - side, y - y0], t, out[z, y], whole)
