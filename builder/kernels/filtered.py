"""Weighted sums along axes: cubic B-splines with their prefilter, and low-pass filters for shrinking."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.kernels.slabs import run_slabs
from builder.kernels.taps import Taps, identity_taps
from builder.model.compiled import compiled

BLOCK_SAMPLES = 1 << 16
"""Samples filtered together: half a mebibyte of float64, so that both sweeps and the sums stay in a typical
second-level cache. Blocks are as wide as that allows, because wider blocks have longer inner loops."""
ROWS = 48
"""Rows filtered side by side after transposition; not a power of two, which would crowd a few sets of the cache."""
POLE = float(np.sqrt(3.0) - 2.0)
"""Pole of the cubic B-spline prefilter (Unser 1999, doi:10.1109/79.799930)."""
HORIZON = 18
"""Number of samples after which the powers of the pole are below 1e-10."""


def resample_filtered(volume: NDArray[Any], taps: tuple[Taps, Taps, Taps], *, threads: int) -> NDArray[Any]:
    """Resample ``volume`` with the given taps of the three axes.

    Sums are float64; integers are rounded to the nearest (ties to even) and clamped to the type's range. Planes are
    resampled first, into a float32 stack of (source slices, target rows, target columns). When that stack would exceed
    twice the size of input and output together, the work is done in bands of rows to save memory. The bytes of the
    result do not depend on the bands.
    """
    shape = (taps[0].index.shape[0], taps[1].index.shape[0], taps[2].index.shape[0])
    out = np.empty(shape, volume.dtype)
    stack_bytes = 4 * volume.shape[0] * shape[1] * shape[2]
    bands = max(1, -(-stack_bytes // (2 * (volume.nbytes + out.nbytes))))
    edges = [shape[1] * band // bands for band in range(bands + 1)]
    for first, stop in pairwise(edges):
        if stop > first:
            _resample_band(volume, out, first, stop, taps, threads)
    return out


def spline_coefficients(volume: NDArray[Any], *, threads: int) -> NDArray[np.float32]:
    """Return the cubic B-spline coefficients of ``volume`` (mirrored edges) as float32, in the volume's shape."""
    rows, columns = identity_taps(volume.shape[1]), identity_taps(volume.shape[2])
    stack = np.empty(volume.shape, np.float32)
    width = _block_width(volume.shape[1], volume.shape[2])

    def plane(start: int, stop: int) -> None:
        _filter_planes(
            volume, stack, start, stop, rows.index, rows.weight, True, columns.index, columns.weight, True, width
        )

    run_slabs(plane, volume.shape[0], threads=threads)
    slices = identity_taps(volume.shape[0])
    wide = _block_width(volume.shape[0], volume.shape[2])

    def depth(start: int, stop: int) -> None:  # in place: a block of columns is read before it is written
        _filter_depth(stack, stack, 0, start, stop, slices.index, slices.weight, True, wide, False, 0.0, 0.0)

    run_slabs(depth, volume.shape[1], threads=threads)
    return stack


def _resample_band(
    volume: NDArray[Any], out: NDArray[Any], first: int, stop: int, taps: tuple[Taps, Taps, Taps], threads: int
) -> None:
    along_z, along_y, along_x = taps
    stack = np.empty((volume.shape[0], stop - first, out.shape[2]), np.float32)
    index, weight = along_y.index[first:stop], along_y.weight[first:stop]
    whole = volume.dtype.kind in "iu"
    low, high = (float(np.iinfo(volume.dtype).min), float(np.iinfo(volume.dtype).max)) if whole else (0.0, 0.0)

    upright = _block_width(volume.shape[1], volume.shape[2])
    wide = _block_width(volume.shape[0], out.shape[2])
    columns = (along_x.index, along_x.weight, along_x.spline)

    def plane(a: int, b: int) -> None:
        _filter_planes(volume, stack, a, b, index, weight, along_y.spline, *columns, upright)

    def depth(a: int, b: int) -> None:
        _filter_depth(stack, out, first, a, b, along_z.index, along_z.weight, along_z.spline, wide, whole, low, high)

    run_slabs(plane, volume.shape[0], threads=threads)
    run_slabs(depth, stop - first, threads=threads)


