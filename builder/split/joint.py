"""Deal the newcomers of one site by the quotas of a joint plan, instead of by ratios of its own."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from builder.errors import SpecError
from builder.model.keyed import Key
from builder.split.options import Joint
from builder.split.problem import Integers, Problem
from builder.split.rounding import round_shares
from builder.split.shares import spread
from builder.split.strata import Strata, stratify

HOME: Final = "stratum"
"""Column of persons: the stratum or pool of the joint plan that each belongs to."""

ANY: Final = "*"
"""What stands in the levels of a quota for every level of a column."""

SCALE: Final = 2520
"""Parts of a person in which shares are counted."""


def assign_by_quotas(
    persons: pa.Table,
    *,
    quotas: Mapping[str, Mapping[str, int]],
    strata: Sequence[str],
    seed: int,
    previous: pa.Table | None = None,
    drawn: Mapping[str, str] | None = None,
) -> pa.Table:
    """Deal newcomers so that each stratum of the joint plan fills its quota.

    Parameters
    ----------
    persons
        One row a person: ``person_key``, ``stratum`` (a name in ``quotas``) and the strata columns, by which the
        persons of one quota are spread evenly over the splits.
    quotas
        Stratum to split to newcomers.
    strata, seed
        As ``assign`` takes them.
    previous
        ``person_key`` and ``split`` of persons who keep their split. They fill no quota.
    drawn
        Newcomers whose split is settled beforehand, because another site has them too. They take places of the quota,
        and the others fill what is left of it.

    Returns
    -------
    pyarrow.Table
        ``person_key``, ``split``, ``stratum`` and ``pooled`` (false), one row a person, sorted by ``person_key``.

    Raises
    ------
    SpecError
        If a newcomer is in a stratum without a quota.

    Notes
    -----
    Where as many newcomers are found as the plan has counted, every quota is filled to the person. Where more or fewer
    are found, because the archive has changed since the offer, their shares are those of the quota, rounded. Where more
    are drawn for a split than its quota has places, the surplus is taken from the other splits in proportion.
    """
    table = persons.sort_by("person_key")
    keys = table["person_key"].to_pylist()
    homes = table[HOME].to_pylist()
    known = {} if previous is None else _splits(previous)
    settled = {person: split for person, split in (drawn or {}).items() if person not in known}
    splits = tuple(dict.fromkeys([*(name for quota in quotas.values() for name in quota), *sorted(settled.values())]))
    fresh = [n for n, person in enumerate(keys) if person not in known and person not in settled]
    without = sorted({homes[n] for n in fresh if not sum(quotas.get(homes[n], {}).values())})
    if without:
        raise SpecError(
            f"found newcomers in the stratum {without[0]!r}, for which the joint plan has no quota; offer again, so "
            "that a new plan counts them"
        )
    chosen = {**known, **settled}
    if fresh:
        part = table.take(pa.array(fresh, pa.int64()))
        taken = Counter((home, settled[person]) for person, home in zip(keys, homes, strict=True) if person in settled)
        goals = _Goals(quotas, splits, taken)
        dealt = _dealt(part, stratify(part, [HOME, *strata], smallest=1), goals, seed)
        chosen.update(zip(part["person_key"].to_pylist(), [splits[n] for n in dealt.tolist()], strict=True))
    return pa.table(
        {
            "person_key": pa.array(keys, pa.string()),
            "split": pa.array([chosen[k] for k in keys], pa.string()),
            "stratum": pa.array(homes, pa.string()),
            "pooled": pa.array([False] * len(keys), pa.bool_()),
        }
    )


def level_of(value: Any, levels: Sequence[str]) -> str:
    """Return the level of a cell: its text if that is listed, else the last level, as for a cell without a value."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, list | tuple):
        text = "+".join(sorted(map(str, value)))
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if text in levels else levels[-1]


