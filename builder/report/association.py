"""Measure how strongly a label depends on a group (vendor, site, sex) or on missing values, without any model."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.model.canonical import Json
from builder.report.people import MISSING, Levels, levels

PERMUTATIONS = 2000
"""Random tables with the same margins behind each p-value; the smallest possible p is 1 / 2001."""

LOOK_Q, LOOK_V = 0.05, 0.1
"""An association is worth a look below this q and from this V. With many persons, even a tiny one has a small q."""

MOST_LEVELS = 200
"""A column with more levels is left out: it identifies things rather than groups them."""


def associations(persons: pa.Table, labels: Sequence[str], groups: Sequence[str], *, seed: int) -> list[Json]:
    """Return the association of every label with every group, strongest first.

    Each entry has ``cramers_v`` (bias-corrected), ``theils_u`` (share of the label's entropy that the group explains),
    ``p`` (permutation test of chi-square with both margins fixed) and ``q`` (Benjamini-Hochberg over all entries).
    Persons without the label or the group are left out and counted.
    """
    pairs = [(label, group) for label in labels for group in groups if label != group]
    return _tested(persons, pairs, seed=seed)


def missingness(persons: pa.Table, labels: Sequence[str], columns: Sequence[str], *, seed: int) -> list[Json]:
    """Return the association of every label with whether another column is missing, as ``associations`` does.

    Missing labels are also compared with the levels of the columns; ``label`` is then ``<label> missing``.
    """
    flags = {f"{c} missing": pa.array(persons[c].is_null().to_pylist()) for c in dict.fromkeys([*labels, *columns])
             if c in persons.column_names and 0 < persons[c].null_count < persons.num_rows}  # fmt: skip
    table = persons.select([c for c in dict.fromkeys([*labels, *columns]) if c in persons.column_names])
    for name, flag in flags.items():
        table = table.append_column(name, flag)
    pairs = [(label, f"{c} missing") for label in labels for c in columns if label != c and f"{c} missing" in flags]
    absent = [label for label in labels if f"{label} missing" in flags]
    pairs += [(f"{label} missing", c) for label in absent for c in columns if label != c]
    return _tested(table, pairs, seed=seed)


def is_worth_a_look(row: Json) -> bool:
    """Return whether an entry of ``associations`` or ``missingness`` is strong and unlikely to be chance."""
    return bool(row["q"] < LOOK_Q and row["cramers_v"] >= LOOK_V)


def cramers_v(table: NDArray[np.int64]) -> float:
    """Return Cramer's V with Bergsma's correction (2013, doi:10.1016/j.jkss.2012.10.002); 0 for one row or column."""
    table = _without_empty_lines(table)
    if min(table.shape) < 2:
        return 0.0
    return corrected_v(chi_square(table), int(table.sum()), table.shape)


def corrected_v(statistic: float, n: int, shape: tuple[int, ...]) -> float:
    """Return Cramer's V from chi-square, the number of persons, and how many rows and columns hold somebody."""
    rows, columns = shape
    if min(rows, columns) < 2 or n < 2:
        return 0.0
    phi2 = max(0.0, statistic / n - (rows - 1) * (columns - 1) / (n - 1))
    rows_ = rows - (rows - 1) ** 2 / (n - 1)
    columns_ = columns - (columns - 1) ** 2 / (n - 1)
    smaller = min(rows_, columns_) - 1
    return float(min(1.0, np.sqrt(phi2 / smaller))) if smaller > 0 else 0.0


def theils_u(table: NDArray[np.int64]) -> float:
    """Return the uncertainty coefficient: the share (0 to 1) of the entropy of the rows that the columns explain."""
    rows = _entropy(table.sum(axis=1))
    if rows == 0:
        return 0.0
    n = table.sum()
    conditional = sum(float(c.sum() / n) * _entropy(c) for c in table.T if c.sum())
    return float(max(0.0, (rows - conditional) / rows))


def chi_square(table: NDArray[np.int64]) -> float:
    """Return Pearson's chi-square statistic without continuity correction."""
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float((((table - expected) ** 2)[expected > 0] / expected[expected > 0]).sum())


def permutation_p(table: NDArray[np.int64], *, seed: int, name: str) -> float:
    """Return the share of random tables with these margins whose chi-square is at least as large, (1 + k) / (1 + n).

    The tables are drawn by Patefield's algorithm from a generator keyed by ``seed`` and ``name``.
    """
    from scipy import stats

    table = _without_empty_lines(table)
    if min(table.shape) < 2:
        return 1.0
    key = hashlib.sha256(f"permutations {seed} {name}".encode()).digest()
    draw = stats.random_table(table.sum(axis=1), table.sum(axis=0))
    tables = draw.rvs(PERMUTATIONS, random_state=np.random.Generator(np.random.PCG64(int.from_bytes(key, "big"))))
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistics = ((tables - expected) ** 2 / expected).sum(axis=(1, 2))
    # The tolerance makes tables that differ only by rounding count as equally extreme.
    extreme = int((statistics >= chi_square(table) * (1 - 1e-9)).sum())
    return (1 + extreme) / (1 + PERMUTATIONS)


def _tested(persons: pa.Table, pairs: Sequence[tuple[str, str]], *, seed: int) -> list[Json]:
    coded: dict[str, Levels] = {}
    entries = []
    for label, group in pairs:
        for name in (label, group):
            if name in persons.column_names and name not in coded:
                coded[name] = levels(persons[name])
        if label not in coded or group not in coded:
            continue
        rows, columns = coded[label], coded[group]
        if max(len(rows.names), len(columns.names)) > MOST_LEVELS:
            continue
        both = rows.known & columns.known
        table = _crossed(rows, columns, both)
        if min(_without_empty_lines(table).shape, default=0) < 2:
            continue
        entries.append(
            {
                "label": label,
                "group": group,
                "persons": int(both.sum()),
                "left_out": int((~both).sum()),
                "cramers_v": cramers_v(table),
                "theils_u": theils_u(table),
                "p": permutation_p(table, seed=seed, name=f"{label}|{group}"),
            }
        )
    if entries:
        from scipy import stats

        adjusted = stats.false_discovery_control([e["p"] for e in entries], method="bh")
        entries = [{**e, "q": float(q)} for e, q in zip(entries, adjusted, strict=True)]
    return sorted(entries, key=lambda e: (-e["cramers_v"], e["label"], e["group"]))


def _crossed(rows: Levels, columns: Levels, who: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the table of counts of the known levels."""
    shape = (len(rows.names), len(columns.names))
    flat = np.bincount(rows.codes[who] * shape[1] + columns.codes[who], minlength=shape[0] * shape[1])
    table = flat.reshape(shape).astype(np.int64)
    return table[[n != MISSING for n in rows.names]][:, [n != MISSING for n in columns.names]]


def _without_empty_lines(table: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0])


def _entropy(counts: NDArray[np.int64]) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())
