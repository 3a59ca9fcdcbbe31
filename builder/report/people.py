"""From rows of samples or series to one row a person, and from columns to levels."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MISSING = "missing"
SEVERAL = "several"
"""Level of a person whose rows disagree (two scanners, two sites)."""

MOST_VALUES = 10
"""A column of numbers with more distinct values is summarised by mean and median instead of counts."""


@dataclass(frozen=True, eq=False)
class Levels:
    """A column as codes into level names in reading order (20-29 before 100-109); ``missing`` is one and comes last."""

    codes: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Where the value is not missing."""
        return np.asarray([n != MISSING for n in self.names], dtype=bool)[self.codes]


def one_row_each(rows: pa.Table, columns: Sequence[str], *, key: str = "person_key") -> pa.Table:
    """One row a person (or other ``key``), sorted: a column's only value, ``several`` for disagreeing texts, the
    smallest of disagreeing numbers, null where none is known."""
    codes, keys = _codes(rows[key])
    out: dict[str, pa.Array] = {key: pa.array(keys, pa.string())}
    for name in columns:
        if name not in rows.column_names or name == key:
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


def levels(column: pa.ChunkedArray | pa.Array) -> Levels:
    """Levels of a column: texts and booleans as they are, numbers of more than ten values above or below the median."""
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
    """Whether the Arrow type is an integer, float or decimal."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_measured(column: pa.ChunkedArray | pa.Array) -> bool:
    """Whether the column holds numbers of more than ten distinct values."""
    return is_number(column.type) and pc.count_distinct(column.drop_null()).as_py() > MOST_VALUES


def numbers(column: pa.ChunkedArray | pa.Array) -> NDArray[np.float64]:
    """A column of numbers as float64, NaN for null."""
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else None
    return np.asarray(column.cast(pa.float64()).to_numpy() if values is None else values, dtype=np.float64)


def _codes(column: pa.ChunkedArray | pa.Array) -> tuple[NDArray[np.int64], list[Any]]:
    """Codes (-1 for null and NaN) into the sorted distinct values."""
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
    """Sort key: numbers in a text by their size, disagreeing persons after the others."""
    if not isinstance(value, str):
        return (False, value)
    parts = re.split(r"([0-9]+)", value)
    return (value == SEVERAL, tuple(int(p) if i % 2 else p for i, p in enumerate(parts)), value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
