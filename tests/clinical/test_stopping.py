"""What of a table stops a plan, what is only told, and that neither shows a value."""

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from builder.clinical import TableMatch, faults, summary_lines
from builder.clinical.table import PLANNING
from builder.errors import SpecError
from builder.stages.annotate import CASE_FACTS
from tests.clinical.making import declared, met

LEVELS = {"grade": {"from": "G", "type": "category", "levels": ["low", "high"]}}


def numbers(*cells: str, **options: Any) -> TableMatch:
    """A number column of these cells."""
    text = "id,N,x\n" + "".join(f"P{i},{cell},1\n" for i, cell in enumerate(cells))
    columns = {"n": {"from": "N", "type": "number", "min": 0}}
    return met(text.encode(), declared(columns=columns, **options), [f"P{i}" for i in range(len(cells))])


def grades(*cells: str, **options: Any) -> TableMatch:
    """A column of levels."""
    text = "id,G,x\n" + "".join(f"P{i},{cell},1\n" for i, cell in enumerate(cells))
    return met(text.encode(), declared(**{"columns": LEVELS, **options}), [f"P{i}" for i in range(len(cells))])


def test_rows_that_contradict_each_other_are_a_reason_that_nobody_matches() -> None:
    columns = {"n": {"from": "N", "type": "number"}}
    (one,) = faults(met(b"id,N\nA,1\nA,2\n", declared(columns=columns), "A"))
    assert "found a row for 0 of 1 person" in one
    assert "(1 person has rows that differ: say which one counts with cardinality: many and pick; the table has" in one
    (two,) = faults(met(b"id,N\nA,1\nA,2\nB,1\nB,3\n", declared(columns=columns), "AB"))
    assert "(2 persons have rows that differ: " in two
    among = declared(columns=columns, cardinality="many", pick={"where": {"T": "a"}})
    (three,) = faults(met(b"id,N,T\nA,1,a\nA,2,a\n", among, "A"))
    assert "rows that differ: say which one of them counts with pick.by and pick.take;" in three
    tied = declared(columns=columns, cardinality="many", pick={"by": "T", "take": "min"})
    (four,) = faults(met(b"id,N,T\nA,1,1\nA,2,1\n", tied, "A"))
    assert "rows that differ: pick.by takes several that differ; narrow pick.where;" in four
    picked = declared(columns=columns, cardinality="many", pick={"by": "N", "take": "min"})
    assert list(faults(met(b"id,N\nA,1\nA,2\n", picked, "A"))) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (numbers("a", "b"), ["n: found no number among 2 filled cells of 'N' (2 not a number)"]),
        (numbers("-1", "-2"), ["n: found no number among 2 filled cells of 'N' (2 out of the range 0.0 to None)"]),
        (numbers("", ""), ["n: found no number in 'N', whose cells are all empty"]),
        (numbers("a", "1"), []),
        (numbers("a", "", min_matched=0), []),
        (numbers("a", max_lost_cells=0), ["n: found no number"]),
        (numbers("a", max_lost_cells=0, min_matched=0), ["n: found 1 of 1 cell"]),
        (numbers(*"123456789", "a", max_lost_cells=0.1), []),
        (numbers(*"12345678", "a", "b", max_lost_cells=0.1), ["n: found 2 of 10 cells of 'N'"]),
        (numbers(*"1234", "a", "b", "c", "d"), []),  # fewer than 5
        (numbers(*"1234", "a", "b", "c", "d", "e"), ["n: found 5 of 9 cells of 'N'"]),
        (numbers(*"1234", "a", "b", "c", "d", "e", max_lost_cells=0.6), []),
        (numbers(*(["1"] * 60), *"abcde"), []),  # fewer than a tenth
        (numbers(*"1234", "a", "b", "c", "d", "e", missing=list("abcde")), []),
        (grades("low", "high"), []),
        (grades("low", "low"), []),
        (grades("low", "High"), ["grade: found no cell with the levels high"]),
        (grades("Low", "High"), ["grade: found no category among 2 filled cells"]),
        (grades("low", " high "), []),
        (grades("low", "HIGH", min_matched=0), []),
        (grades("low", "medium"), []),
        (grades("", ""), []),
    ],
)  # fmt: skip
def test_what_stops_a_plan(found: TableMatch, words: list[str]) -> None:
    said = list(faults(found))
    assert len(said) == len(words), said
    assert all(text.startswith(word) for text, word in zip(said, words, strict=True)), said


@pytest.mark.parametrize(
    ("least", "matched", "stops"), [(None, 0, True), (None, 1, False), (0.5, 1, True), (0.5, 2, False), (0, 0, False)]
)
def test_how_many_must_match(least: float | None, matched: int, stops: bool) -> None:
    text = "id,G\n" + "".join(f"P{i},low\n" for i in range(matched)) + "Z,high\n"
    found = met(text.encode(), declared(columns=LEVELS, min_matched=least), ["P0", "P1", "P2", "P3"])
    assert bool(list(faults(found))) == stops


