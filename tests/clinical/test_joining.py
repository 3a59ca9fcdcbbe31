"""Rows belong to persons, studies, accession numbers, series, instances, files and dates, and to nobody by accident."""

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.clinical import ClinicalTable, Images, TableMatch, faults, join, near_misses, read_rows
from builder.clinical.table import check_shared_columns
from tests.clinical.making import declared, met, said

RESULT = {"r": {"from": "R", "type": "category"}}
DAY = datetime.date(2019, 6, 1)


def images(*stacks: dict[str, Any], unit: str = "study") -> Images:
    """Stacks with a person, a study, a series, an accession number, files and a date each."""
    facts: dict[str, list[tuple[str, ...]]] = {
        fact: [tuple(s.get(fact, ())) for s in stacks]
        for fact in ("person", "study", "accession", "series", "instance", "file", "date")
    }
    persons = [stack["of"] for stack in stacks]
    units = persons if unit == "person" else [stack[unit][0] for stack in stacks]
    return Images(persons, units, facts, [stack.get("day") for stack in stacks], {})  # type: ignore[arg-type]


def joined(text: str, options: ClinicalTable, where: Images) -> TableMatch:
    rows = read_rows(text.encode(), options)
    return TableMatch(options, rows, join(rows, options, where))


STACKS = (
    {"of": "p", "person": ["P"], "study": ["1.1"], "series": ["1.1.1"], "accession": ["A1"], "day": DAY,
     "instance": ["1.1.1.1", "1.1.1.2"], "file": ["a/1.dcm", "1.dcm"], "date": ["2019-06-01"]},
    {"of": "p", "person": ["P"], "study": ["1.2"], "series": ["1.2.1"], "accession": ["A2"], "day": DAY,
     "instance": ["1.2.1.1"], "file": ["b/1.dcm", "1.dcm"], "date": ["2019-07-01"]},
    {"of": "q", "person": ["Q"], "study": ["2.1"], "series": ["2.1.1"], "accession": ["A1"], "day": DAY,
     "instance": ["2.1.1.1"], "file": ["c/2.dcm", "2.dcm"], "date": ["2019-06-01"]},
)  # fmt: skip


@pytest.mark.parametrize(
    ("by", "unit", "table", "expected"),
    [
        ({"K": "study"}, "study", "K,R\n1.1,a\n1.2,b\n9.9,c\n", ["a", "b", None]),
        ({"K": "series"}, "series", "K,R\n1.2.1,b\n2.1.1,c\n", [None, "b", "c"]),
        ({"K": "instance"}, "series", "K,R\n1.1.1.2,a\n2.1.1.1,c\n", ["a", None, "c"]),
        ({"K": "instance"}, "series", "K,R\n1.1.1.1,a\n1.1.1.2,a\n", ["a", None, None]),
        ({"K": "instance"}, "series", "K,R\n1.1.1.1,a\n1.1.1.2,other\n", [None, None, None]),
        ({"K": "file"}, "series", "K,R\na/1.dcm,a\n.\\c\\2.dcm,c\n", ["a", None, "c"]),
        ({"K": "file"}, "series", "K,R\n2.dcm,c\n1.dcm,a\n", [None, None, "c"]),
        ({"K": "accession"}, "study", "K,R\nA2,b\n", [None, "b", None]),
        ({"K": "accession"}, "study", "K,R\nA1,a\nA2,b\n", [None, "b", None]),  # A1 is of two persons
        ({"P": "person", "K": "accession"}, "study", "P,K,R\nP,A1,a\nP,A2,b\nQ,A1,c\n", ["a", "b", "c"]),
        ({"P": "person", "K": "date"}, "study", "P,K,R\nP,2019-07-01,b\nQ,2019-6-1,c\n", [None, "b", "c"]),
        ({"P": "person", "K": "date"}, "study", "P,K,R\nP,13/07/2019,x\nP,01/07/2019,b\n", [None, "b", None]),
        ({"P": "person", "K": "study"}, "study", "P,K,R\nQ,1.1,wrong\nP,1.1,a\n", ["a", None, None]),
    ],
)  # fmt: skip
def test_rows_belong_to_what_they_name(by: dict[str, Any], unit: str, table: str, expected: list[str | None]) -> None:
    options = declared(by=by, columns=RESULT)
    assert options.unit == unit
    found = joined(table, options, images(*STACKS, unit=unit))
    assert [v and v["r"] for v in said(found)] == expected


def test_rows_that_name_several_are_counted_and_join_nobody() -> None:
    found = joined("K,R\nA1,a\nA2,b\n", declared(by={"K": "accession"}, columns=RESULT), images(*STACKS))
    assert found.joined.shared == (2,)
    assert found.joined.clinical_only == ()
    assert found.facts({})["rows_of_several"] == 1


def test_each_study_has_the_row_nearest_to_it() -> None:
    stacks = images(
        {"of": "p", "person": ["P"], "study": ["1"], "day": DAY},
        {"of": "p", "person": ["P"], "study": ["2"], "day": DAY + datetime.timedelta(365)},
        unit="person",
    )
    options = declared(cardinality="many", pick={"by": "D", "take": "nearest"}, columns=RESULT)
    found = joined("id,D,R\nP,2019-05-30,first\nP,2020-06-10,second\n", options, stacks)
    assert said(found) == [{"r": "first"}, {"r": "second"}]
    assert found.joined.matched == ("p",)


