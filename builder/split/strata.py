"""What a stratified split keeps balanced: the cells, strata and one-way levels of a table of persons.

A *cell* is one combination of values of all strata columns. A *stratum* is a cell, or a named pool of rare cells. A
*level* is one value of one column; a person of a multi-label column is on several levels of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MISSING = "missing"
"""The level of a null (and of NaN)."""

NONE_OF_THEM = "none"
"""The level of an empty list in a multi-label column."""

MOST_VALUES = 10
"""A column of numbers with more distinct values than this is cut at its quartiles."""

BINS = 4


@dataclass(frozen=True, eq=False)
class Strata:
    """Persons sorted into cells, cells into strata, and the levels each cell lies on.

    Parameters
    ----------
    cell_of
        (person,) the cell of each person.
    sizes
        (cell,) persons in each.
    stratum_of
        (cell,) the stratum each cell belongs to.
    names
        One name a stratum, e.g. ``sex=F; grade=High`` or, pooled, ``sex=F; grade=* (pooled)``.
    pooled
        Whether the stratum is a pool of rare cells.
    levels_of
        (cell, width) the levels of each cell, padded with ``len(levels)``.
    levels
        (column, value) of every level.
    """

    cell_of: NDArray[np.int64]
    sizes: NDArray[np.int64]
    stratum_of: NDArray[np.int64]
    names: tuple[str, ...]
    pooled: tuple[bool, ...]
    levels_of: NDArray[np.int64]
    levels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class Coded:
    """One column as codes of its distinct values, sorted by name; ``parts`` are the levels a value lies on."""

    codes: NDArray[np.int64]
    names: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]


def stratify(persons: pa.Table, columns: Sequence[str], *, smallest: int) -> Strata:
    """Sort persons into cells by ``columns``, and pool the cells of fewer than ``smallest`` persons.

    Pooling gives up columns from the last to the first: rare cells that agree in all columns but the last are pooled
    when together they hold ``smallest`` persons, the rest are tried without the last two columns, and so on; what is
    left forms one pool. List columns in order of importance. The pool is kept balanced as one stratum, and every
    level its persons lie on is kept balanced as well.
    """
    coded = [encode(persons[name]) for name in columns]
    cell_of, combinations = _cells(coded, persons.num_rows)
    sizes = np.bincount(cell_of, minlength=len(combinations)).astype(np.int64)
    stratum_of, names, pooled = _pool(columns, coded, combinations, sizes, smallest)
    levels_of, levels = _levels(columns, coded, combinations)
    return Strata(cell_of, sizes, stratum_of, names, pooled, levels_of, levels)


def encode(column: pa.ChunkedArray | pa.Array) -> Coded:
    """Return the distinct values of a column as sorted names and codes.

    Strings, booleans and few-valued numbers are their own level; numbers of more than ten distinct values are cut at
    their quartiles; a list is the set of its entries.
    """
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return _encode_lists(values.to_pylist())
    unique = values.dictionary_encode()
    indices = np.asarray(unique.indices.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64)
    distinct = unique.dictionary.to_pylist()
    if pa.types.is_floating(values.type) or pa.types.is_integer(values.type) or pa.types.is_decimal(values.type):
        return _encode_numbers(indices, [None if _is_nan(v) else v for v in distinct])
    return _sorted(indices, [_text(v) for v in distinct], [(_text(v),) for v in distinct])


def _encode_lists(rows: list[Any]) -> Coded:
    sets = [None if row is None else tuple(sorted({_text(v) for v in row})) for row in rows]
    distinct = sorted({s for s in sets if s is not None})
    position = {s: i for i, s in enumerate(distinct)}
    indices = np.array([-1 if s is None else position[s] for s in sets], dtype=np.int64)
    names = ["+".join(s) or NONE_OF_THEM for s in distinct]
    return _sorted(indices, names, [s or (NONE_OF_THEM,) for s in distinct])


def _encode_numbers(indices: NDArray[np.int64], distinct: list[Any]) -> Coded:
    """Keep few values as they are; cut many at their quartiles, which as order statistics are values of the data."""
    known = sorted({v for v in distinct if v is not None})
    if len(known) <= MOST_VALUES:
        names = [_text(v) for v in distinct]
        return _sorted(indices, names, [(n,) for n in names])
    of = {i: v for i, v in enumerate(distinct) if v is not None}
    ordered = sorted(of[i] for i in indices.tolist() if i in of)
    cuts = sorted({ordered[(len(ordered) * q) // BINS] for q in range(1, BINS)})
    labels = [f"below {cuts[0]:g}", *(f"{a:g} to {b:g}" for a, b in pairwise(cuts))]
    labels.append(f"{cuts[-1]:g} and above")
    names = [MISSING if v is None else labels[sum(c <= v for c in cuts)] for v in distinct]
    return _sorted(indices, names, [(n,) for n in names])


def _sorted(indices: NDArray[np.int64], names: list[str], parts: list[tuple[str, ...]]) -> Coded:
    """Return codes whose order is that of the names, so that no order of arrival shows; -1 is missing."""
    by_name = dict(zip(names, parts, strict=True))
    if (indices < 0).any():
        by_name[MISSING] = (MISSING,)
    order = {name: i for i, name in enumerate(sorted(by_name))}
    table = np.array([order[n] for n in names] + [order.get(MISSING, -1)], dtype=np.int64)
    return Coded(table[indices], tuple(order), tuple(by_name[n] for n in order))


def _text(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _cells(coded: list[Coded], persons: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the cell of each person, and (cell, column) the code of each cell in each column, in sorted order."""
    if not coded or not persons:
        return np.zeros(persons, dtype=np.int64), np.zeros((min(persons, 1), len(coded)), dtype=np.int64)
    codes = np.stack([c.codes for c in coded], axis=1)
    combinations, cell_of = np.unique(codes, axis=0, return_inverse=True)
    return cell_of.reshape(-1).astype(np.int64), combinations


