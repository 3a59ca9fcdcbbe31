"""Every statistic of the report against another library, a closed form, or a published worked example."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import mutual_info_score, roc_auc_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import power_proportions_2indep, proportion_confint

from builder.report.association import associations, cramers_v, missingness, permutation_p, theils_u
from builder.report.balance import balance, rounding_bound
from builder.report.bias import difference_of_means, standardised_difference, wilson
from builder.report.crossings import crossings
from builder.report.masking import masked_cells
from builder.report.power import (
    buderer,
    detectable_difference,
    half_width,
    hanley_mcneil,
    needed_for_proportion,
    riley_binary,
)

COUNTS = st.lists(st.lists(st.integers(0, 12), min_size=3, max_size=3), min_size=2, max_size=5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_intervals_agree_with_statsmodels(pair):
    count, total = pair
    expected = proportion_confint(count, total, method="wilson")
    assert wilson(count, total) == pytest.approx(expected, abs=1e-9)


def test_no_persons_give_no_interval():
    assert wilson(0, 0) is None


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 60), st.integers(0, 60))
def test_the_difference_of_two_levels_is_that_of_two_proportions(a, b, c, d):
    p, q = a / (a + b), c / (c + d)
    spread = (p * (1 - p) + q * (1 - q)) / 2
    found = standardised_difference(np.array([a, b]), np.array([c, d]))
    if p == q:
        assert found == 0
    else:
        assert found == pytest.approx(abs(p - q) / math.sqrt(spread), rel=1e-6)


def test_the_difference_of_several_levels_is_the_mahalanobis_distance_of_shares():
    first, second = np.array([20, 30, 50]), np.array([40, 30, 30])
    p, q = first / 100, second / 100
    covariance = sum(np.diag(x[:2]) - np.outer(x[:2], x[:2]) for x in (p, q)) / 2
    gap = (p - q)[:2]
    assert standardised_difference(first, second) == pytest.approx(math.sqrt(gap @ np.linalg.inv(covariance) @ gap))
    assert difference_of_means(np.array([1.0, 3.0]), np.array([2.0, 4.0])) == pytest.approx(1 / math.sqrt(2))


@settings(max_examples=60)
@given(COUNTS)
def test_associations_agree_with_scipy_and_scikit_learn(rows):
    table = np.array(rows, dtype=np.int64)
    full = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    if min(full.shape, default=0) < 2 or full.sum() < 2:
        assert cramers_v(table) == 0
        return
    chi2 = stats.chi2_contingency(full, correction=False).statistic
    n, (r, c) = full.sum(), full.shape
    phi2 = max(0, chi2 / n - (r - 1) * (c - 1) / (n - 1))
    smaller = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
    assert cramers_v(table) == pytest.approx(min(1, math.sqrt(phi2 / smaller)) if smaller > 0 else 0)
    mutual = mutual_info_score(None, None, contingency=full.astype(float))
    assert theils_u(table) == pytest.approx(mutual / stats.entropy(full.sum(axis=1)), abs=1e-9)


def test_a_copy_is_fully_associated_and_noise_is_not():
    copy = np.diag([30, 30, 40]).astype(np.int64)
    assert cramers_v(copy) == pytest.approx(1)
    assert theils_u(copy) == pytest.approx(1)
    assert permutation_p(copy, seed=1, name="x") == pytest.approx(1 / 2001)
    even = np.full((2, 2), 25)
    assert cramers_v(even) == 0
    assert permutation_p(even, seed=1, name="x") == 1


@pytest.mark.parametrize("rows", [[[12, 5], [7, 14]], [[30, 20, 10], [22, 25, 18]]])
def test_the_permutation_test_agrees_with_the_exact_one(rows):
    table = np.array(rows)
    found = permutation_p(table, seed=9, name="label|site")
    assert found == permutation_p(table, seed=9, name="label|site")
    if table.shape == (2, 2):
        # chi-square orders 2x2 tables as their distance from expectation does: sum the hypergeometric tail
        row, column = table.sum(axis=1), table.sum(axis=0)
        expected = row[0] * column[0] / table.sum()
        cells = np.arange(max(0, row[0] - column[1]), min(row[0], column[0]) + 1)
        weights = stats.hypergeom.pmf(cells, table.sum(), column[0], row[0])
        exact = weights[np.abs(cells - expected) >= abs(table[0, 0] - expected) - 1e-9].sum()
    else:
        exact = stats.chi2_contingency(table, correction=False).pvalue
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 2000) + 0.01)


def test_associations_are_adjusted_and_count_the_persons_left_out():
    n = 120
    persons = pa.table(
        {
            "person_key": [f"p{i}" for i in range(n)],
            "label": ["yes" if i % 2 else "no" for i in range(n)],
            "vendor": [("GE" if i % 2 else "Siemens") if i % 10 else None for i in range(n)],
            "sex": ["FM"[(i // 2) % 2] for i in range(n)],
            "race": [None if i % 2 and i % 3 else "x" for i in range(n)],
        }
    )
    rows = associations(persons, ["label"], ["vendor", "sex", "race"], seed=0)
    assert [(r["group"], r["persons"], r["left_out"]) for r in rows] == [("vendor", 108, 12), ("sex", 120, 0)]
    assert rows[0]["cramers_v"] == pytest.approx(1)
    assert rows[1]["cramers_v"] == 0
    adjusted = multipletests([r["p"] for r in rows], method="fdr_bh")[1]
    assert [r["q"] for r in rows] == pytest.approx(list(adjusted))
    absent = {(r["label"], r["group"]): r for r in missingness(persons, ["label"], ["vendor", "race"], seed=0)}
    assert absent["label", "race missing"]["cramers_v"] > 0.5
    assert absent["label", "race missing"]["persons"] == n


@settings(max_examples=150)
@given(COUNTS, st.integers(2, 6))
def test_hidden_cells_cannot_be_computed_from_the_sums(rows, below):
    table = np.array(rows, dtype=np.int64)
    full = np.concatenate([table, table.sum(axis=1, keepdims=True)], axis=1)
    hidden = masked_cells(full, below)
    assert hidden[(full > 0) & (full < below)].all()
    assert not (hidden.sum(axis=0) == 1).any()
    assert not (hidden.sum(axis=1) == 1).any()
    if not ((full > 0) & (full < below)).any():
        assert not hidden.any()


def test_zeros_stay_visible():
    table = np.array([[0, 20, 30], [10, 0, 9]])
    assert not masked_cells(table, 5).any()


@given(st.integers(0, 60), st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.5), (0.8, 0.1, 0.1), (0.6, 0.25, 0.15)]))
def test_no_split_of_whole_persons_beats_the_rounding_bound(n, ratios):
    exact = [n * r for r in ratios]
    choices = itertools.product(*[range(max(0, math.floor(e) - 1), math.ceil(e) + 2) for e in exact])
    best = min(max(abs(c - e) for c, e in zip(choice, exact, strict=True)) for choice in choices if sum(choice) == n)
    assert rounding_bound(n, ratios) == pytest.approx(best, abs=1e-9)


def test_balance_counts_deviations_from_the_ratios():
    splits = pa.table(
        {
            "person_key": [f"p{i}" for i in range(12)],
            "split": ["train"] * 8 + ["test"] * 2 + ["external"] * 2,
            "stratum": ["a"] * 5 + ["b"] * 5 + ["a"] * 2,
            "pooled": [False] * 5 + [True] * 5 + [False] * 2,
            "sex": ["F"] * 6 + ["M"] * 6,
            "findings": [["x"], ["x", "y"]] * 6,
        }
    )
    found = balance(splits, ratios={"train": 0.5, "test": 0.5}, columns=["sex", "findings"])
    assert found["overall"]["counts"] == {"train": 8, "test": 2}
    assert found["overall"]["off_persons"] == 3
    assert found["overall"]["off_points"] == 30
    assert found["strata"] == {"number": 2, "pooled": ["b"], "worst_persons": 2.5, "one_person_or_more": 1}
    levels = {(r["column"], r["level"]): r for r in found["levels"]}
    assert levels["sex", "F"]["off_persons"] == 3
    assert levels["sex", "F"]["bound_persons"] == 0
    assert levels["findings", "x"]["persons"] == 10
    assert levels["findings", "y"]["persons"] == 5
    assert found["held_out"] == {"external": 2}


def test_crossings_finds_values_in_two_splits():
    rows = pa.table(
        {
            "person_key": ["p1", "p1", "p2", "p3"],
            "study_key": ["s1", "s1", "s2", "s2"],
            "split": ["train", "train", "test", "train"],
        }
    )
    assert crossings(rows) == [
        {"key": "person_key", "values": 3, "in_two_splits": 0},
        {"key": "study_key", "values": 2, "in_two_splits": 1},
    ]


def test_buderer_gives_the_sizes_of_published_examples():
    # Buderer's own example (Acad Emerg Med 1996;3:895) as Stata's diagsampsi (Linden 2020, SSC) prints it: sensitivity
    # 90 %, specificity 85 %, prevalence 20 %, width 10 %: 173 and 62 persons
    assert buderer(sensitivity=0.9, specificity=0.85, prevalence=0.2, width=0.1) == (173, 62)
    # Jones, Carley & Harrison, Emerg Med J 2003;20:453: sensitivity 95 %, width 5 %, prevalence 30 %: 243 patients
    # (73 with the disorder); they round 73 / 0.3 down
    sensitivity, specificity = buderer(sensitivity=0.95, specificity=0.8, prevalence=0.3, width=0.05)
    assert needed_for_proportion(0.95, 0.05) == 73
    assert sensitivity == pytest.approx(243, abs=1)
    assert specificity == pytest.approx(351, abs=1)


@pytest.mark.parametrize(
    ("positives", "negatives", "error"), [(20, 200, 0.06498283), (110, 110, 0.03282048), (20, 20, 0.07789072)]
)
def test_the_error_of_an_auc_agrees_with_published_examples(positives, negatives, error):
    # printed in the manual of the R package auctestr 1.0.0, se_auc(0.75, ...), which applies Hanley & McNeil 1982
    assert hanley_mcneil(0.75, positives, negatives) == pytest.approx(error, abs=5e-9)


def test_the_error_of_an_auc_is_near_that_of_the_ratings_of_hanley_and_mcneil():
    # the 109 CT images of Hanley & McNeil 1982, from the ratings themselves (Stata Base Reference Manual, roctab: area
    # 0.8932, standard error 0.0320)
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    ratings = np.repeat(np.tile(np.arange(5), 2), [*normal, *abnormal])
    truth = np.repeat([False, True], [sum(normal), sum(abnormal)])
    area = roc_auc_score(truth, ratings)
    assert area == pytest.approx(0.8932, abs=5e-5)
    assert hanley_mcneil(area, 51, 58) == pytest.approx(0.0320, abs=1e-3), "the closed form is an approximation"


@pytest.mark.parametrize(
    ("parameters", "r2", "prevalence", "sizes"),
    [
        (24, 0.288, 0.174, (623, 662, 221)),
        (24, 0.55, 0.174, (255, 532, 221)),
        (36, 0.288, 0.174, (934, 992, 221)),
        (24, 0.288, 0.25, (623, 590, 289)),
    ],
)
def test_riley_gives_the_sizes_of_pmsampsize(parameters, r2, prevalence, sizes):
    # tests 4.1 to 4.4 of the R package pmsampsize 1.1.3 by the authors (tests/testthat/test_bin.R on CRAN); 4.1 is the
    # example of Riley et al., Stat Med 2019;38:1276
    found = riley_binary(parameters=parameters, r2_cox_snell=r2, prevalence=prevalence)
    assert (found["shrinkage"], found["optimism"], found["overall_risk"]) == sizes


def test_an_outcome_and_its_opposite_need_the_same_numbers():
    common, rare = (riley_binary(parameters=10, r2_cox_snell=0.1, prevalence=p) for p in (0.9, 0.1))
    assert common == rare


def test_a_half_width_belongs_to_the_assumed_share():
    """Statsmodels' interval at the share itself, also where no whole number of persons has it: 4.5 of 5."""
    for share in (0.8, 0.9):
        low, high = proportion_confint(share * 5, 5, method="wilson")
        assert half_width(share, 5) == pytest.approx((high - low) / 2)
    assert half_width(0.8, 5) != half_width(0.9, 5)


def test_riley_gives_the_sizes_of_the_pre_eclampsia_example():
    # Riley et al., BMJ 2020;368:m441: 30 parameters, R2 of Cox and Snell 0.05, outcome in 5 %
    found = riley_binary(parameters=30, r2_cox_snell=0.05, prevalence=0.05)
    assert found["shrinkage"] == pytest.approx(5249, abs=1)
    assert found["overall_risk"] == 73
    assert found["error"] == pytest.approx(544, abs=1)


@pytest.mark.parametrize(("first", "second"), [(40, 200), (100, 100), (25, 400)])
def test_the_detectable_difference_has_the_stated_power(first, second):
    drop = detectable_difference(0.9, first, second)
    power = power_proportions_2indep(-drop, 0.9, first, ratio=second / first, alpha=0.05)
    assert power.power == pytest.approx(0.80, abs=0.01)
    assert detectable_difference(0.9, 1, 400) is None or detectable_difference(0.9, 1, 400) > 0.5
    assert detectable_difference(0.9, 0, 400) is None
