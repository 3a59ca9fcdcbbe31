"""Times of clinical tables: none to a birth, none to a date that rows without images share, none beyond age 89."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pytest

from builder.deid.dates import Lifetime, shared_dates
from builder.planning.clinical_times import as_they_leave, is_birth, table_births, true_ages
from builder.planning.offsets import read_lives
from builder.planning.roster import TRUE_AGE
from builder.spec import DatasetSpec
from builder.split import TRUE_DATE

SCAN, SEEN = date(2015, 3, 5), date(2015, 3, 15)


def spec(**columns: Mapping[str, Any]) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "times",
            "license": "CC0-1.0",
            "sources": [{"kind": "folder", "url": "archive"}],
            "clinical": [{"url": "table.csv", "person_id": "id", "columns": columns}],
            "deid": {
                "patient_key": "${env:BUILDER_KEY}",
                "retain": [n for n, c in columns.items() if c["type"] == "date"],
            },
            "samples": {"kind": "volumes"},
        }
    )


def leaving(
    columns: Mapping[str, list[Any]],
    declared: DatasetSpec,
    *,
    scans: Sequence[date] = (SCAN,),
    stated: Sequence[tuple[str, date]] = (),
) -> dict[str, list[Any]]:
    """What leaves of columns of one person, who was imaged once or on several days."""
    persons, first = ["p"] * len(scans), {"p": min(scans)}
    stacks = pa.table(
        {
            "study_date": [f"{day:%Y%m%d}" for day in scans],
            "age_years": pa.nulls(len(scans), pa.float64()),
            "patient_birth_date": pa.nulls(len(scans), pa.string()),
        }
    )
    births = table_births(columns, declared, persons, first)
    return as_they_leave(columns, declared, persons, stacks, births=births, shared=shared_dates(stated))[0]


SEEN_COLUMN = {"from": "Seen", "type": "date"}


@pytest.mark.parametrize(("others", "days"), [(3, 10), (4, None)])
def test_rows_without_images_count_where_persons_share_a_date(others: int, days: int | None) -> None:
    rows = [("p", SEEN), *((f"nobody{n}", SEEN) for n in range(others))]
    assert leaving({"seen": [10]}, spec(seen=SEEN_COLUMN), stated=rows)["seen"] == [days]


@pytest.mark.parametrize(
    ("name", "heading"),
    [("dob", "A"), ("born", "A"), ("a", "Geburtsdatum"), ("a", "PatientDOB"), ("a", "D.O.B."), ("a", "Date of birth")],
)
def test_a_date_of_birth_never_leaves_as_a_time(name: str, heading: str) -> None:
    """An infant's birth lies within the bound of days, and no header states it."""
    declared = spec(**{name: {"from": heading, "type": "date"}})
    assert leaving({name: [-40]}, declared)[name] == [None]


def test_none_of_several_stated_births_leaves() -> None:
    """The later of two differs from the birth that counts, and would look like a date of care."""
    declared = spec(dob={"from": "DOB", "type": "date"}, born={"from": "Born", "type": "date"})
    found = leaving({"dob": [-40], "born": [-39]}, declared)
    assert (found["dob"], found["born"]) == ([None], [None])


@pytest.mark.parametrize("heading", ["Seen", "Stillborns", "Gebiet", "Relapse"])
def test_other_headings_are_no_births(heading: str) -> None:
    assert not is_birth(spec(a={"from": heading, "type": "date"}).clinical[0], "a")


@pytest.mark.parametrize(("age", "days"), [(87, 10), (90, None)])
def test_an_age_that_only_a_table_states_counts(age: float, days: int | None) -> None:
    declared = spec(seen=SEEN_COLUMN, age={"from": "Age", "type": "number"})
    assert leaving({"seen": [10], "age": [age]}, declared)["seen"] == [days]


@pytest.mark.parametrize("scans", [(date(2005, 3, 5), SCAN), (SCAN, date(2005, 3, 5))])
def test_one_age_of_a_person_imaged_over_years_counts_for_the_first_day(scans: Sequence[date]) -> None:
    """Who was 82 in 2005 is 92 in 2015, whichever of the images is read last."""
    declared = spec(seen=SEEN_COLUMN, age={"from": "Age", "type": "number"})
    days = (SEEN - min(scans)).days
    assert leaving({"seen": [days] * 2, "age": [82.0] * 2}, declared, scans=scans)["seen"] == [None] * 2


@pytest.mark.parametrize(("born", "days"), [(date(1927, 3, 5), 10), (date(1924, 3, 5), None)])
def test_a_birth_date_that_only_a_table_states_counts(born: date, days: int | None) -> None:
    declared = spec(seen=SEEN_COLUMN, birth={"from": "Birth", "type": "date"})
    found = leaving({"seen": [10], "birth": [(born - SCAN).days]}, declared)
    assert (found["seen"], found["birth"]) == ([days], [None])


class _NoIdentities:
    def identities(self) -> pa.Table:
        return pa.table({"patient_birth_date": pa.array([], pa.string())})


class _Nobody:
    def keys_of(self, table: pa.Table) -> list[str]:
        return []


def test_ages_and_births_of_tables_reach_the_other_times() -> None:
    """``study_day`` and ``days_after_image`` know of a person's age what tables state."""
    declared = spec(birth={"from": "Birth", "type": "date"}, age={"from": "Age", "type": "number"})
    days = [date(2005, 3, 5), SCAN]
    cohort = pa.table(
        {
            "person_key": ["a", "a", "b", "c"],
            TRUE_DATE: [*days, SCAN, SCAN],
            "age_years": pa.array([None, None, 60.0, None], pa.float64()),
            "age": pa.array([82.0, 82.0, 90.0, None], pa.float64()),
        }
    )
    ages = true_ages(cohort, {"c": date(1920, 3, 5)}, spec=declared)
    assert [round(age) for age in ages.to_pylist()] == [82, 82, 90, 95]
    lives = read_lives(
        cohort.append_column(TRUE_AGE, ages),
        _Nobody(),  # type: ignore[arg-type]
        _NoIdentities(),  # type: ignore[arg-type]
        retain=("study_day",),
    )
    assert [lives[person].may_be_over_89(SCAN) for person in "abc"] == [True] * 3
    assert not lives["a"].may_be_over_89(days[0])


def test_the_older_statement_counts() -> None:
    known = Lifetime().or_older(82, date(2005, 3, 5))
    assert known.or_older(82, SCAN) == known
    assert known.or_older(93, SCAN) == Lifetime(None, 93, SCAN)
    assert known.or_older(80, SCAN - timedelta(days=1)) == known
