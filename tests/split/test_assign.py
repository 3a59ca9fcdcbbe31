"""Properties of the split: exact shares, whole persons, independence of order, and persons who never move."""

import itertools
import math
from collections import Counter, defaultdict
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from builder.errors import SpecError
from builder.split import Folds, HoldOut, Splits, assign, folds, options
from builder.split.shares import reachable
from builder.split.strata import stratify

RATIOS = {"train": 0.70, "validation": 0.15, "test": 0.15}
EXACT = {"train": Fraction(7, 10), "validation": Fraction(3, 20), "test": Fraction(3, 20)}

SEXES = st.sampled_from(["F", "M", None])
PERSON = st.tuples(
    SEXES,
    st.sampled_from(["a", "b", "c", "d"]),
    st.one_of(st.none(), st.integers(0, 95)),
    st.lists(st.sampled_from(["nodule", "mass", "edema"]), max_size=3),
    st.integers(0, 40),
)


def table(rows, keys=None):
    keys = keys or [f"p{i:05d}" for i in range(len(rows))]
    return pa.table(
        {
            "person_key": pa.array(keys, pa.string()),
            "sex": pa.array([r[0] for r in rows], pa.string()),
            "site": pa.array([r[1] for r in rows], pa.string()),
            "age": pa.array([r[2] for r in rows], pa.int64()),
            "findings": pa.array([r[3] for r in rows], pa.list_(pa.string())),
            "series": pa.array([r[4] for r in rows], pa.int64()),
        }
    )


def within_floor_and_ceiling(persons, shares=EXACT):
    counts = Counter(persons)
    n = len(persons)
    return all(math.floor(n * share) <= counts[split] <= math.ceil(n * share) for split, share in shares.items())


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(PERSON, min_size=1, max_size=160), seed=st.integers(0, 2**40))
def test_every_cell_stratum_and_the_total_are_at_floor_or_ceiling(rows, seed):
    result = assign(table(rows), ratios=RATIOS, strata=["sex", "site", "findings"], seed=seed).to_pylist()
    assert [r["person_key"] for r in result] == [f"p{i:05d}" for i in range(len(rows))]
    cells, strata = defaultdict(list), defaultdict(list)
    for row, person in zip(result, rows, strict=True):
        cells[person[0], person[1], frozenset(person[3])].append(row["split"])
        strata[row["stratum"]].append(row["split"])
    assert within_floor_and_ceiling([r["split"] for r in result])
    assert all(map(within_floor_and_ceiling, cells.values()))
    assert all(map(within_floor_and_ceiling, strata.values()))
    pooled = {r["stratum"] for r in result if r["pooled"]}
    assert all(name.endswith("(pooled)") for name in pooled)
    assert all(len(members) >= 3 for name, members in strata.items() if name not in pooled)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(PERSON, min_size=2, max_size=80), data=st.data())
def test_order_and_repeated_rows_do_not_matter(rows, data):
    persons = table(rows)
    expected = assign(persons, ratios=RATIOS, strata=["site", "age"], seed=3)
    order = data.draw(st.permutations(range(len(rows))))
    again = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=5))
    shuffled = persons.take(pa.array([*order, *again]))
    assert assign(shuffled, ratios=RATIOS, strata=["site", "age"], seed=3).equals(expected)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(PERSON, min_size=4, max_size=120), cuts=st.lists(st.integers(1, 119), min_size=1, max_size=3))
def test_persons_keep_their_split_when_the_cohort_grows_or_shrinks(rows, cuts):
    everybody = table(rows)
    ledger, seen = None, {}
    for cut in [*cuts, len(rows)]:
        start = 0 if cut % 2 else cut // 3  # some versions lose persons, who later come back
        version = everybody.slice(start, min(cut, len(rows)) - start)
        result = assign(version, ratios=RATIOS, strata=["sex", "site"], seed=1, previous=ledger)
        known = {} if ledger is None else dict(zip(*ledger.to_pydict().values(), strict=True))
        known |= {row["person_key"]: row["split"] for row in result.to_pylist()}
        ledger = pa.table({"person_key": list(known), "split": list(known.values())})
        for row in result.to_pylist():
            assert seen.setdefault(row["person_key"], row["split"]) == row["split"]


def test_newcomers_fill_what_the_fixed_persons_left_open():
    rows = [("F", "a", 50, [], 1)] * 100
    previous = pa.table({"person_key": [f"p{i:05d}" for i in range(60)], "split": ["train"] * 60})
    result = assign(table(rows), ratios=RATIOS, strata=["sex"], seed=5, previous=previous)
    assert Counter(result["split"].to_pylist()) == {"train": 70, "validation": 15, "test": 15}
    # 80 of 100 are in train already: the other two share what is left
    previous = pa.table({"person_key": [f"p{i:05d}" for i in range(80)], "split": ["train"] * 80})
    result = assign(table(rows), ratios=RATIOS, strata=["sex"], seed=5, previous=previous)
    assert Counter(result["split"].to_pylist()) == {"train": 80, "validation": 10, "test": 10}


