"""Measure how close the splits came to their ratios, and how close whole persons would have allowed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from builder.model.canonical import Json
from builder.report.people import levels

MOST_ROWS = 200


def balance(splits: pa.Table, *, ratios: Mapping[str, float], columns: Sequence[str]) -> Json:
    """Return how far every split, stratum and one-way level is from its share, in persons and in percentage points.

    Persons in splits that ``ratios`` does not name (hold-outs) count towards no share. ``bound_persons`` is the
    deviation that rounding to whole persons makes unavoidable for a level on its own (see ``rounding_bound``).

    Returns
    -------
    dict
        ``overall``; ``strata`` (their number, the pooled ones, the worst deviation, and how many are off by one person
        or more); ``levels`` (the 200 worst, worst first); ``held_out`` (persons per split).
    """
    names = list(ratios)
    split_of = levels(splits["split"])
    position = {n: i for i, n in enumerate(names)}
    of = np.array([position.get(n, -1) for n in split_of.names], dtype=np.int64)[split_of.codes]
    dealt = of >= 0
    share = np.array([ratios[n] for n in names])
    held = np.bincount(split_of.codes[~dealt], minlength=len(split_of.names))
    strata = _rows(splits["stratum"], of, dealt, share)
    level_rows = [
        {"column": c, **row} for c in columns if c in splits.column_names for row in _rows(splits[c], of, dealt, share)
    ]
    worst = sorted(level_rows, key=lambda r: (-r["off_persons"], r["column"], r["level"]))
    pooled = splits.filter(splits["pooled"])["stratum"].unique().to_pylist()
    return {
        "overall": _row("all", np.bincount(of[dealt], minlength=len(names)), share, names),
        "strata": {
            "number": len(strata),
            "pooled": sorted(pooled),
            "worst_persons": max((r["off_persons"] for r in strata), default=0.0),
            "one_person_or_more": sum(r["off_persons"] >= 1 for r in strata),
        },
        "levels": worst[:MOST_ROWS],
        "worst_level_persons": max((r["off_persons"] for r in level_rows), default=0.0),
        "two_persons_or_more": sum(r["off_persons"] >= 2 for r in level_rows),
        "held_out": {n: int(c) for n, c in zip(split_of.names, held, strict=True) if c},
    }


def rounding_bound(persons: int, ratios: Sequence[float]) -> float:
    """Return the smallest achievable maximum deviation when ``persons`` whole persons are divided by ``ratios``.

    The optimum rounds up the splits with the largest fractions: any other choice rounds a larger fraction down or a
    smaller one up, and so deviates at least as much.
    """
    exact = np.asarray(ratios) * persons
    fractions = np.sort(exact - np.floor(exact + 1e-9))[::-1].clip(0)
    ups = round(float(fractions.sum()))
    return float(max(np.concatenate([1 - fractions[:ups], fractions[ups:]]), default=0.0))


def _rows(column: pa.ChunkedArray, of: Any, dealt: Any, share: Any) -> list[Json]:
    """Return one row per level; in a list column, every entry is a level."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return _list_rows(column, of, dealt, share)
    coded = levels(column)
    counts = np.zeros((len(coded.names), len(share)), dtype=np.int64)
    np.add.at(counts, (coded.codes[dealt], of[dealt]), 1)
    return [_row(n, c, share) for n, c in zip(coded.names, counts, strict=True) if c.sum()]


def _list_rows(column: pa.ChunkedArray, of: Any, dealt: Any, share: Any) -> list[Json]:
    found: dict[str, Any] = {}
    for values, split, counts in zip(column.to_pylist(), of.tolist(), dealt.tolist(), strict=True):
        for value in set(map(str, values or ())) if counts else ():
            found.setdefault(value, np.zeros(len(share), dtype=np.int64))[split] += 1
    return [_row(name, counts, share) for name, counts in sorted(found.items())]


def _row(level: str, counts: Any, share: Any, names: Sequence[str] = ()) -> Json:
    total = int(counts.sum())
    off = float(np.abs(counts - total * share).max()) if total else 0.0
    row: dict[str, Json] = {
        "level": level,
        "persons": total,
        "off_persons": round(off, 9),
        "off_points": round(100 * off / total, 9) if total else 0.0,
        "bound_persons": round(rounding_bound(total, share.tolist()), 9),
    }
    if names:
        row["counts"] = dict(zip(names, counts.tolist(), strict=True))
    return row
