"""Compute Table 1 by split, intersections of groups and representativeness, with intervals and differences."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.model.canonical import Json
from builder.report.masking import masked_cells
from builder.report.people import Levels, is_measured, levels, numbers

CONFIDENCE = 0.95

MOST_INTERSECTIONS = 400
"""Most cells in an intersection of two groups; a larger table would be unreadable and is left out."""


def table_one(persons: pa.Table, columns: Sequence[str], *, splits: Sequence[str], mask_below: int = 0) -> list[Json]:
    """Return one entry per column: counts, shares and Wilson intervals per level and split, or moments of numbers.

    Parameters
    ----------
    persons
        One row per person with ``split`` and the columns.
    splits
        The splits in display order.

    Notes
    -----
    ``difference`` is the largest standardised difference between two splits: Cohen's d for numbers, its multinomial
    form for levels (Yang & Dalton 2012), where "missing" is a level. Above 0.1 is commonly called unbalanced (Austin
    2009, doi:10.1002/sim.3697). It is left out where cells are masked, because it could reveal them.
    """
    split_of = np.array(persons["split"].to_pylist(), dtype=object)
    members = {s: split_of == s for s in splits}
    entries = []
    for name in columns:
        if name not in persons.column_names:
            continue
        if is_measured(persons[name]):
            entries.append(_measured(name, numbers(persons[name]), members, mask_below))
        else:
            entries.append(_counted(name, levels(persons[name]), members, mask_below))
    return entries


def wilson(count: float, total: int) -> tuple[float, float] | None:
    """Return the 95 % Wilson score interval (Wilson 1927); ``count`` may be an expected count. None if total is 0."""
    if total == 0:
        return None
    # Written out because loading scipy takes longer than reporting on a small dataset.
    z, share = NormalDist().inv_cdf(0.5 + 0.5 * CONFIDENCE), count / total
    scale = 2 * (total + z**2)
    centre = (2 * total * share + z**2) / scale
    reach = z / scale * math.sqrt(4 * total * share * (1 - share) + z**2)
    return (0.0 if count == 0 else centre - reach, 1.0 if count == total else centre + reach)


def standardised_difference(first: NDArray[np.int64], second: NDArray[np.int64]) -> float | None:
    """Return the multinomial standardised difference of two count rows (Yang & Dalton 2012); None if one is empty."""
    if not first.sum() or not second.sum():
        return None
    p, q = first / first.sum(), second / second.sum()
    gap = (p - q)[1:]  # the shares sum to one, so one level is redundant
    covariance = (_covariance(p) + _covariance(q)) / 2
    if not np.any(gap):
        return 0.0
    square = float(gap @ np.linalg.pinv(covariance, rcond=1e-10) @ gap)
    # Splits that share no level have no spread to divide by, so their difference is unbounded. The result is rounded
    # because the last digits of a pseudo-inverse depend on the number of threads.
    return None if not np.any(covariance) else round(float(np.sqrt(max(0.0, square))), 9)


ROUNDING = 1e-9
"""A spread below this share of the largest value is only rounding error between equal values."""


def difference_of_means(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Return Cohen's d with the mean of both variances; None for fewer than two values or no spread beyond rounding."""
    if len(first) < 2 or len(second) < 2:
        return None
    spread = float(np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2))
    rounding = ROUNDING * max(float(np.abs(first).max()), float(np.abs(second).max()))
    return abs(float(first.mean() - second.mean())) / spread if spread > rounding else None


def intersections(persons: pa.Table, columns: Sequence[str], *, split: str, mask_below: int = 0) -> list[Json]:
    """Count the persons in every combination of levels of every pair of columns, in all splits and in ``split``.

    Combinations without any person are listed too, since they are groups on which a model is never tested. Columns
    with a single level are left out.
    """
    tested = np.array(persons["split"].to_pylist(), dtype=object) == split
    coded = {c: levels(persons[c]) for c in columns if c in persons.column_names and not is_measured(persons[c])}
    entries = []
    for first, second in combinations(coded, 2):
        one, two = coded[first], coded[second]
        if min(len(one.names), len(two.names)) < 2 or len(one.names) * len(two.names) > MOST_INTERSECTIONS:
            continue
        shape = (len(one.names), len(two.names))
        everyone, in_test = (_crossed(one, two, shape, who) for who in (np.ones_like(tested), tested))
        hidden = masked_cells(everyone, mask_below)
        hidden_test = masked_cells(in_test, mask_below) | hidden
        cells = [
            {
                "levels": [one.names[i], two.names[j]],
                "persons": None if hidden[i, j] else int(everyone[i, j]),
                "tested": None if hidden_test[i, j] else int(in_test[i, j]),
            }
            for i, j in product(range(shape[0]), range(shape[1]))
        ]
        names = [list(one.names), list(two.names)]
        entries.append({"columns": [first, second], "levels": names, "split": split, "cells": cells})
    return entries


