"""Persons set aside before the ratios apply, and folds for cross-validation."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from builder.errors import SpecError, counted
from builder.split.assignment import assign
from builder.split.options import HoldOut


def hold_out(persons: pa.Table, rules: Sequence[HoldOut], *, previous: pa.Table | None = None) -> pa.Table:
    """Return pin the persons that ``rules`` set aside, on top of those ``previous`` pins.

    Parameters
    ----------
    persons
        ``person_key`` and the rules' columns; a cell may be a list (all sites, all study dates of a person). The
        first rule that fits a person decides. Dates must be the true ones, before any shift.
    rules
        In order.
    previous
        ``person_key`` and ``split`` of earlier versions.

    Returns
    -------
    pyarrow.Table
        ``person_key`` and ``split``, sorted: what ``assign`` takes as ``previous``.

    Raises
    ------
    SpecError
        A column is missing, a rule fits nobody, or it asks for persons whom an earlier version put elsewhere: a
        model may have been trained on them, so they can no longer be held out.
    """
    pinned = {} if previous is None else _pairs(previous)
    held: dict[str, str] = {}
    for rule in rules:
        if rule.column not in persons.column_names:
            raise SpecError(
                f"splits.hold_out: found no column {rule.column!r}, expected one of {sorted(persons.column_names)}"
            )
        rows = zip(persons["person_key"].to_pylist(), persons[rule.column].to_pylist(), strict=True)
        fitting = [key for key, cell in rows if _fits(rule, cell)]
        if not fitting:
            raise SpecError(f"splits.hold_out: found nobody for {_words(rule)}, expected at least one person")
        for key in fitting:
            held.setdefault(key, rule.split)
    moved = sum(pinned.get(key, split) != split for key, split in held.items())
    if moved:
        raise SpecError(
            f"splits.hold_out: found {counted(moved, 'person')} to hold out whom an earlier version put into "
            "another split, "
            "expected none: a person never moves. Hold out other persons, or deal everybody anew with "
            "splits: {fresh: true}"
        )
    return _table({**pinned, **held})


def folds(persons: pa.Table, k: int, *, strata: Sequence[str], seed: int, repeats: int = 1) -> pa.Table:
    """Stratified k-fold cross-validation, repeated: every person in exactly one fold of each repeat.

    Returns
    -------
    pyarrow.Table
        ``person_key``, ``repeat`` and ``fold`` (both from 0), ``stratum``, ``pooled``.

    Raises
    ------
    SpecError
        ``k`` is below 2 or exceeds the number of persons.
    """
    if not 2 <= k <= max(2, min(32, persons.num_rows)) or repeats < 1:
        raise SpecError(
            f"folds: found k={k} and repeats={repeats} for {counted(persons.num_rows, 'person')}, "
            "expected 2 <= k <= 32, no more folds than persons, and repeats >= 1"
        )
    ratios = {str(fold): 1 / k for fold in range(k)}
    parts = []
    for repeat in range(repeats):
        # Distinct seeds a repeat; the stride keeps neighbouring seeds of the spec apart.
        dealt = assign(persons, ratios=ratios, strata=strata, seed=seed + repeat * 1_000_003)
        fold = pa.array([int(f) for f in dealt["split"].to_pylist()], pa.int32())
        parts.append(
            pa.table(
                {
                    "person_key": dealt["person_key"],
                    "repeat": pa.array([repeat] * dealt.num_rows, pa.int32()),
                    "fold": fold,
                    "stratum": dealt["stratum"],
                    "pooled": dealt["pooled"],
                }
            )
        )
    return pa.concat_tables(parts).combine_chunks()


def leave_one_out(persons: pa.Table, column: str) -> pa.Table:
    """Make one fold for each value of ``column`` (site, vendor, collection), tested on the persons with this value.

    A person of several values (a list) is tested in each of their folds, and so trains in none of them.

    Returns
    -------
    pyarrow.Table
        ``person_key`` and ``fold`` (the value), sorted; in fold *v* everybody listed under *v* tests, all others train.
    """
    if column not in persons.column_names:
        raise SpecError(f"leave_one_out: found no column {column!r}, expected one of {sorted(persons.column_names)}")
    rows = zip(persons["person_key"].to_pylist(), persons[column].to_pylist(), strict=True)
    pairs = sorted({(str(value), key) for key, cell in rows for value in _values(cell) if value is not None})
    if len({value for value, _ in pairs}) < 2:
        raise SpecError(f"leave_one_out: found fewer than two values in {column!r}, expected at least two")
    return pa.table(
        {
            "person_key": pa.array([key for _, key in pairs], pa.string()),
            "fold": pa.array([value for value, _ in pairs], pa.string()),
        }
    )


def _fits(rule: HoldOut, cell: Any) -> bool:
    found = [v for v in _values(cell) if v is not None]
    if rule.since is None:
        wanted = {(type(v) is bool, v) for v in rule.values}
        return any((type(v) is bool, v) in wanted for v in found)
    return any(_not_before(v, rule) for v in found)


def _not_before(value: Any, rule: HoldOut) -> bool:
    """Return whether a date or number is at or after the cut; anything else is a fault of the spec."""
    since = rule.since
    if isinstance(since, date):
        if isinstance(value, datetime):
            return value.date() >= since
        if isinstance(value, date):
            return value >= since
    elif isinstance(since, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return value >= since
    raise SpecError(f"splits.hold_out: found {type(value).__name__} cells in {rule.column!r} for {_words(rule)}")


def _values(cell: Any) -> list[Any]:
    return list(cell) if isinstance(cell, list | tuple) else [cell]


def _words(rule: HoldOut) -> str:
    what = f"since {rule.since}" if rule.since is not None else f"in {list(rule.values)}"
    return f"{rule.column} {what}"


def _pairs(table: pa.Table) -> Mapping[str, str]:
    return dict(zip(table["person_key"].to_pylist(), table["split"].to_pylist(), strict=True))


def _table(pinned: Mapping[str, str]) -> pa.Table:
    keys = sorted(pinned)
    return pa.table(
        {"person_key": pa.array(keys, pa.string()), "split": pa.array([pinned[k] for k in keys], pa.string())}
    )
