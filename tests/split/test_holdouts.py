"""Hold-outs, leave-one-source-out, exports, and the spec's block."""

import csv
import datetime
import io
import json

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from builder.errors import SpecError
from builder.split import (
    HoldOut,
    Splits,
    assign,
    csv_text,
    folds,
    hold_out,
    leave_one_out,
    nnunet_splits,
)
from builder.split.options import whole_shares

DAY = datetime.date


def persons():
    return pa.table(
        {
            "person_key": ["p1", "p2", "p3", "p4"],
            "site": ["oslo", "rome", None, "rome"],
            "sites": [["oslo"], ["rome", "oslo"], [], ["kyiv"]],
            "first_study": [DAY(2019, 1, 1), DAY(2021, 5, 5), DAY(2021, 5, 4), None],
            "year": [2019, 2020, 2021, 2022],
        }
    )


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (HoldOut(column="site", values=("rome",)), {"p2", "p4"}),
        (HoldOut(column="sites", values=("oslo", "nowhere")), {"p1", "p2"}),
        (HoldOut(column="first_study", since=DAY(2021, 5, 5)), {"p2"}),
        (HoldOut(column="year", since=2021), {"p3", "p4"}),
    ],
)
def test_rules_hold_out_the_persons_they_describe(rule, expected):
    held = hold_out(persons(), [rule])
    assert set(held["person_key"].to_pylist()) == expected
    assert held["person_key"].to_pylist() == sorted(expected)
    assert set(held["split"].to_pylist()) == {"external"}
    dealt = assign(persons(), ratios={"train": 0.5, "test": 0.5}, strata=[], seed=1, previous=held).to_pylist()
    assert {r["person_key"] for r in dealt if r["split"] == "external"} == expected


def test_the_first_rule_decides_and_previous_persons_stay():
    rules = [
        HoldOut(column="site", values=("rome",), split="rome"),
        HoldOut(column="year", since=2021, split="late"),
    ]
    held = hold_out(persons(), rules, previous=pa.table({"person_key": ["p1", "gone"], "split": ["train", "test"]}))
    assert [*zip(*held.to_pydict().values(), strict=True)] == [
        ("gone", "test"), ("p1", "train"), ("p2", "rome"), ("p3", "late"), ("p4", "rome"),
    ]  # fmt: skip


def test_a_person_once_trained_on_cannot_be_held_out():
    with pytest.raises(SpecError, match="1 person to hold out"):
        hold_out(
            persons(),
            [HoldOut(column="site", values=("rome",))],
            previous=pa.table({"person_key": ["p2"], "split": ["train"]}),
        )


def test_rules_that_cannot_work_are_refused():
    with pytest.raises(SpecError, match=r"nobody for site in \['Rome'\]"):
        hold_out(persons(), [HoldOut(column="site", values=("Rome",))])
    with pytest.raises(SpecError, match="no column"):
        hold_out(persons(), [HoldOut(column="vendor", values=("GE",))])
    with pytest.raises(SpecError, match="str cells"):
        hold_out(persons(), [HoldOut(column="site", since=2020)])
    with pytest.raises(ValidationError, match="exactly one"):
        HoldOut(column="site")


def test_leave_one_source_out_never_trains_on_a_person_of_the_source():
    rows = leave_one_out(persons(), "sites").to_pylist()
    assert [(r["fold"], r["person_key"]) for r in rows] == [
        ("kyiv", "p4"), ("oslo", "p1"), ("oslo", "p2"), ("rome", "p2"),
    ]  # fmt: skip


def test_nnunet_folds_cover_every_case_once():
    cases = pa.table({"case_key": ["c1", "c2", "c3", "c4", "c5"], "person_key": ["p1", "p1", "p2", "p3", "p4"]})
    entries = json.loads(nnunet_splits(cases, folds(persons(), 4, strata=[], seed=1)))
    assert len(entries) == 4
    assert sorted(c for e in entries for c in e["val"]) == ["c1", "c2", "c3", "c4", "c5"]
    for entry in entries:
        assert set(entry) == {"train", "val"}
        assert sorted(entry["train"] + entry["val"]) == ["c1", "c2", "c3", "c4", "c5"]
        assert ("c1" in entry["val"]) == ("c2" in entry["val"])
    one = json.loads(
        nnunet_splits(cases, pa.table({"person_key": ["p1", "p2", "p3"], "split": ["train", "validation", "test"]}))
    )
    assert one == [{"train": ["c1", "c2"], "val": ["c3"]}]


def test_nnunet_folds_are_indented_by_two_blanks_like_the_split() -> None:
    cases = pa.table({"case_key": ["c1", "c2"], "person_key": ["p1", "p2"]})
    tested = pa.table({"person_key": ["p1", "p2"], "fold": ["oslo", "rome"]})
    text = nnunet_splits(cases, tested)
    assert [len(line) - len(line.lstrip()) for line in text.splitlines()[:4]] == [0, 2, 4, 6]
    assert text.endswith("]\n")


def test_csv():
    table = assign(persons(), ratios={"train": 0.5, "test": 0.5}, strata=["site"], seed=1)
    read = list(csv.DictReader(io.StringIO(csv_text(table))))
    assert [r["person_key"] for r in read] == ["p1", "p2", "p3", "p4"]
    assert {r["pooled"] for r in read} <= {"true", "false"}


def test_the_block_of_a_spec():
    block = Splits.model_validate(
        {"ratios": {"train": 0.8, "test": 0.2}, "stratify": ["sex"], "hold_out": [{"column": "site", "values": ["x"]}]}
    )
    assert block.hold_out[0].split == "external"
    assert Splits().ratios == {"train": 0.70, "validation": 0.15, "test": 0.15}
    assert Splits.model_validate({"hold_out": [{"column": "d", "since": "2020-01-31"}]}).hold_out[0].since == DAY(
        2020, 1, 31
    )
    for wrong in ({"ratios": {"train": 0.9}}, {"ratio": {}}, {"stratify": ["a", "a"]}):
        with pytest.raises(ValidationError):
            Splits.model_validate(wrong)


def test_ratios_are_exact_up_to_thousandths_and_rounded_to_ten_thousandths_beyond() -> None:
    assert whole_shares({"a": 1 / 1000, "b": 999 / 1000}) == (("a", "b"), (1, 999))
    assert whole_shares({"a": 1 / 1001, "b": 1000 / 1001}) == (("a", "b"), (10, 9990))
    assert whole_shares({"a": 0.5004, "b": 0.4996}) == (("a", "b"), (5004, 4996))


def test_a_split_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="an empty name"):
        whole_shares({"": 0.5, "a": 0.5})


def test_the_first_repeat_of_folds_is_the_split_of_the_same_seed() -> None:
    dealt = assign(persons(), ratios={"0": 0.5, "1": 0.5}, strata=[], seed=3)["split"].to_pylist()
    made = folds(persons(), k=2, repeats=2, strata=[], seed=3).filter(pc.field("repeat") == 0)
    assert [str(fold) for fold in made["fold"].to_pylist()] == dealt
