"""Phenotypes: a truth table of single persons, a recount by DuckDB, and that nothing later than the image gets in."""

import datetime
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from builder.clinical import ClinicalTable
from builder.spec import DatasetSpec
from tests.clinical.making import declared, met, said

STUDY = datetime.date(2020, 6, 1)
CANCER = [{"prefixes": ["C61", "C50"], "excluded": ["C61.8"]}]
WITHIN_A_YEAR = {"any_of": CANCER, "from_days": 0, "to_days": 365, "clear_days": "ever"}


def table(**options: Any) -> ClinicalTable:
    return declared(phenotypes={"cancer": {"any_of": CANCER, **options}})


def csv(*events: tuple[str, str, int | str | None]) -> bytes:
    """Rows of person, code, and a day after the study, a text, or nothing."""
    lines = ["id,code,date"]
    for person, code, day in events:
        when = (STUDY + datetime.timedelta(days=day)).isoformat() if isinstance(day, int) else day or ""
        lines.append(f"{person},{code},{when}")
    return "\n".join(lines).encode()


def outcome(options: ClinicalTable, *events: tuple[str, int | str | None]) -> tuple[Any, str]:
    """What person 1 is, in the column and in words; person 2 has another row."""
    data = csv(*(("1", code, day) for code, day in events), ("2", "Z00", 0))
    match = met(data, options, ["1"], studies={"1": STUDY})
    found = said(match)[0]
    counts = match.joined.decided["cancer"]
    return None if found is None else found["cancer"], next(name for name, n in counts.items() if n)


@pytest.mark.parametrize(
    ("options", "events", "expected"),
    [
        (WITHIN_A_YEAR, [("C61", 0)], (True, "case")),
        (WITHIN_A_YEAR, [("c61.9", 365)], (True, "case")),
        (WITHIN_A_YEAR, [("C 619", 30), ("Z00", -30)], (True, "case")),
        (WITHIN_A_YEAR, [("C61", 366)], (False, "control")),
        (WITHIN_A_YEAR, [("C61.8", 30)], (False, "control")),
        (WITHIN_A_YEAR, [("C6", 30), ("D61", 30)], (False, "control")),
        (WITHIN_A_YEAR, [("C61", 30), ("C61", -1)], (None, "a code before the window")),
        (WITHIN_A_YEAR, [("C61", 30), ("C50", None)], (None, "a code without a day")),
        (WITHIN_A_YEAR, [("C61", "2020-07")], (None, "a code without a day")),
        (WITHIN_A_YEAR, [("Z00", None)], (False, "control")),
        (WITHIN_A_YEAR, [], (None, "no row in the table")),
        ({**WITHIN_A_YEAR, "without_rows": "control"}, [], (False, "control")),
        ({**WITHIN_A_YEAR, "controls": "never"}, [("C61", 366)], (None, "a code outside the window")),
        ({**WITHIN_A_YEAR, "controls": "never"}, [("Z00", 1)], (False, "control")),
        ({**WITHIN_A_YEAR, "clear_days": 30}, [("C61", 30), ("C61", -31)], (True, "case")),
        ({**WITHIN_A_YEAR, "clear_days": 30}, [("C61", 30), ("C61", -30)], (None, "a code before the window")),
        ({**WITHIN_A_YEAR, "at_least": 2}, [("C61", 30), ("C50", 30)], (None, "codes on too few days")),
        ({**WITHIN_A_YEAR, "at_least": 2}, [("C61", 30), ("C50", 31)], (True, "case")),
        ({"to_days": 0}, [("C61", 1)], (False, "control")),
        ({"to_days": 0}, [("C61", 0)], (True, "case")),
        ({"to_days": 0}, [("C61", -9000), ("C61", None)], (True, "case")),
        ({"index": "first", "from_days": 1, "to_days": 90}, [("C61", 500), ("C61", 590)], (True, "case")),
        ({"index": "first", "from_days": 1, "to_days": 90}, [("C61", 500), ("C61", 591)], (False, "control")),
        (
            {"index": "first", "from_days": 1, "to_days": 90},
            [("C61", 5), ("C61", None)],
            (None, "a code without a day"),
        ),
        ({"index": "first"}, [("Z00", 5)], (False, "control")),
    ],
)
def test_truth_table(options, events, expected):
    assert outcome(table(**options), *events) == expected


def test_codes_of_a_system_and_an_index_day_of_the_persons_own():
    any_of = [{"system": "ICD-10", "codes": ["C61"]}, {"system": "RxNorm", "codes": ["161"]}]
    options = declared(phenotypes={"x": {"any_of": any_of, "system": "vocabulary", "index": "enrolled", "to_days": 0}})
    rows = (
        b"id,code,date,vocabulary,enrolled\n1,161,2020-01-01,RxNorm,2020-01-01\n2,161,2020-01-01,CPT,2020-01-01\n"
        b"3,C61,2020-01-02,ICD-10,2020-01-01\n4,C61,2020-01-01,ICD-10,2020-01-01\n4,Z,2020-01-01,ICD-10,2020-01-02\n"
    )
    match = met(rows, options, ["1", "2", "3", "4"], studies=dict.fromkeys("1234", STUDY))
    assert [row["x"] for row in said(match)] == [True, False, False, None]
    assert match.joined.decided["x"] == {"case": 1, "control": 2, "no day to count from": 1}
    facts = match.facts({})["phenotypes"]["x"]
    assert facts["counts"] == match.joined.decided["x"]
    assert facts["tier"] == "unstated"
    assert facts["rule"]["any_of"][0] == {"system": "ICD-10", "codes": ["C61"]}


