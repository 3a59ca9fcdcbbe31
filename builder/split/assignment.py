"""Who goes to which split."""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.errors import SpecError, counted
from builder.model.keyed import Key
from builder.split.options import whole_shares
from builder.split.problem import Problem
from builder.split.rounding import round_shares
from builder.split.shares import reachable
from builder.split.strata import Strata, stratify

Integers = NDArray[np.int64]

COUNT_COLUMN = "series"
"""Optional column: how many series (or samples) a person brings; swaps inside strata balance its sum."""

SWAP_ROUNDS = 10


def assign(
    persons: pa.Table,
    *,
    ratios: Mapping[str, float],
    strata: Sequence[str],
    seed: int,
    previous: pa.Table | None = None,
) -> pa.Table:
    """Deal persons to splits: whole persons, every stratum within one person of its share.

    Parameters
    ----------
    persons
        One row a person: ``person_key`` (string), the strata columns (string, number, boolean, or list of strings
        for multi-label; null is the level "missing") and, optionally, ``series``, a count to balance. Rows that
        repeat a person word for word count once.
    ratios
        Split to share; the shares sum to 1.
    strata
        Columns in order of importance: rare combinations are pooled by giving up the last ones first.
    seed
        Key of every tie-break; nothing else is random. The order of rows never matters.
    previous
        ``person_key`` and ``split`` of earlier versions (and of hold-outs). Nobody in it ever moves; newcomers fill
        what its persons left open. Its splits may be others than those of ``ratios``.

    Returns
    -------
    pyarrow.Table
        ``person_key``, ``split``, ``stratum``, ``pooled``; one row a person of ``persons``, sorted by ``person_key``.

    Raises
    ------
    SpecError
        A column is missing, ``ratios`` do not sum to 1, or a person has two different rows.

    Notes
    -----
    Each stratum, each combination of values and the total get the floor or ceiling of their share. Every single level
    of every column (each site, each sex) is within one person of its share whenever such a rounding exists and the
    problem is small; larger ones are searched for a fixed time, see ``builder.split.rounding``. With ``previous``, a
    stratum's share is what its fixed persons leave reachable.
    """
    names, shares = _checked(persons, ratios, strata)
    table = _one_row_each(persons, [*strata, *([COUNT_COLUMN] if COUNT_COLUMN in persons.column_names else [])])
    keys = table["person_key"].to_pylist()
    sorted_in = stratify(table, strata, smallest=len(names))
    fixed, elsewhere = _fixed(keys, names, previous)
    key = Key(hashlib.sha256(f"split {seed}".encode()).digest())
    # Persons whom a hold-out or an earlier version put into another split count in no share.
    counted = np.array([k not in elsewhere for k in keys], dtype=bool)
    counts = _counts(sorted_in, fixed, counted, shares, key)
    ranks = np.array([*key.numbers("person", keys)], dtype=np.uint64)
    chosen = _deal(sorted_in, fixed, counted, counts, ranks)
    if COUNT_COLUMN in table.column_names:
        weights = np.asarray(table[COUNT_COLUMN].fill_null(0).cast(pa.int64()).to_numpy(), dtype=np.int64)
        movable = counted & (fixed < 0)
        chosen = _balance(chosen, weights, sorted_in.cell_of, movable, shares)
    labels = [names[c] if c >= 0 else elsewhere[k] for c, k in zip(chosen.tolist(), keys, strict=True)]
    stratum = sorted_in.stratum_of[sorted_in.cell_of] if keys else np.zeros(0, dtype=np.int64)
    return pa.table(
        {
            "person_key": pa.array(keys, pa.string()),
            "split": pa.array(labels, pa.string()),
            "stratum": pa.array([sorted_in.names[s] for s in stratum.tolist()], pa.string()),
            "pooled": pa.array([sorted_in.pooled[s] for s in stratum.tolist()], pa.bool_()),
        }
    )


