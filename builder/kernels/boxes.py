"""Finding the box of a small cube whose fine structure agrees best with a target.

Only one axis of the box moves at a time, so the other two are interpolated and blurred once for all trials on that
axis. Sums run element by element in a fixed order, so that scores do not depend on the processor.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.kernels.structure import gaussian
from builder.model.compiled import compiled

Reals = NDArray[np.float32]
Box = tuple[float, ...]

OUTSIDE = 0.06
"""Share of an axis by which a box may reach beyond either end of the cube, where the outermost values repeat."""

SMALLEST = 0.45
"""Shortest edge of a box, as a share of the cube's edge."""

GAIN = 1e-6
"""Smallest gain in score for which the search moves to another box."""

LEAST_LENGTH = 1e-3
"""Length below which a fine structure counts as rounding error and scores 0."""


def nearest_box(
    cube: Reals, target: Reals, box: Box, *, shifts: Sequence[float], turned: Reals | None = None
) -> tuple[float, Box]:
    """Return the best correlation near a start, and its box.

    One axis after the other, both ends are moved by each pair of shifts.

    Parameters
    ----------
    cube
        (n, n, n) values.
    target
        (edge ** 3,) fine structure of length 1, as ``fine_structure`` gives it.
    box
        Low and high of each axis, as shares of it.
    turned
        What ``orders`` gives for the cube, if that is known.
    """
    pairs = np.array([(low, high) for low in shifts for high in shifts])
    values = orders(cube) if turned is None else turned
    score, found = _nearest(values, _targets(target), _weights(target), np.array(box, dtype=np.float64), pairs)
    return float(score), tuple(found.tolist())


def best_box(
    cube: Reals, target: Reals, box: Box, *, first: float, least: float, turned: Reals | None = None
) -> tuple[float, Box]:
    """Search for the best box from a start, and return its correlation and the box.

    The search moves each end of each axis, and both ends together. The step starts at ``first``, is halved whenever no
    move improves the score, and the search ends when the step is not above ``least``.
    """
    start = np.array(box, dtype=np.float64)
    score, found = _search(
        orders(cube) if turned is None else turned, _targets(target), _weights(target), start, first, least
    )
    return float(score), tuple(found.tolist())


def orders(cube: Reals) -> Reals:
    """Return (3, n, n, n): the cube with each axis in turn as the last, the other two in their order."""
    return np.stack([np.moveaxis(cube, axis, 2) for axis in range(3)])


def _targets(target: Reals) -> Reals:
    """Return (3, edge, edge ** 2): the target with each axis in turn as the first."""
    edge = _edge(target)
    cube = target.reshape(edge, edge, edge)
    return np.stack([np.moveaxis(cube, axis, 0).reshape(edge, -1) for axis in range(3)])


def _weights(target: Reals) -> Reals:
    """Return the blur weight of the two neighbours at each distance.

    The middle weight is halved, because the loops add the middle twice, as its own neighbour on both sides.
    """
    weights = gaussian(_edge(target))
    weights = weights[weights.size // 2 :].copy()
    weights[0] /= 2
    return weights.astype(np.float32)


def _edge(target: Reals) -> int:
    edge: int = round(target.size ** (1 / 3))
    return edge


@compiled
def _nearest(orders: Any, targets: Any, weights: Any, box: Any, pairs: Any) -> Any:
    box = box.copy()
    rooms, built = _room(orders, targets), np.full((3, 6), np.inf)
    best = -2.0
    for axis in range(3):
        plain, blurred = _folded(orders, box, axis, weights, rooms, built)
        low, high = box[axis], box[axis + 3]
        for pair in range(pairs.shape[0]):
            a, b = low + pairs[pair, 0], high + pairs[pair, 1]
            if _allowed(a, b) or (axis == 0 and pair == 0):
                score = _score(plain, blurred, targets[axis], weights, a, b)
                if score > best:
                    best, box[axis], box[axis + 3] = score, a, b
    return best, box


@compiled
def _search(orders: Any, targets: Any, weights: Any, box: Any, step: Any, least: Any) -> Any:
    box = box.copy()
    rooms, built = _room(orders, targets), np.full((3, 6), np.inf)
    plain, blurred = _folded(orders, box, 0, weights, rooms, built)
    best = _score(plain, blurred, targets[0], weights, box[0], box[3])
    while step > least:
        moved = False
        for axis in range(3):
            plain, blurred = _folded(orders, box, axis, weights, rooms, built)
            for low, high in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1)):
                a, b = box[axis] + low * step, box[axis + 3] + high * step
                if _allowed(a, b):
                    score = _score(plain, blurred, targets[axis], weights, a, b)
                    if score > best + GAIN:
                        best, box[axis], box[axis + 3], moved = score, a, b, True
        if not moved:
            step /= 2
    return best, box


@compiled
def _allowed(low: Any, high: Any) -> Any:
    return low >= -OUTSIDE and high <= 1 + OUTSIDE and high - low >= SMALLEST


