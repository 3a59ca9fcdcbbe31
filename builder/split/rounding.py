"""Controlled rounding: whole persons in every cell and split, near to the exact shares.

Each cell, each stratum and the total get the floor or the ceiling of their share. Among the roundings that do, a
bounded search looks for one whose one-way levels are near to theirs; where it leaves a level one person off or more and
the problem is small, the problem is solved exactly. The search is in integers: a share is a count of ``scale``-ths of a
person.
"""

from collections import deque
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from builder.split.exact import round_exactly, worst_level
from builder.split.problem import Integers, Problem

MOST_STEPS = 3000
"""Steps of the search for few cells; for many cells fewer, so that the work stays bounded."""

MOST_WORK = 12_000_000
"""Cells times steps the search may evaluate, at least 500 steps."""

MOST_TRADES = 60
MOST_TRADING = 60_000_000
"""Trades tried after the search, and pairs of cells looked at for them."""

PATIENCE = 100
"""Steps without improvement after which the search ends, once everything is within one person of its share."""

STRATUM_WEIGHT = 16
TOTAL_WEIGHT = 64
"""How much a person off counts in a pooled stratum and in the total, compared with a one-way level."""

HINGE = 63
"""Extra weight of the part of a deviation that exceeds one person: pulls the worst level down first."""

NEVER = np.int64(2**61)
"""Cost of a move that is not allowed; the sum of two fits 64 bits."""

TAIL = 16
"""Persons from which the cost of a deviation grows linearly (deviations that previous versions fixed)."""


def round_shares(problem: Problem) -> Integers:
    """Return (cell, split) whole persons: floor or ceiling of each share.

    Every stratum (a sum of cells) is at the floor or ceiling of its share too, and so is the total where
    ``keep_total`` says so; such a rounding always exists, for cells, strata and total form a tree (Cox 1987,
    doi:10.1080/01621459.1987.10478456). Among these a tabu search of fixed length looks for one whose one-way levels
    deviate least. Where a level stays one person off or more, ``round_exactly`` takes over: problems of up to
    ``MOST_PLACES`` places end with every level within one person if any of these roundings gets there, and else with
    the worst level as near as any of them gets it.
    """
    ranked = np.argsort(problem.order, kind="stable")
    shares = problem.shares[ranked]
    floors = shares // problem.scale
    open_ = shares % problem.scale > 0
    ups = _largest_remainders(shares % problem.scale, problem.scale)
    stratum_of = problem.stratum_of[ranked]
    lanes, goals, weights = _lanes(problem, ranked, floors)
    ups = _search(ups, open_, lanes, goals, weights, problem.scale)
    strata = int(stratum_of.max(initial=-1)) + 1
    _repair_strata(ups, open_, floors, stratum_of, _bounds(shares, stratum_of, strata, problem.scale))
    _repair_total(ups, open_, floors, stratum_of, _bounds(shares, stratum_of, strata, problem.scale), problem)
    counts = np.empty_like(floors)
    counts[ranked] = floors + ups
    return counts if worst_level(problem, counts) < problem.scale else round_exactly(problem, counts)


def _largest_remainders(remainders: Integers, scale: int) -> Integers:
    """Return (cell, split) 0 or 1: the splits with the largest remainders of each cell go up."""
    many = remainders.sum(axis=1) // scale
    rank = np.argsort(np.argsort(-remainders, axis=1, kind="stable"), axis=1, kind="stable")
    return np.asarray(rank < many[:, None], dtype=np.int64)