def test_persons_in_a_split_without_ratio_do_not_count_towards_shares():
    rows = [("F", "a", 50, [], 1)] * 40
    previous = pa.table({"person_key": [f"p{i:05d}" for i in range(20)], "split": ["external"] * 20})
    result = assign(table(rows), ratios=RATIOS, strata=["sex"], seed=5, previous=previous)
    assert Counter(result["split"].to_pylist()) == {"external": 20, "train": 14, "validation": 3, "test": 3}


def test_levels_of_one_column_stay_near_their_share_when_every_cell_is_rare():
    rows = [(("F", "M")[i % 2], "abcd"[i % 4], i % 61, [("nodule", "mass", "edema")[i % 3]], 1) for i in range(300)]
    persons = table(rows).append_column("model", pa.array([f"m{(i * 7) % 25}" for i in range(300)]))
    strata = ["model", "age", "findings", "sex", "site"]
    result = assign(persons, ratios=RATIOS, strata=strata, seed=11).to_pylist()
    for column in ("sex", "site", "model"):
        levels = defaultdict(list)
        for row, value in zip(result, persons[column].to_pylist(), strict=True):
            levels[value].append(row["split"])
        for members in levels.values():
            counts = Counter(members)
            assert all(abs(counts[s] - len(members) * EXACT[s]) < 2 for s in EXACT), column


def test_series_are_balanced_by_swaps_inside_strata():
    rows = [("F" if i % 3 else "M", "ab"[i % 2], 40, [], 1 + (i * i) % 50) for i in range(200)]
    persons = table(rows)
    with_counts = assign(persons, ratios=RATIOS, strata=["sex", "site"], seed=2)
    total = sum(r[4] for r in rows)
    sums = Counter()
    for row, person in zip(with_counts.to_pylist(), rows, strict=True):
        sums[row["split"]] += person[4]
    assert all(abs(sums[s] - total * EXACT[s]) <= 2 for s in EXACT)
    without = assign(persons.drop(["series"]), ratios=RATIOS, strata=["sex", "site"], seed=2)
    by = [Counter(zip(t["stratum"].to_pylist(), t["split"].to_pylist(), strict=True)) for t in (with_counts, without)]
    assert by[0] == by[1]


def test_an_all_missing_column_is_one_level():
    rows = [(None, "a", None, [], 1)] * 20
    result = assign(table(rows), ratios=RATIOS, strata=["sex", "age"], seed=0)
    assert set(result["stratum"].to_pylist()) == {"sex=missing; age=missing"}
    assert Counter(result["split"].to_pylist()) == {"train": 14, "validation": 3, "test": 3}


def test_many_valued_numbers_are_cut_at_quartiles():
    persons = pa.table({"person_key": [f"p{i:03d}" for i in range(100)], "age": [float(i) for i in range(100)]})
    result = assign(persons, ratios={"train": 0.5, "test": 0.5}, strata=["age"], seed=0)
    assert Counter(result["stratum"].to_pylist()) == dict.fromkeys(
        ["age=below 25", "age=25 to 50", "age=50 to 75", "age=75 and above"], 25
    )


def test_no_strata_and_no_persons():
    rows = [("F", "a", 50, [], 1)] * 10
    result = assign(table(rows), ratios={"train": 0.8, "test": 0.2}, strata=[], seed=0)
    assert Counter(result["split"].to_pylist()) == {"train": 8, "test": 2}
    assert set(result["stratum"].to_pylist()) == {"everyone"}
    nobody = assign(table([]), ratios=RATIOS, strata=["sex", "site"], seed=0)
    assert nobody.num_rows == 0
    assert nobody.column_names == ["person_key", "split", "stratum", "pooled"]


def test_only_the_seed_changes_the_result():
    rows = [("F", "a", 50, [], 1)] * 60
    results = [assign(table(rows), ratios=RATIOS, strata=["sex"], seed=s)["split"].to_pylist() for s in (1, 1, 2)]
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize("ratios", [{"train": 0.7, "test": 0.2}, {"train": 1.2, "test": -0.2}, {}])
def test_wrong_ratios_are_refused(ratios):
    with pytest.raises(SpecError, match="ratios"):
        assign(table([("F", "a", 1, [], 1)]), ratios=ratios, strata=["sex"], seed=0)


def test_faulty_tables_are_refused_with_what_to_do():
    persons = table([("F", "a", 1, [], 1)] * 2, keys=["p", "p"])
    assert assign(persons, ratios=RATIOS, strata=["sex"], seed=0).num_rows == 1
    conflicting = table([("F", "a", 1, [], 1), ("M", "a", 1, [], 1)], keys=["p", "p"])
    with pytest.raises(SpecError, match="one row a person"):
        assign(conflicting, ratios=RATIOS, strata=["sex"], seed=0)
    with pytest.raises(SpecError, match="no column"):
        assign(persons, ratios=RATIOS, strata=["grade"], seed=0)
    twice = pa.table({"person_key": ["p", "p"], "split": ["train", "test"]})
    with pytest.raises(SpecError, match="two splits"):
        assign(persons, ratios=RATIOS, strata=["sex"], seed=0, previous=twice)


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(PERSON, min_size=7, max_size=90), k=st.integers(2, 7), repeats=st.integers(1, 3))
def test_folds_have_equal_shares_of_every_stratum(rows, k, repeats):
    result = folds(table(rows), k, strata=["sex"], seed=4, repeats=repeats).to_pylist()
    assert len(result) == repeats * len(rows)
    for repeat in range(repeats):
        mine = [r for r in result if r["repeat"] == repeat]
        assert len({r["person_key"] for r in mine}) == len(rows)
        strata = defaultdict(Counter)
        for r in mine:
            strata[r["stratum"]][r["fold"]] += 1
        for counts in [*strata.values(), Counter(r["fold"] for r in mine)]:
            sizes = [counts[f] for f in range(k)]
            assert max(sizes) - min(sizes) <= 1


