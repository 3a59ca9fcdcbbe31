"""Clinical tables: real ones against facts counted independently, and the ways a table can be bad."""

import csv
import datetime
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.clinical import ClinicalTable, Images, TableMatch, faults, join, read_rows, read_table, schema
from builder.errors import SpecError


def declared(**options: Any) -> ClinicalTable:
    options.setdefault("url", "table.csv")
    options.setdefault("person_id", "id")
    return ClinicalTable.model_validate(options)


def met(data: bytes, options: ClinicalTable, persons: Iterable[str]) -> TableMatch:
    """A table against persons of one PatientID and one stack each."""
    ids = sorted(persons)
    images = Images(ids, ids, {"person": [(i,) for i in ids]}, [None] * len(ids), {})
    rows = read_rows(data, options)
    return TableMatch(options, rows, join(rows, options, images))


AGE = {"age": {"from": "Age", "type": "number", "min": 0, "max": 120}}


def test_sarcoma_table(corpus: Any) -> None:
    data = next(corpus("sts").rglob("INFOclinical_STS.xlsx")).read_bytes()
    options = declared(
        person_id="Patient ID",
        missing=["--", "N/A"],
        columns={
            "sex": {"from": "Sex", "type": "category"},
            "age_years": {"from": "Age", "type": "number", "min": 0, "max": 120, "unit": "a"},
            "grade": {"from": "Grade", "type": "category"},
            "outcome_days": {"from": "Time – diagnosis to outcome (days)", "type": "integer"},  # noqa: RUF001
        },
    )
    rows = read_table(data, options)
    assert rows.table.num_rows == 51
    assert Counter(rows.table["sex"].to_pylist()) == {"Female": 27, "Male": 24}
    assert Counter(rows.table["grade"].to_pylist()) == {"High": 28, "Intermediate": 15, "Low": 5, None: 3}
    assert rows.table["outcome_days"].to_pylist()[:2] == [266, None]
    assert len(rows.not_persons) == 8  # NOTES, six explanations, N/A: Not Available
    assert rows.issues == ()
    images = {path.name for path in corpus("sts").glob("sts_cohort/STS_*")}
    report = met(data, options, images).joined
    assert len(report.matched) == 34
    assert not report.image_only
    assert len(report.clinical_only) == 17


@pytest.mark.parametrize("cancer", ["luad", "ov", "kirc", "lihc"])
def test_death_with_the_time_to_it(corpus: Any, cancer: str) -> None:
    """Days from diagnosis to death, or to the last contact with those alive, against the cells of the file."""
    data = next(corpus("tables").rglob(f"tcga_clinical_patient_{cancer}.txt")).read_bytes()
    options = declared(
        person_id="bcr_patient_barcode",
        person_pattern=r"TCGA-\w\w-\w{4}",
        missing=["[Not Available]", "[Not Applicable]", "[Completed]", "[Discrepancy]", "[Unknown]"],
        columns={
            "vital": {"from": "vital_status", "type": "category", "levels": ["Alive", "Dead"]},
            "death_days": {"from": "death_days_to", "type": "integer", "unit": "d"},
            "contact_days": {"from": "last_contact_days_to", "type": "integer", "unit": "d"},
        },
        events={"death": {"column": "vital", "happened": ["Dead"], "time": "death_days", "censored": "contact_days"}},
    )
    rows = read_table(data, options)
    assert schema(options).field("death_time").metadata == {b"unit": b"d"}
    found = {r["person_id"]: (r["death_event"], r["death_time"]) for r in rows.table.to_pylist()}
    lost = 0
    for line in csv.DictReader(io.StringIO(data.decode()), delimiter="\t"):
        if line["bcr_patient_barcode"].startswith("TCGA-"):
            dead = line["vital_status"] == "Dead"
            days = line["death_days_to" if dead else "last_contact_days_to"]
            known = days.isdigit() and line["vital_status"] in ("Alive", "Dead")
            assert found[line["bcr_patient_barcode"]] == ((dead, float(days)) if known else (None, None))
            lost += not known and line["vital_status"] in ("Alive", "Dead")
    assert len([i for i in rows.issues if i.column == "death_event"]) == lost
    assert 0.1 < sum(event is True for event, _ in found.values()) / len(found) < 0.7


def test_an_event_from_a_boolean_and_a_date() -> None:
    options = declared(
        columns={"back": {"from": "b", "type": "boolean"}, "when": {"from": "d", "type": "date"}},
        events={"relapse": {"column": "back", "happened": ["true"], "time": "when"}},
    )
    data = b"id,b,d\nA,yes,2020-01-11\nB,no,2020-03-01\nC,yes,\nD,,2020-01-01\nE,no,2019-12-01\n"
    dates = dict.fromkeys("ABCDE", datetime.date(2020, 1, 1))
    rows = read_table(data, options, study_dates=dates)
    found = {r["person_id"]: (r["relapse_event"], r["relapse_time"]) for r in rows.table.to_pylist()}
    assert found == {
        "A": (True, 10.0), "B": (False, 60.0), "C": (None, None), "D": (None, None), "E": (None, None),
    }  # fmt: skip
    assert [(i.row, i.problem.split()[2]) for i in rows.issues] == [(4, "without"), (6, "before")]
    assert schema(options).field("relapse_time").metadata == {b"unit": b"d"}


