"""Linear resampling along axes: resample each slice in its plane once, then blend neighbouring slices."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.kernels.slabs import lay_slabs, run_slabs
from builder.kernels.taps import Line, linear_pairs
from builder.model.compiled import compiled

PLANE_VOXELS = 1 << 17
"""Voxels of a plane blended at once: two float32 planes take one mebibyte, which fits a typical second-level cache."""


def resample_linear(volume: NDArray[Any], lines: tuple[Line, Line, Line], *, threads: int) -> NDArray[Any]:
    """Interpolate ``volume`` linearly at the given lines, each inside the field of view.

    Sums are float32; integers are rounded to the nearest, ties to even. No float copy of the volume is made: each
    thread buffers two planes, of a whole slice or of as many of its rows as the cache holds.
    """
    (whole,) = linear_slabs(volume, lines, slices=lines[0].size, rows=lines[1].size, threads=threads)
    return whole


def linear_slabs(
    volume: NDArray[Any], lines: tuple[Line, Line, Line], *, slices: int, rows: int, threads: int
) -> Iterator[NDArray[Any]]:
    """Yield the result of ``resample_linear`` in slabs, in C order of slices and rows. All slabs share one buffer."""
    tables = []
    for line, count in zip(lines, volume.shape, strict=True):
        low, high, weight = linear_pairs(line, count)
        tables.append((low, high, weight.astype(np.float32)))
    band = max(1, min(rows, lines[1].size, PLANE_VOXELS // max(1, lines[2].size)))
    whole = volume.dtype.kind in "iu"
    share = _share_intervals(tables[2][0], tables[2][2], volume.shape[2] if whole else 0)

    def work(start: int, stop: int) -> None:
        _blend(volume, out, start, stop, zs, ys, tables[2], share, band, whole)

    shape = (lines[0].size, lines[1].size, lines[2].size)
    for out, across, down in lay_slabs(shape, volume.dtype, slices=slices, rows=rows):
        zs, ys = (tuple(t[part] for t in table) for table, part in zip(tables, (across, down), strict=False))
        run_slabs(work, out.shape[0], threads=threads)
        yield out


def _share_intervals(low: NDArray[np.uint32], weight: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return the (count,) weight with which each sample's interval is read, or nothing when targets share an interval.

    An axis that shrinks reads each interval at most once. It is faster to interpolate every interval in one pass of
    wide registers and pick the wanted ones than to pick two neighbours for each target. Floats pass a count of 0 and
    get an empty result, because a neighbour of weight 0 may be NaN and must not be read.
    """
    if count == 0 or np.unique(low).size != low.size:
        return np.empty(0, dtype=np.float32)
    share = np.zeros(count, dtype=np.float32)
    share[low] = weight
    return share


@compiled
def _plane(source: Any, y0: int, y1: int, ys: Any, xs: Any, share: Any, row: Any, plane: Any) -> None:
    """Resample rows ``y0`` to ``y1`` of a source slice in its plane; ``row`` has one column more than the source."""
    (ylow, yhigh, yweight), (xlow, xhigh, xweight) = ys, xs
    count = source.shape[1]
    between = np.empty(share.shape[0], np.float32)
    for y in range(y0, y1):
        a, b, t = source[ylow[y]], source[yhigh[y]], yweight[y]
        for x in range(count):
            p = np.float32(a[x])
            row[x] = p + t * (np.float32(b[x]) - p)
        target = plane[y - y0]
        if between.shape[0] > 0:
            row[count] = row[count - 1]  # the last sample is its own upper neighbour
            for x in range(between.shape[0]):
                between[x] = row[x] + share[x] * (row[x + 1] - row[x])
            for x in range(xlow.shape[0]):
                target[x] = between[xlow[x]]
        else:
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
def _blend(
    source: Any, out: Any, z0: int, z1: int, zs: Any, ys: Any, xs: Any, share: Any, band: int, whole: Any
) -> None:
    zlow, zhigh, zweight = zs
    rows, columns = out.shape[1], out.shape[2]
    row = np.empty(source.shape[2] + 1, np.float32)
    planes = np.empty((2, band, columns), np.float32)
    for y0 in range(0, rows, band):
        y1 = min(y0 + band, rows)
        held_low, held_high, side = -1, -1, 0  # the slices that planes[side] and planes[1 - side] hold
        for z in range(z0, z1):
            low, high, t = int(zlow[z]), int(zhigh[z]), zweight[z]
            if held_low != low and held_high == low:
                side = 1 - side
                held_low, held_high = held_high, held_low
            if held_low != low:
                _plane(source[low], y0, y1, ys, xs, share, row, planes[side])
                held_low = low
            upper = side if t == 0 else 1 - side  # never touch a neighbour that has no weight
            if upper != side and held_high != high:
                _plane(source[high], y0, y1, ys, xs, share, row, planes[upper])
                held_high = high
            lower, target = planes[side, : y1 - y0], out[z, y0:y1]  # contiguous: whole rows, one long loop
            _mix(lower.reshape(-1), planes[upper, : y1 - y0].reshape(-1), t, target.reshape(-1), whole)
