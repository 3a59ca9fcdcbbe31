"""Every number of the sarcoma cohort's report, from the Parquet files of the dataset, by other libraries."""

import json
from pathlib import Path

import pandas as pd

from tests.report.recount import recount


def test_every_number_of_the_sarcoma_report(sarcoma: Path):
    version = sarcoma / "versions" / (sarcoma / "CURRENT").read_text().split()[0]
    document = json.loads((version / "report" / "report.json").read_bytes())
    tables = {
        name: pd.read_parquet(version / f"{name}.parquet")
        for name in ("index", "cohort", "exclusions", "splits", "ledger")
    }
    prints = pd.concat(pd.read_parquet(p) for p in sarcoma.with_name("dataset.private").glob("prints/*.parquet"))
    ratios = {"train": 0.70, "validation": 0.15, "test": 0.15}
    forgotten = recount(document, **tables, ratios=ratios, prints=prints, seed=20251121)
    assert forgotten == [], "numbers that nothing recomputed"
