"""What a cell says as its column declares it: a level, number, date, truth or text."""

import datetime
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, TypeAlias

from builder.clinical.cells import EXACT_WHOLE, Cell, Number, number_of, text_of
from builder.clinical.column import ClinicalColumn
from builder.clinical.dates import date_of

_TRUE: Final = frozenset({"true", "yes", "y", "1"})
_FALSE: Final = frozenset({"false", "no", "n", "0"})

Value: TypeAlias = str | float | int | bool | None
"""A value of the dataset."""

Raw: TypeAlias = Value | datetime.date
"""A value before dates become days of one person."""


def value_of(cell: Cell, column: ClinicalColumn, seen: set[str], in_unit: Callable[[Decimal], Decimal]) -> Raw:
    """Return the typed value of a cell that is not missing.

    Parameters
    ----------
    seen
        Levels of the column that a cell had; this one's is added.
    in_unit
        How a number is brought to the unit of the column.

    Raises
    ------
    ValueError
        When the cell holds no such value. The message says why, never the value.
    """
    if column.mapping is not None:
        value = _level(cell, column.mapping)
        seen.add(value)
        cell = column.mapping[value]
    if column.type == "date":
        return date_of(cell, column.format, column.pivot)
    if column.type in ("number", "integer"):
        return _numeric(in_unit(number_of(cell, column.decimal)), column)
    text = text_of(cell) or ""
    if column.type != "boolean":
        return text
    if text.casefold() not in _TRUE | _FALSE:
        raise ValueError("neither true nor false")
    return text.casefold() in _TRUE


def check_range(value: Value, column: ClinicalColumn) -> None:
    """Raise ValueError for a number beyond the bounds of its column, both of which are included."""
    low, high = column.min, column.max
    if isinstance(value, int | float) and ((low is not None and value < low) or (high is not None and value > high)):
        raise ValueError(f"out of the range {low} to {high}")


def _level(cell: Cell, levels: Mapping[str, str]) -> str:
    """Return the declared value that a cell shows, or that a spreadsheet's number is."""
    shown = [text_of(cell) or ""]
    if isinstance(cell, Number):
        shown.append(text_of(cell.value) or "")
    if isinstance(getattr(cell, "value", cell), bool):
        shown.append(shown[0].lower())
    for text in shown:
        if text in levels:
            return text
    raise ValueError("none of the declared levels")


def _numeric(number: Decimal, column: ClinicalColumn) -> float | int:
    if column.type == "integer":
        if number != number.to_integral_value():
            raise ValueError("not a whole number")
        if abs(number) >= 2**63:
            raise ValueError("out of range")
        whole = int(number)
        check_range(whole, column)
        return whole
    value = float(number)
    if abs(number) > EXACT_WHOLE and number == number.to_integral_value() and Decimal(value) != number:
        raise ValueError("a whole number beyond 2^53, which a float64 does not hold: declare the column an integer")
    check_range(value, column)
    return value
