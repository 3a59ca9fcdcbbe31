"""Limit clinical columns that state elapsed time to what may be released: bounded, and the person's own times only."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Final

import pyarrow as pa

from builder.clinical import ClinicalTable, Value
from builder.deid.columns import OLDEST_AGE
from builder.deid.dates import (
    DAYS_A_YEAR,
    Lifetime,
    Withheld,
    days_between,
    placeholder_studies,
    shared_dates,
)
from builder.headers.dates import dicom_date
from builder.spec import DatasetSpec
from builder.split import TRUE_DATE

_AGE: Final = re.compile(r"(?:^|_)age(?:_|$)")
_YEARS: Final = (None, "a", "y", "years")
_BIRTH: Final = re.compile(
    r"(?i:birth|geburt|geboort|naissance|nacimiento|nascimento|nascita)|DOB|(?i:d\.\s?o\.\s?b)|(?<![a-z])(?i:dob|born|geb|gebdat)(?![a-z])"
)
"""Headings of dates of birth, as tables in the usual languages have them."""


def as_they_leave(
    columns: Mapping[str, list[Value]],
    spec: DatasetSpec,
    persons: Sequence[str],
    stacks: pa.Table,
    *,
    births: Mapping[str, date],
    shared: Mapping[date, Withheld],
) -> tuple[dict[str, list[Value]], dict[str, Counter[Withheld]]]:
    """Return the columns, one value per stack, with retained times in releasable form and ages above 89 as one value.

    Beside them is why times of each column do not leave.

    The cohort's rules see the same values, so that their results reveal nothing more. Times that are not retained stay
    unchanged and are not released.

    Parameters
    ----------
    births
        Dates of birth that the tables state (``table_births``).
    shared
        Dates that are nobody's own, among those of all tables and label objects, also of rows that belong to no image.
    """
    found = dict(columns)
    dates = [dicom_date(text) for text in stacks["study_date"].to_pylist()]
    first: dict[str, date] = {}
    for person, day in zip(persons, dates, strict=True):
        if day is not None:
            first[person] = min(day, first.get(person, day))
    doubtful = placeholder_studies((p, day) for p, day in zip(persons, dates, strict=True) if day is not None)
    first = {person: day for person, day in first.items() if day not in doubtful}
    ages = [found[name] for table in spec.clinical for name in _ages(table)]
    lives = _lives(persons, dates, stacks, births=births, ages=ages)
    dated = {name: _dates(found[name], persons, first) for table in spec.clinical for name in table.dated}
    # one date in several columns is shared by the persons of all of them
    told = shared_dates(
        (person, day) for days in dated.values() for person, day in zip(persons, days, strict=True) if day is not None
    )
    shared, most = {**shared, **told}, spec.deid.most_days
    withheld: dict[str, Counter[Withheld]] = {}
    for table in spec.clinical:
        for name in (n for n in table.dated if n in spec.deid.retain):
            nothing = Withheld.BIRTH if is_birth(table, name) else Withheld.NO_DAY
            days = [
                nothing if day is None or nothing is Withheld.BIRTH
                else days_between(first[person], day, lifetime=lives[person], shared=shared, most_days=most)
                for person, day in zip(persons, dated[name], strict=True)
            ]  # fmt: skip
            whys = (why for why, value in zip(days, found[name], strict=True) if value is not None)
            withheld[name] = Counter(why for why in whys if isinstance(why, Withheld))
            found[name] = [day if isinstance(day, int) else None for day in days]
            happened = name.removesuffix("_time") + "_event"
            if name not in table.columns and happened in found:
                pairs = zip(found[name], found[happened], strict=True)
                found[happened] = [None if time is None else told for time, told in pairs]
        for name in _ages(table):
            found[name] = [min(v, OLDEST_AGE) if isinstance(v, int | float) else v for v in found[name]]
    return found, withheld


def true_ages(cohort: pa.Table, births: Mapping[str, date], *, spec: DatasetSpec) -> pa.Array:
    """Return the largest age that headers or tables state for each row of a cohort; null where nothing does."""
    stated = [cohort[name].to_pylist() for name in ("age_years", *(n for t in spec.clinical for n in _ages(t)))]
    found: list[float | None] = []
    for row, (person, day) in enumerate(zip(*(cohort[c].to_pylist() for c in ("person_key", TRUE_DATE)), strict=True)):
        told = [float(age) for column in stated if isinstance(age := column[row], int | float)]
        if day is not None and (born := births.get(person)) is not None:
            told.append((day - born).days / DAYS_A_YEAR)
        found.append(max(told, default=None))
    return pa.array(found, pa.float64())


def _ages(table: ClinicalTable) -> list[str]:
    """Return the columns of numbers that hold an age in years."""
    return [
        name
        for name, column in table.columns.items()
        if column.type in ("number", "integer") and _AGE.search(name) and column.unit in _YEARS
    ]


def is_birth(table: ClinicalTable, name: str) -> bool:
    """Return whether a column of dates holds dates of birth, by its name or heading; they are no dates of care."""
    column = table.columns.get(name)
    return any(_BIRTH.search(text) for text in ((name,) if column is None else (name, column.source)))


def table_births(
    columns: Mapping[str, Sequence[Value]], spec: DatasetSpec, persons: Sequence[str], first: Mapping[str, date]
) -> dict[str, date]:
    """Map each person to the date of birth that the clinical tables state, the earliest if they state several.

    ``first`` holds the date of each person's first study, from which the days in ``columns`` are counted.
    """
    found: dict[str, date] = {}
    for name in (n for table in spec.clinical for n in table.dated if is_birth(table, n)):
        for person, day in zip(persons, _dates(columns[name], persons, first), strict=True):
            if day is not None:
                found[person] = min(day, found.get(person, day))
    return found


def _lives(
    persons: Sequence[str],
    dates: Sequence[date | None],
    stacks: pa.Table,
    *,
    births: Mapping[str, date],
    ages: Iterable[Sequence[Value]],
) -> dict[str, Lifetime]:
    """Return what headers and tables say of each person's age: the earliest date of birth, and the largest age."""
    found: dict[str, Lifetime] = {}
    stated = [stacks["age_years"].to_pylist(), *ages]
    born_by_headers = map(dicom_date, stacks["patient_birth_date"].to_pylist())
    for row, (person, day, born) in enumerate(zip(persons, dates, born_by_headers, strict=True)):
        known = found.get(person, Lifetime())
        told = [age for column in stated if isinstance(age := column[row], int | float)]
        if told and day is not None:
            known = known.or_older(max(told), day)
        all_births = [d for d in (born, known.born, births.get(person)) if d is not None]
        found[person] = Lifetime(min(all_births, default=None), known.age_years, known.on)
    return found


def _dates(values: Sequence[Value], persons: Sequence[str], first: Mapping[str, date]) -> list[date | None]:
    """Return the dates that days since each person's first study mean; None where that study has no date."""
    return [
        _later(first[person], value) if isinstance(value, int | float) and person in first else None
        for person, value in zip(persons, values, strict=True)
    ]


def _later(day: date, days: float) -> date | None:
    """Return the date some days after another; None beyond the calendar, as for the code 99999999."""
    try:
        return day + timedelta(days=int(days))
    except OverflowError:
        return None