def test_synthetic_conditions_equal_a_recount(corpus):
    place = corpus("layouts") / "synthea_csv" / "conditions.csv"
    first = duckdb.sql(f"SELECT CODE::VARCHAR, count(*) FROM read_csv('{place}') GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 3")
    codes = [row[0] for row in first.fetchall()]
    rule = {"any_of": [{"codes": codes}], "code": "CODE", "date": "START"}
    options = declared(person_id="PATIENT", phenotypes={
        "seen": {**rule, "to_days": 0},
        "new": {**rule, "from_days": 1, "to_days": 700, "clear_days": 400, "at_least": 2, "controls": "never"},
    })  # fmt: skip
    study = datetime.date(2018, 1, 1)
    rows = duckdb.sql(f"""
        WITH e AS (SELECT PATIENT p, CODE::VARCHAR IN {tuple(codes)} c, START - DATE '2018-01-01' n
                   FROM read_csv('{place}'))
        SELECT p, coalesce(bool_or(c AND n <= 0), false),
            CASE WHEN count(*) FILTER (c AND n BETWEEN -399 AND 0) > 0 THEN NULL
                 WHEN count(DISTINCT n) FILTER (c AND n BETWEEN 1 AND 700) >= 2 THEN true
                 WHEN count(*) FILTER (c) > 0 THEN NULL ELSE false END FROM e GROUP BY p""").fetchall()  # fmt: skip
    persons = sorted(row[0] for row in rows)
    match = met(place.read_bytes(), options, persons, studies=dict.fromkeys(persons, study))
    found = dict(zip(persons, said(match), strict=True))
    assert found == {person: {"seen": seen, "new": new} for person, seen, new in rows}
    assert {value["seen"] for value in found.values()} == {True, False}
    assert {value["new"] for value in found.values()} == {True, False, None}


EVENTS = st.lists(st.tuples(st.sampled_from(["C61", "C50", "C61.8", "Z00"]), st.integers(-400, 400)), max_size=6)


@given(EVENTS, st.lists(st.tuples(st.sampled_from(["C61", "Z00"]), st.integers(1, 400)), min_size=1, max_size=4))
def test_nothing_after_the_image_changes_an_input(before, after):
    """Neither a phenotype that may be an input nor a column of a dated table."""
    told = [(code, day) for code, day in before if day <= 0]
    known = table(to_days=0, at_least=2)
    assert known.phenotypes["cancer"].known_at_study
    if told:
        assert outcome(known, *told) == outcome(known, *told, *after)
    dated = declared(
        cardinality="many", pick={"by": "date", "take": "max"}, dated_by="date",
        columns={"code": {"from": "code", "type": "text"}},
    )  # fmt: skip
    values = [
        met(csv(*(("1", c, d) for c, d in events), ("2", "Z", 0)), dated, ["1"], studies={"1": STUDY}, until_study=True)
        for events in (told, [*told, *after])
    ]
    assert said(values[0]) == said(values[1])


SPEC = {
    "name": "x", "license": "CC0-1.0", "sources": [{"kind": "folder", "url": "there"}],
    "deid": {"patient_key": "${env:BUILDER_KEY}"}, "samples": {"kind": "volumes"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "later"),
    [
        ({"to_days": 0}, False),
        ({"from_days": -365, "to_days": -1, "clear_days": 30}, False),
        ({"to_days": 1}, True),
        ({}, True),
        ({"to_days": 0, "controls": "never"}, True),
        ({"to_days": 0, "index": "first"}, True),
        ({"to_days": 0, "index": "enrolled"}, True),
    ],
)
def test_what_later_days_may_decide_is_an_outcome(options, later):
    asked = {"url": "t.csv", "person_id": "id", "phenotypes": {"cancer": {"any_of": CANCER, **options}}}
    with_outcome = {**SPEC, "clinical": [asked], "report": {"outcomes": ["cancer"]}}
    assert DatasetSpec.model_validate(with_outcome).clinical[0].names == ("cancer",)
    if later:
        with pytest.raises(
            ValidationError, match=r"phenotypes\.cancer: found a column that may depend on what came after"
        ):
            DatasetSpec.model_validate({**SPEC, "clinical": [asked]})
    else:
        assert DatasetSpec.model_validate({**SPEC, "clinical": [asked]}).clinical_columns == ("cancer",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"any_of": [{}]}, "found no code"),
        ({"any_of": [{"prefixes": [" . "]}]}, "found no code or an empty one"),
        ({"any_of": [{"system": "ICD", "codes": ["C61"]}]}, "expected system"),
        ({"from_days": 3, "to_days": 2}, "from_days 3 after to_days 2"),
        ({"clear_days": "ever"}, "clear_days without from_days"),
        ({"from_days": 0, "clear_days": 0}, "expected at least 1"),
        ({"date_format": "%d.%m.%y"}, "four digits"),
    ],
)
def test_rules_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        table(**options)


@pytest.mark.parametrize("more", [{"columns": {"a": {"from": "a", "type": "text"}}}, {"by": {"uid": "study"}}])
def test_a_table_has_phenotypes_of_persons_or_columns(more):
    with pytest.raises(ValidationError, match="phenotypes"):
        declared(phenotypes={"cancer": {"any_of": CANCER}}, **more)
    with pytest.raises(ValidationError, match="neither columns nor phenotypes"):
        declared()
