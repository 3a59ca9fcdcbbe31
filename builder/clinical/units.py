"""Values in units that differ from row to row, brought to the one that a column declares (UCUM)."""

from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, Final

from builder.clinical.cells import Cell, text_of
from builder.errors import MissingExtra

_DIGITS: Final = 14
"""Digits of a factor: a float64 holds 15, and a library that multiplies floats loses the last one."""


class Units:
    """Brings the numbers of one column to its unit, and remembers each unit that does not convert to it.

    Parameters
    ----------
    unit
        The declared unit.
    names
        How the table writes units that are no UCUM, to UCUM.
    """

    def __init__(self, unit: str, names: Mapping[str, str]) -> None:
        self.unit, self.names = unit, names
        self.strange: dict[str, tuple[int, bool]] = {}
        self.known: dict[str, Callable[[Decimal], Decimal] | None] = {unit: lambda number: number}

    def convert(self, number: Decimal, cell: Cell, missing: Collection[str], row: int) -> Decimal:
        """Return a number in the declared unit. Raises ValueError without a unit of its own, or one that converts."""
        told = text_of(cell, missing)
        if told is None:
            raise ValueError("a number without its unit")
        unit = self.names.get(told, told)
        if unit not in self.known:
            self.known[unit] = _conversion(unit, self.unit)
        change = self.known[unit]
        if change is None:
            self.strange.setdefault(told, (row, _parsed(unit) is not None))
            raise ValueError("in a unit that does not convert")
        return change(number)

    def faults(self) -> list[str]:
        """Return what is wrong with each unit that did not convert; a text that is no unit is not shown."""
        found = [
            f"found the unit {unit!r}, which does not convert to {self.unit}"
            for unit, (_, is_unit) in self.strange.items()
            if is_unit
        ]
        rows = [row for row, is_unit in self.strange.values() if not is_unit]
        if rows:
            found.append(f"found {len(rows)} texts that are no unit of UCUM (not shown, first in row {min(rows)})")
        return found


def _conversion(unit: str, to: str) -> Callable[[Decimal], Decimal] | None:
    """Return the function from one unit to another, None where there is none; it is a factor and an offset."""
    own, wanted = _parsed(unit), _parsed(to)
    if own is None or wanted is None:
        return None
    registry, faults = _registry()
    try:
        zero, one = (registry.Quantity(n, own).to(wanted).magnitude for n in (0.0, 1.0))
    except faults:
        return None
    factor, offset = (Decimal(f"{n:.{_DIGITS}g}") for n in (one - zero, zero))
    return lambda number: number * factor + offset


@cache
def _parsed(unit: str) -> Any:
    """Return a unit of UCUM as the library has it, None for a text that is none."""
    registry, faults = _registry()
    try:
        found = registry.from_ucum(unit)
        return found.units if found.m == 1 else None
    except faults:
        return None


@cache
def _registry() -> tuple[Any, tuple[type[Exception], ...]]:
    try:
        from lark.exceptions import LarkError
        from pint.errors import PintError
        from ucumvert import PintUcumRegistry
    except ImportError:
        raise MissingExtra("ucumvert", "units") from None
    return PintUcumRegistry(), (LarkError, PintError, AttributeError, TypeError, ValueError, KeyError)
