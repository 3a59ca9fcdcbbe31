"""Decide whether one volume is a part of another, by moving a box over it until the two agree or clearly do not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from builder.copies.prints import LEVELS, SMALL, STEPS, Print, Reals
from builder.copies.screening import Start
from builder.kernels.boxes import best_box, nearest_box, orders
from builder.kernels.levels import on_curve
from builder.kernels.structure import correlation, fine_structure, roughness, sampled

Box = tuple[float, ...]
Doubles = NDArray[np.float64]

COARSE, CONFIRM = 8, 16
"""Edges of the grids, in voxels, on which a box is placed roughly and on which it is confirmed."""

AROUND = (0.0, 0.04, -0.04, 0.08, -0.08)
FIRST_STEP, FINE_STEP, LAST_STEP, LEAST = 0.06, 0.03, 0.01, 0.005
"""Shares of an axis by which a box is moved: offsets tried around a start, then ever smaller steps."""

USUAL = 0.85
"""The limit for which the constants below hold; for a lower limit, all of them are lowered by the same amount."""

DOUBTFUL, SEEN_ALIKE = 0.8, 0.94
"""A roughly placed box below the first correlation is given up unless the volumes reach the second in one window."""

HOPELESS, HOPELESS_WINDOWED, WORTH = 0.65, 0.7, 0.8
"""A roughly placed box is given up below the first correlation, and below the second when both volumes are seen in one
window. A fit that is still below the third before the last steps is not refined further."""

HOPELESS_RANKS = 0.72
"""A roughly placed box is given up below this correlation of ranks on the finer grid."""

UNLIKELY_RANKS, CLEAR = 0.74, 0.92
"""So is one below the first correlation, unless the volumes reach the second there in one window."""

FEW = 4
"""An axis with fewer voxels is compared from end to end, others from the centre of the first voxel to the last."""


@dataclass(frozen=True)
class Fit:
    """How well two volumes agree, with both in the window of one of them, and by ranks only."""

    correlation: float
    ranks: float


NO_FIT = Fit(0.0, 0.0)

Way = tuple[Reals, Reals]
"""A cube of the whole volume, and the fine structure of the part in the same window."""


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two volumes with aligned axes and flips: their ranks, and the levels of their windows."""

    whole: Reals
    orders: Reals
    whole_levels: Reals
    part: Reals
    part_levels: Reals
    inner: Box
    """The part from the centre of its first voxel to that of its last; there is no data beyond."""


@dataclass(frozen=True, eq=False)
class _Own:
    """The same two volumes, each in its own window."""

    whole: Reals
    part: Reals


def fit(whole: Print, part: Print, starts: Sequence[Start], *, limit: float, enough: float) -> Fit:
    """Return the best agreement of ``part`` with a box of ``whole``; below the limit the value may be too low.

    Two copies of an image in different windows differ in contrast wherever one window is flat. Therefore the values of
    one are replaced, in order of rank, by those of the other (histogram specification) before their fine structure is
    correlated. This is done in both directions, and the better result counts.

    Parameters
    ----------
    limit
        Fits that will not come near this value are given up.
    enough
        No further starts are tried once a fit reaches this value.
    """
    spared = max(0.0, USUAL - limit)
    best = NO_FIT
    for start in starts:
        pair, box = _posed(whole, part, start)
        best = max(best, _fitted(pair, box, spared), key=lambda f: f.correlation)
        if best.correlation >= enough:
            break
    return best


def _posed(whole: Print, part: Print, start: Start) -> tuple[_Pair, Box]:
    z, y, x = start.flip
    margin = tuple(0.5 / min(n, SMALL) if n >= FEW else 0.0 for n in part.shape)
    inner = (*margin, *(1 - m for m in margin))
    box = tuple(start.box[e % 3] + share * (start.box[e % 3 + 3] - start.box[e % 3]) for e, share in enumerate(inner))
    turned, in_orders = _turned(whole, start.turn)
    flipped = np.ascontiguousarray(part.small[::z, ::y, ::x])
    pair = _Pair(turned, in_orders, whole.levels, flipped, part.levels, inner)
    if correlation(fine_structure(turned, box, COARSE), fine_structure(flipped, inner, COARSE)) < 0:  # one is inverted
        pair = replace(pair, part=-flipped, part_levels=1 - part.levels[::-1])
    return pair, box


