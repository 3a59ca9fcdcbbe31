"""Numbers of merged tallies contain those of the rows of all sites, computed by numpy, scipy and the report."""

import math
from itertools import chain, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from builder.errors import LayoutError, SpecError
from builder.federation import estimates
from builder.federation.suppression import suppress
from builder.federation.tables import ANY, Column, Disclosed, count
from builder.federation.tallies import band_of, bands, merge, tally
from builder.report.association import cramers_v
from builder.report.bias import difference_of_means
from builder.report.power import detectable_difference, half_width

EDGES = tuple(float(n) for n in range(0, 101, 10))
AGE = bands("age", EDGES)
SEX = Column("sex", ("F", "M"))
GRADE = Column("grade", ("high", "low", "missing"))


def sites(seed, sizes=(80, 35, 12), scale=12.0):
    random = np.random.default_rng(seed)
    return [random.normal(40 + 10 * n, scale, size).clip(0, 99.9) for n, size in enumerate(sizes)]


def merged(columns, rows_of_sites, k=5):
    return merge(tally(suppress(count(columns, rows), k)) for rows in rows_of_sites)


def histogram(parts, k=5):
    return merged((AGE,), [[(band_of(v, AGE, EDGES),) for v in part] for part in parts], k)


def holds(estimate, value, within):
    assert estimate.low - 1e-9 <= value <= estimate.high + 1e-9
    assert abs(estimate.value - value) <= estimate.bound + 1e-9
    assert estimate.bound <= within


@pytest.mark.parametrize("seed", range(4))
def test_mean_quantiles_and_spread_are_those_of_all_rows(seed):
    parts = sites(seed)
    pooled, found = np.concatenate(parts), histogram(parts)
    assert found.total == len(pooled)
    holds(estimates.mean(found, EDGES), pooled.mean(), 20)
    for q in (0.01, 0.25, 0.5, 0.75, 0.99):
        holds(estimates.quantile(found, EDGES, q), np.quantile(pooled, q), 30 if 0.2 < q < 0.8 else 101)
    holds(estimates.variance(found, EDGES), pooled.var(ddof=1), 2500)


def test_without_small_bands_the_bound_is_the_width_of_a_band():
    parts = [np.repeat(np.arange(5.0, 100, 10), 6), np.repeat(np.arange(2.0, 100, 10), 9)]
    pooled, found = np.concatenate(parts), histogram(parts)
    assert estimates.mean(found, EDGES).bound == pytest.approx(5)
    holds(estimates.mean(found, EDGES), pooled.mean(), 5.0001)
    holds(estimates.quantile(found, EDGES, 0.5), np.median(pooled), 10)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.lists(st.floats(0, 99.9), min_size=6, max_size=40), min_size=2, max_size=3))
def test_bounds_hold_for_any_values(parts):
    pooled, found = np.concatenate([np.array(p) for p in parts]), histogram(parts)
    holds(estimates.mean(found, EDGES), pooled.mean(), 101)
    holds(estimates.variance(found, EDGES), pooled.var(ddof=1), math.inf)
    holds(estimates.quantile(found, EDGES, 0.3), np.quantile(pooled, 0.3), 101)


def test_the_difference_of_two_splits_is_that_of_all_rows():
    train, test = sites(1, (400, 300), 20), sites(2, (90, 80), 20)
    expected = difference_of_means(np.concatenate(train), np.concatenate([v + 25 for v in test]).clip(0, 99.9))
    found = estimates.mean_difference(histogram(train), histogram([(v + 25).clip(0, 99.9) for v in test]), EDGES)
    holds(found, expected, 2.5)


def crossed(seed, sizes, weights):
    random = np.random.default_rng(seed)
    made = []
    for size in sizes:
        sexes = random.choice(list("FM"), size)
        made.append([(s, str(random.choice(GRADE.levels, p=weights[s]))) for s in sexes])
    return made