def _pairs(table: pa.Table) -> tuple[list[str], list[str]]:
    return table["person_key"].to_pylist(), table["split"].to_pylist()


def _checked(
    persons: pa.Table, ratios: Mapping[str, float], strata: Sequence[str]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    absent = [c for c in ("person_key", *strata) if c not in persons.column_names]
    if absent:
        raise SpecError(f"splits.stratify: found no column {absent}, expected some of {sorted(persons.column_names)}")
    if persons["person_key"].null_count:
        raise SpecError(f"person_key: found {persons['person_key'].null_count} empty cells, expected a key a person")
    try:
        return whole_shares(ratios)
    except ValueError as error:
        raise SpecError(f"splits.{error}") from error


def _one_row_each(persons: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return persons sorted by key, repeated rows once."""
    table = persons.select(list(dict.fromkeys(["person_key", *columns])))
    table = table.set_column(0, "person_key", table["person_key"].cast(pa.string()))
    order = table["person_key"].combine_chunks().to_pylist()
    ranked = sorted(range(len(order)), key=order.__getitem__)
    table = table.take(pa.array(ranked, pa.int64()))
    if len(set(order)) == len(order):
        return table
    rows = table.to_pylist()
    first = [i for i in range(len(rows)) if i == 0 or rows[i]["person_key"] != rows[i - 1]["person_key"]]
    twice = [i for i in range(1, len(rows)) if i not in set(first)]
    conflicts = {rows[i]["person_key"] for i in twice if repr(rows[i]) != repr(rows[i - 1])}
    if conflicts:
        raise SpecError(
            f"persons: found {counted(len(conflicts), 'person')} with several different rows, expected one row a "
            "person; "
            "reduce them to one (for instance the first series by key) before the split"
        )
    return table.take(pa.array(first, pa.int64()))


def _fixed(keys: list[str], names: tuple[str, ...], previous: pa.Table | None) -> tuple[Integers, dict[str, str]]:
    """Return (person,) the split that earlier versions fixed or -1, and who is fixed in splits without a ratio."""
    fixed = np.full(len(keys), -1, dtype=np.int64)
    if previous is None:
        return fixed, {}
    pinned: dict[str, str] = {}
    for person, split in zip(*_pairs(previous), strict=True):
        if pinned.setdefault(person, split) != split:
            raise SpecError(f"previous: found a person in two splits ({pinned[person]!r} and {split!r}), expected one")
    position = {name: i for i, name in enumerate(names)}
    elsewhere = {k: pinned[k] for k in keys if k in pinned and pinned[k] not in position}
    for i, k in enumerate(keys):
        fixed[i] = position.get(pinned.get(k, ""), -1)
    return fixed, elsewhere


def _counts(strata: Strata, fixed: Integers, counted: NDArray[np.bool_], shares: tuple[int, ...], key: Key) -> Integers:
    """Return (cell, split) persons each split gets, fixed ones included."""
    cells, splits = len(strata.sizes), len(shares)
    sizes = np.bincount(strata.cell_of[counted], minlength=cells).astype(np.int64)
    held = np.zeros((cells, splits), dtype=np.int64)
    pinned = np.flatnonzero(fixed >= 0)
    np.add.at(held, (strata.cell_of[pinned], fixed[pinned]), 1)
    parts = math.lcm(*range(1, splits + 1)) if len(pinned) else 1
    if parts > 10_000:
        parts = 1  # more than ten splits: shares of fixed strata are then rounded to the common denominator
    scale, ratio = sum(shares) * parts, np.array(shares, dtype=np.int64) * parts
    exact = sizes[:, None] * ratio[None, :]
    reached = exact if not len(pinned) else reachable(exact, held * scale, scale)
    targets = np.zeros((len(strata.levels) + 1, splits), dtype=np.int64)
    for column in range(strata.levels_of.shape[1]):
        np.add.at(targets, strata.levels_of[:, column], exact)
    total = exact.sum(axis=0)
    bounds = (total // scale, -(-total // scale))
    if len(pinned):
        bounds = (np.zeros_like(total), np.full_like(total, len(fixed)))
    order = np.array([key.number("cell", str(i)) >> 1 for i in range(cells)], dtype=np.int64)
    return round_shares(
        Problem(reached, scale, strata.stratum_of, strata.levels_of, targets[:-1], total, bounds, order)
    )


def _deal(
    strata: Strata, fixed: Integers, counted: NDArray[np.bool_], counts: Integers, ranks: NDArray[np.uint64]
) -> Integers:
    """Return (person,) the split of each: fixed ones stay, newcomers of a cell are dealt in keyed order."""
    chosen = np.where(counted, fixed, -1)
    open_ = counts.copy()
    pinned = np.flatnonzero(fixed >= 0)
    np.subtract.at(open_, (strata.cell_of[pinned], fixed[pinned]), 1)
    newcomers = np.flatnonzero(counted & (fixed < 0))
    ordered = newcomers[np.lexsort((newcomers, ranks[newcomers], strata.cell_of[newcomers]))]
    cells, splits = counts.shape
    chosen[ordered] = np.repeat(np.tile(np.arange(splits), cells), open_.reshape(-1))
    return np.asarray(chosen)


def _balance(
    chosen: Integers, weights: Integers, cell_of: Integers, movable: NDArray[np.bool_], shares: tuple[int, ...]
) -> Integers:
    """Swap persons of one cell between splits where that brings the sums of ``weights`` nearer to the ratios.

    The pairs that differ most are tried first.
    """
    chosen = chosen.copy()
    scale, ratio = sum(shares), np.array(shares, dtype=object)
    dealt = chosen >= 0
    sums = [int(weights[dealt & (chosen == j)].sum()) for j in range(len(shares))]
    off = [scale * s - int(r) * sum(sums) for s, r in zip(sums, ratio, strict=True)]
    members = np.flatnonzero(movable)
    for _ in range(SWAP_ROUNDS):
        ordered = members[np.lexsort((members, weights[members], chosen[members], cell_of[members]))]
        pairs = _pairs_to_swap(ordered, chosen, cell_of, len(shares))
        gaps = np.abs(weights[pairs[:, 0]] - weights[pairs[:, 1]])
        swapped = False
        for first, second in pairs[np.argsort(-gaps, kind="stable")].tolist():
            a, b = int(chosen[first]), int(chosen[second])
            step = scale * int(weights[second] - weights[first])
            if a != b and (off[a] + step) ** 2 + (off[b] - step) ** 2 < off[a] ** 2 + off[b] ** 2:
                off[a], off[b] = off[a] + step, off[b] - step
                chosen[first], chosen[second] = b, a
                swapped = True
        if not swapped:
            break
    return chosen


def _pairs_to_swap(ordered: Integers, chosen: Integers, cell_of: Integers, splits: int) -> Integers:
    """Return (pair, 2) persons of one cell in different splits."""
    group = cell_of[ordered] * splits + chosen[ordered]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    ends = np.append(starts, len(group))[1:]
    span = {int(group[s]): (int(s), int(e)) for s, e in zip(starts, ends, strict=True)}
    found = [np.zeros((0, 2), dtype=np.int64)]
    for code, (start, end) in span.items():
        for other in range(code + 1, (code // splits + 1) * splits):
            if other in span:
                begin, stop = span[other]
                found += _meet(ordered[start:end], ordered[begin:stop])
    return np.concatenate(found)


def _meet(left: Integers, right: Integers) -> list[Integers]:
    """Pair two groups: every member of the larger once in the order of the smaller, and once against it."""
    small, large = (left, right) if len(left) <= len(right) else (right, left)
    partners = np.arange(len(large)) % len(small)
    return [np.stack([large, small[partners]], 1), np.stack([large, small[::-1][partners]], 1)]
