"""Limit clinical columns that state elapsed time to what may be released: bounded, and the person's own times only."""

import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Final

import pyarrow as pa

from builder.clinical import ClinicalTable, Value
from builder.deid.columns import OLDEST_AGE
from builder.deid.dates import Lifetime, days_between, placeholder_studies, shared_dates
from builder.headers.dates import dicom_date
from builder.spec import DatasetSpec

_AGE: Final = re.compile(r"(?:^|_)age(?:_|$)")
_YEARS: Final = (None, "a", "y", "years")


def as_they_leave(
    columns: Mapping[str, list[Value]], spec: DatasetSpec, persons: Sequence[str], stacks: pa.Table
) -> dict[str, list[Value]]:
    """Return the columns, one value per stack, with retained times in releasable form and ages above 89 as one value.

    The cohort's rules see the same values, so that their results reveal nothing more. Times that are not retained stay
    unchanged and are not released.
    """
    found = dict(columns)
    dates = [dicom_date(text) for text in stacks["study_date"].to_pylist()]
    first: dict[str, date] = {}
    for person, day in zip(persons, dates, strict=True):
        if day is not None:
            first[person] = min(day, first.get(person, day))
    doubtful = placeholder_studies((p, day) for p, day in zip(persons, dates, strict=True) if day is not None)
    first = {person: day for person, day in first.items() if day not in doubtful}
    lives = _lives(persons, dates, stacks)
    dated = {name: _dates(found[name], persons, first) for table in spec.clinical for name in table.dated}
    # one date in several columns is shared by the persons of all of them
    shared = shared_dates(
        (person, day) for days in dated.values() for person, day in zip(persons, days, strict=True) if day is not None
    )
    for table in spec.clinical:
        for name in (n for n in table.dated if n in spec.deid.retain):
            found[name] = [
                None if day is None else days_between(
                    first[person], day, lifetime=lives[person], shared=shared, most_days=spec.deid.most_days
                )
                for person, day in zip(persons, dated[name], strict=True)
            ]  # fmt: skip
            happened = name.removesuffix("_time") + "_event"
            if name not in table.columns and happened in found:
                pairs = zip(found[name], found[happened], strict=True)
                found[happened] = [None if time is None else told for time, told in pairs]
        for name in _ages(table):
            found[name] = [min(v, OLDEST_AGE) if isinstance(v, int | float) else v for v in found[name]]
    return found


def _ages(table: ClinicalTable) -> list[str]:
    """Return the columns of numbers that hold an age in years."""
    return [
        name
        for name, column in table.columns.items()
        if column.type in ("number", "integer") and _AGE.search(name) and column.unit in _YEARS
    ]


def _lives(persons: Sequence[str], dates: Sequence[date | None], stacks: pa.Table) -> dict[str, Lifetime]:
    found: dict[str, Lifetime] = {}
    ages, births = stacks["age_years"].to_pylist(), stacks["patient_birth_date"].to_pylist()
    for person, day, age, born in zip(persons, dates, ages, births, strict=True):
        known = found.get(person, Lifetime())
        if age is not None and day is not None:
            known = Lifetime(known.born, age, day)
        found[person] = Lifetime(dicom_date(born) or known.born, known.age_years, known.on)
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