def _pool(
    columns: Sequence[str], coded: list[Coded], combinations: NDArray[np.int64], sizes: NDArray[np.int64], smallest: int
) -> tuple[NDArray[np.int64], tuple[str, ...], tuple[bool, ...]]:
    """Return stratum of each cell, and name and kind of each stratum."""

    def name(cell: int, kept: int) -> str:
        parts = [f"{c}={coded[i].names[combinations[cell, i]] if i < kept else '*'}" for i, c in enumerate(columns)]
        return "; ".join(parts) or "everyone"

    stratum_of = np.full(len(combinations), -1, dtype=np.int64)
    names: list[str] = []
    pooled: list[bool] = []
    rare = [int(c) for c in np.flatnonzero(sizes < smallest)] if columns else []
    for cell in sorted(set(range(len(combinations))) - set(rare)):
        stratum_of[cell] = len(names)
        names.append(name(cell, len(columns)))
        pooled.append(False)
    for kept in range(len(columns) - 1, -1, -1):
        groups: dict[tuple[int, ...], list[int]] = {}
        for cell in rare:
            groups.setdefault(tuple(combinations[cell, :kept].tolist()), []).append(cell)
        for cells in groups.values():
            if sizes[cells].sum() >= smallest or kept == 0:
                stratum_of[cells] = len(names)
                names.append(f"{name(cells[0], kept)} (pooled)")
                pooled.append(True)
        rare = [c for c in rare if stratum_of[c] < 0]
    return stratum_of, tuple(names), tuple(pooled)


def _levels(
    columns: Sequence[str], coded: list[Coded], combinations: NDArray[np.int64]
) -> tuple[NDArray[np.int64], tuple[tuple[str, str], ...]]:
    """Return (cell, width) levels of each cell, padded, and the levels."""
    levels = sorted({(c, part) for c, code in zip(columns, coded, strict=True) for p in code.parts for part in p})
    position = {level: i for i, level in enumerate(levels)}
    tables = []
    for column, code in zip(columns, coded, strict=True):
        width = max(map(len, code.parts), default=0)
        table = np.full((len(code.parts), width), len(levels), dtype=np.int64)
        for i, parts in enumerate(code.parts):
            table[i, : len(parts)] = [position[column, part] for part in parts]
        tables.append(table)
    rows = [table[combinations[:, i]] for i, table in enumerate(tables)]
    return np.concatenate([np.zeros((len(combinations), 0), dtype=np.int64), *rows], axis=1), tuple(levels)