def best_possible(cells, strata, shares):
    """Return the smallest worst deviation of any level, by trying every rounding of cells, strata and total."""

    def allowed(counts, many):
        return all(abs(c - many * s) < 1 for c, s in zip(counts, shares, strict=True))

    def rounded(many):
        choices = [range(math.floor(many * s), math.ceil(many * s) + 1) for s in shares]
        return [c for c in itertools.product(*choices) if sum(c) == many]

    best = math.inf
    for choice in itertools.product(*(rounded(len(members)) for members in cells.values())):
        sums = defaultdict(lambda: [0] * len(shares))
        for cell, counts in zip(cells, choice, strict=True):
            for group in (("stratum", strata[cell]), ("total", ""), *(("level", i, v) for i, v in enumerate(cell))):
                sums[group] = [a + b for a, b in zip(sums[group], counts, strict=True)]
        if all(allowed(c, sum(c)) for g, c in sums.items() if g[0] != "level"):
            off = [
                abs(a - sum(c) * s) for g, c in sums.items() if g[0] == "level" for a, s in zip(c, shares, strict=True)
            ]
            best = min(best, max(off))
    return best


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), min_size=3, max_size=45))
def test_levels_are_within_one_person_whenever_a_rounding_allows_it(rows):
    persons = table([(a, b, None, [], 1) for a, b in rows])
    result = assign(persons, ratios=RATIOS, strata=["sex", "site"], seed=8).to_pylist()
    cells, strata, levels = defaultdict(list), {}, defaultdict(list)
    for row, person in zip(result, rows, strict=True):
        cells[person].append(row["split"])
        strata[person] = row["stratum"]
        for column, value in enumerate(person):
            levels[column, value].append(row["split"])
    found = max(abs(m.count(s) - len(m) * share) for m in levels.values() for s, share in EXACT.items())
    best = best_possible(cells, strata, tuple(EXACT.values()))
    assert best <= found
    assert found < 1 or found == best


def test_rare_cells_are_pooled_with_the_cells_that_share_most_of_their_columns():
    rows = [("F", "a", 40, [], 1)] * 4 + [("M", site, 40, [], 1) for site in "abcd"] + [(None, "a", 40, [], 1)] * 2
    result = assign(table(rows), ratios=RATIOS, strata=["sex", "site"], seed=0)
    assert Counter(result["stratum"].to_pylist()) == {
        "sex=F; site=a": 4, "sex=M; site=* (pooled)": 4, "sex=*; site=* (pooled)": 2,
    }  # fmt: skip


def test_folds_are_five_dealt_once_unless_the_spec_says_otherwise():
    assert (Folds().k, Folds().repeats) == (5, 1)


@pytest.mark.parametrize(
    "block",
    [HoldOut(column="site", values=("a",)), options.Tested(), Folds(), Splits()],
    ids=lambda block: type(block).__name__,
)
def test_blocks_of_the_spec_do_not_change(block: BaseModel) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(block, next(iter(type(block).model_fields)), None)


def test_newcomers_go_to_the_split_that_lacks_most_if_others_have_too_many():
    assert reachable(np.array([[10, 10]]), np.array([[15, 0]]), 1).tolist() == [[15, 5]]
    assert reachable(np.array([[10, 10, 10]]), np.array([[15, 2, 3]]), 1).tolist() == [[15, 8, 7]]


def test_a_cell_lies_on_one_level_of_each_column():
    persons = pa.table({"person_key": list("abcd"), "sex": list("FFMM"), "site": list("xyxy")})
    found = stratify(persons, ["sex", "site"], smallest=1)
    assert [[found.levels[level] for level in cell] for cell in found.levels_of.tolist()] == [
        [("sex", sex), ("site", site)] for sex in "FM" for site in "xy"
    ]


@pytest.mark.parametrize("values", [["F", "M"], ["F", None], [1, 2], [1.5, float("nan")], [["a"], None], [["a"], []]])
def test_only_values_that_occur_are_levels_and_missing_is_one_of_them(values: list[Any]):
    found = stratify(pa.table({"person_key": ["a", "b"], "c": values}), ["c"], smallest=1)
    assert {*found.levels_of.reshape(-1).tolist()} == set(range(len(found.levels))), "somebody is on every level"
    assert (("c", "missing") in found.levels) == (values[1] is None or values[1] != values[1])
