"""Receipts tell how large the structures are that a policy names, and offers say that they cannot."""

import numpy as np
import pyarrow as pa
import pytest

from builder.federation.counting import EDGES, with_sizes
from builder.federation.local import local_spec
from builder.federation.merging import join
from builder.federation.offers import Newcomers, make_offer
from builder.federation.receipts import Published, make_receipt
from builder.federation.told import Ledger
from tests.federation.test_receipts import KEY, NOBODY, PLAN
from tests.federation.test_sites import POLICY, TEXT, signed

SIZE = "label_ml of tumor.tumor"
TELLS = POLICY.model_copy(update={"histograms": (SIZE, "label_ml of heart.heart"), "k": 5})


def index(seed: int, size: int) -> pa.Table:
    """Two samples a person, the second of a larger structure; every ninth person has none."""
    random = np.random.default_rng(seed)
    mm3 = (random.lognormal(9, 1.2, size)).round(1)
    keys = [f"p{n}" for n in range(size)]
    volumes = [None if n % 9 == 0 else v for n, v in enumerate(mm3.tolist())]
    larger = [None if v is None else 2 * v for v in volumes]
    splits = ["train" if n % 3 else "test" for n in range(size)]
    return pa.table(
        {
            "person_key": keys * 2, "split": splits * 2, "sex": ["F"] * 2 * size,
            "label.tumor.tumor.volume_mm3": pa.array(volumes + larger, pa.float64()),
        }
    )  # fmt: skip


def receipt(table: pa.Table, ledger: Ledger, site: str = "north"):
    policy = TELLS.model_copy(update={"site": site})
    terms = local_spec(signed(), policy)[1]
    published = Published("a" * 32, {}, table, NOBODY)
    return make_receipt((signed(), PLAN), policy, terms, published, ledger, key=KEY, nonce="0" * 32)


def test_the_sizes_of_all_sites_are_between_their_bounds(tmp_path):
    tables = {"north": index(1, 150), "lakeside": index(2, 90)}
    made = {site: receipt(t, Ledger.open(str(tmp_path / f"{site}.json")), site) for site, t in tables.items()}
    pooled = pa.concat_tables(t.slice(0, t.num_rows // 2) for t in tables.values())  # the smaller of each person
    ml = np.array(pooled["label.tumor.tumor.volume_mm3"].to_pylist(), dtype=float) / 1000
    known = ml[~np.isnan(ml)]
    edges = (*EDGES["label_ml"], np.inf)
    counts = np.histogram(known, edges)[0]
    (table,) = [t for t in join(signed(TEXT), PLAN, made).report["tables"] if t["name"] == f"histogram of {SIZE}"]
    told = {row["levels"][1]: row["persons"] for row in table["rows"] if row["levels"][0] == "*"}
    assert told["*"] == len(ml)
    found = 0
    for low, high, own in zip(edges[:-1], edges[1:], counts.tolist(), strict=True):
        number = told.get(f"{low:g} to {high:g}")
        if number is not None:
            found += 1
            assert number == own
    assert found >= 2
    (entry,) = [e for e in join(signed(TEXT), PLAN, made).report["statistics"] if e["table"] == table["name"]]
    everybody = entry["splits"][0]
    assert everybody["mean"]["low"] - 1e-9 <= known.mean() <= everybody["mean"]["high"] + 1e-9
    median = everybody["quantiles"]["0.5"]
    assert median["low"] <= np.median(known) <= median["high"]


def test_the_policy_names_each_structure_and_the_spec_declares_it(tmp_path):
    made = receipt(index(1, 60), Ledger.open(str(tmp_path / "ledger.json")))
    assert [t.name for t in made.tables if t.name.startswith("histogram")] == [f"histogram of {SIZE}"]
    assert any(line.startswith("label_ml of heart.heart: ") for line in made.withheld)


def test_that_no_case_has_a_structure_is_not_told(tmp_path):
    table = index(1, 60).drop_columns(["label.tumor.tumor.volume_mm3"])
    made = receipt(table, Ledger.open(str(tmp_path / "ledger.json")))
    (sizes,) = [t for t in made.tables if t.name == f"histogram of {SIZE}"]
    assert {row.persons for row in sizes.rows if row.levels[1] != "*"} == {None}
    assert with_sizes(table, {SIZE: "none"})[SIZE].null_count == table.num_rows


def test_an_offer_says_that_receipts_tell_them(tmp_path):
    rows = pa.table({"person_key": [f"p{n}" for n in range(20)], "included": [True] * 20, "sex": ["F", "M"] * 10})
    terms = local_spec(signed(), TELLS)[1]
    found = Newcomers(rows.select(["person_key", "sex"]), rows, {})
    ledger = Ledger.open(str(tmp_path / "ledger.json"))
    made = make_offer(signed(), TELLS, terms, found, ledger, key=KEY, nonce="0" * 32)
    assert f"{SIZE}: an offer is made before anything is built; receipts tell it" in made.withheld
    assert [table.name for table in made.tables] == ["total"]


@pytest.mark.parametrize("change", [("(?i)gtv|tumor|mass", "(?i)gtv"), ("roi: {tumor:", "roi: {tumour:")])
def test_other_structures_are_another_question(change):
    assert local_spec(signed(), POLICY)[1].question != local_spec(signed(TEXT.replace(*change)), POLICY)[1].question
