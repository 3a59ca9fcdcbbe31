"""Ids as spreadsheets leave them, days as they may leave, and clinical rows that contradict each other: small plans."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from builder.clinical.table import PLANNING
from builder.errors import SpecError
from builder.model.tables import SERIES
from builder.run.outcomes import Planned
from builder.run.pipeline import plan
from builder.spec import DatasetSpec
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series, rtstruct, uid

Asked = Callable[..., Planned]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Plan an archive of PatientIDs, each with the dates of its studies, and a table."""
    monkeypatch.setenv("BUILDER_KEY", KEY)

    def ask(people: Mapping[str, tuple[str, ...]], text: str, table: Mapping[str, Any], **blocks: Any) -> Planned:
        for patient, dates in people.items():
            for number, date in enumerate(dates):
                name = f"{patient}-{number}"
                ct_series(
                    tmp_path / "in" / name, patient_id=patient, study=name, series=name, slices=2, shape=(4, 4),
                    date=date,
                )  # fmt: skip
        (tmp_path / "table.csv").write_text(text)
        columns = {"grade": {"from": "Grade", "type": "category"}}
        days = [name for name, column in table.get("columns", {}).items() if column["type"] == "date"]
        spec = {
            "name": "small",
            "license": "CC0-1.0",
            "sources": [{"kind": "folder", "url": str(tmp_path / "in")}],
            "clinical": [{"url": str(tmp_path / "table.csv"), "person_id": "ID", "columns": columns, **table}],
            "deid": {"patient_key": "${env:BUILDER_KEY}", **blocks.pop("deid", {})},
            "samples": {"kind": "volumes"},
            "splits": {"ratios": {"train": 1.0}},
            "report": {"outcomes": days},
            **blocks,
        }
        return plan(DatasetSpec.model_validate(spec), to=tmp_path / "dataset")

    return ask


def values(planned: Planned, column: str) -> list[Any]:
    rows = planned.plan.cohort.select(["study_date", "series_uid", column]).to_pylist()
    return [row[column] for row in sorted(rows, key=lambda row: (str(row["study_date"]), row["series_uid"]))]


ONCE = ("20190302",)


@pytest.mark.parametrize(
    ("ids", "table", "stops"),
    [
        (("0001", "0002", "1"), ("1", "2"), True),  # 2 is nobody's: zeros were lost, and 1 may be 0001
        (("007", "008", "7", "8"), ("7", "8"), False),  # nothing shows that zeros were lost
        (("0001", "0002", "1"), ("0001", "0002", "1"), False),
        (("0001", "0002", "1"), ("0001", "2", "1"), False),  # both 1 and 0001 have a row of their own
        (("A01", "A02", "A1"), ("A1", "A2"), False),  # no spreadsheet cuts these
        (("01", "1", "3"), ("1", "3"), False),
        (("0001", "0002"), ("1", "0002"), False),
        (("0010", "0011", "10"), ("10", "11"), True),
        (("P-007", "P-008", "P-7"), ("p-7", "p-8"), False),
        (("000", "001", "0002", "2"), ("1", "2"), True),
    ],
)  # fmt: skip
def test_a_row_that_may_be_of_two_persons_is_given_to_neither(
    ids: tuple[str, ...], table: tuple[str, ...], stops: bool, asked: Asked
) -> None:
    people = dict.fromkeys(ids, ONCE)
    text = "ID,Grade\n" + "".join(f"{patient},low\n" for patient in table)
    if not stops:
        asked(people, text, {})
        return
    with pytest.raises(SpecError, match="are one person's as they stand and another's with zeros"):
        asked(people, text, {})
    planned = asked(people, text, {}, persons={"leading_zeros": "distinct"})
    assert planned.plan.clinical[0]["matched"] == 1
    joined = asked(people, text, {}, persons={"leading_zeros": "join"})
    assert joined.plan.clinical[0]["matched"] == 2


@pytest.mark.parametrize(
    ("aliases", "row", "days"),
    [
        ("A,B\n", "B", [10, 10, None]),
        ("B,A\nA,C\n", "C", [10, 10, 10]),
        ("A,X\nX,C\n", "X", [10, None, 10]),  # nobody has images under X, and the row is under X
    ],
)
def test_days_count_from_the_first_study_under_any_id(
    aliases: str, row: str, days: list[int | None], asked: Asked, tmp_path: Path
) -> None:
    people = {"A": ("20100305",), "B": ("20120305",), "C": ("20150605",)}
    (tmp_path / "aliases.csv").write_text(f"id,alias\n{aliases}")
    table = {"columns": {"dx": {"from": "Dx", "type": "date"}}}
    persons = {"aliases": str(tmp_path / "aliases.csv")}
    planned = asked(people, f"ID,Dx\n{row},2010-03-15\n", table, deid={"retain": ["dx"]}, persons=persons)
    assert values(planned, "dx") == days


