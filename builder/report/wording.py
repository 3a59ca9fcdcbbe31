"""How a report writes numbers, names of columns and reasons: for pages, and for sentences about them."""

from collections.abc import Mapping
from typing import Any, Final

from builder.report.people import MISSING

NOTHING: Final = "\u2013"
"""Stands for a figure that is not known."""

UNITS: Final = ("mm", "years", "mm3", "ml", "days")


def whole(value: float | None) -> str:
    return "masked" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def number_of(value: int | None, things: str) -> str:
    """Return ``1 person`` or ``2 persons``; ``things`` is the plural."""
    singular = {"series": "series", "studies": "study"}.get(things, things.removesuffix("s"))
    return f"{whole(value)} {singular if value == 1 else things}"


def percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f} %"


def fixed(value: float | None, digits: int = 2) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.{digits}f}".replace(",", "\u202f")


def probability(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def range_of(cell: Mapping[str, Any]) -> str:
    if cell["low"] is None:
        return ""
    return f"({100 * cell['low']:.1f}\u2013{100 * cell['high']:.1f})"


def interval(figure: Mapping[str, Any] | None) -> str:
    """Format a figure with its interval, or a dash if it is undefined."""
    if not figure or figure.get("value") is None:
        return NOTHING
    if figure["low"] is None:
        return fixed(figure["value"])
    return f"{fixed(figure['value'])} ({fixed(figure['low'])} to {fixed(figure['high'])})"


ORDER = (
    *("files", "file", "instances", "instance", "series", "studies", "study", "persons", "person", "cases", "samples"),
    *("found", "used", "label", "quarantined", "excluded", "duplicate", "train", "validation", "test"),
)
"""Reading order of levels, statuses and splits, which is lost in stored JSON because its keys are sorted."""


def in_order(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the items of a mapping: known names first in their usual order, then the others by name."""
    known = {name: place for place, name in enumerate(ORDER)}
    return sorted(values.items(), key=lambda item: (known.get(item[0], len(known)), item[0]))


def words(value: str) -> str:
    """Spell out the name of a column or reason in words, with its unit in brackets."""
    for unit in UNITS:
        if value.endswith("_" + unit):
            return f"{value.removesuffix('_' + unit)} ({unit})".replace("_", " ")
    return value.replace("_", " ")


def stated(level: str) -> str:
    """Return a level of a group as it reads after the group's name; ``missing`` is not one that anybody stated."""
    return "not stated" if level == MISSING else level


def short(value: float) -> str:
    """Format a value with two decimals, or none if it is whole."""
    return fixed(value, 0 if value == round(value) else 2)