@pytest.mark.parametrize(
    "weights", [{"F": (0.5, 0.4, 0.1), "M": (0.2, 0.7, 0.1)}, {"F": (0.9, 0.1, 0), "M": (0.1, 0.9, 0)}]
)
@pytest.mark.parametrize("seed", range(2))
def test_association_shares_and_power_are_those_of_all_rows(weights, seed):
    rows = crossed(seed, (150, 90, 40), weights)
    found = merged((SEX, GRADE), rows)
    pooled = np.zeros((2, 3), dtype=np.int64)
    for sex, grade in chain(*rows):
        pooled[SEX.levels.index(sex), GRADE.levels.index(grade)] += 1
    holds(estimates.association(found), cramers_v(pooled), 0.51)
    assert estimates.association(found).high <= 1
    for i, sex in enumerate(SEX.levels):
        share, interval = estimates.share(found, (sex, "high"))
        holds(share, pooled[i, 0] / pooled.sum(), 0.3)
        exact = stats.binomtest(int(pooled[i, 0]), int(pooled.sum())).proportion_ci(method="wilson")
        assert interval.low <= exact.low + 1e-9
        assert exact.high <= interval.high + 1e-9
        inside = int(pooled[i].sum())
        holds(estimates.precision(found, (sex, ANY), 0.9), half_width(0.9, inside), 0.3)
        holds(
            estimates.detectable(found, (sex, ANY), 0.9),
            detectable_difference(0.9, inside, int(pooled.sum()) - inside), 0.3,
        )  # fmt: skip


def test_where_nothing_is_hidden_association_is_exact():
    rows = [[(s, g) for s in "FM" for g, n in zip(GRADE.levels, (20, 9 if s == "F" else 30, 6), strict=True)
             for _ in range(n)]] * 2  # fmt: skip
    pooled = np.array([[40, 18, 12], [40, 60, 12]])
    found = estimates.association(merged((SEX, GRADE), rows))
    assert found.bound < 1e-9
    assert found.value == pytest.approx(cramers_v(pooled))
    n = pooled.sum()  # Bergsma's correction (2013) of scipy's V
    v2 = stats.contingency.association(pooled, method="cramer") ** 2
    assert found.value == pytest.approx(math.sqrt(max(0, v2 - 2 / (n - 1)) / (2 - 1 / (n - 1) - 1)))


def test_merging_is_associative_and_commutative():
    tallies = [tally(suppress(count((SEX, GRADE), rows), 5)) for rows in
               crossed(5, (40, 50, 60), {"F": (0.5, 0.4, 0.1), "M": (0.2, 0.7, 0.1)})]  # fmt: skip
    together = merge(tallies)
    assert all(merge(order) == together for order in permutations(tallies))
    assert merge([merge(tallies[:2]), tallies[2]]) == merge([tallies[0], merge(tallies[1:])]) == together


def test_the_distance_to_the_ratio_contains_the_true_one():
    ratios = {"train": 0.7, "test": 0.3}
    assert estimates.off_ratio({"train": (70, 70), "test": (32, 32)}, ratios).value == pytest.approx(1.4)
    hidden = estimates.off_ratio({"train": (65, 75), "test": (25, 35)}, ratios)
    for train in range(65, 76):
        for test in range(25, 36):
            assert hidden.low - 1e-9 <= abs(train - 0.7 * (train + test)) <= hidden.high + 1e-9


def test_a_site_without_a_total_is_in_no_tally_and_other_columns_are_refused():
    assert tally(suppress(count((SEX,), [("F",)] * 3), 5)) is None
    with pytest.raises(LayoutError, match="found no tally"):
        merge([])
    one = tally(Disclosed((SEX,), 5, {(ANY,): 9}, (("F",), ("M",))))
    other = tally(Disclosed((AGE,), 5, {(ANY,): 9}, tuple((level,) for level in AGE.levels)))
    with pytest.raises(LayoutError, match="found tallies of other columns"):
        merge([one, other])
    with pytest.raises(SpecError, match="age: found the edges"):
        bands("age", (10, 0))