def _lanes(problem: Problem, ranked: Integers, floors: Integers) -> tuple[Integers, Integers, Integers]:
    """Return the sums that the search watches: (cell, width) which each cell adds to, (sum, split) targets, weights.

    They are the levels, the strata of several cells, and the total; the last row is a bin for padding.
    """
    stratum_of = problem.stratum_of[ranked]
    members = np.bincount(stratum_of)
    levels, strata = len(problem.targets), len(members)
    bin_ = levels + strata + 1
    level_lanes = np.where(problem.levels_of[ranked] < levels, problem.levels_of[ranked], bin_)
    stratum_lanes = np.where(members[stratum_of] > 1, levels + stratum_of, bin_)
    total_lanes = np.full(len(ranked), levels + strata, dtype=np.int64)
    lanes = np.concatenate([level_lanes, stratum_lanes[:, None], total_lanes[:, None]], axis=1)
    goals = np.zeros((bin_ + 1, floors.shape[1]), dtype=np.int64)
    goals[:levels] = problem.targets
    np.add.at(goals, levels + stratum_of, problem.shares[ranked])
    goals[levels + strata] = problem.total
    for column in range(lanes.shape[1]):
        np.subtract.at(goals, lanes[:, column], floors * problem.scale)
    weights = np.ones(bin_ + 1, dtype=np.int64)
    weights[levels:-2], weights[-2], weights[-1] = STRATUM_WEIGHT, TOTAL_WEIGHT, 0
    return lanes, goals, weights