def with_homes(persons: pa.Table, joint: Joint) -> tuple[pa.Table, dict[str, dict[str, int]]]:
    """Return persons with the column ``stratum``, and the quotas by its values, as ``assign_by_quotas`` takes them.

    A person belongs to the stratum or pool that names most of the person's levels.
    """
    columns = [[level_of(v, known) for v in persons[name].to_pylist()] for name, known in joint.columns.items()]
    cells = zip(*columns, strict=True) if columns else [()] * persons.num_rows
    homes = [_home(cell, joint) for cell in cells]
    quotas = {_named(quota.levels, joint): dict(quota.counts) for quota in joint.quotas}
    return persons.append_column(HOME, pa.array(homes, pa.string())), quotas


def _home(cell: tuple[str, ...], joint: Joint) -> str:
    fitting = [q.levels for q in joint.quotas if all(w in (ANY, h) for h, w in zip(cell, q.levels, strict=True))]
    return _named(min(fitting, key=lambda levels: levels.count(ANY), default=cell), joint)


def _named(levels: Sequence[str], joint: Joint) -> str:
    return "; ".join(f"{c}={level}" for c, level in zip(joint.columns, levels, strict=True)) or "everyone"


def _splits(previous: pa.Table) -> dict[str, str]:
    return dict(zip(previous["person_key"].to_pylist(), previous["split"].to_pylist(), strict=True))


@dataclass(frozen=True)
class _Goals:
    """The quota of each stratum, and the newcomers by stratum and split who have places of it already."""

    quotas: Mapping[str, Mapping[str, int]]
    splits: tuple[str, ...]
    taken: Mapping[tuple[str, str], int]

    def left(self, home: str, persons: int) -> Integers:
        """Return (split,) the shares of so many other persons, in ``SCALE``-ths."""
        asked = np.array([self.quotas[home].get(split, 0) for split in self.splits], dtype=np.int64)
        taken = np.array([self.taken.get((home, split), 0) for split in self.splits], dtype=np.int64)
        goal = _in_proportion(asked, int(persons + taken.sum()))
        return _in_proportion(np.maximum(goal - taken * SCALE, 0), persons)


def _dealt(people: pa.Table, sorted_in: Strata, goals: _Goals, seed: int) -> Integers:
    """Return (person,) the split of each newcomer: the counts of every cell first, then persons in keyed order."""
    homes = people[HOME].to_pylist()
    names = sorted(set(homes))
    home_of = np.zeros(len(sorted_in.sizes), dtype=np.int64)
    home_of[sorted_in.cell_of] = [names.index(home) for home in homes]
    shares = np.zeros((len(home_of), len(goals.splits)), dtype=np.int64)
    for place, home in enumerate(names):
        inside = home_of == place
        sizes = sorted_in.sizes[inside]
        shares[inside] = spread(goals.left(home, int(sizes.sum())), sizes, SCALE)
    targets = np.zeros((len(sorted_in.levels) + 1, len(goals.splits)), dtype=np.int64)
    for column in range(sorted_in.levels_of.shape[1]):
        np.add.at(targets, sorted_in.levels_of[:, column], shares)
    total = shares.sum(axis=0)
    key = Key(hashlib.sha256(f"joint split {seed}".encode()).digest())
    order = np.array([key.number("cell", str(n)) >> 1 for n in range(len(home_of))], dtype=np.int64)
    bounds = (total // SCALE, -(-total // SCALE))
    counts = round_shares(Problem(shares, SCALE, home_of, sorted_in.levels_of, targets[:-1], total, bounds, order))
    ranks = np.array([key.number("person", p) for p in people["person_key"].to_pylist()], dtype=np.uint64)
    chosen = np.empty(len(homes), dtype=np.int64)
    chosen[np.lexsort((ranks, sorted_in.cell_of))] = np.repeat(
        np.tile(np.arange(len(goals.splits)), len(counts)), counts.reshape(-1)
    )
    return chosen


def _in_proportion(weights: Integers, persons: int) -> Integers:
    """Return (split,) shares of so many persons in proportion to weights, in ``SCALE``-ths."""
    shares = weights * SCALE * persons // weights.sum()
    shares[int(weights.argmax())] += persons * SCALE - shares.sum()
    return np.asarray(shares)