@lru_cache(maxsize=4)  # two starts often have one order of axes, and pairs come sorted by their wholes
def _turned(whole: Print, turn: tuple[int, int, int]) -> tuple[Reals, Reals]:
    turned = np.ascontiguousarray(whole.small.transpose(turn))
    return turned, orders(turned)


def _fitted(pair: _Pair, box: Box, spared: float) -> Fit:
    target = fine_structure(pair.part, pair.inner, COARSE)
    _, box = nearest_box(pair.whole, target, box, shifts=AROUND, turned=pair.orders)
    near, box = best_box(pair.whole, target, box, first=FIRST_STEP, least=LEAST, turned=pair.orders)
    if near < HOPELESS - spared:
        return NO_FIT
    if near < DOUBTFUL - spared and _in_one_window(pair, box) < SEEN_ALIKE - spared:
        return NO_FIT
    finer = fine_structure(pair.part, pair.inner, CONFIRM)
    ranks = correlation(fine_structure(pair.whole, box, CONFIRM), finer)
    if ranks < HOPELESS_RANKS - spared:
        return NO_FIT
    own = _Own(on_curve(pair.whole, STEPS, pair.whole_levels), on_curve(pair.part, STEPS, pair.part_levels))
    ways = _ways(pair, own, box)
    first = max(correlation(fine_structure(cube, box, CONFIRM), sought) for cube, sought in ways)
    if first < (CLEAR if ranks < UNLIKELY_RANKS - spared else HOPELESS_WINDOWED) - spared:
        return NO_FIT
    score, box = _refined(ways, 0.0, box, FINE_STEP)
    if score >= WORTH - spared:
        score, box = _refined(_ways(pair, own, box), score, box, LAST_STEP)
    return Fit(score, correlation(fine_structure(pair.whole, box, CONFIRM), finer))


def _in_one_window(pair: _Pair, box: Box) -> float:
    """Return the better correlation of both volumes in the window of either, roughly: on few values."""
    ranks, part_ranks = sampled(pair.whole, box, COARSE), sampled(pair.part, pair.inner, COARSE)
    values = _through(ranks, pair.whole_levels)
    part_values = _through(part_ranks, pair.part_levels)
    return max(
        correlation(roughness(_in_order(ranks, part_values)), roughness(part_values)),
        correlation(roughness(values), roughness(_in_order(part_ranks, values))),
    )


def _through(ranks: Doubles, levels: Reals) -> Doubles:
    return on_curve(ranks.astype(np.float32), STEPS, levels).astype(np.float64)


def _in_order(ranks: Doubles, values: Doubles) -> Doubles:
    """Return the values, the lowest where the lowest rank is."""
    out = np.empty(ranks.size)
    out[np.argsort(ranks, axis=None, kind="stable")] = np.sort(values, axis=None)
    return out.reshape(ranks.shape)


def _ways(pair: _Pair, own: _Own, box: Box) -> list[Way]:
    """Return two comparisons: both volumes in the window of the part, and both in the window of the whole.

    A rank in one volume corresponds to the rank in the other below which equally many values lie inside the box.
    """
    some = np.arange(LEVELS) * (CONFIRM**3 - 1) // (LEVELS - 1)
    ranks, values = (np.sort(sampled(c, box, CONFIRM), axis=None)[some] for c in (pair.whole, own.whole))
    part_ranks, part_values = (np.sort(sampled(c, pair.inner, CONFIRM), axis=None)[some] for c in (pair.part, own.part))
    seen, sought = on_curve(pair.whole, ranks, part_values), on_curve(pair.part, part_ranks, values)
    return [(cube, fine_structure(c, pair.inner, CONFIRM)) for cube, c in ((seen, own.part), (own.whole, sought))]


def _refined(ways: Sequence[Way], score: float, box: Box, step: float) -> tuple[float, Box]:
    for cube, target in ways:
        score, box = max((score, box), best_box(cube, target, box, first=step, least=LEAST), key=lambda f: f[0])
    return score, box