def representativeness(
    persons: pa.Table, reference: Mapping[str, Mapping[str, float]], *, mask_below: int = 0
) -> list[Json]:
    """Compare the shares of the dataset with those of a reference population (column to level to share).

    Each entry has the exact shares, Wilson intervals, and the chi-square goodness of fit of the known values.
    """
    entries = []
    for column, shares in reference.items():
        if column not in persons.column_names:
            continue
        coded = levels(persons[column])
        counts = np.bincount(coded.codes, minlength=len(coded.names))
        found = dict(zip(coded.names, counts.tolist(), strict=True))
        names = sorted(shares)
        known = np.array([found.get(n, 0) for n in names], dtype=np.int64)
        hidden = masked_cells(known[:, None], mask_below)[:, 0]
        scale = sum(shares.values())
        expected = np.array([shares[n] / scale for n in names]) * known.sum()
        fits = _fit(known, expected) if known.sum() and (expected > 0).all() else None
        rows = [
            {"level": n, "reference": shares[n] / scale, **proportion(int(k), int(known.sum()), hidden=bool(h))}
            for n, k, h in zip(names, known, hidden, strict=True)
        ]
        entries.append(
            {
                "column": column,
                "levels": rows,
                "not_in_reference": sorted(set(coded.names) - set(names)),
                "p": None if fits is None or hidden.any() else float(fits.pvalue),
            }
        )
    return entries


def proportion(count: int, total: int, *, hidden: bool = False) -> Json:
    """Return a count with its share and interval; all are null if the count is masked."""
    if hidden:
        return {"count": None, "share": None, "low": None, "high": None}
    interval = wilson(count, total)
    return {
        "count": count,
        "share": count / total if total else None,
        "low": interval[0] if interval else None,
        "high": interval[1] if interval else None,
    }


def _counted(name: str, coded: Levels, members: Mapping[str, NDArray[np.bool_]], mask_below: int) -> Json:
    rows = np.stack([np.bincount(coded.codes[m], minlength=len(coded.names)) for m in members.values()], axis=1)
    rows = np.concatenate([rows, rows.sum(axis=1, keepdims=True)], axis=1).astype(np.int64)
    hidden = masked_cells(rows, mask_below)
    totals = rows.sum(axis=0)
    columns = [*members, "all"]
    table = [
        {
            "level": level,
            "cells": {
                c: proportion(int(rows[i, j]), int(totals[j]), hidden=bool(hidden[i, j])) for j, c in enumerate(columns)
            },
        }
        for i, level in enumerate(coded.names)
    ]
    gaps = [standardised_difference(rows[:, a], rows[:, b]) for a, b in combinations(range(len(members)), 2)]
    worst = max((g for g in gaps if g is not None), default=None)
    return {"column": name, "kind": "levels", "levels": table, "difference": None if hidden.any() else worst}


def _measured(
    name: str, values: NDArray[np.float64], members: Mapping[str, NDArray[np.bool_]], mask_below: int
) -> Json:
    groups = {s: values[m] for s, m in members.items()}
    groups["all"] = np.concatenate(list(groups.values())) if groups else values
    table = {s: moments(g, mask_below) for s, g in groups.items()}
    known = [g[~np.isnan(g)] for s, g in groups.items() if s != "all"]
    gaps = [difference_of_means(a, b) for a, b in combinations(known, 2)]
    worst = max((g for g in gaps if g is not None), default=None)
    return {"column": name, "kind": "numbers", "splits": table, "difference": worst}


def moments(values: NDArray[np.float64], mask_below: int) -> Json:
    """Return count, missing, mean, standard deviation and quartiles; extremes would show single persons."""
    known = values[~np.isnan(values)]
    entry: dict[str, Json] = {"count": len(known), "missing": len(values) - len(known)}
    if len(known) < max(2, mask_below):
        return {**entry, "mean": None, "sd": None, "q1": None, "median": None, "q3": None}
    q1, median, q3 = (float(q) for q in np.quantile(known, [0.25, 0.5, 0.75]))
    return {**entry, "mean": float(known.mean()), "sd": float(known.std(ddof=1)), "q1": q1, "median": median, "q3": q3}


def _fit(known: NDArray[np.int64], expected: NDArray[np.float64]) -> Any:
    from scipy import stats

    return stats.chisquare(known, expected)


def _crossed(one: Levels, two: Levels, shape: tuple[int, int], who: NDArray[np.bool_]) -> NDArray[np.int64]:
    flat = one.codes[who] * shape[1] + two.codes[who]
    return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int64)


def _covariance(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.diag(p[1:]) - np.outer(p[1:], p[1:]))
