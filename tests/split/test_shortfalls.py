"""Splits that cannot be as the spec asks are reported by name."""

import pyarrow as pa
import pytest

from builder.split import assign
from builder.split.shortfalls import MOST_NAMED, shortfalls

RATIOS = {"train": 0.7, "validation": 0.15, "test": 0.15}


def people(**columns: list) -> pa.Table:
    count = len(next(iter(columns.values())))
    return pa.table({"person_key": [f"p{i:02}" for i in range(count)], **columns})


def said(table: pa.Table, ratios: dict[str, float] = RATIOS, **options) -> tuple[str, ...]:
    strata = [name for name in table.column_names if name != "person_key"]
    dealt = assign(table, ratios=ratios, strata=strata, seed=1)
    return shortfalls(table, dealt, ratios=ratios, strata=strata, **options)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_splits_that_stay_empty_are_reported(count: int):
    table = people(sex=["F"] * count).drop_columns("sex")
    home = assign(table, ratios=RATIOS, strata=[], seed=1)["split"].to_pylist()
    found = shortfalls(table, pa.table({"person_key": table["person_key"], "split": home}), ratios=RATIOS, strata=[])
    empty = {name for name in RATIOS if name not in home}
    assert {line.split()[1] for line in found if "is empty" in line} == empty
    assert empty or count > 2


def test_ratios_that_three_persons_cannot_reach_are_reported():
    table = people(x=[1, 1, 1])
    dealt = pa.table({"person_key": table["person_key"], "split": ["train", "validation", "test"]})
    found = shortfalls(table, dealt, ratios=RATIOS, strata=[])
    assert [line.split(" (")[0] for line in found] == [
        f"split {name} has 1 of 3 persons" for name in ("train", "validation", "test")
    ]
    assert "(33%) where 70% was asked for" in found[0]


@pytest.mark.parametrize(("off", "told"), [(2, False), (3, True)])
def test_a_share_that_is_off_by_a_tenth_is_reported(off: int, told: bool):
    table = people(x=[1] * 20)
    homes = ["a"] * (10 + off) + ["b"] * (10 - off)
    dealt = pa.table({"person_key": table["person_key"], "split": homes})
    found = shortfalls(table, dealt, ratios={"a": 0.5, "b": 0.5}, strata=[])
    assert len(found) == (2 if told else 0)


def test_a_class_with_fewer_persons_than_splits_is_reported_with_its_empty_splits():
    found = said(people(grade=["low"] * 20 + ["high"] * 2 + [None], tags=[["a"]] * 22 + [["b", "a"]]))
    assert [line.split(":")[0] for line in found] == [
        "grade=high has 2 persons for 3 splits",
        "grade=missing has 1 person for 3 splits",
        "tags=b has 1 person for 3 splits",
    ]
    assert all(": none in " in line for line in found)
    table = people(grade=["low"] * 2 + ["high"])
    dealt = pa.table({"person_key": table["person_key"], "split": ["a", "b", "a"]})
    found = shortfalls(table, dealt, ratios={"a": 0.5, "b": 0.5}, strata=["grade"])
    assert "grade=high has 1 person for 2 splits: none in b" in found
    assert said(people(grade=["low"] * 20 + ["high"] * 3)) == ()


def test_many_rare_values_are_counted():
    found = said(people(site=[f"s{i:02}" for i in range(MOST_NAMED + 3)] + ["big"] * 30))
    assert sum(line.startswith("site=s") for line in found) == MOST_NAMED
    assert found[-1] == "site has 3 more values with fewer persons than splits"


def test_held_out_splits_do_not_count_towards_ratios_and_may_be_empty():
    table = people(x=[1] * 10)
    dealt = pa.table({"person_key": table["person_key"], "split": ["a"] * 3 + ["b"] * 3 + ["external"] * 4})
    halves = {"a": 0.5, "b": 0.5}
    assert shortfalls(table, dealt, ratios=halves, strata=[], also=["external"]) == ()
    assert shortfalls(table, dealt, ratios=halves, strata=[], also=["late", "late"]) == (
        "split late is empty: 10 persons cannot fill a hold-out",
    )
