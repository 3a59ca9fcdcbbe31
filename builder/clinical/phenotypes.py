"""Phenotypes: who has a disease by the codes and days of their events, and who is fit to be compared with them."""

import datetime
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from builder.clinical.cells import Cell, is_empty, text_of
from builder.clinical.dates import date_of
from builder.model.case import Tier

CASE, CONTROL = "case", "control"
"""What a person is; any other word says why a person is neither."""


class Codes(BaseModel):
    """Codes of one vocabulary. Dots, white space and case do not count: ``C61.9`` is ``c619``.

    Parameters
    ----------
    system
        The vocabulary, as the column ``system`` of the phenotype has it. Without it the codes of all count.
    codes
        Codes in full.
    prefixes
        Beginnings: ``C61`` also takes ``C61.9``.
    excluded
        Beginnings of codes that do not count although they are listed.
    url
        A file with further codes, one a line; what follows a comma, tab or # is a note.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str | None = None
    codes: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    url: str | None = None

    @model_validator(mode="after")
    def _lists_some(self) -> "Codes":
        if not (self.codes or self.prefixes or self.url) or not all(map(_plain, (*self.codes, *self.prefixes))):
            raise ValueError("found no code or an empty one, expected codes, prefixes, or a url of a file with some")
        return self

    def has(self, code: str, system: str | None) -> bool:
        """Return whether a code of a system is one of these."""
        if self.system is not None and system != self.system:
            return False
        plain = _plain(code)
        listed = plain in {*map(_plain, self.codes)} or plain.startswith(tuple(map(_plain, self.prefixes)))
        return listed and not plain.startswith(tuple(map(_plain, self.excluded)))


class Phenotype(BaseModel):
    """A column that says of each image whether its person is a case (true), a control (false) or neither (missing).

    Parameters
    ----------
    any_of
        The codes that count.
    code, date, system
        Headings of an event's code, day and vocabulary.
    date_format
        ``strptime`` format of the days; ISO 8601 without it.
    index
        The day that others are counted from: ``study``, that of the image; ``first``, that of the person's first such
        code; or the heading of a column that holds one day for each person.
    from_days, to_days
        The days after the index, both included, within which codes make a case; negative ones lie before it. Without
        one of them there is no limit on that side.
    at_least
        On how many different days.
    clear_days
        Washout: a person with such a code within so many days before the window is neither; ``ever``: at any time
        before it.
    controls
        ``window``: persons without such a code within the window; ``never``: only persons who have none at all.
    without_rows
        What persons are who have no row in the table at all: ``missing``, or ``control`` where the table lists
        everybody who had anything.
    tier
        How strong the codes are as evidence, as for labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    any_of: tuple[Codes, ...] = Field(min_length=1)
    code: str = "code"
    date: str = "date"
    system: str | None = None
    date_format: str | None = None
    index: str = "study"
    from_days: int | None = None
    to_days: int | None = None
    at_least: int = Field(default=1, ge=1)
    clear_days: int | Literal["ever"] | None = None
    controls: Literal["window", "never"] = "window"
    without_rows: Literal["missing", "control"] = "missing"
    tier: Tier = "unstated"

    @model_validator(mode="after")
    def _makes_sense(self) -> "Phenotype":
        if self.from_days is not None and self.to_days is not None and self.from_days > self.to_days:
            raise ValueError(f"found from_days {self.from_days} after to_days {self.to_days}, expected it before")
        if self.clear_days is not None and self.from_days is None:
            raise ValueError("found clear_days without from_days: before a window without a beginning there is nothing")
        if isinstance(self.clear_days, int) and self.clear_days < 1:
            raise ValueError(f"found clear_days {self.clear_days}, expected at least 1, or ever")
        if self.system is None and any(codes.system is not None for codes in self.any_of):
            raise ValueError("found codes of a system, expected system: the heading of the column that states it")
        if "%y" in (self.date_format or ""):
            raise ValueError("date_format: found %y, expected years of four digits (%Y)")
        return self

    @property
    def headings(self) -> tuple[str, ...]:
        """The headings it reads."""
        own = () if self.index in ("study", "first") else (self.index,)
        return (self.code, self.date, *(() if self.system is None else (self.system,)), *own)

    @property
    def known_at_study(self) -> bool:
        """Whether nothing that happens after the study of the image can change it."""
        return self.index == "study" and self.to_days is not None and self.to_days <= 0 and self.controls == "window"

    def rule(self) -> dict[str, Any]:
        """Return what was asked, as data for a report, without the place of files."""
        asked = self.model_dump(mode="json", exclude_defaults=True, exclude={"any_of": {"__all__": {"url"}}})
        return {"index": self.index, **asked}


