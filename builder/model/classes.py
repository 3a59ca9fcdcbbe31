"""Columns of class labels: their names, the levels that become numbers in a tensor, and the value of a person."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

PREFIX = "label."
LEVELS = b"levels"
"""Key of a field's metadata under which its levels are stated as a JSON list, in the order of their numbers."""

MISSING = -1
"""Number of a class that is not known."""


def class_field(label: str, finding: str, kind: pa.DataType, levels: Sequence[str] = ()) -> pa.Field:
    """Return the column of a finding: ``label.<label>.<finding>``, or ``label.<label>`` where both have one name."""
    return pa.field(class_name(label, finding), kind, metadata={LEVELS: json.dumps([*levels]).encode()})


def class_name(label: str, finding: str) -> str:
    """Return the name of the column of a finding."""
    return f"{PREFIX}{label}" if finding == label else f"{PREFIX}{label}.{finding}"


def is_class(field: pa.Field) -> bool:
    """Return whether a column holds a class label."""
    return LEVELS in (field.metadata or {})


def levels_of(field: pa.Field) -> tuple[str, ...]:
    """Return the levels of a column of class labels, lowest first; none for numbers and booleans."""
    return tuple(json.loads((field.metadata or {}).get(LEVELS, b"[]")))


def with_fields(table: pa.Table, fields: Mapping[str, pa.Field]) -> pa.Table:
    """Return the table with what these fields state of its columns, which joins of tables lose."""
    for place, name in enumerate(table.column_names):
        if name in fields:
            table = table.set_column(place, fields[name], table.column(place))
    return table


def of_person(values: Sequence[Any], field: pa.Field) -> Any:
    """Return one value for a person with several images; null if nothing is known.

    It is true if any boolean is, the highest number, ``positive`` or else ``uncertain`` where a label has these levels,
    and of other levels the one that is listed last.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    levels = levels_of(field)
    order = ("absent", "negative", "uncertain", "positive") if "negative" in levels else levels
    return max(known, key=order.index) if levels else max(known)