@pytest.mark.parametrize("matched", range(1, 14))
def test_the_share_that_a_message_tells_to_write_is_met(matched: int) -> None:
    text = "id,G\n" + "".join(f"P{i},{'low' if i % 2 else 'high'}\n" for i in range(matched)) + "Z,low\nZ,high\n"
    persons = [f"P{i}" for i in range(14)]
    (fault,) = faults(met(text.encode(), declared(columns=LEVELS, min_matched=1.0), persons))
    share = float(fault.rpartition("min_matched: ")[2])
    assert matched / 14 - 0.001 < share
    assert "min_matched" not in "".join(
        faults(met(text.encode(), declared(columns=LEVELS, min_matched=share), persons))
    )


def test_cells_are_listed_with_their_values_in_private_only() -> None:
    found = numbers("CANARY", "1", "-5")
    assert [(i.row, i.value) for i in found.issues] == [(2, "CANARY"), (4, "-5")]
    facts = found.facts({})
    assert facts["cells_not_taken_by_column"] == {"n": 2}
    lines = list(summary_lines([facts]))
    assert "    n: cells not taken: 2 (not a number; out of the range 0.0 to None)" in lines
    assert "CANARY" not in repr(facts) + repr(found.issues) + "".join(lines)


def test_levels_that_no_cell_has_are_told() -> None:
    lines = list(summary_lines([grades("low", "low").facts({})]))
    assert lines == [
        "  clinical table 1: 2 matched, 0 image only, 0 clinical only, 0 ambiguous",
        "    grade: no cell has the levels high",
    ]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ({"type": "category", "levels": {1: "M"}}, 'found 1 as a value of the file, expected'),
        ({"type": "category", "levels": [1, 2]}, 'found 1 as a level, expected a text; quote the value: "1"'),
        ({"type": "category", "levels": {True: "M"}}, 'quote the value: "true"'),
        ({"type": "category", "levels": {"1": 2}}, "found 2 as a level"),
        ({"type": "category", "levels": {1.0: "M"}}, 'found 1.0 as a value of the file, expected a text'),
        ({"type": "category", "levels": {date(2019, 1, 1): "M"}}, 'quote the value: "2019-01-01"'),
        ({"type": "category", "levels": {None: "M"}}, 'found null as a value of the file'),
        ({"type": "category", "levels": [True, False]}, 'found true as a level, expected a text; quote the value'),
        ({"type": "category", "levels": {"1": ["M"]}}, "found a list as a level, expected a text"),
        ({"type": "category", "levels": {"1": {"M": 1}}}, "found a mapping as a level, expected a text"),
        ({"type": "category", "levels": {}}, "found no level, expected at least one"),
        ({"type": "category", "levels": []}, "found no level, expected at least one"),
        ({"type": "category", "levels": "M"}, "expected a list of levels, or a mapping"),
        ({"type": "number", "min": 3, "max": 1}, "found min 3.0 above max 1.0"),
    ],
)  # fmt: skip
def test_declarations_that_cannot_be_have_one_message(column: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="validation error") as caught:
        declared(columns={"c": {"from": "C", **column}})
    assert words in str(caught.value)
    assert str(caught.value).count("type=value_error") == 1
    assert "tuple" not in str(caught.value).split("[type=")[0]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ({"type": "category", "format": "%Y"}, "found format for a column of type category, expected it with date"),
        ({"type": "number", "pivot": 1930}, "found pivot for a column of type number, expected it with date"),
        (
            {"type": "text", "decimal": ","},
            "found decimal for a column of type text, expected it with number or integer",
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(column: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        declared(columns={"n": {"from": "N", **column}})


def test_codes_are_texts() -> None:
    with pytest.raises(ValueError, match='found -1 as a code, expected a text; quote the value: "-1"'):
        declared(columns=LEVELS, missing=[-1, 999])
    with pytest.raises(ValueError, match='found null as a code, expected a text; quote the value: "null"'):
        declared(columns=LEVELS, missing=[None])
    with pytest.raises(ValueError, match=r"found 'NA', expected a list of codes: \[NA\]"):
        declared(columns=LEVELS, missing="NA")


def test_a_row_of_data_in_the_place_of_headings_is_not_shown() -> None:
    with pytest.raises(SpecError, match="found none of the declared headings in row 1, expected 'id', 'G'") as caught:
        met(b"CANARY1,low\nCANARY2,high\n", declared(columns=LEVELS))
    assert "CANARY" not in str(caught.value)
    with pytest.raises(SpecError, match="found no column with the heading 'G', expected one of 'id', 'Befund'"):
        met(b"id,Befund\nA,low\n", declared(columns=LEVELS))


@pytest.mark.parametrize(
    "name",
    ["split", "person_key", "modality", "reason", "sample_key", "row", "case_key", "series_key", "age_band", "boxes"],
)
def test_columns_may_not_take_a_name_of_the_datasets_own(name: str) -> None:
    with pytest.raises(ValidationError, match=f"columns: found the name '{name}', which the dataset uses"):
        declared(columns={name: {"from": "G", "type": "category"}})


@pytest.mark.parametrize(("name", "kind"), [("sex", "number"), ("age_years", "text"), ("site", "integer")])
def test_columns_that_headers_give_too_have_their_type(name: str, kind: str) -> None:
    with pytest.raises(ValidationError, match=f"columns: found '{name}' of type {kind}, expected"):
        declared(columns={name: {"from": "G", "type": kind}})


def test_names_of_case_facts_are_taken() -> None:
    assert {*CASE_FACTS.names} <= PLANNING
