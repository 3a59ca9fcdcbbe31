"""Cells of a table: what they hold, what they show, and the number or text that is meant."""

import datetime
import math
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal, TypeAlias

EXACT_WHOLE: Final = 2**53
"""Whole numbers below this are exact in a float64."""

_INVISIBLE: Final = dict.fromkeys(map(ord, "\ufeff\u200b\u200e\u200f"))
_LARGEST_EXPONENT: Final = 308

DecimalMark: TypeAlias = Literal[".", ","]


@dataclass(frozen=True, slots=True)
class Number:
    """A number or truth as a spreadsheet holds it, and the text that it shows.

    ``text`` is None where the spreadsheet no longer has the text that was typed: it keeps 15 digits.
    """

    value: int | float | bool
    text: str | None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A cell that holds something, but no value that can be read."""

    problem: str


Cell: TypeAlias = (
    str | int | float | bool | Decimal | datetime.date | datetime.datetime | datetime.time | Number | Unreadable | None
)


def text_of(cell: Cell, missing: Collection[str] = ()) -> str | None:
    """Return the text a cell shows, or None when it is empty or holds one of the codes for a missing value.

    Whole floats have no ``.0``, and a date without a time of day is written in ISO 8601.

    Raises
    ------
    ValueError
        When the cell holds something that has no text. The message says why, never the value.
    """
    if isinstance(cell, str):
        text = normal_text(cell)
    elif isinstance(cell, Unreadable):
        raise ValueError(cell.problem)
    elif isinstance(cell, Number):
        if _plain_text(cell.value) in missing:
            return None
        if cell.text is None:
            raise ValueError("a number of more than 15 digits, of which a spreadsheet keeps 15")
        text = cell.text
    elif isinstance(cell, float) and abs(cell) >= EXACT_WHOLE and cell.is_integer():
        raise ValueError("a whole number beyond 2^53 in a column of floats, which does not keep its last digits")
    else:
        text = _plain_text(cell)
    return None if text == "" or text in missing else text


def normal_text(text: str) -> str:
    """Return text in Unicode's composed form (NFC), without white space around it or characters that nobody sees."""
    if text.isascii():
        return text.strip()
    return unicodedata.normalize("NFC", text.translate(_INVISIBLE)).strip()


def is_empty(cell: Cell, missing: Collection[str] = ()) -> bool:
    """Return whether a cell holds nothing, or a code for a missing value."""
    if cell is None:
        return True
    try:
        return text_of(cell, missing) is None
    except ValueError:
        return False


def number_of(cell: Cell, mark: DecimalMark | None = None) -> Decimal:
    """Return the number in a cell, exact.

    Parameters
    ----------
    mark
        The decimal mark of numbers held as text; the other mark may then group thousands. Without it there are
        decimal points only and no groups.

    Raises
    ------
    ValueError
        When the cell holds no finite number. The message says why, never the value.
    """
    value = cell.value if isinstance(cell, Number) else cell
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("not a finite number")
        return Decimal(value) if isinstance(value, int) else Decimal(repr(value))
    return parse_number(text_of(cell) or "", mark)


def parse_number(text: str, mark: DecimalMark | None = None) -> Decimal:
    """Return the number a text says, as ``number_of`` reads it. Raises ValueError."""
    plain = text.replace("\u2212", "-")
    if mark is not None:
        group = "," if mark == "." else "."
        if re.fullmatch(rf"[+-]?\d{{1,3}}(?:{re.escape(group)}\d{{3}})+(?:{re.escape(mark)}\d+)?", plain, re.ASCII):
            plain = plain.replace(group, "")
        elif group in plain:
            raise ValueError(f"not a number with the decimal mark {mark!r}")
        plain = plain.replace(mark, ".")
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,6})?", plain, re.ASCII):
        comma = mark is None and re.fullmatch(r"[+-]?[\d.]*\d,\d[\d,.]*", plain, re.ASCII)
        raise ValueError("a number with a comma: state the column's decimal mark" if comma else "not a number")
    number = Decimal(plain)
    if number and abs(number.adjusted()) > _LARGEST_EXPONENT:
        raise ValueError("not a finite number")
    return number


def _plain_text(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < EXACT_WHOLE:
        cell = int(cell)
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        cell = cell.date()
    return normal_text(str(cell))
