"""The catalog records of a built dataset: valid by their makers' tools, and nothing open that the data could answer."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from builder.catalog.facts import todos
from tests.catalog.records import check_records


@pytest.fixture(scope="module")
def version(sarcoma) -> Path:
    return sarcoma / "versions" / (sarcoma / "CURRENT").read_text().split()[0]


def record(version: Path, name: str):
    return json.loads((version / "catalog" / name).read_text())


def matches(pattern: Path) -> list[Path]:
    """What a pattern of the record names: a file, or everything below a folder."""
    return list(pattern.parent.rglob("*")) if pattern.name == "**" else [pattern]


@pytest.mark.filterwarnings("ignore::Warning")  # mlcroissant calls what rdflib and pandas are about to drop
def test_croissant_is_valid_and_reads_the_index(version):
    mlcroissant = pytest.importorskip("mlcroissant", reason="pip install mlcroissant")
    dataset = mlcroissant.Dataset(jsonld=str(version / "catalog" / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    keys = [row["index/sample_key"] for row in dataset.records("index")]
    expected = pq.read_table(version / "index.parquet")["sample_key"].to_pylist()
    assert [k.decode() if isinstance(k, bytes) else k for k in keys] == expected


def test_file_sets_are_the_objects_of_the_manifest(sarcoma, version):
    sets = [part for part in record(version, "croissant.json")["distribution"] if part["@type"] == "cr:FileSet"]
    assert [s["name"] for s in sets] == ["shards/image", "shards/tumor", "shards/samples"]
    found = {
        str(hit.resolve().relative_to(sarcoma.resolve()))
        for part in sets
        for pattern in part["includes"]
        for hit in matches(version / "catalog" / pattern)
        if hit.is_file()
    }
    manifest = json.loads((version / "dataset.json").read_text())
    stored = {f"data/{s['fingerprint']}/{o['path']}" for s in manifest["shards"] for o in s["objects"]}
    assert {p for p in stored if not p.endswith(("receipt.json", f"{p[5:37]}/zarr.json"))} == found


def test_only_what_a_person_must_state_is_open(version):
    answers = {row["item"]: row["answered"] for row in record(version, "claim.json")}
    # the rationale, and what the annotators were trained in; tool, tier and number of readers stand in the labels
    assert [item for item, answered in answers.items() if not answered] == [15, 16]
    said = {row["item"]: row["answer"] for row in record(version, "claim.json")}
    assert "modality == 'PT' and instances >= 20" in said[8]
    assert said[16].startswith("tumor: single reader (34), readers not named; TODO")
    assert said[17] == "tumor: MIM Software Inc. MIM (34)"
    assert said[18] == "not measured: each case was read by one reader"
    items = {row["item"]: row["answered"] for row in record(version, "c-mimi.json")["items"]}
    # context, annotators, when the images were made, owner, responsible party, access, and what counts as normal
    assert [item for item, answered in items.items() if not answered] == [7, 8, 10, 12, 13, 15, 16]
    truth = next(row["answer"] for row in record(version, "c-mimi.json")["items"] if row["item"] == 8)
    assert truth.endswith("TODO: state annotators (spec: catalog.annotation)")
    open_questions = todos((version / "catalog" / "datasheet.md").read_text())
    asked = ("creators", "responsible", "ethics", "access", "costs", "contact", "maintained")
    assert all(any(word in line for word in asked) for line in open_questions)
    assert todos(record(version, "terms.json")) == []


def test_columns_tell_their_units_and_attributes(version):
    tables = record(version, "facts.json")["tables"]
    index = {c["name"]: c for t in tables if t["path"].endswith("/index.parquet") for c in t["columns"]}
    assert index["spacing_row_mm"]["unit"] == "mm"
    assert index["modality"]["dicom_tag"] == "0008,0060"
    # the grid of a sample is not the image's, and the sheet says who is of which sex
    assert {index[name]["dicom_tag"] for name in ("rows", "columns", "sex")} == {None}
    told = next(row["evidence"] for row in record(version, "fair.json") if row["principle"] == "I2")
    assert " 0 columns" not in told


def test_every_series_has_its_origin(version):
    origins = pq.read_table(version / "catalog" / "origins.parquet").to_pylist()
    cohort = pq.read_table(version / "cohort.parquet").to_pylist()
    images = {row["series_key"] for row in origins if row["role"] == "image"}
    assert images == {row["series_key"] for row in cohort if row["included"]}
    assert {row["license"] for row in origins} == {"CC-BY-3.0"}
    assert {row["license"] for row in cohort} == {"CC-BY-3.0"}
    assert sum(row["role"] == "label" for row in origins) == 34
    terms = record(version, "terms.json")
    assert terms["commercial_use"] == "allowed by every licence"
    assert [s["series"] for s in terms["sources"] if s["role"] != "clinical"] == [34, 34]
    assert len(terms["citations"]) == 1
    assert "Vallieres" in terms["citations"][0]


def test_the_counts_are_those_of_the_tables(version):
    facts = record(version, "facts.json")
    index = pq.read_table(version / "index.parquet").to_pandas()
    persons = index.drop_duplicates("person_key")
    told = {v["value"]: v["count"] for v in facts["people"]["sex"]}
    assert told == persons.sex.value_counts().to_dict()
    cohort = pq.read_table(version / "cohort.parquet").to_pandas().query("included")
    assert facts["ranges"]["age_years"]["median"] == cohort.age_years.median()
    assert facts["ranges"]["spacing_slice_mm"]["high"] == pytest.approx(cohort.spacing_slice_mm.max(), rel=1e-5)
    assert sum(s["samples"] for s in facts["splits"]) == len(index)
    assert facts["source_bytes"] == cohort.bytes.sum()
    amounts = facts["amounts"]
    assert (amounts["examinations"], amounts["series"]) == (cohort.study_key.nunique(), cohort.series_key.nunique())
    assert amounts["images"] == cohort.instances.sum()
    assert sum(v["count"] for v in amounts["syntaxes"]) == cohort.series_key.nunique()
    assert set(amounts["associated"]["demographic"]) == {"sex", "age_years", "age_band"}


def test_every_record_is_valid_and_every_number_of_it_recomputed(sarcoma):
    check_records(sarcoma)


def test_the_splits_share_what_the_tables_say(version):
    rows = {row["level"]: row for row in record(version, "facts.json")["independence"]}
    assert rows["person"]["alike"] == 0
    assert rows["site"]["alike"] == rows["site"]["cases"], "there is one site"
    assert set(rows) == {"person", "site", "device", "protocol"}
    page = (version / "catalog" / "index.html").read_text()
    assert 'id="independence"' in page


def test_checklists_say_where_each_answer_is(version):
    tables = record(version, "checklists.json")
    for table in tables.values():
        assert table["answered"] == sum(item["answered"] for item in table["items"]) > 0
    told = [item["where"] for table in tables.values() for item in table["items"]]
    told += [item["where"] for item in record(version, "claim.json")]
    for place in (place for where in told for place in where.split(", ")):
        name = place.partition(" (")[0]
        there = version / "report" / "index.html" if name == "report" else version / name
        found = there.exists() or (version / "catalog" / name).exists()
        assert found or name == "this table", place
    open_items = [i["item"] for i in tables["claim_2024"]["items"] if not i["answered"]]
    # the rationale, what the annotators were trained in, and access
    assert open_items == ["15", "16", "43"]
