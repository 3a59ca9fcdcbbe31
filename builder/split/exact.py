"""Small problems of controlled rounding, solved to the end: the worst level is as near to its share as it can be."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from builder.split.problem import Integers, Problem

MOST_PLACES: Final = 400
"""Places (a cell and a split whose share is no whole number) up to which a problem is solved exactly."""

MOST_NODES: Final = 20_000
"""Nodes of the branch-and-bound tree; none of the problems tried so far needed a tenth of them."""


def worst_level(problem: Problem, counts: Integers) -> int:
    """Return how far the worst level is from its share in any split, in ``scale``-ths of a person."""
    off = -problem.targets.copy()
    padded = np.concatenate([off, np.zeros((1, off.shape[1]), dtype=np.int64)])
    for column in range(problem.levels_of.shape[1]):
        np.add.at(padded, problem.levels_of[:, column], counts * problem.scale)
    return int(np.abs(padded[:-1]).max(initial=0))


def round_exactly(problem: Problem, found: Integers) -> Integers:
    """Return ``found``, or counts whose worst level is nearer to its share if there are any.

    A mixed-integer program with the constraints of ``round_shares``: HiGHS first finds how near the worst level can
    get; then, among the roundings that get there, the one whose levels deviate least in sum, ties decided by keyed
    weights. A problem of more than ``MOST_PLACES`` places is left as it is.
    """
    open_ = problem.shares % problem.scale > 0
    if not len(problem.targets) or int(open_.sum()) > MOST_PLACES:
        return found
    program = _Program.of(problem, open_)
    first = program.solve(np.concatenate([np.zeros(program.places + program.sums), [1.0]]), None)
    if first is None:
        return found
    best = program.counts(problem, open_, first)
    bound = worst_level(problem, best)
    if bound >= worst_level(problem, found):
        return found
    weights = np.arange(program.places) * 0.6180339887498949 % 1  # in keyed order already; all differ
    ranked = np.argsort(np.argsort(problem.order, kind="stable"), kind="stable")
    tie = weights * (1 + np.repeat(ranked, problem.shares.shape[1])[open_.reshape(-1)]) / (1 + len(ranked))
    even = np.full(program.sums, (program.places + 1) * float(problem.scale))
    second = program.solve(np.concatenate([tie, even, [0.0]]), bound / problem.scale)
    if second is None:
        return best
    evened = program.counts(problem, open_, second)
    return evened if worst_level(problem, evened) <= bound else best


@dataclass(frozen=True, eq=False)
class _Program:
    """Its columns: the places (one person more or not), how far each level is off in each split, the worst of these."""

    places: int
    sums: int
    rows: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @staticmethod
    def of(problem: Problem, open_: NDArray[np.bool_]) -> "_Program":
        cells, splits = problem.shares.shape
        floors = problem.shares // problem.scale
        places = int(open_.sum())
        at = np.full((cells, splits), -1)
        at[open_] = np.arange(places)
        sums = len(problem.targets) * splits
        rows: list[tuple[NDArray[np.float64], float, float]] = []

        def line(members: Any, split: int | None = None) -> NDArray[np.float64]:
            made = np.zeros(places + sums + 1)
            chosen = at[members, split] if split is not None else at[members]
            made[chosen[chosen >= 0]] = 1
            return made

        for cell in range(cells):
            ups = int(problem.shares[cell].sum() // problem.scale - floors[cell].sum())
            rows.append((line(cell), ups, ups))
        for stratum in range(int(problem.stratum_of.max(initial=-1)) + 1):
            members = np.flatnonzero(problem.stratum_of == stratum)
            for split in range(splits) if len(members) > 1 else ():
                share, held = int(problem.shares[members, split].sum()), int(floors[members, split].sum())
                low, high = share // problem.scale - held, -(-share // problem.scale) - held
                rows.append((line(members, split), low, high))
        for split in range(splits):
            low, high = (int(bound[split] - floors[:, split].sum()) for bound in problem.keep_total)
            rows.append((line(np.arange(cells), split), low, high))
        for level in range(len(problem.targets)):
            members = np.flatnonzero((problem.levels_of == level).any(axis=1))
            for split in range(splits):
                goal = problem.targets[level, split] / problem.scale - int(floors[members, split].sum())
                off = places + level * splits + split
                for sign in (1, -1):  # off >= |ups - goal|
                    made = sign * line(members, split)
                    made[off] = -1
                    rows.append((made, -np.inf, sign * goal))
                worst = np.zeros(places + sums + 1)
                worst[off], worst[-1] = 1, -1
                rows.append((worst, -np.inf, 0))
        table, low_, high_ = zip(*rows, strict=True)
        return _Program(places, sums, np.array(table), np.array(low_, float), np.array(high_, float))

    def solve(self, cost: NDArray[np.float64], most: float | None) -> NDArray[np.float64] | None:
        """Return the columns of the best solution; None when none was found within ``MOST_NODES``."""
        from scipy.optimize import Bounds, LinearConstraint, milp  # needs half a second to load
        from scipy.sparse import csr_array

        free = np.full(self.sums + 1, np.inf if most is None else most + 1e-7)
        answer = milp(
            cost,
            constraints=LinearConstraint(csr_array(self.rows), self.low, self.high),
            integrality=np.concatenate([np.ones(self.places), np.zeros(self.sums + 1)]),
            bounds=Bounds(np.zeros(len(cost)), np.concatenate([np.ones(self.places), free])),
            options={"node_limit": MOST_NODES, "mip_rel_gap": 0.0},
        )
        return None if answer.x is None else np.asarray(answer.x)

    def counts(self, problem: Problem, open_: NDArray[np.bool_], solution: NDArray[np.float64]) -> Integers:
        """Return (cell, split) whole persons of a solution."""
        found = problem.shares // problem.scale
        found[open_] += np.rint(solution[: self.places]).astype(np.int64)
        return found
