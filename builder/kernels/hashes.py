"""Hashes of many crops of a small cube at once: how much brighter each of their cells is than its surroundings.

Sums run element by element in a fixed order, so that hashes do not depend on the processor.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.model.compiled import compiled

Reals = NDArray[np.float32]

EDGE = 8
"""Values of a hash along each axis; the loops know it when they are compiled."""


def crop_hashes(cube: Reals, averages: Reals, blur: Reals, *, least: float, norm: float) -> Reals:
    """Return (parts ** 3 + 5, 8, 8, 8) hashes in whole numbers with mean 0.

    The first is that of the whole cube if the first part is the whole axis, and the last five are it with its axes in
    the other orders.

    Parameters
    ----------
    cube
        (n, n, n) values.
    averages
        (parts, 8, n) weights of the values of an axis in each cell of each part of it.
    blur
        (8, 8) weights of cells in the surroundings of each cell.
    least, norm
        Hashes of a smaller norm than ``least`` give zeros; others are scaled to ``norm``.
    """
    parts, _, size = averages.shape
    first = (averages.reshape(-1, size) != 0).argmax(axis=1)
    reach = int((averages != 0).sum(axis=2).max())
    places = np.minimum(first, size - reach)
    rows = averages.reshape(-1, size)
    weights = np.stack([row[place : place + reach] for row, place in zip(rows, places.tolist(), strict=True)])
    turned = np.ascontiguousarray(cube.transpose(0, 2, 1), dtype=np.float32)
    return np.asarray(_crop_hashes(turned, places, weights, blur, parts, least, norm))


@compiled
def _crop_hashes(turned: Any, places: Any, weights: Any, blur: Any, parts: Any, least: Any, norm: Any) -> Any:
    sharp = _folded(turned, places, weights, blur[:0])
    smooth = _folded(turned, places, weights, blur)
    out = np.zeros((parts**3 + 5, EDGE, EDGE, EDGE), np.float32)
    for first in range(parts):
        for second in range(parts):
            _scale(sharp, smooth, first, second, out, least, norm)
    whole, last = out[0], parts**3
    for i in range(EDGE):
        for j in range(EDGE):
            for k in range(EDGE):
                out[last, i, j, k], out[last + 1, i, j, k] = whole[i, k, j], whole[j, i, k]
                out[last + 2, i, j, k], out[last + 3, i, j, k] = whole[k, i, j], whole[j, k, i]
                out[last + 4, i, j, k] = whole[k, j, i]
    return out


@compiled
def _folded(turned: Any, places: Any, weights: Any, blur: Any) -> Any:
    """Return the averages of all cells, blurred within each part if there is a blur, from a cube with turned planes."""
    cells, size = weights.shape[0], turned.shape[2]
    planes = _along(turned.reshape(size, -1), places, weights, blur)
    out = np.empty((cells, cells, cells), np.float32)
    lines = np.empty((size, cells), np.float32)
    for z in range(cells):
        rows = _along(planes[z].copy().reshape(size, size), places, weights, blur)
        for x in range(cells):
            for y in range(size):
                lines[y, x] = rows[x, y]
        out[z] = _along(lines, places, weights, blur)
    return out


@compiled
def _along(rows: Any, places: Any, weights: Any, blur: Any) -> Any:
    """Return the average of the rows of each cell, blurred over the cells of each part."""
    cells, reach, size = weights.shape[0], weights.shape[1], rows.shape[1]
    out = np.zeros((cells, size), np.float32)
    for cell in range(cells):
        into = out[cell]
        for m in range(reach):
            weight, row = weights[cell, m], rows[places[cell] + m]
            for k in range(size):
                into[k] += weight * row[k]
    if not blur.shape[0]:
        return out
    blurred = np.zeros((cells, size), np.float32)
    for cell in range(cells):
        into, part = blurred[cell], cell // EDGE * EDGE
        for m in range(EDGE):
            weight, row = blur[cell - part, m], out[part + m]
            for k in range(size):
                into[k] += weight * row[k]
    return blurred


@compiled
def _scale(sharp: Any, smooth: Any, first: Any, second: Any, out: Any, least: Any, norm: Any) -> None:
    """Write the hashes of all crops that have two parts in common."""
    cells = sharp.shape[2]
    parts = cells // EDGE
    fine = np.empty((EDGE * EDGE, cells), np.float32)
    total, squares = np.zeros(cells), np.zeros(cells)
    for row in range(EDGE * EDGE):
        one = sharp[first * EDGE + row // EDGE, second * EDGE + row % EDGE]
        other, into = smooth[first * EDGE + row // EDGE, second * EDGE + row % EDGE], fine[row]
        for x in range(cells):
            into[x] = one[x] - other[x]
        for x in range(cells):
            total[x] += into[x]
            squares[x] += into[x] * into[x]
    middle, scale = np.empty(cells, np.float32), np.empty(cells, np.float32)
    for part in range(parts):
        whole, square = 0.0, 0.0
        for x in range(part * EDGE, part * EDGE + EDGE):
            whole += total[x]
            square += squares[x]
        length = np.sqrt(max(square - whole * whole / EDGE**3, 0.0))
        for x in range(part * EDGE, part * EDGE + EDGE):
            middle[x], scale[x] = whole / EDGE**3, norm / length if length >= least else 0.0
    for row in range(EDGE * EDGE):
        into = fine[row]
        for x in range(cells):
            into[x] = np.rint((into[x] - middle[x]) * scale[x])
        for part in range(parts):
            to = out[(first * parts + second) * parts + part, row // EDGE, row % EDGE]
            for k in range(EDGE):
                to[k] = into[part * EDGE + k]
