"""Every number of the sarcoma cohort's report, recomputed from its tables and the original files."""

import json
from pathlib import Path

import pandas as pd
import pytest

from builder.report import render
from builder.run.pipeline import plan
from tests.endtoend.trees import KEY, SARCOMA
from tests.report.originals import originals
from tests.report.recount import numbers, recount, spoiled


@pytest.fixture(scope="module")
def told(sarcoma: Path, corpus) -> dict:
    """The report, the tables beside it, those of the private workspace, and the original files."""
    version = sarcoma / "versions" / (sarcoma / "CURRENT").read_text().split()[0]
    manifest = json.loads((version / "dataset.json").read_bytes())
    private = sarcoma.with_name("dataset.private")
    names = ("index", "cohort", "exclusions", "splits", "ledger")
    tables = {name: pd.read_parquet(version / f"{name}.parquet") for name in names}
    (planned,) = private.glob("plan/*/cohort.parquet")
    return {
        "document": json.loads((version / "report" / "report.json").read_bytes()),
        **tables,
        "prints": pd.concat([pd.read_parquet(p) for p in private.glob("prints/*.parquet")], ignore_index=True),
        "private": pd.read_parquet(planned),
        "archive": originals(corpus("sts") / "sts_cohort", corpus("sts") / "sts_clinical" / "INFOclinical_STS.xlsx"),
        "spec": manifest["spec"],
        "lock": manifest["lock"],
        "ratios": manifest["spec"]["splits"]["ratios"],
        "seed": manifest["spec"]["seed"],
    }


def test_every_number_of_the_sarcoma_report(told):
    assert recount(**told) == {}


def test_all_groups_of_several_levels_are_crossed(told):
    crossed = {tuple(e["columns"]) for e in told["document"]["intersections"]}
    assert crossed == {("sex", "age_band"), ("sex", "grade"), ("age_band", "grade")}


def test_each_number_of_it_is_noticed_when_it_changes(told):
    changed = spoiled(told["document"])
    complaints = recount(**{**told, "document": changed})
    every = {path for path, _, _ in numbers(changed)}
    assert len(every) > 900
    assert every <= set(complaints)


def test_the_plan_tells_the_same_before_the_build(told, corpus, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    plan(SARCOMA, to=tmp_path / "dataset", parameters={"corpus": str(corpus("sts"))})
    (path,) = tmp_path.glob("dataset.private/plan/*/report/report.json")
    planned, built = json.loads(path.read_bytes()), told["document"]
    assert planned["planned"]
    for name in ("table_one", "balance", "attrition", "intersections", "clinical", "structures"):
        assert planned[name] == built[name], name
    left = [row for row in built["quarantine"]["reasons"] if row["stage"] != "shard"]
    assert planned["quarantine"]["reasons"] == left
    assert {e["label"]: e["levels"][0]["cells"]["all"]["count"] for e in planned["labels"]} == {
        "label_status": 34, "label_tier": 34,
    }  # fmt: skip
    page = render(planned)
    assert "what a build would hold" in page
    assert "samples" not in page.partition("<nav>")[0].partition("No image was read yet")[0].partition("<h1>")[2]
    assert "The dataset has no labels" not in page


def test_the_private_accession_key_names_what_the_headers_say(told):
    stated = {number for _, modality, number in told["archive"].accessions.values() if modality == "PT"}
    row = next(row for row in told["document"]["leakage"]["keys"] if row["key"] == "accession_key")
    assert row["values"] == len(stated)
