"""The statistics of a joint report hold those of the rows of all sites, which numpy, scipy and the report compute."""

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from builder.federation.estimates import Estimate
from builder.federation.local import Terms
from builder.federation.merging import join
from builder.federation.policy import Policy
from builder.federation.receipts import Published, make_receipt
from builder.federation.told import Ledger
from builder.model.keyed import Key
from builder.report.association import cramers_v
from builder.report.power import detectable_difference, half_width
from tests.federation.test_documents import HEAD, PUBLIC
from tests.federation.test_receipts import NOBODY, PLAN
from tests.federation.test_sites import TEXT, signed

SPLITS = ("train", "validation", "test")
SIZES = {"lakeside": 90, "north": 260, "university": 150}
TERMS = Terms("question", 3, ("sex",), SPLITS)
KEY = Key(bytes(range(32)))


def rows(seed: int, site: str, size: int) -> pa.Table:
    """Persons of a site; every tenth has no age, and a few are older than the last band's end."""
    random = np.random.default_rng(seed)
    ages = random.normal(55 + 3 * len(site), 14, size).clip(0, 119).round(1)
    return pa.table(
        {
            "person_key": [f"{site}{n}" for n in range(size)],
            "split": random.choice(SPLITS, size, p=(0.6, 0.2, 0.2)),
            "sex": random.choice(["F", "M"], size, p=(0.6, 0.4)),
            "age_years": [None if n % 10 == 0 else age for n, age in enumerate(ages.tolist())],
        }
    )


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    home = tmp_path_factory.mktemp("sites")
    tables = {site: rows(n, site, size) for n, (site, size) in enumerate(SIZES.items())}
    receipts = {}
    for site, own in tables.items():
        policy = Policy(
            site=site, coordinator=PUBLIC, dataset="/data", columns={"sex": ("F", "M")}, histograms=("age_years",)
        )
        ledger = Ledger.open(str(home / f"{site}.json"))
        receipts[site] = make_receipt(
            (signed(), PLAN), policy, TERMS, Published("a" * 32, {}, own, NOBODY), ledger, key=KEY, nonce="0" * 32
        )  # fmt: skip
    return join(signed(TEXT), PLAN, receipts), pa.concat_tables(tables.values())


def holds(ends, value, within=math.inf):
    found = Estimate(ends["low"], ends["high"])
    assert found.low - 1e-9 <= value <= found.high + 1e-9
    assert found.bound <= within


def entry(joined, name):
    return next(e for e in joined.report["statistics"] if e["table"] == name)


def test_means_and_quantiles_are_those_of_all_rows(merged):
    joined, pooled = merged
    found = entry(joined, "histogram of age_years")
    assert found["persons"] == pooled.num_rows
    ages = np.array(pooled["age_years"].to_pylist(), dtype=float)
    splits = np.array(pooled["split"].to_pylist())
    told = {row["split"]: row for row in found["splits"]}
    assert "*" in told
    assert len(told) > 2
    for split, row in told.items():
        own = ages[(splits == split) | (split == "*")]
        known = own[~np.isnan(own)]
        assert row["persons"] == len(own)
        holds(row["mean"], known.mean(), 15 if split == "*" else 30)
        for q, ends in row["quantiles"].items():
            holds(ends, np.quantile(known, float(q)), 75)
        if row["from_first"]:
            first = ages[splits == "train"]
            holds(row["from_first"], known.mean() - np.nanmean(first), 60)


def test_shares_association_and_power_are_those_of_all_rows(merged):
    joined, pooled = merged
    found = entry(joined, "sex")
    sexes, splits = (np.array(pooled[name].to_pylist()) for name in ("sex", "split"))
    table = np.array([[((splits == s) & (sexes == x)).sum() for x in "FM"] for s in SPLITS])
    holds(found["association"]["cramers_v"], cramers_v(table), 0.2)
    assert [row["levels"] for row in found["levels"]] == [["F"], ["M or other"]]
    for place, row in enumerate(found["levels"]):
        inside, total = int(table[:, place].sum()), int(table.sum())
        holds(row["share"], inside / total, 0.02)
        exact = stats.binomtest(inside, total).proportion_ci(method="wilson")
        assert row["interval"]["low"] <= exact.low + 1e-9
        assert exact.high <= row["interval"]["high"] + 1e-9
        holds(row["half_width"], half_width(0.9, inside), 0.01)
        holds(row["detectable"], detectable_difference(0.9, inside, total - inside), 0.02)


def test_the_page_shows_them(merged):
    joined, _ = merged
    page = joined.files()["index.html"].decode()
    assert "<h2>Statistics</h2>" in page
    assert "Cramér" in page
    median = next(r for r in entry(joined, "histogram of age_years")["splits"] if r["split"] == "*")["quantiles"]["0.5"]
    assert f"{median['low']:.1f} to {median['high']:.1f}" in page


def test_a_site_too_small_to_tell_is_named(tmp_path):
    policy = Policy(site="north", coordinator=PUBLIC, dataset="/data", columns={"sex": ("F", "M")})
    made = {}
    for site, size in {"north": 60, "south": 2}.items():
        ledger = Ledger.open(str(tmp_path / f"{site}.json"))
        index = rows(1, site, size)
        own = policy.model_copy(update={"site": site})
        published = Published("a" * 32, {}, index, NOBODY)
        made[site] = make_receipt(
            (signed(), PLAN), own, TERMS, published, ledger, key=KEY, nonce=HEAD["nonce"]
        )  # fmt: skip
    both = entry(join(signed(TEXT), PLAN, made), "sex")
    assert (both["persons"], both["without"]) == (60, ["south"])
    small = join(signed(TEXT), PLAN, {"south": made["south"]})
    assert entry(small, "sex") == {"table": "sex", "persons": None, "without": ["south"]}
    assert b"Suppressed number of persons" in small.files()["index.html"]