@pytest.mark.parametrize(
    "event",
    [
        {"column": "nothing", "happened": ["1"], "time": "when"},
        {"column": "back", "happened": ["1"], "time": "back"},
        {"column": "back", "happened": [], "time": "when"},
        {"column": "back", "happened": ["1"], "time": "when", "censored": "years"},
    ],
)
def test_events_that_cannot_be_are_refused(event: dict[str, Any]) -> None:
    columns = {
        "back": {"from": "b", "type": "boolean"},
        "when": {"from": "d", "type": "integer", "unit": "d"},
        "years": {"from": "y", "type": "integer", "unit": "a"},
    }
    with pytest.raises(ValueError, match="events"):
        declared(columns=columns, events={"relapse": event})


@pytest.mark.parametrize("cancer", ["luad", "ov", "kirc", "lihc"])
def test_biotab_heading_rows_are_no_patients(corpus: Any, cancer: str) -> None:
    path = next(corpus("tables").rglob(f"tcga_clinical_patient_{cancer}.txt"))
    with path.open(newline="") as stream:
        lines = list(csv.reader(stream, delimiter="\t"))
    place = lines[0].index("bcr_patient_barcode")
    expected = {line[place] for line in lines if line[place].startswith("TCGA-")}
    options = declared(person_id="bcr_patient_barcode", columns={"sex": {"from": "gender", "type": "category"}})
    rows = read_table(path.read_bytes(), options)
    assert set(rows.table["person_id"].to_pylist()) == expected
    assert set(rows.table["sex"].to_pylist()) <= {"MALE", "FEMALE"}


def test_lung1_table(corpus: Any) -> None:
    data = next(corpus("tables").rglob("nsclc_lung1_clinical.csv")).read_bytes()
    columns = {
        "age": {"from": "age", "type": "number"},
        "dead": {"from": "deadstatus.event", "type": "boolean"},
        "t": {"from": "clinical.T.Stage", "type": "integer"},
    }
    rows = read_table(data, declared(person_id="PatientID", missing=["NA"], columns=columns))
    assert rows.table.num_rows == 422
    assert rows.table.schema == schema(declared(person_id="PatientID", columns=columns))
    first = rows.table.slice(0, 1).to_pylist()[0]
    assert first == {"person_id": "LUNG1-001", "age": 78.7515, "dead": True, "t": 2}


def test_many_rows_a_person_and_a_pick(corpus: Any) -> None:
    data = next(corpus("tables").rglob("CrowdsCureCancer2017Annotations.csv")).read_bytes()
    columns = {"length_mm": {"from": "length", "type": "number"}}
    with_pick = declared(
        person_id="patientID", cardinality="many", pick={"by": "length", "take": "max"}, columns=columns
    )
    rows = read_table(data, with_pick)
    expected: dict[str, float] = {}
    for line in csv.DictReader(io.StringIO(data.decode())):
        if line["length"]:
            expected[line["patientID"]] = max(expected.get(line["patientID"], 0.0), float(line["length"]))
    found = dict(zip(rows.table["person_id"].to_pylist(), rows.table["length_mm"].to_pylist(), strict=True))
    assert len(found) == 352
    assert {k: v for k, v in found.items() if v is not None} == expected
    without = read_table(data, declared(person_id="patientID", columns=columns))
    assert without.ambiguous  # different lengths and no rule: nobody chooses for the user
    assert not set(without.ambiguous) & set(without.table["person_id"].to_pylist())


def test_bad_cells_become_missing_and_are_listed_without_their_value() -> None:
    data = b"id,Age,Sex\nA,200,M\nB,forty,F\nC,,M\nD,-1,X\nE,4e1,M\n"
    columns = AGE | {"sex": {"from": "Sex", "type": "category", "levels": {"M": "male", "F": "female"}}}
    rows = read_table(data, declared(columns=columns))
    assert rows.table["age"].to_pylist() == [None, None, None, None, 40.0]
    assert rows.table["sex"].to_pylist() == ["male", "female", "male", None, "male"]
    assert [(i.row, i.column) for i in rows.issues] == [(2, "age"), (3, "age"), (5, "age"), (5, "sex")]
    assert "forty" not in repr(rows.issues)
    assert "200" not in repr(rows.issues)


