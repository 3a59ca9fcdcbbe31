"""Which of several rows counts: values are compared as what they are, and what has no certain order is refused."""

import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from builder.clinical import ClinicalTable, faults
from builder.errors import SpecError
from tests.clinical.making import declared, met, parquet, said, workbook

RESULT = {"r": {"from": "R", "type": "category"}}


def table(**pick: Any) -> ClinicalTable:
    columns = {**RESULT, **pick.pop("columns", {})}
    return declared(cardinality="many", pick={"by": "V", "take": "min", **pick}, columns=columns)


def lines(*values: str, others: tuple[str, ...] = ()) -> bytes:
    """Rows of one person, the first ``late`` and the last ``early``; ``others`` are another person's single rows."""
    names = ["late", *(f"between{i}" for i in range(len(values) - 2)), "early"]
    rows = [f"P\t{value}\t{name}" for value, name in zip(values, names, strict=True)]
    rows += [f"O{i}\t{value}\tother" for i, value in enumerate(others)]
    return "\n".join(["id\tV\tR", *rows]).encode()


@pytest.mark.parametrize(
    "values",
    [
        ("02/11/2018", "15/03/2018"), ("12/10/2018", "30/09/2018"), ("03/15/2019", "11/02/2018"),
        ("12/31/2018", "2/28/2018"), ("02.11.2018", "15.03.2018"), ("1.10.2018", "30.9.2018"),
        ("02-Nov-2018", "15-Mar-2018"), ("2 November 2018", "15 March 2018"), ("November 2, 2018", "March 15, 2018"),
        ("Nov 2 2018", "Mar 15th, 2018"), ("2018-11-2", "2018-3-15"), ("2018/11/2", "2018/3/15"),
        ("20181102", "20180315"),
        ("April 2018", "March 2018"), ("Apr-2018", "Jan-2018"), ("10/2018", "9/2018"), ("2018-10", "2018-9"),
        ("2018-03-15T10:00:00", "2018-03-15"), ("2018-03-15 10:00", "2018-03-15 9:30"),
        ("15/03/2018 10:00", "15/03/2018 9:59"), ("15.03.2018 1:00 PM", "15.03.2018 11:00 AM"),
        ("2018-03-15T10:00:00+01:00", "2018-03-15T08:30:00Z"), ("2019", "15/03/2018"),
        ("Visit 10", "Visit 9"), ("visit 10", "Visit 2"), ("T10", "T9"), ("Month 12", "Month 3"), ("V-10", "V-2"),
        ("Day 5", "Day -5"), ("10 mm", "9 mm"), ("10%", "9%"), ("10,5", "9,5"), ("10,5 cm", "9,75 cm"),
        ("1,200", "900"), ("1,200,000", "900"), ("1.200,5", "900"), ("10.250", "9.5"), ("1.200", "0.900"),
        ("1.200.000", "900"), ("-5", "-10"), ("1e3", "900"), ("0.10", "0.9e-1"),
        ("10", "<1"), (">90", "12"), ("III", "II"), ("IX", "V"), ("Stage IV", "Stage III"), ("10", "9", "8"),
        ("9007199254740993", "9007199254740992"),
    ],
)  # fmt: skip
def test_the_smallest_value_is_picked_whatever_it_is_written_like(values: tuple[str, ...]) -> None:
    found = met(lines(*values), table(), "P")
    assert said(found) == [{"r": "early"}]
    assert said(met(lines(*values), table(take="max"), "P")) == [{"r": "late"}]


@pytest.mark.parametrize(
    "values",
    [
        ("Baseline", "Follow-up"), ("Visit 2", "Baseline"), ("A", "B"), ("10 mm", "1 cm"), ("IIA", "II"),
        ("high", "low"),
        ("Visit 2a", "Visit 1b"), ("10-20", "5-9"), ("02/11/18", "15/03/18"), ("1.2.3", "1.10.0"), ("X", "I"),
        ("2018-13-45", "2018-02-03"), ("31/02/2018", "01/02/2018"), ("10", "unknown"), ("10", "5 mm"),
        ("Mai 2018", "Jun 2018"),
    ],
)  # fmt: skip
def test_values_without_an_order_are_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(SpecError, match=r"pick.by 'V': found values without an order"):
        met(lines(*values), table(), "P")


@pytest.mark.parametrize("values", [("02/11/2018", "01/12/2018"), ("1,234", "900"), ("1.234", "900")])
def test_values_that_two_readings_order_differently_are_refused(values: tuple[str, str]) -> None:
    with pytest.raises(SpecError, match="can be read in two ways"):
        met(lines(*values), table(), "P")


def test_what_one_column_shows_elsewhere_decides_how_it_is_read() -> None:
    doubtful = ("02/11/2018", "01/12/2018")
    assert said(met(lines(*doubtful, others=("31/01/2018",)), table(), "P")) == [{"r": "late"}]
    assert said(met(lines(*doubtful, others=("01/31/2018",)), table(), "P")) == [{"r": "early"}]
    # both readings agree: nothing to refuse
    assert said(met(lines("02/02/2018", "01/01/2018"), table(), "P")) == [{"r": "early"}]


