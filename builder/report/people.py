"""Reduce rows of samples or series to one row per person, and columns to levels."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from builder.model.classes import is_class, of_person

MISSING = "missing"
SEVERAL = "several"
"""Level of a person whose rows disagree (for example on two scanners or two sites)."""

MOST_VALUES = 10
"""A column of numbers with more distinct values is summarised by mean and median instead of by counts."""


@dataclass(frozen=True, eq=False)
class Levels:
    """A column as codes into level names in reading order (20-29 before 100-109); a level ``missing`` comes last."""

    codes: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Mask of the rows whose value is not missing."""
        return np.asarray([n != MISSING for n in self.names], dtype=bool)[self.codes]


def one_row_each(rows: pa.Table, columns: Sequence[str], *, key: str = "person_key") -> pa.Table:
    """Return one row per person (or per other ``key``), sorted by key.

    A cell holds the only value of its column, ``several`` if texts disagree, the smallest if numbers disagree, and null
    if no value is known. A class label has the value of ``builder.model.classes.of_person``.
    """
    codes, keys = _codes(rows[key])
    out: dict[str, pa.Array] = {key: pa.array(keys, pa.string())}
    for name in columns:
        if name not in rows.column_names or name == key:
            continue
        field = rows.schema.field(name)
        if is_class(field):
            out[name] = _classes_of(codes, len(keys), rows[name], field)
            continue
        values, distinct = _codes(rows[name])
        low = np.full(len(keys), len(distinct), dtype=np.int64)
        high = np.full(len(keys), -1, dtype=np.int64)
        present = (values >= 0) & (codes >= 0)
        np.minimum.at(low, codes[present], values[present])
        np.maximum.at(high, codes[present], values[present])
        numeric = is_number(rows.schema.field(name).type)
        cells = [
            None if h < 0 else distinct[low_] if low_ == h or numeric else SEVERAL
            for low_, h in zip(low.tolist(), high.tolist(), strict=True)
        ]
        if SEVERAL in cells:
            cells = [None if c is None else _text(c) for c in cells]
        out[name] = pa.array(cells) if cells else pa.array([], rows.schema.field(name).type)
    return pa.table(out)


def _classes_of(codes: NDArray[np.int64], count: int, column: pa.ChunkedArray, field: pa.Field) -> pa.Array:
    """Return the class label of every key, from the codes of the rows' keys."""
    found: list[list[Any]] = [[] for _ in range(count)]
    for code, value in zip(codes.tolist(), column.to_pylist(), strict=True):
        if code >= 0 and value is not None:
            found[code].append(value)
    return pa.array([of_person(values, field) for values in found], field.type)


def levels(column: pa.ChunkedArray | pa.Array) -> Levels:
    """Return the levels of a column; numbers with more than ten distinct values are divided at the median."""
    codes, distinct = _codes(column)
    if len(distinct) > MOST_VALUES and is_number(column.type):
        ordered = np.sort(codes[codes >= 0])
        middle = int(ordered[len(ordered) // 2])
        names = [f"below {_text(distinct[middle])}", f"{_text(distinct[middle])} and above"]
        codes = np.where(codes < 0, -1, (codes >= middle).astype(np.int64))
    else:
        order = sorted(range(len(distinct)), key=lambda i: reading_order(distinct[i]))
        codes = np.append(np.argsort(order), -1)[codes].astype(np.int64)
        names = [_text(distinct[i]) for i in order]
    if (codes < 0).any():
        names.append(MISSING)
        codes = np.where(codes < 0, len(names) - 1, codes)
    return Levels(codes, tuple(names))


def is_number(kind: pa.DataType) -> bool:
    """Return whether the Arrow type is an integer, float or decimal."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_measured(column: pa.ChunkedArray | pa.Array) -> bool:
    """Return whether the column holds numbers with more than ten distinct values."""
    return is_number(column.type) and pc.count_distinct(column.drop_null()).as_py() > MOST_VALUES


def numbers(column: pa.ChunkedArray | pa.Array) -> NDArray[np.float64]:
    """Return a column of numbers as float64, with NaN for null."""
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else None
    return np.asarray(column.cast(pa.float64()).to_numpy() if values is None else values, dtype=np.float64)


def _codes(column: pa.ChunkedArray | pa.Array) -> tuple[NDArray[np.int64], list[Any]]:
    """Return codes into the sorted distinct values (-1 for null and NaN), and those values."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_null(values.type):
        return np.full(len(values), -1, dtype=np.int64), []
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = pa.array(["+".join(sorted(map(str, v))) if v is not None else None for v in values.to_pylist()])
    encoded = values.dictionary_encode()
    raw = encoded.dictionary.to_pylist()
    known = [i for i, v in enumerate(raw) if not (isinstance(v, float) and math.isnan(v))]
    order = sorted(known, key=lambda i: raw[i])
    rank = np.full(len(raw) + 1, -1, dtype=np.int64)
    rank[np.array(order, dtype=np.int64)] = np.arange(len(order))
    indices = np.asarray(encoded.indices.fill_null(len(raw)).to_numpy(zero_copy_only=False), dtype=np.int64)
    return rank[indices], [raw[i] for i in order]


def reading_order(value: Any) -> tuple[Any, ...]:
    """Return a sort key that orders numbers within a text by size and puts ``several`` after all other texts."""
    if not isinstance(value, str):
        return (False, value)
    parts = re.split(r"([0-9]+)", value)
    return (value == SEVERAL, tuple(int(p) if i % 2 else p for i, p in enumerate(parts)), value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
