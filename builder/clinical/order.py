"""The order of a column's cells by what they mean: numbers, dates, numbered labels, never code points.

Text can often be read in more than one way (02/11/2018, 1,200). Every reading that fits the whole column is kept, and a
row is picked only where all of them agree.
"""

import calendar
import datetime
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeAlias

from builder.clinical.cells import Cell, Number, number_of, parse_number, text_of
from builder.clinical.column import ClinicalColumn
from builder.clinical.dates import date_of

_MONTHS: Final = {name.lower(): i for i, name in enumerate(calendar.month_abbr) if name}
_ROMAN: Final = {name: i for i, name in enumerate(("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"), start=1)}
_YEARS: Final = range(1800, 2200)
_INFINITE: Final = Decimal("Infinity")


@dataclass(frozen=True, slots=True)
class Span:
    """From where to where a cell's value lies, both included: a point for most, more for ``<1`` or ``March 2018``."""

    low: Any
    high: Any


Reading: TypeAlias = Callable[[Cell], Span]
"""How a column is read. Raises ValueError for a cell that does not fit."""


def readings(cells: Sequence[Cell], column: ClinicalColumn | None, order: Sequence[str] = ()) -> tuple[Reading, ...]:
    """Return every reading that gives the cells an order.

    Parameters
    ----------
    cells
        All cells of the column that hold something.
    column
        Its declaration, if it has one; a declared number, date or truth is read as such and as nothing else.
    order
        Its values in ascending order, where the spec states them.
    """
    if order:
        return (_listed(order),) if _fits(_listed(order), cells) else ()
    if column is not None and column.type in ("number", "integer"):
        return (lambda cell: _point(number_of(cell, column.decimal)),)
    if column is not None and column.type == "date":
        return (_declared_date(column),)
    alternatives = (_truth, *_numbers(cells), *date_readings(cells, None), _roman)
    return tuple(reading for reading in alternatives if _fits(reading, cells))


def date_readings(cells: Sequence[Cell], column: ClinicalColumn | None) -> tuple[Reading, ...]:
    """Return every reading of the cells as dates."""
    if column is not None and column.type == "date":
        return (_declared_date(column),)
    if all(
        re.fullmatch(r"\d{1,7}", text_of(cell) or "") for cell in cells if not isinstance(cell, datetime.date)
    ) and not any(isinstance(cell, datetime.date) for cell in cells):
        return ()  # plain whole numbers; a year among them is ordered as a number
    return tuple(reading for reading in (_day_first, _month_first) if _fits(reading, cells))


def smallest(spans: Sequence[Span]) -> tuple[int, ...] | None:
    """Return the positions of the smallest values: one, or several that are equal; None where that is not certain."""
    bound = min(span.high for span in spans)
    return _certain(spans, [i for i, span in enumerate(spans) if span.low <= bound])


def largest(spans: Sequence[Span]) -> tuple[int, ...] | None:
    """Return the positions of the largest values: one, or several that are equal; None where that is not certain."""
    bound = max(span.low for span in spans)
    return _certain(spans, [i for i, span in enumerate(spans) if span.high >= bound])


def _certain(spans: Sequence[Span], possible: Sequence[int]) -> tuple[int, ...] | None:
    return tuple(possible) if len({(spans[i].low, spans[i].high) for i in possible}) == 1 else None


def _fits(reading: Reading, cells: Sequence[Cell]) -> bool:
    try:
        for cell in cells:
            reading(cell)
    except ValueError:
        return False
    return True


def _point(value: Any) -> Span:
    return Span((value, 0), (value, 0))


def _listed(order: Sequence[str]) -> Reading:
    places = {text: i for i, text in enumerate(order)}

    def read(cell: Cell) -> Span:
        text = text_of(cell) or ""
        if text not in places:
            raise ValueError("none of the values in pick.order")
        return _point(places[text])

    return read


def _declared_date(column: ClinicalColumn) -> Reading:
    def read(cell: Cell) -> Span:
        if isinstance(cell, datetime.datetime):
            return _point(cell)
        found = date_of(cell, column.format, column.pivot)
        return _point(datetime.datetime.combine(found, datetime.time()))

    return read


def _truth(cell: Cell) -> Span:
    value = cell.value if isinstance(cell, Number) else cell
    if not isinstance(value, bool):
        raise ValueError("no truth value")
    return _point(value)