def test_times_that_may_not_leave_are_counted(asked: Asked) -> None:
    table = {"columns": {"dx": {"from": "Dx", "type": "date"}}}
    people = {"A": ("20190302", "20190105"), "B": ONCE, "C": ("20180505", "20190607")}
    text = "ID,Dx\nA,2019-01-01\nB,2019-03-12\nC,2018-05-25\n"
    planned = asked(people, text, table, deid={"retain": ["dx"]})
    assert sorted(map(str, values(planned, "dx"))) == ["10", "20", "20", "None", "None"]
    assert planned.plan.clinical[0]["times_withheld"] == {"dx": 2}
    assert "    dx: 2 times withheld (the day stands for a month, a year or nothing: 2; docs" in planned.text()
    kept = asked(people, text, table)
    assert "times_withheld" not in kept.plan.clinical[0]
    assert "  column dx (clinical): published without values, because a time between two dates" in kept.text()
    assert "published without values" not in planned.text()


def test_a_date_that_many_persons_share_over_columns_may_not_leave(asked: Asked) -> None:
    """A lock of the data base gives the last contact of some and the end of treatment of others."""
    columns = {name: {"from": name, "type": "date"} for name in ("seen", "ended")}
    people = {f"P{n}": (f"2019030{n}",) for n in range(2, 7)}
    text = "ID,seen,ended\nP2,2019-06-01,\nP3,2019-06-01,\nP4,2019-06-01,2019-05-02\nP5,,2019-06-01\nP6,,2019-06-02\n"
    few = asked(people, text, {"columns": columns}, deid={"retain": ["seen"]})
    assert values(few, "seen") == [91, 90, 89, None, None]
    many = asked(people, text.replace("06-02", "06-01"), {"columns": columns}, deid={"retain": ["seen"]})
    assert set(values(many, "seen")) == {None}
    assert many.plan.clinical[0]["times_withheld"] == {"seen": 3}


@pytest.mark.parametrize(("persons", "withheld"), [(4, 0), (5, 10)])
def test_days_that_study_day_withholds_are_counted(asked: Asked, persons: int, withheld: int) -> None:
    """Five persons with a study on a first of January are a habit of the archive; four may be chance."""
    table = {"columns": {"dx": {"from": "Dx", "type": "date"}}}
    people = {f"P{n}": (f"201{n}0101", f"201{n}0201") for n in range(persons)}
    planned = asked(people, "ID,Dx\nP0,2010-03-12\n", table, deid={"retain": ["study_day"]})
    assert planned.forecast["days_withheld"] == withheld
    line = f"  column study_day (deid.retain): withheld from {withheld} cases, because a date is a placeholder"
    assert (line in planned.text()) is bool(withheld)


def test_rows_that_contradict_each_other_are_no_missing_rows(asked: Asked) -> None:
    planned = asked(dict.fromkeys("ABC", ONCE), "ID,Grade\nA,low\nB,low\nB,high\n", {}, cohort={"clinical": "required"})
    reasons = sorted(map(str, planned.plan.cohort["reason"].to_pylist()))
    assert reasons == ["None", "clinical_ambiguous", "clinical_missing"]


def test_every_column_of_a_plan_is_known_where_tables_are_checked(asked: Asked) -> None:
    planned = asked(dict.fromkeys("AB", ONCE), "ID,Grade\nA,low\nB,low\n", {})
    assert {*planned.plan.cohort.column_names} - {*SERIES.names} - {"grade"} <= PLANNING


@pytest.mark.parametrize(("others", "days"), [(1, [3, 2, 1, None]), (2, [None] * 4)])
def test_labels_and_tables_together_may_share_a_date(
    others: int, days: list[int | None], asked: Asked, tmp_path: Path
) -> None:
    """Three persons were seen on a day on which labels of further persons were drawn; all five are of one campaign."""
    for n in range(others):
        made = ct_series(patient_id=f"Q{n}", study=f"q{n}", series=f"q{n}", frame=f"q{n}", slices=2, shape=(4, 4))
        drawn = rtstruct(made, {"GTV": []})
        drawn.StructureSetDate = "20190305"
        (tmp_path / "in").mkdir(exist_ok=True)
        drawn.save_as(tmp_path / "in" / f"q{n}.dcm", enforce_file_format=True)
    table = {"columns": {"seen": {"from": "Seen", "type": "date"}}}
    people = {f"P{n}": (f"2019030{n}",) for n in range(2, 6)}
    text = "ID,Seen\nP2,2019-03-05\nP3,2019-03-05\nP4,2019-03-05\n"
    planned = asked(people, text, table, deid={"retain": ["seen"]})
    assert values(planned, "seen") == days
    why = planned.plan.clinical[0].get("why_withheld", {})
    assert why == ({"seen": {"five or more persons share the date": 3}} if others == 2 else {})


def test_studies_of_one_person_are_no_persons_who_share_a_date(asked: Asked) -> None:
    """The date of a biopsy stands in the row of each of five studies, and is one person's own."""
    dates = tuple(f"201903{n:02}" for n in range(2, 7))
    rows = "".join(f"{uid('study', 'A', f'A-{n}')},2019-03-12\n" for n in range(5))
    joined = {"person_id": None, "by": {"Study": "study"}, "columns": {"dx": {"from": "Dx", "type": "date"}}}
    planned = asked({"A": dates}, f"Study,Dx\n{rows}", joined, deid={"retain": ["dx"]})
    assert values(planned, "dx") == [10] * 5
