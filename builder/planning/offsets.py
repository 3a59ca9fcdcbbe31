"""Compute the times that the spec retains: days since a person's first study, and days from image to label."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date

import pyarrow as pa

from builder.cohort import Cohort
from builder.deid import Deid
from builder.deid.dates import Lifetime, Withheld, days_between, placeholder_studies, shared_dates
from builder.headers.dates import dicom_date
from builder.persons import Persons
from builder.planning.inventory import Survey
from builder.planning.roster import TRUE_AGE
from builder.split import TRUE_DATE

STUDY_DAY = "study_day"
LABEL_DAYS = "days_after_image"
DELTA_DAYS = "delta_days"
LABEL_DATES = ("structure_set_date", "content_date", "series_date")
"""Dates on which an annotation object was made, best first: (3006,0008), (0008,0023), (0008,0021)."""

Lives = Mapping[str, Lifetime]


def read_lives(cohort: pa.Table, persons: Persons, survey: Survey, *, retain: Collection[str]) -> Lives:
    """Return what is known about the lifetimes of all persons; empty if no time is retained, as nothing needs it."""
    if not {STUDY_DAY, LABEL_DAYS, DELTA_DAYS} & {*retain}:
        return {}
    births = births_of(survey.identities(), persons)
    lives: dict[str, Lifetime] = {}
    rows = zip(*(cohort[c].to_pylist() for c in ("person_key", TRUE_AGE, TRUE_DATE)), strict=True)
    for person, age, day in rows:
        life = lives.get(person, Lifetime(births.get(person)))
        lives[person] = life if age is None or day is None else life.or_older(age, day)
    return lives


def births_of(identities: pa.Table, persons: Persons) -> dict[str, date]:
    """Map each person to the date of birth, if the archive states one."""
    births = map(dicom_date, identities.column("patient_birth_date").to_pylist())
    return {p: born for p, born in zip(persons.keys_of(identities), births, strict=True) if p and born is not None}


def study_days(cohort: pa.Table, lives: Lives, *, most_days: int) -> pa.Array:
    """Return, for every row of a cohort, the publishable days since the person's first study."""
    persons, dates = (cohort.column(c).to_pylist() for c in ("person_key", TRUE_DATE))
    first: dict[str, date] = {}
    for person, day in zip(persons, dates, strict=True):
        if day is not None:
            first[person] = min(day, first.get(person, day))
    doubtful = _placeholders(cohort)
    days: list[int | None] = []
    for person, day in zip(persons, dates, strict=True):
        if day is None or first[person] in doubtful:
            days.append(None)
        else:
            away = days_between(first[person], day, lifetime=lives[person], shared=doubtful, most_days=most_days)
            days.append(away if isinstance(away, int) else None)
    return pa.array(days, pa.int64())


def count_withheld_days(cohort: pa.Table, days: pa.Array) -> int:
    """Count the included rows of a cohort that have a study date, but no publishable day."""
    rows = zip(*(cohort[c].to_pylist() for c in ("included", TRUE_DATE)), days.to_pylist(), strict=True)
    return sum(included and date is not None and day is None for included, date, day in rows)


def visit_days(cohort: pa.Table, lives: Lives, *, options: Cohort, deid: Deid) -> dict[str, pa.Array]:
    """Map ``VISIT.delta_days`` to the publishable days from the index visit of each case to a later visit."""
    if options.visits is None or DELTA_DAYS not in deid.retain:
        return {}
    rows = cohort.select(["stack_key", "person_key", "partners", TRUE_DATE]).to_pylist()
    dates = {row["stack_key"]: row[TRUE_DATE] for row in rows}
    first, most, doubtful = next(iter(options.images)), deid.most_days, _placeholders(cohort)
    found = {}
    for visit in options.visits.names[1:]:
        days: list[int | None] = []
        for row in rows:
            later = next((dates[p["stack_key"]] for p in row["partners"] if p["image"] == f"{visit}.{first}"), None)
            known = later is not None and row[TRUE_DATE] is not None and row[TRUE_DATE] not in doubtful
            life = lives[row["person_key"]] if known else Lifetime()
            away: int | Withheld | None = None
            if known and later is not None:
                away = days_between(row[TRUE_DATE], later, lifetime=life, shared=doubtful, most_days=most)
            days.append(away if isinstance(away, int) else None)
        found[f"{visit}.{DELTA_DAYS}"] = pa.array(days, pa.int64())
    return found


def label_days(
    cohort: pa.Table,
    lives: Lives,
    *,
    links: pa.Table,
    annotations: pa.Table,
    shared: Mapping[date, Withheld],
    deid: Deid,
) -> dict[tuple[str, str], int]:
    """Map (case_key, label) to the publishable days from the image's study to the latest object of the label.

    ``shared`` are the dates that are nobody's own among those of all label objects (``made_on``) and tables: a date
    that many persons share is nobody's own, also where most of them are not in the cohort or have a later object.
    """
    if LABEL_DAYS not in deid.retain:
        return {}
    made = _made(annotations)
    rows = cohort.select(["case_key", "person_key", TRUE_DATE]).to_pylist()
    cases = {row["case_key"]: (row["person_key"], row[TRUE_DATE]) for row in rows}
    dated: dict[tuple[str, str], date] = {}
    for link in links.to_pylist():
        day = made[link["annotation"]]
        if day is not None:
            name = (link["case_key"], link["label"])
            dated[name] = max(day, dated.get(name, day))
    # objects of one campaign may give several labels: their date is shared by the persons of all of them
    shared = {**shared, **shared_dates((cases[case][0], day) for (case, _), day in dated.items())}
    doubtful = _placeholders(cohort)
    found = {}
    for (case, label), day in dated.items():
        person, taken = cases[case]
        if taken is not None and taken not in doubtful:
            days = days_between(taken, day, lifetime=lives[person], shared=shared, most_days=deid.most_days)
            if isinstance(days, int):
                found[case, label] = days
    return found


def made_on(annotations: pa.Table, owners: Sequence[str | None]) -> list[tuple[str, date]]:
    """Return of whom each label object is, and when it was made."""
    return [(who, day) for who, day in zip(owners, _made(annotations), strict=True) if who and day is not None]


def _placeholders(cohort: pa.Table) -> dict[date, Withheld]:
    dated = zip(*(cohort[c].to_pylist() for c in ("person_key", TRUE_DATE)), strict=True)
    return placeholder_studies((person, day) for person, day in dated if day is not None)


def _made(annotations: pa.Table) -> Sequence[date | None]:
    columns = [annotations.column(name).to_pylist() for name in LABEL_DATES]
    return [next((d for text in texts if (d := dicom_date(text))), None) for texts in zip(*columns, strict=True)]