def test_values_that_overlap_leave_a_person_without_a_row() -> None:
    found = met(lines("<5", "3", others=("7",)), table(), ["P", "O0"])
    assert found.joined.ambiguous == ("P",)
    assert said(met(lines("March 2018", "15 March 2018"), table(), "P")) == [None]
    assert said(met(lines("April 2018", "15 March 2018"), table(), "P")) == [{"r": "early"}]


def test_an_order_that_the_spec_states() -> None:
    order = ["screening", "baseline", "follow-up"]
    assert said(met(lines("follow-up", "screening"), table(order=order), "P")) == [{"r": "early"}]
    with pytest.raises(SpecError, match=r"pick.order does not list"):
        met(lines("follow-up", "surgery"), table(order=order), "P")


def test_a_declared_column_is_compared_as_it_is_declared() -> None:
    date = {"day": {"from": "V", "type": "date", "format": "%m/%d/%Y"}}
    assert said(met(lines("02/11/2018", "01/12/2018"), table(columns=date), "P"))[0] == {"r": "early", "day": None}
    euro = {"n": {"from": "V", "type": "number", "decimal": ","}}
    assert said(met(lines("1.200", "900,1"), table(columns=euro), "P")) == [{"r": "early", "n": 900.1}]
    found = met(lines("02/11/2018", "soon", "01/12/2018"), table(columns=date), "P")
    assert said(found)[0] == {"r": "early", "day": None}
    assert [i.row for i in found.issues] == [3]


def test_cells_of_spreadsheets_and_parquet_are_compared_by_value() -> None:
    rows = (["id", "V", "R"], ["P", 10, "late"], ["P", 9.5, "early"])
    assert said(met(workbook(*rows, formats={"B2": "0000", "B3": "0"}), table(), "P")) == [{"r": "early"}]
    dated = (["id", "V", "R"], ["P", datetime.date(2018, 11, 2), "late"], ["P", "2018-3-15", "early"])
    assert said(met(workbook(*dated), table(), "P")) == [{"r": "early"}]
    data = parquet(id=["P", "P"], V=[2**53 + 1, 2**53], R=["late", "early"])
    assert said(met(data, table(), "P")) == [{"r": "early"}]
    truths = parquet(id=["P", "P"], V=[True, False], R=["late", "early"])
    assert said(met(truths, table(), "P")) == [{"r": "early"}]


def test_empty_values_and_codes_are_not_compared() -> None:
    data = b"id,V,R\nP,,none\nP,999,code\nP,5,late\nP,4,early\nQ,,x\nQ,,x\n"
    options = declared(cardinality="many", missing=["999"], pick={"by": "V", "take": "min"}, columns=RESULT)
    assert said(met(data, options, "PQ")) == [{"r": "early"}, {"r": "x"}]


def test_ties_that_say_the_same_count_and_others_are_ambiguous() -> None:
    data = b"id,V,R\nP,1,same\nP,1,same\nQ,1,one\nQ,1,other\n"
    found = met(data, table(), "PQ")
    assert said(found) == [{"r": "same"}, None]
    assert found.joined.ambiguous == ("Q",)


VISITS = (
    b"id,Date,Kind,R\nP,2019-01-01,primary,a\nP,2019-05-20,relapse,b\nP,2019-06-10,primary,c\nP,2020-01-01,relapse,d\n"
)


@pytest.mark.parametrize(
    ("pick", "result"),
    [
        ({"by": "Date", "take": "last_before"}, "b"), ({"by": "Date", "take": "first_after"}, "c"),
        ({"by": "Date", "take": "nearest"}, "c"), ({"by": "Date", "take": "min"}, "a"),
        ({"by": "Date", "take": "max"}, "d"),
        ({"where": {"Kind": "primary"}, "by": "Date", "take": "last_before"}, "a"),
        ({"where": {"Kind": ["primary", "relapse"]}, "by": "Date", "take": "max"}, "d"),
        ({"where": {"Kind": "relapse"}, "by": "Date", "take": "nearest"}, "b"),
        ({"by": "Date", "take": "last_before", "within_days": 5}, None),
        ({"by": "Date", "take": "nearest", "within_days": 9}, "c"),
    ],
)  # fmt: skip
def test_rows_by_condition_and_by_the_study(pick: dict[str, Any], result: str | None) -> None:
    options = declared(cardinality="many", pick=pick, columns=RESULT)
    found = met(VISITS, options, "P", studies={"P": datetime.date(2019, 6, 1)})
    assert said(found) == [None if result is None else {"r": result}]


