"""Dates of a clinical table: how a cell becomes a date, and a date the number of days that may be stored.

This is the only place in the room where a date turns into something a dataset could hold.
"""

import datetime
import re

from builder.clinical.cells import Cell, text_of


def date_of(cell: Cell, form: str | None = None, pivot: int | None = None) -> datetime.date:
    """Return the date in a cell.

    Parameters
    ----------
    form
        ``strptime`` format of a date held as text. Without it: ISO 8601, also unpadded (2010-7-22, as in BCR Biotab).
    pivot
        First of the hundred years that two-digit years (``%y``) belong to: 1930 reads 29 as 2029 and 30 as 1930.

    Raises
    ------
    ValueError
        When the cell holds no such date. The message says what was expected, never the value.
    """
    if isinstance(cell, datetime.datetime):
        return cell.date()
    if isinstance(cell, datetime.date):
        return cell
    text = text_of(cell) or ""
    try:
        found = datetime.datetime.strptime(text, form).date() if form else _iso_date(text)
    except ValueError:
        raise ValueError(f"not a date of the form {form or 'YYYY-MM-DD'}") from None
    if form and "%y" in form and pivot is not None:
        return _in_century(found, pivot)
    return found


def days_since_first_study(found: datetime.date, first: datetime.date | None) -> int | None:
    """Return the days from the person's first study to a date; None for a person whose studies have no date."""
    return None if first is None else (found - first).days


def _iso_date(text: str) -> datetime.date:
    parts = re.fullmatch(r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ].*)?", text, re.ASCII)
    if parts:
        return datetime.date(int(parts[1]), int(parts[2]), int(parts[3]))
    return datetime.date.fromisoformat(text)


def _in_century(found: datetime.date, pivot: int) -> datetime.date:
    try:
        return found.replace(year=pivot + (found.year - pivot) % 100)
    except ValueError:  # 29 February of a year that has none in the other century
        raise ValueError("not a day of that year") from None
