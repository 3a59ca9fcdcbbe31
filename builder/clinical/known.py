"""When the values of a clinical column were known: whether it may be an input, and what the certificate says of it."""

import datetime
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from builder.clinical.joining import Joined
from builder.clinical.table import ClinicalTable
from builder.errors import counted

How: TypeAlias = Literal["outcome", "timeless", "dated", "undated"]
"""What a spec says of when the values of a column were known."""


@dataclass(frozen=True)
class Known:
    """One column against the days of the images' studies.

    Parameters
    ----------
    values
        Images that have a value.
    later
        Values that were known only after the study of the image. None of an input is.
    latest_days
        The latest day on which a value was known, counted from the study of its image; private.
    """

    column: str
    how: How
    values: int
    later: int
    latest_days: int | None

    def facts(self) -> dict[str, Any]:
        """Return what may be published: of columns that no day limits, nobody knows whether they are later."""
        later = self.later if self.how == "dated" else None
        return {"column": self.column, "how": self.how, "values": self.values, "after_study": later}


def how_known(table: ClinicalTable, name: str, outcomes: Collection[str]) -> How:
    """Return what a table says of when the values of one of its columns were known.

    An event and the columns that it is made of are outcomes. ``dated`` values count only if their day is not after the
    study: that of their row (``dated_by``, or the day by which it was picked or joined), or their own.
    """
    if name in outcomes or name in table.outcomes:
        return "outcome"
    if table.dated_by is not None or name in table.phenotypes:
        return "dated"
    if name in table.timeless:
        return "timeless"
    own = name in table.columns and table.columns[name].type == "date"
    return "dated" if own or table.is_up_to_study else "undated"


def check_known(tables: Iterable[ClinicalTable], outcomes: Collection[str], *, several_visits: bool) -> None:
    """Refuse inputs that may hold what was not known when the image was made.

    Raises
    ------
    ValueError
        For inputs and outcomes in one dated table, a phenotype that later days may decide, and an undated input of a
        table that knows its days or of a dataset of several visits.
    """
    for number, table in enumerate(tables):
        later = [name for name in table.names if name in outcomes]
        if table.dated_by is not None and later and len(later) < len(table.names):
            raise ValueError(
                f"clinical.{number}.dated_by: found the outcome {later[0]!r} beside other columns, expected a table "
                "of outcomes alone: declare this one twice"
            )
        open_end = [name for name, p in table.phenotypes.items() if not p.known_at_study and name not in outcomes]
        if open_end:
            raise ValueError(
                f"clinical.{number}.phenotypes.{open_end[0]}: found a column that may depend on what came after the "
                "image, expected it in report.outcomes, or index: study with to_days: 0 or less and controls: window"
            )
        undated = [name for name in table.names if how_known(table, name, outcomes) == "undated"]
        where = "in a dataset of several visits" if several_visits else _where_days_are_known(table)
        if undated and where:
            raise ValueError(
                f"clinical.{number}: found the column {undated[0]!r} of an unknown date {where}, expected dated_by: "
                "the heading with the date of each row, timeless: [COLUMN] for what does not change (such as sex), or "
                "the column in report.outcomes"
            )


def _where_days_are_known(table: ClinicalTable) -> str:
    """Return how a message calls a table whose rows have days that the spec could name; empty for a plain file."""
    if table.extract is not None:
        return "out of a database or export"
    if table.pick is not None and table.pick.to_study:
        return f"of a row that may lie after the study (pick.take: {table.pick.take})"
    by = None if table.pick is None else table.pick.by
    if any(column.source == by and column.type == "date" for column in table.columns.values()):
        return f"of a row that may lie after the study (pick.by {by!r}, a date)"
    if table.within_days:
        return f"of a row that may lie {counted(table.within_days, 'day')} after the study (within_days)"
    return ""


def until_study(table: ClinicalTable, outcomes: Collection[str]) -> bool:
    """Return whether rows count only if ``dated_by`` shows that they were known at the study of an image."""
    return table.dated_by is not None and not {*table.names} <= {*outcomes}


def own_days(table: ClinicalTable, outcomes: Collection[str]) -> tuple[str, ...]:
    """Return the columns of dates that are inputs and tell by themselves when they were known."""
    dates = [name for name, column in table.columns.items() if column.type == "date"]
    own = () if table.dated_by is not None else dates
    return tuple(name for name in own if how_known(table, name, outcomes) == "dated")


def when_known(
    table: ClinicalTable,
    joined: Joined,
    outcomes: Collection[str],
    *,
    study_dates: Sequence[datetime.date | None],
    first_studies: Sequence[datetime.date | None],
) -> Iterator[Known]:
    """Yield each column of a joined table. Dates are one a stack; the first study is that of the stack's person."""
    days = [
        None if day is None or study is None else (day - study).days
        for day, study in zip(joined.known_on, study_dates, strict=True)
    ]
    for name in table.names:
        values = [None if said is None else said[name] for said in joined.values]
        told: Iterable[int | None] = days
        if name in own_days(table, outcomes):
            told = _offsets(values, study_dates, first_studies)
        with_day = [day for day, value in zip(told, values, strict=True) if day is not None and value is not None]
        yield Known(
            name,
            how_known(table, name, outcomes),
            values=sum(value is not None for value in values),
            later=sum(day > 0 for day in with_day),
            latest_days=max(with_day, default=None),
        )


def _offsets(
    values: Sequence[Any], studies: Sequence[datetime.date | None], firsts: Sequence[datetime.date | None]
) -> Iterator[int | None]:
    """Yield days from the study of each image to a date that is told in days from the person's first study."""
    for value, study, first in zip(values, studies, firsts, strict=True):
        known = value is not None and study is not None and first is not None
        yield value - (study - first).days if known and study is not None and first is not None else None