def _numbers(cells: Sequence[Cell]) -> Iterator[Reading]:
    """Yield the numbers for each notation, all with one prefix and one suffix: ``10 mm``, ``Visit 10``, ``<1``."""
    texts = [cell for cell in cells if isinstance(cell, str)]
    commas = any("," in text for text in texts)
    for mark, digits in (
        (None, r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+"),
        (".", r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"),
        (",", r"[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?|\d+(?:,\d+)?"),
    ):
        may_be = commas if mark == "." else (commas and not _groups_thousands(texts)) or any(map(_grouped, texts))
        if mark is None or may_be:
            yield _labelled(re.compile(_LABELLED.replace("DIGITS", digits)), mark, cells)


_grouped: Final = re.compile(r"(?<![\d.])[1-9]\d{0,2}(?:\.\d{3})+(?![\d.])").search
"""A text with points that may group thousands, as in 1.200."""


def _groups_thousands(texts: Sequence[str]) -> bool:
    """Return whether commas cannot be decimal marks: 1,200 has a fixed number of decimals, which 900 lacks."""
    decimals = [re.sub(r"^[^,]*,?|\D*$", "", text) for text in texts]
    return any(digits.endswith("0") for digits in decimals) and len({len(digits) for digits in decimals}) > 1


_LABELLED: Final = (
    r"(?P<bound>[<>\u2264\u2265]=?)?\s*(?P<prefix>\D*?)(?P<sign>(?<![^\s<>=\u2264\u2265])[+\-\u2212])?"
    r"(?P<number>DIGITS)(?P<suffix>\D*)"
)


def _labelled(pattern: re.Pattern[str], mark: Any, cells: Sequence[Cell]) -> Reading:
    first = next((m for c in cells if isinstance(c, str) and (m := pattern.fullmatch(text_of(c) or ""))), None)
    label = ("", "") if first is None else _label(first)

    def read(cell: Cell) -> Span:
        if not isinstance(cell, str):
            if label != ("", ""):
                raise ValueError("a number without the label that others have")
            return _point(number_of(cell))
        found = pattern.fullmatch(text_of(cell) or "")
        if found is None or _label(found) != label:
            raise ValueError("no number with this label")
        value = parse_number((found["sign"] or "") + found["number"], mark)
        return _bounded(value, found["bound"] or "")

    return read


def _label(found: re.Match[str]) -> tuple[str, str]:
    prefix, suffix = (" ".join(found[name].casefold().split()) for name in ("prefix", "suffix"))
    return prefix, suffix


def _bounded(value: Decimal, bound: str) -> Span:
    if bound.startswith(("<", "\u2264")):
        return Span((-_INFINITE, 0), (value, -1 if bound == "<" else 0))
    if bound.startswith((">", "\u2265")):
        return Span((value, 1 if bound == ">" else 0), (_INFINITE, 0))
    return _point(value)


def _roman(cell: Cell) -> Span:
    found = re.fullmatch(r"(?:stage|grade|grad|stadium|type|class)?\s*([IVX]+)", text_of(cell) or "", re.IGNORECASE)
    if found is None or found[1] not in _ROMAN:
        raise ValueError("no Roman number up to IX")
    return _point(_ROMAN[found[1]])


def _day_first(cell: Cell) -> Span:
    return _date(cell, lambda one, two: (two, one))


def _month_first(cell: Cell) -> Span:
    return _date(cell, lambda one, two: (one, two))


def _date(cell: Cell, month_and_day: Callable[[int, int], tuple[int, int]]) -> Span:
    """Return a date with four digits of a year, with or without a day and a time of day."""
    if isinstance(cell, datetime.datetime):
        return _point(cell)
    if isinstance(cell, datetime.date):
        return _point(datetime.datetime.combine(cell, datetime.time()))
    text, time = _time_of_day(text_of(cell) or "")
    year, month, day = _parts(text, month_and_day)
    if year not in _YEARS:
        raise ValueError("no year of our time")
    low = datetime.datetime(year, month or 1, day or 1) + time
    if day is not None:
        return _point(low)
    last = calendar.monthrange(year, month or 12)[1]
    return Span((low, 0), (datetime.datetime(year, month or 12, last, 23, 59, 59), 0))


def _time_of_day(text: str) -> tuple[str, datetime.timedelta]:
    found = re.fullmatch(
        r"(.*\d)[T ]\s*(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?\s*([AaPp][Mm])?(Z|[+-]\d{2}:?\d{2})?", text
    )
    if found is None:
        return text, datetime.timedelta()
    hours = int(found[2])
    if found[5]:
        hours = hours % 12 + (12 if found[5].lower() == "pm" else 0)
    time = datetime.timedelta(hours=hours, minutes=int(found[3]), seconds=int(found[4] or 0))
    if found[6] and found[6] != "Z":
        digits = found[6].replace(":", "")
        shift = datetime.timedelta(hours=int(digits[1:3]), minutes=int(digits[3:5]))
        time += -shift if digits[0] == "+" else shift
    return found[1], time


def _parts(text: str, month_and_day: Callable[[int, int], tuple[int, int]]) -> tuple[int, int | None, int | None]:
    """Return the year, month and day that a text says. Raises ValueError."""
    if found := re.fullmatch(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})|(\d{4})(\d{2})(\d{2})", text, re.ASCII):
        year, month, day = (int(found[i] or found[i + 3]) for i in (1, 2, 3))
        return year, month, day
    if found := re.fullmatch(r"(\d{4})(?:[-/.](\d{1,2}))?", text, re.ASCII):
        return int(found[1]), int(found[2]) if found[2] else None, None
    if found := re.fullmatch(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})", text, re.ASCII):
        month, day = month_and_day(int(found[1]), int(found[3]))
        return int(found[4]), month, day
    if found := re.fullmatch(r"(\d{1,2})[-/.](\d{4})", text, re.ASCII):
        return int(found[2]), int(found[1]), None
    if found := re.fullmatch(r"(?:(\d{1,2})(?:st|nd|rd|th)?[-\s.]*)?([A-Za-z]{3,9})[-\s.,]*(\d{4})", text, re.ASCII):
        return int(found[3]), _month(found[2]), int(found[1]) if found[1] else None
    if found := re.fullmatch(r"([A-Za-z]{3,9})\.?\s*(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})", text, re.ASCII):
        return int(found[3]), _month(found[1]), int(found[2])
    raise ValueError("no date")


def _month(name: str) -> int:
    known = name.lower()
    month = _MONTHS.get(known[:3])
    if month is None or not (len(known) == 3 or calendar.month_name[month].lower().startswith(known)):
        raise ValueError("no month")
    return month