def _search(
    ups: Integers, open_: NDArray[np.bool_], lanes: Integers, goals: Integers, weights: Integers, scale: int
) -> Integers:
    """Move one person of one cell between two splits, the best move first, not the same cell again for a while."""
    ups = ups.copy()
    movable = np.flatnonzero(open_.any(axis=1))
    if not len(movable):
        return ups
    # (width, cell), (split, cell) and (split, lane): the long axis last, where numpy is fast
    lanes = np.ascontiguousarray(lanes[movable].T)
    state, free = np.ascontiguousarray(ups[movable].T), np.ascontiguousarray(open_[movable].T)
    off = -goals
    for lane in lanes:
        np.add.at(off, lane, state.T * scale)
    off = np.ascontiguousarray(off.T)
    cost = int((_cost(off, scale) * weights).sum())
    best, best_state = cost, state.copy()
    rules = _Rules(free, lanes, weights, scale)
    blocked_until = np.zeros(len(movable), dtype=np.int64)
    shortest = min(6, len(movable) // 4)
    steps = max(500, min(MOST_STEPS, MOST_WORK // len(movable), 100 * len(movable)))
    improved, good = 0, _within_one(off[:, :-1], scale)
    for step in range(steps):
        if good and step - improved > PATIENCE:
            break
        blocked = blocked_until > step
        cell, giver, taker, gain = _best_move(state, off, rules, blocked, best - cost)
        if cell < 0:
            continue  # every cell has just moved
        state[giver, cell], state[taker, cell] = 0, 1
        np.subtract.at(off[giver], lanes[:, cell], scale)
        np.add.at(off[taker], lanes[:, cell], scale)
        cost += gain
        blocked_until[cell] = step + 1 + shortest + (step * 7) % (1 + 2 * shortest)
        if cost < best:
            best, best_state = cost, state.copy()
            improved, good = step, _within_one(off[:, :-1], scale)
    ups[movable] = _swap(best_state, free, lanes, -goals.T, weights, scale).T
    return ups


def _swap(
    state: Integers, free: NDArray[np.bool_], lanes: Integers, empty: Integers, weights: Integers, scale: int
) -> Integers:
    """Let two cells trade the splits of one person each until all is within one person, the best trade first.

    Single moves do not get there: each half of a trade alone pushes a stratum or the total off. ``empty`` is how far
    the sums are off with nobody moved up.
    """
    splits, cells = state.shape
    used = np.flatnonzero(np.bincount(lanes.reshape(-1), weights=weights[lanes].reshape(-1)))
    lanes, empty, weights = np.searchsorted(used, lanes), empty[:, used], weights[used]
    marks = np.zeros((cells, len(used) + 1))
    for lane in lanes:
        marks[np.arange(cells), lane] = 1
    marks = marks[:, : len(used)]
    state = state.copy()
    for _ in range(min(MOST_TRADES, MOST_TRADING // (cells * cells * splits))):
        off = empty + scale * np.rint(state @ marks).astype(np.int64)
        if _within_one(off, scale):
            break
        now = _cost(off, scale)
        down, up = (_cost(off - scale, scale) - now) * weights, (_cost(off + scale, scale) - now) * weights
        best = (0, 0, 0, 0, 0)
        for a, b in combinations(range(splits), 2):
            best = min(best, _best_trade(a, b, state, free, marks, down, up))
        if best[0] >= 0:
            break
        _, one, other, a, b = best
        state[[a, b], one], state[[a, b], other] = (0, 1), (1, 0)
    return state


def _best_trade(
    a: int, b: int, state: Integers, free: NDArray[np.bool_], marks: NDArray[np.float64], down: Integers, up: Integers
) -> tuple[int, int, int, int, int]:
    """Return (change of cost, one, other, a, b): ``one`` gives from a to b, ``other`` from b to a.

    A sum both cells add to does not change, so what the two moves alone would cost there is taken off again. Products
    of whole numbers far below 2**53 are exact in float64, whatever the order of additions.
    """
    forth = np.flatnonzero((state[a] == 1) & (state[b] == 0) & free[b])
    back = np.flatnonzero((state[b] == 1) & (state[a] == 0) & free[a])
    if not len(forth) or not len(back):
        return (0, 0, 0, 0, 0)
    there, here = (down[a] + up[b]).astype(np.float64), (down[b] + up[a]).astype(np.float64)
    shared = (marks[forth] * (there + here)) @ marks[back].T
    change = (marks[forth] @ there)[:, None] + (marks[back] @ here)[None, :] - shared
    first, second = np.unravel_index(int(change.argmin()), change.shape)
    return int(change[first, second]), int(forth[first]), int(back[second]), a, b


def _cost(off: Integers, scale: int) -> Integers:
    """Return the cost of deviations: square, steeper beyond one person, linear far out."""
    size = np.abs(off)
    near = np.minimum(size, TAIL * scale)
    beyond = np.maximum(near - scale, 0)
    slope = 2 * (1 + HINGE) * TAIL * scale
    far = np.minimum(size - near, 2**50 // slope)  # 64 bits hold the sums
    return np.asarray(near * near + HINGE * beyond * beyond + far * slope)


def _within_one(off: Integers, scale: int) -> bool:
    return bool((np.abs(off) < scale).all())


@dataclass(frozen=True, eq=False)
class _Rules:
    """What does not change during a search: where a cell may gain a person, and how a move is weighed.

    Parameters
    ----------
    free
        (split, cell) whether the cell may be rounded up in the split.
    lanes
        (width, cell) the sums that the cell is part of.
    weights
        (lane,) how much the error of each sum counts.
    """

    free: NDArray[np.bool_]
    lanes: Integers
    weights: Integers
    scale: int


def _best_move(
    state: Integers, off: Integers, rules: _Rules, blocked: NDArray[np.bool_], needed: int
) -> tuple[int, int, int, int]:
    """Return (cell, from, to, change of cost) of the best move; a blocked cell moves only below the best cost."""
    scale = rules.scale
    now = _cost(off, scale)
    change = np.stack([_cost(off - scale, scale) - now, _cost(off + scale, scale) - now]) * rules.weights
    sums = change.take(rules.lanes[0], axis=2)
    for lane in rules.lanes[1:]:
        sums += change.take(lane, axis=2)
    leave = np.where(state == 1, sums[0], NEVER)
    enter = np.where(rules.free & (state == 0), sums[1], NEVER)
    gains = leave.min(axis=0) + enter.min(axis=0)
    gains[blocked & (gains >= needed)] = NEVER
    cell = int(gains.argmin())
    if gains[cell] >= NEVER // 2:
        return -1, 0, 0, 0
    return cell, int(leave[:, cell].argmin()), int(enter[:, cell].argmin()), int(gains[cell])


def _bounds(shares: Integers, stratum_of: Integers, strata: int, scale: int) -> tuple[Integers, Integers]:
    """Return (stratum, split) floor and ceiling of the share of each stratum."""
    sums = np.zeros((strata, shares.shape[1]), dtype=np.int64)
    np.add.at(sums, stratum_of, shares)
    return sums // scale, -(-sums // scale)


def _repair_strata(
    ups: Integers, open_: NDArray[np.bool_], floors: Integers, stratum_of: Integers, bounds: tuple[Integers, Integers]
) -> None:
    """Bring strata of several cells to floor or ceiling by moving persons along chains of cells (in place)."""
    for stratum in np.flatnonzero(np.bincount(stratum_of) > 1).tolist():
        cells = np.flatnonzero(stratum_of == stratum)
        low, high = bounds[0][stratum], bounds[1][stratum]
        while True:
            count = (floors[cells] + ups[cells]).sum(axis=0)
            if (count > high).any():
                sources, sinks = np.flatnonzero(count > high), np.flatnonzero(count < high)
            elif (count < low).any():
                sources, sinks = np.flatnonzero(count > low), np.flatnonzero(count < low)
            else:
                break
            path = _path(_edges(ups, open_, cells), sources.tolist(), set(sinks.tolist()))
            assert path is not None, "a rounding within the bounds always exists"
            _apply(ups, open_, cells, path)


def _repair_total(
    ups: Integers,
    open_: NDArray[np.bool_],
    floors: Integers,
    stratum_of: Integers,
    bounds: tuple[Integers, Integers],
    problem: Problem,
) -> None:
    """Bring the total within its bounds by moving persons along chains of strata (in place)."""
    low, high = problem.keep_total
    while True:
        count = (floors + ups).sum(axis=0)
        if (count > high).any():
            sources, sinks = np.flatnonzero(count > high), np.flatnonzero(count < high)
        elif (count < low).any():
            sources, sinks = np.flatnonzero(count > low), np.flatnonzero(count < low)
        else:
            return
        edges, paths = _stratum_edges(ups, open_, floors, stratum_of, bounds)
        path = _path(edges, sources.tolist(), set(sinks.tolist()))
        assert path is not None, "a rounding within the bounds always exists"
        for giver, taker in pairwise(path):
            _apply(ups, open_, *paths[giver, taker])


def _stratum_edges(
    ups: Integers, open_: NDArray[np.bool_], floors: Integers, stratum_of: Integers, bounds: tuple[Integers, Integers]
) -> tuple[NDArray[np.bool_], dict[tuple[int, int], tuple[Integers, list[int]]]]:
    """Return between which splits some stratum can pass a person and keep its bounds, and how."""
    splits = ups.shape[1]
    edges = np.zeros((splits, splits), dtype=bool)
    paths: dict[tuple[int, int], tuple[Integers, list[int]]] = {}
    counts = np.zeros_like(bounds[0])
    np.add.at(counts, stratum_of, floors + ups)
    order = np.argsort(stratum_of, kind="stable")
    ends = np.searchsorted(stratum_of[order], np.arange(len(counts) + 1))
    for stratum in range(len(counts)):
        cells = order[ends[stratum] : ends[stratum + 1]]
        can = _edges(ups, open_, cells)
        for giver in np.flatnonzero(counts[stratum] > bounds[0][stratum]).tolist():
            for taker in np.flatnonzero(counts[stratum] < bounds[1][stratum]).tolist():
                if giver == taker or edges[giver, taker]:
                    continue
                path = _path(can, [giver], {taker})
                if path is not None:
                    edges[giver, taker] = True
                    paths[giver, taker] = (cells, path)
    return edges, paths


def _edges(ups: Integers, open_: NDArray[np.bool_], cells: Integers) -> NDArray[np.bool_]:
    """Return (split, split) whether some of the cells can move a person from one split to the other."""
    can_give = ups[cells] == 1
    can_take = open_[cells] & ~can_give
    return np.asarray(can_give.astype(np.int64).T @ can_take.astype(np.int64) > 0)


def _path(edges: NDArray[np.bool_], sources: list[int], sinks: set[int]) -> list[int] | None:
    """Return shortest path between two sets of splits."""
    before: dict[int, int] = dict.fromkeys(sources, -1)
    queue = deque(sources)
    while queue:
        here = queue.popleft()
        if here in sinks:
            path = [here]
            while before[path[-1]] >= 0:
                path.append(before[path[-1]])
            return path[::-1]
        for there in np.flatnonzero(edges[here]).tolist():
            if there not in before:
                before[there] = here
                queue.append(there)
    return None


def _apply(ups: Integers, open_: NDArray[np.bool_], cells: Integers, path: list[int]) -> None:
    """Move one person along a path of splits, each step by the first cell that can."""
    for giver, taker in pairwise(path):
        able = (ups[cells, giver] == 1) & (ups[cells, taker] == 0) & open_[cells, taker]
        cell = int(cells[int(np.flatnonzero(able)[0])])
        ups[cell, giver], ups[cell, taker] = 0, 1
