"""The file of cases to leave out: what it may hold, and what it changes in a cohort and in the splits."""

import hashlib

import pyarrow as pa
import pytest

from builder.errors import SpecError
from builder.model.keyed import Key
from builder.planning.deal import deal
from builder.planning.left_out import LeftOut, leave_out, left_out_line, names_file, parse_names, read_left_out
from tests.planning.test_deal import homes, spec
from tests.planning.test_deal import persons as everybody

KEY = Key(b"left out" * 4)
CASES = [KEY.name("case", str(n)) for n in range(40)]
PEOPLE = [f"p{i:02d}" for i in range(20)]
NOBODY = KEY.name("person", "nobody")


def cohort(**columns) -> pa.Table:
    made = {
        "person_key": [PEOPLE[n // 2] for n in range(40)], "case_key": CASES, "included": [True] * 40,
        "rule": [None] * 40, "reason": [None] * 40, "detail": [None] * 40, **columns,
    }  # fmt: skip
    texts = ("rule", "reason", "detail")
    return pa.table({n: pa.array(v, pa.string()) if n in texts else pa.array(v) for n, v in made.items()})


LINKS = pa.table({"annotation": [0, 1], "case_key": [CASES[3], CASES[4]]})


def test_cases_and_persons_go_and_are_counted_under_their_own_reason():
    names = frozenset({CASES[3], PEOPLE[5], NOBODY})
    table, links = leave_out(cohort(), LINKS, LeftOut(names, "x"))
    gone = [n for n, kept in enumerate(table["included"].to_pylist()) if not kept]
    assert gone == [3, 10, 11]
    assert {(table["rule"][n].as_py(), table["reason"][n].as_py()) for n in gone} == {("leave_out", "left_out")}
    assert links["case_key"].to_pylist() == [CASES[4]]
    assert left_out_line(table, LeftOut(names, "x")) == (
        "3 cases are left out by the file; 1 name is of no case or person of this archive"
    )


def test_names_of_nobody_stop_a_plan_unless_somebody_withdrew():
    typo = LeftOut(frozenset({NOBODY}), "x")
    with pytest.raises(SpecError, match="found 1 name, none of"):
        leave_out(cohort(), LINKS, typo)
    table, links = leave_out(cohort(), LINKS, typo, withdrawn=2)
    assert table.equals(cohort())
    assert links.equals(LINKS)
    assert left_out_line(table, typo, withdrawn=2) == (
        "0 cases are left out by the file; 1 name is of no case or person of this archive "
        "(2 persons withdrew; take out what was theirs, and check the rest)"
    )
    known = LeftOut(frozenset({CASES[3]}), "x")
    assert left_out_line(leave_out(cohort(), LINKS, known, withdrawn=2)[0], known, withdrawn=2) == (
        "1 case is left out by the file"
    )
    assert leave_out(cohort(), LINKS, LeftOut(frozenset(), "x"))[0].equals(cohort())  # a file without a name


def test_nobody_else_moves_although_nothing_was_dealt_before():
    options = spec(folds={"k": 4}, stratify=["grade"])
    grades = cohort(grade=["low", "low", "high", "high"] * 10)
    before = deal(options, grades, everybody())
    folds = dict(zip(before["person_key"].to_pylist(), before["folds"].to_pylist(), strict=True))
    for number, person in enumerate(PEOPLE):
        left = frozenset({CASES[2 * number], CASES[2 * number + 1]})
        table, _ = leave_out(grades, LINKS, LeftOut(left, "x"))
        after = deal(options, table, everybody())
        assert homes(after) == {p: s for p, s in homes(before).items() if p != person}
        kept = dict(zip(after["person_key"].to_pylist(), after["folds"].to_pylist(), strict=True))
        assert all(folds[person] == fold for person, fold in kept.items())


def test_images_of_a_case_go_with_it_unless_another_case_has_them():
    served = [[CASES[0]], [CASES[0]], [CASES[0], CASES[3]], [CASES[3]], *[[]] * 36]
    table = cohort(included=[n in (0, 3) for n in range(40)], serves=served)
    table, _ = leave_out(table, LINKS, LeftOut(frozenset({CASES[0]}), "x"))
    assert table["serves"].to_pylist()[:4] == [[], [], [CASES[3]], [CASES[3]]]
    assert table["reason"].to_pylist()[:4] == ["left_out", "image_unused", None, None]


def test_the_file_says_what_it_holds_and_what_is_wrong_with_it(tmp_path):
    place = tmp_path / "leave_out"
    place.write_bytes(names_file({CASES[1], CASES[0]}))
    read = read_left_out(str(place))
    assert read == LeftOut(frozenset(CASES[:2]), hashlib.sha256(place.read_bytes()).hexdigest())
    assert read.lock == {"leave_out": read.sha256}
    assert read_left_out(None) == LeftOut()
    assert not LeftOut().lock
    assert parse_names(f"{CASES[0]}  # dark\r\n\n# all\n".encode(), "here") == {CASES[0]}
    with pytest.raises(SpecError, match="here, line 2: found what is no keyed name") as refused:
        parse_names(f"{CASES[0]}\nDOE^JANE\n".encode(), "here")
    assert "DOE" not in str(refused.value)
    with pytest.raises(SpecError, match="no text"):
        parse_names(b"\xff\xfe", "here")
    with pytest.raises(SpecError, match="found no file"):
        read_left_out(str(tmp_path / "none"))
