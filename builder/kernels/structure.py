"""The fine structure of a box of a small cube: the values minus their smooth part."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.model.compiled import compiled

SMOOTH = 5
"""Edge of the box divided by the standard deviation of the Gaussian that gives the smooth part."""


def fine_structure(cube: NDArray[np.float32], box: tuple[float, ...], edge: int) -> NDArray[np.float32]:
    """Return the (edge ** 3,) fine structure of a box of a cube, with length 1 and mean 0; zeros when there is none.

    Parameters
    ----------
    box
        Low and high end on each axis, as shares of the axis: (low, low, low, high, high, high). Values are interpolated
        linearly at the middles of ``edge`` parts, and ends repeat. The smooth part is a Gaussian of standard deviation
        ``edge / 5``, cut at two deviations.
    """
    return roughness(sampled(cube, box, edge))


def sampled(cube: NDArray[np.float32], box: tuple[float, ...], edge: int) -> NDArray[np.float64]:
    """Return the (edge, edge, edge) values of a box of a cube, with their smooth part."""
    return np.asarray(_sampled(cube, np.array(box, dtype=np.float64), edge))


def roughness(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the (edge ** 3,) fine structure of sampled values, with length 1 and mean 0; zeros when there is none."""
    return np.asarray(_roughness(values, gaussian(values.shape[0])))


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the correlation of two fine structures, summed in a fixed order."""
    return float(_product(one, other))


@lru_cache
def gaussian(edge: int) -> NDArray[np.float64]:
    """Return the Gaussian weights of the smooth part for ``edge`` parts: an odd number of weights that add up to 1."""
    deviation = edge / SMOOTH
    radius = int(2 * deviation + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    found: NDArray[np.float64] = np.asarray(weights / weights.sum())
    found.flags.writeable = False  # every call gives the same array
    return found


@compiled
def _sampled(cube: Any, box: Any, edge: Any) -> Any:
    values = np.empty((edge, edge, edge))
    below = np.empty((3, edge), np.int64)
    share = np.empty((3, edge))
    for axis in range(3):
        size = cube.shape[axis]
        for i in range(edge):
            at = (box[axis] + (i + 0.5) / edge * (box[axis + 3] - box[axis])) * size - 0.5
            at = min(max(at, 0.0), size - 1.0)
            below[axis, i] = min(int(at), size - 2)
            share[axis, i] = at - below[axis, i]
    for i in range(edge):
        z, w = below[0, i], share[0, i]
        for j in range(edge):
            y, v = below[1, j], share[1, j]
            for k in range(edge):
                x, u = below[2, k], share[2, k]
                top = (cube[z, y, x] * (1 - u) + cube[z, y, x + 1] * u) * (1 - v)
                top += (cube[z, y + 1, x] * (1 - u) + cube[z, y + 1, x + 1] * u) * v
                low = (cube[z + 1, y, x] * (1 - u) + cube[z + 1, y, x + 1] * u) * (1 - v)
                low += (cube[z + 1, y + 1, x] * (1 - u) + cube[z + 1, y + 1, x + 1] * u) * v
                values[i, j, k] = top * (1 - w) + low * w
    return values


@compiled
def _roughness(values: Any, weights: Any) -> Any:
    # Loops compile in a third of the time that whole-array expressions take.
    smooth = _blurred(_blurred(_blurred(values, weights), weights), weights).reshape(-1)
    sharp = values.reshape(-1)
    fine = np.empty(sharp.shape[0])
    total, squares = 0.0, 0.0
    for i in range(fine.shape[0]):
        fine[i] = sharp[i] - smooth[i]
        total += fine[i]
    for i in range(fine.shape[0]):
        fine[i] -= total / fine.shape[0]
        squares += fine[i] * fine[i]
    length = np.sqrt(squares)
    out = np.zeros(fine.shape[0], np.float32)
    if length > 1e-6:
        for i in range(fine.shape[0]):
            out[i] = fine[i] / length
    return out


@compiled
def _product(one: Any, other: Any) -> Any:
    total = 0.0
    for i in range(one.shape[0]):
        total += np.float64(one[i]) * np.float64(other[i])
    return total


@compiled
def _blurred(values: Any, weights: Any) -> Any:
    """Blur along the first axis and rotate the axes by one, so that three calls blur all of them."""
    edge, radius = values.shape[0], weights.shape[0] // 2
    out = np.zeros((values.shape[1], values.shape[2], edge))
    for i in range(edge):
        for k in range(weights.shape[0]):
            source, weight = min(max(i + k - radius, 0), edge - 1), weights[k]
            for y in range(values.shape[1]):
                for x in range(values.shape[2]):
                    out[y, x, i] += weight * values[source, y, x]
    return out