@dataclass(frozen=True)
class Happened:
    """What one row says: whether its code counts, its day if it states one, and the person's own index day."""

    counts: bool
    day: datetime.date | None
    index: datetime.date | None = None


def happened(phenotype: Phenotype, cells: Mapping[str, Cell], missing: Collection[str]) -> Happened:
    """Return what a row says of a phenotype. A code that cannot be read may count, on no day."""
    try:
        code = text_of(cells[phenotype.code], missing)
        system = None if phenotype.system is None else text_of(cells[phenotype.system], missing)
    except ValueError:
        return Happened(True, None)
    counts = code is not None and any(codes.has(code, system) for codes in phenotype.any_of)
    index = phenotype.headings[-1] if phenotype.index not in ("study", "first") else None
    own = None if index is None else _day(cells[index], phenotype, missing)
    return Happened(counts, _day(cells[phenotype.date], phenotype, missing), own)


def decide(phenotype: Phenotype, events: Sequence[Happened], study: datetime.date | None) -> str:
    """Return what a person is on the day of a study: ``case``, ``control``, or why neither.

    A code without a day may lie anywhere, so it never makes a case, and whoever has one is no control.
    """
    if not events:
        return CONTROL if phenotype.without_rows == "control" else "no row in the table"
    coded = [event.day for event in events if event.counts]
    days = {day for day in coded if day is not None}
    if phenotype.index == "first" and not coded:
        return CONTROL
    index = _index(phenotype, events, days, study)
    if index is None:
        return "no day to count from"
    places = {(day - index).days for day in days}
    return _placed(phenotype, places, undated=None in coded)


def _placed(phenotype: Phenotype, places: Collection[int], *, undated: bool) -> str:
    """Return what codes on these days after the index make of a person."""
    low, high = phenotype.from_days, phenotype.to_days
    within = [n for n in places if (low is None or n >= low) and (high is None or n <= high)]
    clear = phenotype.clear_days
    if low is not None and clear is not None:
        if any(n < low and (clear == "ever" or n >= low - clear) for n in places):
            return "a code before the window"
        if undated:
            return "a code without a day"
    if undated and (phenotype.index == "first" or len(within) < phenotype.at_least):
        return "a code without a day"
    if len(within) >= phenotype.at_least:
        return CASE
    if within:
        return "codes on too few days"
    return "a code outside the window" if phenotype.controls == "never" and places else CONTROL


def count(outcomes: Sequence[str]) -> dict[str, int]:
    """Return how often each outcome occurs, cases and controls first."""
    found = Counter(outcomes)
    return {name: found[name] for name in (CASE, CONTROL, *sorted({*found} - {CASE, CONTROL}))}


def _index(
    phenotype: Phenotype, events: Sequence[Happened], days: Collection[datetime.date], study: datetime.date | None
) -> datetime.date | None:
    if phenotype.index == "study":
        return study
    if phenotype.index == "first":
        return min(days, default=None)
    stated = {event.index for event in events if event.index is not None}
    return stated.pop() if len(stated) == 1 else None


def _plain(code: str) -> str:
    return "".join(code.split()).replace(".", "").casefold()


def _day(cell: Cell, phenotype: Phenotype, missing: Collection[str]) -> datetime.date | None:
    try:
        return None if is_empty(cell, missing) else date_of(cell, phenotype.date_format)
    except ValueError:
        return None