@compiled
def _room(orders: Any, targets: Any) -> Any:
    return np.empty((3, 2, orders.shape[3], targets.shape[2]), np.float32)


@compiled
def _folded(orders: Any, box: Any, axis: Any, weights: Any, rooms: Any, built: Any) -> Any:
    """Return the cube with all axes but one folded, plain and blurred.

    The result is kept until the box changes along one of the folded axes.
    """
    plain, blurred = rooms[axis, 0], rooms[axis, 1]
    same = True
    for edge in range(6):
        same = same and (edge % 3 == axis or built[axis, edge] == box[edge])
    if not same:
        _fold(orders[axis], box, axis, weights, plain, blurred)
        for edge in range(6):
            built[axis, edge] = box[edge]
    return plain, blurred


@compiled
def _place(low: Any, high: Any, part: Any, edge: Any, size: Any) -> Any:
    """Return the voxel below the middle of a part of a range, and the weight of the next voxel."""
    at = min(max((low + (part + 0.5) / edge * (high - low)) * size - 0.5, 0.0), size - 1.0)
    below = min(int(at), size - 2)
    return below, np.float32(at - below)


@compiled
def _fold(cube: Any, box: Any, axis: Any, weights: Any, plain: Any, blurred: Any) -> None:
    """Interpolate and blur along all axes but one; the results are (voxel of the axis, parts of the others)."""
    size, edge = cube.shape[2], int(np.sqrt(plain.shape[1]) + 0.5)
    first, second = (1 if axis == 0 else 0), (1 if axis == 2 else 2)
    taken = np.empty((edge, edge, size), np.float32)
    rows = np.empty((size, size), np.float32)
    for j in range(edge):
        below, share = _place(box[first], box[first + 3], j, edge, size)
        for y in range(size):
            one, other = cube[below, y], cube[below + 1, y]
            for x in range(size):
                rows[y, x] = one[x] + share * (other[x] - one[x])
        for k in range(edge):
            below_k, share_k = _place(box[second], box[second + 3], k, edge, size)
            one, other, out = rows[below_k], rows[below_k + 1], taken[j, k]
            for x in range(size):
                out[x] = one[x] + share_k * (other[x] - one[x])
    _spread(taken, plain)
    _spread(_smooth(taken, weights), blurred)


@compiled
def _smooth(taken: Any, weights: Any) -> Any:
    """Blur along the first two axes, repeating the ends."""
    edge, size, reach = taken.shape[0], taken.shape[2], weights.shape[0]
    rows = np.zeros((edge, edge, size), np.float32)
    out = np.zeros((edge, edge, size), np.float32)
    for j in range(edge):
        for k in range(edge):
            row = rows[j, k]
            for away in range(reach):
                before, after, weight = taken[j, max(k - away, 0)], taken[j, min(k + away, edge - 1)], weights[away]
                for x in range(size):
                    row[x] += weight * (before[x] + after[x])
    for j in range(edge):
        for away in range(reach):
            one, other, weight = rows[max(j - away, 0)], rows[min(j + away, edge - 1)], weights[away]
            for k in range(edge):
                row, before, after = out[j, k], one[k], other[k]
                for x in range(size):
                    row[x] += weight * (before[x] + after[x])
    return out


@compiled
def _spread(taken: Any, out: Any) -> None:
    edge = taken.shape[0]
    for j in range(edge):
        for k in range(edge):
            for x in range(taken.shape[2]):
                out[x, j * edge + k] = taken[j, k, x]


@compiled
def _score(plain: Any, blurred: Any, target: Any, weights: Any, low: Any, high: Any) -> Any:
    """Return the correlation of the target with the fine structure of a range of the remaining axis."""
    edge, parts = target.shape
    sharp = np.empty((edge, parts), np.float32)
    soft = np.empty((edge, parts), np.float32)
    for i in range(edge):
        below, share = _place(low, high, i, edge, plain.shape[0])
        for n in range(parts):
            sharp[i, n] = plain[below, n] + share * (plain[below + 1, n] - plain[below, n])
            soft[i, n] = blurred[below, n] + share * (blurred[below + 1, n] - blurred[below, n])
    sums = np.zeros((3, parts), np.float32)
    fine = np.empty(parts, np.float32)
    for i in range(edge):
        for n in range(parts):
            fine[n] = sharp[i, n]
        for away in range(weights.shape[0]):
            before, after, weight = soft[max(i - away, 0)], soft[min(i + away, edge - 1)], weights[away]
            for n in range(parts):
                fine[n] -= weight * (before[n] + after[n])
        sought = target[i]
        for n in range(parts):
            sums[0, n] += fine[n]
            sums[1, n] += fine[n] * fine[n]
            sums[2, n] += fine[n] * sought[n]
    whole, squares, product = 0.0, 0.0, 0.0
    for n in range(parts):
        whole += sums[0, n]
        squares += sums[1, n]
        product += sums[2, n]
    length = np.sqrt(max(squares - whole * whole / (edge * parts), 0.0))
    return product / length if length > LEAST_LENGTH else 0.0