def test_the_day_of_the_study_is_before_and_after_it_and_of_two_as_near_the_earlier_one_counts() -> None:
    data = b"id,Date,R\nP,2019-05-31,a\nP,2019-06-02,b\n"
    for take, day, result in (("last_before", 31, "a"), ("first_after", 31, "a"), ("nearest", 32, "a")):
        date = datetime.date(2019, 5, 1) + datetime.timedelta(days=day - 1)
        options = declared(cardinality="many", pick={"by": "Date", "take": take}, columns=RESULT)
        assert said(met(data, options, "P", studies={"P": date})) == [{"r": result}]


def test_a_single_row_must_meet_the_condition_too() -> None:
    options = declared(cardinality="many", pick={"by": "Date", "take": "last_before"}, columns=RESULT)
    data = b"id,Date,R\nP,2019-07-01,later\nQ,2019-05-01,before\nN,2019-05-01,undated study\n"
    found = met(data, options, "NPQ", studies=dict.fromkeys("PQ", datetime.date(2019, 6, 1)))
    assert said(found) == [None, None, {"r": "before"}]


def test_the_primary_diagnosis_alone() -> None:
    data = b"id,Kind,R\nP,primary,a\nP,relapse,b\nQ,relapse,c\nS,primary,d\nS,primary,e\n"
    options = declared(cardinality="many", pick={"where": {"Kind": "primary"}}, columns=RESULT)
    found = met(data, options, "PQS")
    assert said(found) == [{"r": "a"}, None, None]
    assert (found.joined.image_only, found.joined.ambiguous, found.rows.passed_over) == (("Q",), ("S",), 2)
    wrong = declared(cardinality="many", pick={"where": {"Kind": "Primary"}}, columns=RESULT)
    (fault,) = faults(met(data, wrong, "PQS"))  # one fault, one message
    assert fault.startswith("found no row that meets pick.where (Kind Primary) among 5 rows, expected some; compare")


def test_rows_under_two_ids_of_one_person_are_two_rows_of_that_person() -> None:
    data = b"id,V,R\nA1,10,late\nB1,9,early\nC1,1,x\n"
    ids = {"one": ["A1", "B1"], "two": ["C1"]}
    assert said(met(data, table(), ids=ids)) == [{"r": "early"}, {"r": "x"}]
    same = b"id,R\nA1,a\nB1,a\nC1,x\n"
    assert said(met(same, declared(columns=RESULT), ids=ids)) == [{"r": "a"}, {"r": "x"}]


@pytest.mark.parametrize(
    ("pick", "words"),
    [
        ({"by": "V"}, "one of by and take"), ({"take": "min"}, "one of by and take"), ({}, "neither by nor where"),
        ({"by": "V", "take": "nearest", "order": ["a"]}, "compares dates"),
        ({"by": "V", "take": "min", "within_days": 3}, "within_days"), ({"where": {"Kind": 1}}, "quote the value"),
    ],
)  # fmt: skip
def test_picks_that_cannot_be_are_refused(pick: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        declared(cardinality="many", pick=pick, columns=RESULT)


DATES = st.dates(datetime.date(1950, 1, 1), datetime.date(2049, 12, 31))


@given(
    st.lists(DATES, min_size=2, max_size=6, unique=True),
    st.sampled_from(["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d %B %Y"]),
)
def test_dates_are_picked_right_or_refused(days: list[datetime.date], form: str) -> None:
    data = "id\tV\tR\n" + "".join(f"P\t{day.strftime(form)}\t{day.isoformat()}\n" for day in days)
    try:
        found = said(met(data.encode(), table(), "P"))
    except SpecError:
        assert "/" in form  # a day and a month that could be either
    else:
        assert found == [{"r": min(days).isoformat()}]


@given(
    st.lists(st.integers(-(10**6), 10**6), min_size=2, max_size=6, unique=True),
    st.sampled_from(["{}", "{} mm", "{}%", "Day {}"]),
)
def test_numbers_with_one_label_are_picked_right(numbers: list[int], form: str) -> None:
    data = "id\tV\tR\n" + "".join(f"P\t{form.format(n)}\t{n}\n" for n in numbers)
    assert said(met(data.encode(), table(take="max"), "P")) == [{"r": str(max(numbers))}]


def test_the_example_of_the_docs_takes_the_primary_visit_before_the_scan() -> None:
    page = (Path(__file__).parents[2] / "docs" / "spec.md").read_text()
    block = page[page.index("clinical:\n  - url:") :].split("```")[0]
    options = ClinicalTable.model_validate(YAML(typ="safe").load(block)["clinical"][0])
    data = (
        "Patient ID;Diagnosis type;Visit date;Grade;PSA\n"
        "A;primary;01.04.19;low;1.200,5\nA;primary;20.05.19;high;4,1\nA;relapse;31.05.19;low;5\nA;primary;03.06.19;low;6\n"
    )
    found = met(data.encode(), options, "A", studies={"A": datetime.date(2019, 6, 1)})
    assert said(found) == [{"grade": "high", "psa": 4.1, "visit_day": -12}]