def _block_width(length: int, columns: int) -> int:
    """Return how many of ``columns`` lines of ``length`` samples to filter side by side, in blocks of similar width."""
    blocks = -(-columns // max(16, BLOCK_SAMPLES // length))
    return -(-columns // blocks)


@compiled
def _start(block: Any) -> Any:
    """Return the first causal coefficient of every column, for a signal mirrored about its outermost samples."""
    n, m = block.shape
    first = np.zeros(m, np.float64)
    if n > HORIZON:
        for i in range(HORIZON):
            w = POLE**i
            for j in range(m):
                first[j] += w * block[i, j]
        return first
    last = POLE ** (n - 1)
    for j in range(m):
        first[j] = block[0, j] + last * block[n - 1, j]
    for i in range(1, n - 1):
        w = POLE**i + POLE ** (2 * n - 2 - i)
        for j in range(m):
            first[j] += w * block[i, j]
    for j in range(m):
        first[j] /= 1.0 - last * last
    return first


@compiled
def _prefilter(block: Any) -> None:
    """Turn samples along the first axis into B-spline coefficients, in place and for all columns side by side."""
    n, m = block.shape
    if n == 1:
        return
    pole, gain, end = POLE, 6.0, POLE / (POLE * POLE - 1.0)
    first = _start(block)
    for j in range(m):
        block[0, j] = 6.0 * first[j]
    for i in range(1, n):
        a, b = block[i], block[i - 1]
        for j in range(m):
            a[j] = gain * a[j] + pole * b[j]
    a, b = block[n - 1], block[n - 2]
    for j in range(m):
        a[j] = end * (a[j] + pole * b[j])
    for i in range(n - 2, -1, -1):
        a, b = block[i], block[i + 1]
        for j in range(m):
            a[j] = pole * (b[j] - a[j])


@compiled
def _weigh(block: Any, index: Any, weight: Any, out: Any) -> None:
    m, taps = block.shape[1], index.shape[0]
    if taps == 4:
        a, b, c, d = block[index[0]], block[index[1]], block[index[2]], block[index[3]]
        wa, wb, wc, wd = weight[0], weight[1], weight[2], weight[3]
        for j in range(m):
            out[j] = wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j]
        return
    w, a = weight[0], block[index[0]]
    for j in range(m):
        out[j] = w * a[j]
    for t in range(1, taps):
        w, a = weight[t], block[index[t]]
        for j in range(m):
            out[j] += w * a[j]


@compiled
def _filter_planes(
    source: Any,
    stack: Any,
    k0: int,
    k1: int,
    yi: Any,
    yw: Any,
    yspline: Any,
    xi: Any,
    xw: Any,
    xspline: Any,
    width: int,
) -> None:
    rows_in, columns_in = source.shape[1], source.shape[2]
    rows, columns = yi.shape[0], xi.shape[0]
    upright = np.zeros((rows_in, width), np.float64)
    line = np.empty(width, np.float64)
    wide = np.empty((rows, columns_in), np.float32)
    turned = np.zeros((columns_in, ROWS), np.float64)
    narrow = np.empty((columns, ROWS), np.float32)
    for k in range(k0, k1):
        for x0 in range(0, columns_in, width):
            m = min(width, columns_in - x0)
            for y in range(rows_in):
                a, b = source[k, y], upright[y]
                for x in range(m):
                    b[x] = a[x0 + x]
            if yspline:
                _prefilter(upright)
            for y in range(rows):
                _weigh(upright, yi[y], yw[y], line)
                b = wide[y]
                for x in range(m):
                    b[x0 + x] = line[x]
        for y0 in range(0, rows, ROWS):
            m = min(ROWS, rows - y0)
            for y in range(m):
                a = wide[y0 + y]
                for x in range(columns_in):
                    turned[x, y] = a[x]
            if xspline:
                _prefilter(turned)
            for x in range(columns):
                _weigh(turned, xi[x], xw[x], narrow[x])
            for y in range(m):
                b = stack[k, y0 + y]
                for x in range(columns):
                    b[x] = narrow[x, y]


@compiled
def _filter_depth(
    stack: Any,
    out: Any,
    first: int,
    y0: int,
    y1: int,
    zi: Any,
    zw: Any,
    spline: Any,
    width: int,
    whole: Any,
    low: Any,
    high: Any,
) -> None:
    """Filter rows ``y0`` to ``y1`` of the stack along the slices, into the rows of ``out`` from ``first + y0`` on."""
    slices_in, _, columns = stack.shape
    upright = np.zeros((slices_in, width), np.float64)
    line = np.empty(width, np.float64)
    floor, ceiling = np.float32(low), np.float32(high)
    for y in range(y0, y1):
        for x0 in range(0, columns, width):
            m = min(width, columns - x0)
            for k in range(slices_in):
                a, b = stack[k, y], upright[k]
                for x in range(m):
                    b[x] = a[x0 + x]
            if spline:
                _prefilter(upright)
            for z in range(zi.shape[0]):
                _weigh(upright, zi[z], zw[z], line)
                target = out[z, first + y]
                if whole:
                    for x in range(m):
                        target[x0 + x] = np.rint(min(max(line[x], floor), ceiling))
                else:
                    for x in range(m):
                        target[x0 + x] = line[x]
