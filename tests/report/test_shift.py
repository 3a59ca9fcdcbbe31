"""Differences between splits and sites, and agreement by group, on tables where the answer is known."""

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from builder.report import association
from builder.report import shift as shifts
from builder.report.labels import agreement_by_group
from builder.report.shift import shift


def cases(seed: int, apart: float) -> pa.Table:
    rng = np.random.default_rng(seed)
    split = np.repeat(["train", "test"], [60, 30])
    values = np.round(rng.normal(size=90) + apart * (split == "test"), 3)
    return pa.table({"split": split, "spacing_row_mm": values, "site": np.tile(["a", "b", "c"], 30)})


def test_only_a_real_shift_between_splits_is_reported():
    far = {(e["quantity"], e["by"]): e for e in shift(cases(1, 1.5), by=["split", "site"])}
    found = far["spacing_row_mm", "split"]
    values = cases(1, 1.5).to_pandas()
    one, two = (values.spacing_row_mm[values.split == s] for s in ("test", "train"))
    assert found["distance"] == pytest.approx(stats.ks_2samp(one, two).statistic)
    assert found["p"] < 1e-4
    assert found["difference"] == pytest.approx(abs(one.mean() - two.mean()) / np.sqrt((one.var() + two.var()) / 2))
    assert sorted(found["between"]) == ["test", "train"]
    assert far["spacing_row_mm", "site"]["p"] > 0.05
    (near,) = shift(cases(1, 0.0), by=["split"])
    assert near["p"] > 0.05


def test_rounding_errors_do_not_count_as_spread():
    spacing = [0.9765625] * 7 + [0.976562] * 4 + [5.1] * 3 + [5.1 + 1e-15] * 2
    split = ["train"] * 7 + ["test"] * 4
    (alike,) = shift(pa.table({"spacing_row_mm": spacing[:11], "split": split}), by=["split"])
    assert (alike["difference"], alike["distance"], alike["p"]) == (None, 0, 1)
    (apart,) = shift(pa.table({"spacing_row_mm": spacing, "split": [*split, *["validation"] * 5]}), by=["split"])
    assert (apart["difference"], apart["distance"]) == (None, 1)


def test_small_groups_are_neither_compared_nor_described():
    table = pa.table({"split": ["train"] * 6 + ["test"] * 3, "slices": list(range(9))})
    (shown,) = shift(table, by=["split"], mask_below=4)
    assert shown["distance"] is None
    assert shown["groups"]["test"]["median"] is None
    (alone,) = shift(table, by=["split"])
    assert alone["distance"] == 1.0


def test_few_cases_give_a_large_p():
    table = pa.table({"split": ["train"] * 3 + ["test"] * 3, "slices": [1, 1, 2, 7, 8, 9]})
    (found,) = shift(table, by=["split"])
    assert found["distance"] == 1.0
    assert found["p"] == pytest.approx(2 / 20), "two of the twenty ways to deal six values to two groups of three"


@pytest.mark.parametrize(("few", "many"), [(2, 3), (9, 5), (20, 20), (100, 100), (7, 1200), (2, 5000)])
def test_the_p_of_a_distance_agrees_with_scipy(few, many):
    rng = np.random.default_rng(few)
    one, two = np.round(rng.normal(size=few), 3), np.round(rng.normal(0.7, size=many), 3)
    table = pa.table({"split": ["train"] * few + ["test"] * many, "slices": np.concatenate([one, two])})
    (found,) = shift(table, by=["split"])
    assert found["p"] == pytest.approx(stats.ks_2samp(one, two, method="exact").pvalue, rel=1e-9)


def test_the_p_of_disjoint_groups_is_small_but_not_zero():
    table = pa.table({"split": ["train"] * 100 + ["test"] * 100, "slices": list(range(200))})
    (found,) = shift(table, by=["split"])
    assert found["p"] == pytest.approx(2 / math.comb(200, 100), rel=1e-9)


def test_only_large_and_significant_shifts_are_worth_a_look():
    assert shifts.is_worth_a_look({"p": 0.04, "distance": 0.1})
    assert not shifts.is_worth_a_look({"p": 0.05, "distance": 0.5})
    assert not shifts.is_worth_a_look({"p": 1e-9, "distance": 0.09})
    assert not shifts.is_worth_a_look({"p": None, "distance": None})
    assert association.is_worth_a_look({"q": 0.04, "cramers_v": 0.1})
    assert not association.is_worth_a_look({"q": 0.05, "cramers_v": 0.9})
    assert not association.is_worth_a_look({"q": 1e-9, "cramers_v": 0.09})


def test_agreement_by_group_agrees_with_scipy():
    rng = np.random.default_rng(3)
    sex = np.repeat(["F", "M"], 20)
    dice = np.where(sex == "F", 0.9, 0.7) + 0.02 * rng.normal(size=40)
    table = pa.table({"sex": sex, "label.t.t.a~b.dice": dice, "label.t.t.planes": np.ones(40)})
    (entry,) = agreement_by_group(table, ["sex", "absent"])
    assert (entry["measure"], entry["group"]) == ("t.t.a~b.dice", "sex")
    assert entry["p"] == pytest.approx(stats.kruskal(dice[:20], dice[20:]).pvalue)
    assert {row["level"]: row["count"] for row in entry["levels"]} == {"F": 20, "M": 20}
    assert entry["levels"][0]["median"] == pytest.approx(np.median(dice[:20]))
    hidden = agreement_by_group(table.slice(0, 23), ["sex"], mask_below=5)[0]
    assert hidden["levels"][1] == {"level": "M", "count": None, "q1": None, "median": None, "q3": None}
    assert hidden["p"] is None
