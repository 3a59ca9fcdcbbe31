"""Sampling along an arbitrary affine: oblique and sheared grids."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.kernels.filtered import spline_coefficients
from builder.kernels.majority import UNIT, elect, fill_weights
from builder.kernels.slabs import run_slabs
from builder.kernels.taps import FIELD_TOLERANCE, TIE_TOLERANCE, Method
from builder.model.compiled import compiled


def sample_oblique(
    volume: NDArray[Any],
    matrix: NDArray[np.float64],
    shape: tuple[int, int, int],
    *,
    method: Method,
    fill: float,
    threads: int,
) -> NDArray[Any]:
    """Sample ``volume`` at ``matrix @ (slice, row, column, 1)`` for every voxel of a grid of ``shape``.

    ``matrix`` is (3, 4) float64, target index to source index. Sums are float64; integers are rounded to the nearest,
    ties to even, and clamped to the type. ``cubic`` makes a float32 copy of the volume for its coefficients.
    """
    out = np.empty(shape, volume.dtype)
    whole = volume.dtype.kind in "iu"
    low, high = (float(np.iinfo(volume.dtype).min), float(np.iinfo(volume.dtype).max)) if whole else (0.0, 0.0)
    background = volume.dtype.type(fill)
    source = spline_coefficients(volume, threads=threads) if method is Method.CUBIC else volume

    def work(start: int, stop: int) -> None:
        if method is Method.NEAREST:
            _nearest(source, out, start, stop, matrix, background)
        elif method is Method.MAJORITY:
            _majority(source, out, start, stop, matrix, background)
        elif method is Method.LINEAR:
            _linear(source, out, start, stop, matrix, background, whole)
        else:
            _cubic(source, out, start, stop, matrix, background, whole, low, high)

    run_slabs(work, shape[0], threads=threads)
    return out


@compiled
def _is_inside(p: Any, q: Any, r: Any, shape: Any) -> Any:
    edge = 0.5 + FIELD_TOLERANCE
    return (
        p >= -edge
        and q >= -edge
        and r >= -edge
        and p <= shape[0] - 1 + edge
        and q <= shape[1] - 1 + edge
        and r <= shape[2] - 1 + edge
    )


@compiled
def _locate(m: Any, z: Any, y: Any, x: Any) -> Any:
    p = m[0, 3] + z * m[0, 0] + y * m[0, 1] + x * m[0, 2]
    q = m[1, 3] + z * m[1, 0] + y * m[1, 1] + x * m[1, 2]
    r = m[2, 3] + z * m[2, 0] + y * m[2, 1] + x * m[2, 2]
    return p, q, r


@compiled
def _round_index(at: Any, count: Any) -> Any:
    return min(max(int(np.floor(at + 0.5 + TIE_TOLERANCE)), 0), count - 1)


@compiled
def _pair(at: Any, count: Any) -> Any:
    """Return both neighbours and the weight of the upper; the edge value holds beyond the outermost centres."""
    held = min(max(at, 0.0), count - 1.0)
    low = int(np.floor(held))
    return low, min(low + 1, count - 1), held - low


@compiled
def _nearest(source: Any, out: Any, z0: int, z1: int, matrix: Any, fill: Any) -> None:
    n = source.shape
    for z in range(z0, z1):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                p, q, r = _locate(matrix, z, y, x)
                if _is_inside(p, q, r, n):
                    i, j, k = _round_index(p, n[0]), _round_index(q, n[1]), _round_index(r, n[2])
                    out[z, y, x] = source[i, j, k]
                else:
                    out[z, y, x] = fill


@compiled
def _linear(source: Any, out: Any, z0: int, z1: int, matrix: Any, fill: Any, whole: Any) -> None:
    n = source.shape
    for z in range(z0, z1):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                p, q, r = _locate(matrix, z, y, x)
                if not _is_inside(p, q, r, n):
                    out[z, y, x] = fill
                    continue
                i, i1, s = _pair(p, n[0])
                j, j1, t = _pair(q, n[1])
                k, k1, u = _pair(r, n[2])
                a = source[i, j, k] * (1.0 - u) + source[i, j, k1] * u
                b = source[i, j1, k] * (1.0 - u) + source[i, j1, k1] * u
                c = source[i1, j, k] * (1.0 - u) + source[i1, j, k1] * u
                d = source[i1, j1, k] * (1.0 - u) + source[i1, j1, k1] * u
                value = (a * (1.0 - t) + b * t) * (1.0 - s) + (c * (1.0 - t) + d * t) * s
                out[z, y, x] = np.rint(value) if whole else value


@compiled
def _majority(source: Any, out: Any, z0: int, z1: int, matrix: Any, fill: Any) -> None:
    n = source.shape
    labels, weights = np.empty(8, np.int64), np.empty(8, np.int64)
    for z in range(z0, z1):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                p, q, r = _locate(matrix, z, y, x)
                if not _is_inside(p, q, r, n):
                    out[z, y, x] = fill
                    continue
                i, i1, s = _pair(p, n[0])
                j, j1, t = _pair(q, n[1])
                k, k1, u = _pair(r, n[2])
                uniform = True
                for corner in range(8):
                    label = source[i1 if corner & 4 else i, j1 if corner & 2 else j, k1 if corner & 1 else k]
                    labels[corner] = label
                    uniform = uniform and labels[corner] == labels[0]
                if uniform:
                    out[z, y, x] = labels[0]
                    continue
                fill_weights(weights, int(np.rint(s * UNIT)), int(np.rint(t * UNIT)), int(np.rint(u * UNIT)))
                out[z, y, x] = elect(labels, weights)


@compiled
def _basis(t: Any, weights: Any) -> None:
    weights[0] = (1.0 - t) ** 3 / 6.0
    weights[1] = (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0
    weights[2] = (1.0 + 3.0 * t + 3.0 * t * t - 3.0 * t * t * t) / 6.0
    weights[3] = t * t * t / 6.0


@compiled
def _mirror(index: Any, count: Any) -> Any:
    if count == 1:
        return 0
    period = 2 * count - 2
    index = abs(index) % period
    return period - index if index >= count else index


@compiled
def _cubic(source: Any, out: Any, z0: int, z1: int, matrix: Any, fill: Any, whole: Any, low: Any, high: Any) -> None:
    n = source.shape
    weights, index = np.empty((3, 4), np.float64), np.empty((3, 4), np.int64)
    for z in range(z0, z1):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                at = _locate(matrix, z, y, x)
                if not _is_inside(at[0], at[1], at[2], n):
                    out[z, y, x] = fill
                    continue
                for axis in range(3):
                    base = int(np.floor(at[axis]))
                    _basis(at[axis] - base, weights[axis])
                    for tap in range(4):
                        index[axis, tap] = _mirror(base - 1 + tap, n[axis])
                value = 0.0
                for a in range(4):
                    for b in range(4):
                        part = 0.0
                        for c in range(4):
                            part += weights[2, c] * source[index[0, a], index[1, b], index[2, c]]
                        value += weights[0, a] * weights[1, b] * part
                out[z, y, x] = np.rint(min(max(value, low), high)) if whole else value