def test_days_count_from_the_first_study_of_the_person() -> None:
    options = declared(columns={"dx": {"from": "D", "type": "date", "min": 0}})
    found = met(
        b"id,D\nB1,2010-01-11\nC1,2009-01-01\n", options, ids={"one": ["A1", "B1"], "two": ["C1"]},
        studies={"one": datetime.date(2010, 1, 1), "two": datetime.date(2010, 1, 1)},
    )  # fmt: skip
    assert said(found) == [{"dx": 10}, {"dx": None}]
    assert [(i.row, i.column, i.problem) for i in found.issues] == [(3, "dx", "out of the range 0.0 to None")]


def test_dates_of_a_join_that_can_be_read_in_two_ways_are_refused() -> None:
    options = declared(by={"P": "person", "K": "date"}, columns=RESULT)
    with pytest.raises(Exception, match="can be read in 2 ways"):
        joined("P,K,R\nP,01/07/2019,b\n", options, images(*STACKS))
    form = {**RESULT, "day": {"from": "K", "type": "date", "format": "%d/%m/%Y"}}
    found = joined("P,K,R\nP,01/07/2019,b\n", declared(by={"P": "person", "K": "date"}, columns=form), images(*STACKS))
    assert [v and v["r"] for v in said(found)] == [None, "b", None]


@pytest.mark.parametrize(
    ("ids", "table", "kind"),
    [
        (["0001", "0002"], ["1", "2"], "leading zeros"), (["P-007"], ["P-7"], "leading zeros"),
        (["Abc"], ["ABC"], "upper and lower case"), (["A-1"], ["A\u20131"], "spaces, dashes or other marks"),
        (["A 1"], ["A_1"], "spaces, dashes or other marks"), (["P-001"], ["p1"], "several of zeros, case and marks"),
        (["12", "13"], ["12.0", "13.0"], "the form of a number (12.0 or 1.2E+11)"),
        (["123000000000"], ["1.23e+11"], "the form of a number (12.0 or 1.2E+11)"), (["12"], ["12.5"], None),
        (["A"], ["B"], None),
    ],
)  # fmt: skip
def test_ids_that_differ_by_form_alone_are_told_and_not_merged(
    ids: list[str], table: list[str], kind: str | None
) -> None:
    assert near_misses({i: [i] for i in ids}, table) == ({} if kind is None else {kind: len(ids)})
    options = declared(columns=RESULT)
    assert said(met(("id,R\n" + "".join(f"{i},a\n" for i in table)).encode(), options, ids)) == [None] * len(ids)


SITES = [
    declared(url="a.csv", site="north", columns={"grade": {"from": "G", "type": "category"}}),
    declared(url="b.csv", site="south", columns={"grade": {"from": "Grad", "type": "category"}}),
]


def test_an_id_that_the_table_has_is_no_near_miss() -> None:
    assert near_misses({"p": ("001",), "q": ("002",)}, ["001", "1", "2"]) == {"leading zeros": 1}


def test_tables_of_two_sites_may_give_one_column() -> None:
    check_shared_columns(tuple(SITES))
    check_shared_columns((declared(source=0, columns=RESULT), declared(source=1, columns=RESULT)))


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({}, {}, "expected each name once"), ({"site": "north"}, {}, "expected each name once"),
        ({"site": "north"}, {"site": "north"}, "expected each name once"),
        ({"site": "a"}, {"source": 1}, "expected each name once"),
        ({"site": "a"}, {"site": "b", "columns": {"r": {"from": "R", "type": "text"}}}, "two types or units"),
    ],
)  # fmt: skip
def test_other_tables_may_not(one: dict[str, Any], other: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_shared_columns((declared(**{"columns": RESULT, **one}), declared(**{"columns": RESULT, **other})))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": {}}, "nothing that says whose a row is"), ({"by": {"D": "date"}}, "nothing that says whose a row is"),
        ({"by": {"A": "person", "B": "person"}}, "two columns for person"),
        ({"by": {"A": "study"}, "person_pattern": "x"}, "person_pattern"),
        ({"by": {"A": "study"}, "within_days": 3}, "within_days"), ({"by": {"A": "patient"}}, "person"),
    ],
)  # fmt: skip
def test_joins_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClinicalTable.model_validate({"url": "x", "columns": RESULT, **options})


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from("xy")), max_size=12))
def test_every_row_and_person_is_accounted_for_once(rows: list[tuple[str, str]]) -> None:
    text = "id,R\n" + "".join(f"{person},{value}\n" for person, value in rows)
    found = met(text.encode(), declared(columns=RESULT), ["A", "B", "E"]).joined
    assert sorted([*found.matched, *found.image_only, *found.ambiguous]) == ["A", "B", "E"]
    assert set(found.clinical_only) == {person for person, _ in rows} & {"C", "D"}
    for person, values in zip("ABE", found.values, strict=True):
        stated = {value for name, value in rows if name == person}
        assert values == ({"r": stated.pop()} if len(stated) == 1 else None)


def test_a_table_that_meets_nobody_says_why() -> None:
    (fault,) = faults(met(b"id,R\n1,a\n", declared(columns=RESULT), ["2", "3"]))
    assert fault.startswith("found a row for 0 of 2 persons (0.0%), expected at least one (")
    assert "check 'id' (person), or set min_matched: 0" in fault
    assert list(faults(met(b"id,R\n1,a\n", declared(columns=RESULT, min_matched=0), ["2", "3"]))) == []