def test_rows_without_id_or_with_a_note_only_are_no_persons() -> None:
    rows = read_table(b"id,Age\nA,1\n,2\nNote: ages in years,\n\nB,3\n", declared(columns=AGE))
    assert rows.table["person_id"].to_pylist() == ["A", "B"]
    assert rows.not_persons == (3, 4)


def test_person_pattern_takes_the_patient_part() -> None:
    options = declared(columns=AGE, person_pattern=r"(TCGA-\w{2}-\w{4})-\d\d")
    rows = read_table(b"id,Age\nTCGA-AA-0001-01,1\nfootnote 3,2\n", options)
    assert rows.table["person_id"].to_pylist() == ["TCGA-AA-0001"]
    assert rows.not_persons == (3,)


def test_dates_become_days_and_never_leave() -> None:
    data = b"id,died\nA,2001-03-01\nB,2001-03-01\nC,soon\n"
    options = declared(columns={"death_day": {"from": "died", "type": "date"}})
    rows = read_table(data, options, study_dates={"A": datetime.date(2001, 2, 1), "C": datetime.date(2001, 2, 1)})
    assert rows.table["death_day"].to_pylist() == [28, None, None]
    assert [(i.row, i.column) for i in rows.issues] == [(4, "death_day")]
    assert "2001" not in repr(rows)


def test_same_rows_collapse_and_different_ones_are_ambiguous() -> None:
    rows = read_table(b"id,Age,x\nA,1,p\nA,1,q\nB,1,p\nB,2,p\n", declared(columns=AGE))
    assert rows.table["person_id"].to_pylist() == ["A"]
    assert rows.ambiguous == ("B",)
    report = met(b"id,Age,x\nA,1,p\nA,1,q\nB,1,p\nB,2,p\n", declared(columns=AGE), ["A", "B", "C"]).joined
    assert (report.matched, report.image_only, report.clinical_only, report.ambiguous) == (("A",), ("C",), (), ("B",))


def test_too_few_matches_stop_the_build() -> None:
    options = declared(columns=AGE, min_matched=0.5)
    (fault,) = faults(met(b"id,Age\nA,1\n", options, ["A", "B", "C"]))
    assert "1 of 3 persons (33.3%)" in fault


def test_facts_show_no_identifier() -> None:
    facts = met(b"id,Age\nCANARY1,CANARY3\n", declared(columns=AGE), ["CANARY2"]).facts({})
    assert (facts["clinical_only"], facts["image_only"]) == (1, 1)
    assert facts["cells_not_taken"] == [{"row": 2, "column": "age", "problem": "not a number"}]
    assert "CANARY" not in repr(facts)


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for line in (["id", "Age"], ["A", 1], ["B", 2.5]):
        sheet.append(line)
    book.save(tmp_path / "t.xlsx")
    pq.write_table(pa.table({"id": ["A", "B"], "Age": [1.0, 2.5]}), tmp_path / "t.parquet")
    texts = [b"id,Age\nA,1\nB,2.5\n", b"id\tAge\r\nA\t1\r\nB\t2.5\r\n", "\ufeffid;Age\nA;1\nB;2.5".encode()]
    texts += ["id,Age\nA,1\nB,2.5\n".encode("utf-16"), *((tmp_path / n).read_bytes() for n in ("t.xlsx", "t.parquet"))]
    tables = [read_table(data, declared(columns=AGE)).table for data in texts]
    assert all(table.equals(tables[0]) for table in tables)
    assert tables[0]["age"].to_pylist() == [1.0, 2.5]


def test_faults_of_the_declaration_name_the_nearest_heading() -> None:
    with pytest.raises(SpecError, match=r"'Agee'; did you mean 'Age'"):
        read_table(b"id,Age\n", declared(columns={"a": {"from": "Agee", "type": "number"}}))
    with pytest.raises(SpecError, match="found 2 columns"):
        read_table(b"id,Age,Age\n", declared(columns=AGE))
    with pytest.raises(SpecError, match="binary"):
        read_table(b"\0\1\2\3", declared(columns=AGE))
    with pytest.raises(SpecError, match="a ZIP file that is no XLSX"):
        read_table(b"PK\3\4 nonsense", declared(columns=AGE))


@given(st.lists(st.text(max_size=8), max_size=6), st.sampled_from(["category", "number", "integer", "boolean", "date"]))
def test_any_text_types_or_is_listed(cells: list[str], kind: str) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerow(["id", "x", "y"])
    for number, text in enumerate(cells):
        writer.writerow([f"P{number}", text.replace("\0", ""), "1"])
    data = stream.getvalue().encode("utf-8", errors="replace")
    day = {f"P{n}": datetime.date(2000, 1, 1) for n in range(len(cells))}
    rows = read_table(data, declared(columns={"x": {"from": "x", "type": kind}}), study_dates=day)
    assert rows.table.num_rows == len(cells)
    assert rows.table["x"].null_count >= len(rows.issues)
