"""Every number of a report on the CT patients of a public archive, recomputed by other libraries."""

import json
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from builder.headers.vendors import normalise
from builder.model.canonical import canonical_json
from builder.model.tables import EXCLUSIONS
from builder.report import ReportInputs, assemble
from builder.split import assign
from tests.report.recount import numbers, recount, spoiled

idc = pytest.importorskip("idc_index_data", reason="pip install idc-index-data==25.0.5")

RATIOS = {"train": 0.70, "validation": 0.15, "test": 0.15}
STRATA = ["collection", "sex", "age_band", "vendor"]
GROUPS = ["sex", "age_band", "vendor"]
LABELS = ["sex", "screened"]
RULES = ["image", "maker_known"]
REFERENCE = {"sex": {"F": 0.5, "M": 0.5}}


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    """CT series of a third of all persons, those of 20 slices and a known maker as the cohort, their split."""
    cohort = duckdb.sql(
        f"""
        SELECT SeriesInstanceUID AS series_key, StudyInstanceUID AS study_key, SeriesInstanceUID AS case_key,
            collection_id || '/' || PatientID AS person_key, collection_id AS collection, Modality AS modality,
            CASE WHEN PatientSex IN ('F', 'M') THEN PatientSex END AS sex,
            CASE WHEN regexp_matches(PatientAge, '^[0-9]{{3}}Y$')
                THEN (CAST(PatientAge[1:3] AS INT) // 10 * 10)::VARCHAR END AS age_band,
            CASE WHEN collection_id = 'nlst' THEN 'yes' ELSE 'no' END AS screened, Manufacturer AS manufacturer,
            instanceCount AS instances, instanceCount AS slices,
            instanceCount >= 20 AND Manufacturer IS NOT NULL AS included,
            CASE WHEN instanceCount < 20 THEN 'image' WHEN Manufacturer IS NULL THEN 'maker_known' END AS rule,
            CASE WHEN instanceCount < 20 OR Manufacturer IS NULL THEN 'not_selected' END AS reason,
            CAST(NULL AS VARCHAR) AS detail
        FROM read_parquet('{idc.IDC_INDEX_PARQUET_FILEPATH}') WHERE Modality = 'CT'
            AND md5(collection_id || PatientID) < '6' ORDER BY 1
        """
    ).to_arrow_table()
    cohort = cohort.append_column("vendor", pa.array([normalise(m) for m in cohort["manufacturer"].to_pylist()]))
    chosen = cohort.filter(cohort["included"])
    first = chosen.to_pandas().groupby("person_key", as_index=False).first()[["person_key", *STRATA]]
    splits = assign(pa.Table.from_pandas(first, preserve_index=False), ratios=RATIOS, strata=STRATA, seed=3)
    home = dict(zip(splits["person_key"].to_pylist(), splits["split"].to_pylist(), strict=True))
    index = chosen.append_column("split", pa.array([home[p] for p in chosen["person_key"].to_pylist()]))
    index = index.append_column("sample_key", index["series_key"])
    return {"cohort": cohort, "index": index, "splits": splits, "exclusions": EXCLUSIONS.empty_table()}


def test_every_number_of_the_report_on_a_large_archive(tables):
    document = assemble(ReportInputs(
        **tables, totals={}, lock={}, groups=GROUPS, labels=LABELS, ratios=RATIOS, strata=STRATA, rules=RULES,
        reference=REFERENCE, seed=3,
    ))  # fmt: skip
    document = json.loads(canonical_json(document))
    assert document["splits"][0]["persons"] > 10_000
    assert document["balance"]["two_persons_or_more"] == 0
    assert [e["auc"] is None for e in document["baseline"]] == [False]
    assert {rule for e in document["attrition"] for row in e["levels"] for rule in row["removed_by"]} == set(RULES)
    frames = {name: table.to_pandas() for name, table in tables.items()}
    assert recount(document, **frames, ratios=RATIOS, rules=RULES, reference=REFERENCE, seed=3) == {}


def test_a_changed_or_new_number_is_noticed(tables):
    small = {n: t if n == "exclusions" else t.slice(0, 0) for n, t in tables.items()}
    chosen = tables["splits"].slice(0, 400)["person_key"].combine_chunks()
    for name in ("cohort", "index", "splits"):
        small[name] = tables[name].filter(pc.is_in(tables[name]["person_key"], chosen))
    said: dict[str, Any] = {"ratios": RATIOS, "rules": RULES, "reference": REFERENCE, "seed": 3}
    document = assemble(ReportInputs(**small, totals={}, lock={}, groups=GROUPS, labels=LABELS, strata=STRATA, **said))
    document = json.loads(canonical_json(document))
    frames = {name: table.to_pandas() for name, table in small.items()}
    assert recount(document, **frames, **said) == {}
    changed = spoiled(document)
    every = {path for path, _, _ in numbers(changed)}
    assert len(every) > 900
    assert every <= set(recount(changed, **frames, **said))
    document["power"]["surprise"] = 1
    assert recount(document, **frames, **said) == {"/power/surprise": "nobody recomputed it"}
