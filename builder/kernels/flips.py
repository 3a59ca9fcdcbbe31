"""Comparing volumes under all eight flips at the cost of one comparison.

A flip only changes the signs of the odd parts, so the products of even and odd parts are computed once and then added
with the signs of each flip.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.model.compiled import compiled


def parts(cubes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (8, n, edge ** 3 / 8) even and odd parts along each axis of (n, edge, edge, edge) cubes; edge is even.

    Flipping an axis changes the sign of the parts that are odd along it. The sum of squares of the parts is eight times
    that of the cubes.
    """
    return np.asarray(_parts(np.ascontiguousarray(cubes, dtype=np.float32)))


def best_views(products: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the (volume, flip) largest absolute score over all views, and the first view that has it.

    Parameters
    ----------
    products
        (8, view, volume) products of the parts of views and of volumes. Flip ``4 z + 2 y + x`` flips those axes.
    """
    score, view = _best_views(products)
    return score, view


@compiled
def _parts(cubes: Any) -> Any:
    number, edge = cubes.shape[0], cubes.shape[1]
    half = edge // 2
    out = np.empty((8, number, half**3), np.float32)
    for n in range(number):
        cube, place = cubes[n], 0
        for i in range(half):
            for j in range(half):
                for k in range(half):
                    a, b = cube[i, j, k], cube[i, j, edge - 1 - k]
                    c, d = cube[i, edge - 1 - j, k], cube[i, edge - 1 - j, edge - 1 - k]
                    e, f = cube[edge - 1 - i, j, k], cube[edge - 1 - i, j, edge - 1 - k]
                    g, h = cube[edge - 1 - i, edge - 1 - j, k], cube[edge - 1 - i, edge - 1 - j, edge - 1 - k]
                    a, b, c, d, e, f, g, h = a + b, a - b, c + d, c - d, e + f, e - f, g + h, g - h
                    a, b, c, d, e, f, g, h = a + c, b + d, a - c, b - d, e + g, f + h, e - g, f - h
                    out[0, n, place], out[1, n, place] = a + e, b + f
                    out[2, n, place], out[3, n, place] = c + g, d + h
                    out[4, n, place], out[5, n, place] = a - e, b - f
                    out[6, n, place], out[7, n, place] = c - g, d - h
                    place += 1
    return out


@compiled
def _best_views(products: Any) -> Any:
    # Each loop over volumes does one thing to rows, without branches, so that it compiles to vector instructions.
    views, volumes = products.shape[1], products.shape[2]
    best = np.full((8, volumes), np.float32(-1.0))
    found = np.zeros((8, volumes), np.int32)
    scores = np.empty((8, volumes), np.float32)
    for view in range(views):
        for n in range(volumes):
            a, b, c, d = products[0, view, n], products[1, view, n], products[2, view, n], products[3, view, n]
            e, f, g, h = products[4, view, n], products[5, view, n], products[6, view, n], products[7, view, n]
            a, b, c, d, e, f, g, h = a + b, a - b, c + d, c - d, e + f, e - f, g + h, g - h
            a, b, c, d, e, f, g, h = a + c, b + d, a - c, b - d, e + g, f + h, e - g, f - h
            scores[0, n], scores[1, n], scores[2, n], scores[3, n] = a + e, b + f, c + g, d + h
            scores[4, n], scores[5, n], scores[6, n], scores[7, n] = a - e, b - f, c - g, d - h
        for flip in range(8):
            own, most, where = scores[flip], best[flip], found[flip]
            for n in range(volumes):
                size = abs(own[n])
                where[n] = np.int32(view) if size > most[n] else where[n]
                most[n] = max(size, most[n])
    return best.T.copy(), found.T.copy()
