"""Resampling label maps: interpolate every label linearly and keep the heaviest.

The result is the same as interpolating one image per label, background included, and taking the largest. None of these
images is made, because at most eight labels share a voxel's weight. Weights are integers (``UNIT`` per axis), so ties
are exact and do not depend on rounding. At a tie a structure wins over background (0), and a lower value over a higher.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.kernels.slabs import run_slabs
from builder.kernels.taps import Line, linear_pairs
from builder.model.compiled import compiled

UNIT = 1 << 20
"""Integer weight of a whole sample along one axis. Three axes give 2 to the power of 60, which fits int64."""


def resample_majority(volume: NDArray[Any], lines: tuple[Line, Line, Line], *, threads: int) -> NDArray[Any]:
    """Interpolate each label of ``volume`` linearly at the given lines and keep the heaviest."""
    out = np.empty((lines[0].size, lines[1].size, lines[2].size), volume.dtype)
    tables = []
    for line, count in zip(lines, volume.shape, strict=True):
        low, high, weight = linear_pairs(line, count)
        tables.append((low, high, np.rint(weight * UNIT).astype(np.int64)))

    def work(start: int, stop: int) -> None:
        _vote(volume, out, start, stop, tables[0], tables[1], tables[2])

    run_slabs(work, out.shape[0], threads=threads)
    return out


@compiled
def elect(labels: Any, weights: Any) -> Any:
    """Return the heaviest of eight labels with eight weights; the module docstring says how ties are settled."""
    best, most = labels[0], np.int64(-1)
    for i in range(8):
        label, total = labels[i], np.int64(0)
        for j in range(8):
            if labels[j] == label:
                total += weights[j]
        if total > most or (total == most and label != 0 and (best == 0 or label < best)):
            best, most = label, total
    return best


@compiled
def _vote(source: Any, out: Any, z0: int, z1: int, zs: Any, ys: Any, xs: Any) -> None:
    (zlow, zhigh, zweight), (ylow, yhigh, yweight), (xlow, xhigh, xweight) = zs, ys, xs
    columns_in = source.shape[2]
    column = np.empty(columns_in, np.int32)  # the label that all four rows share, or -1
    labels, weights = np.empty(8, np.int64), np.empty(8, np.int64)
    for z in range(z0, z1):
        lower, upper, tz = source[zlow[z]], source[zhigh[z]], zweight[z]
        for y in range(ylow.shape[0]):
            ty, target = yweight[y], out[z, y]
            a, b, c, d = lower[ylow[y]], lower[yhigh[y]], upper[ylow[y]], upper[yhigh[y]]
            for x in range(columns_in):
                same = (a[x] == b[x]) & (a[x] == c[x]) & (a[x] == d[x])
                column[x] = np.int32(a[x]) if same else np.int32(-1)
            for x in range(xlow.shape[0]):
                p, q, tx = xlow[x], xhigh[x], xweight[x]
                if column[p] == column[q] and column[p] >= 0:
                    target[x] = column[p]
                    continue
                labels[0], labels[1], labels[2], labels[3] = a[p], a[q], b[p], b[q]
                labels[4], labels[5], labels[6], labels[7] = c[p], c[q], d[p], d[q]
                fill_weights(weights, tz, ty, tx)
                target[x] = elect(labels, weights)


@compiled
def fill_weights(weights: Any, tz: Any, ty: Any, tx: Any) -> None:
    """Fill the eight corner weights, slice slowest, from the integer weights of the upper neighbours."""
    for corner in range(8):
        wz = tz if corner & 4 else UNIT - tz
        wy = ty if corner & 2 else UNIT - ty
        wx = tx if corner & 1 else UNIT - tx
        weights[corner] = wz * wy * wx
