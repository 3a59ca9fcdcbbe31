"""Catalog records against the validators of their makers; nothing in them that nobody stated."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builder.model.tables import EXCLUSIONS
from builder.report.catalog import PARQUET, Facts, Governance, SourceFacts, StoredFile, catalog, todos
from builder.report.catalog.croissant import croissant
from builder.report.catalog.licenses import allows_commercial_use, combine, license_url

INDEX = pa.table(
    {
        "sample_key": ["s1", "s2", "s3"],
        "person_key": ["p1", "p1", "p2"],
        "split": ["train", "train", "test"],
        "row": pa.array([0, 1, 0], pa.int64()),
        "age_years": pa.array([50.5, None, 61.0], pa.float64()),
        "smoker": [True, False, None],
        "affine": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float64())),
        "findings": pa.array([["a"], ["a", "b"], ["c"]], pa.list_(pa.string())),
    },
    schema=None,
).cast(
    pa.schema(
        [
            pa.field("sample_key", pa.string()),
            pa.field("person_key", pa.string()),
            pa.field("split", pa.string()),
            pa.field("row", pa.int64()),
            pa.field("age_years", pa.float64(), metadata={"unit": "a", "dicom_tag": "0010,1010"}),
            pa.field("smoker", pa.bool_()),
            pa.field("affine", pa.list_(pa.float64())),
            pa.field("findings", pa.list_(pa.string())),
        ]
    )
)

FULL = {
    "description": "PET of sarcoma, for segmentation of tumours.",
    "identifier": "10.5281/zenodo.1",
    "url": "https://example.org/sarcoma",
    "creators": ("McGill University",),
    "publisher": "Example",
    "published": "2026-01-31",
    "keywords": ("sarcoma",),
    "citation": "Someone: Sarcoma. 2026.",
    "sources": (SourceFacts("TCIA sarcoma", "https://example.org/tcia", "CC-BY-3.0", "Vallieres 2015", "10.7937/x"),),
    "modalities": ("PT",),
    "preprocessing": ("resampled to 3 mm",),
    "deidentification": ("identifiers replaced by keyed hashes",),
    "annotation": ("contours of one reader",),
    "arrays": {"image": "float32 (channel, slice, row, column), SUVbw"},
    "shards": (2, 1000),
    "governance": Governance(
        owner="a",
        responsible="b",
        contact="c",
        access="open",
        costs="none",
        ethics_approval="d",
        maintenance="e",
        intended_use=("f",),
        out_of_scope=("g",),
        limitations=("h",),
    ),
    "report": {
        "splits": [
            {"split": "train", "persons": 1, "cases": 2, "samples": 2},
            {"split": "test", "persons": 1, "cases": 1, "samples": 1},
        ],
        "flow": {"boxes": [{"left": [{"reason": "gapped", "things": 1, "level": "series"}]}]},
        "associations": [{"label": "grade", "group": "vendor", "cramers_v": 0.9, "q": 0.001}],
        "power": {
            "split": "test",
            "outcomes": [
                {
                    "outcome": "x",
                    "positives": 1,
                    "negatives": 0,
                    "groups": [{"column": "sex", "level": "F", "speaks": False}],
                }
            ],
        },
        "table_one": [{"levels": [{"level": "missing", "cells": {"all": {"share": 0.25}}}], "column": "race"}],
        "leakage": {"keys": [{"key": "person_key", "in_two_splits": 0}]},
        "balance": {"strata": {"number": 4}},
    },
}


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "index.parquet"
    pq.write_table(INDEX, path)
    content = path.read_bytes()
    file = StoredFile(
        "index.parquet", len(content), hashlib.sha256(content).hexdigest(), PARQUET
    )
    bare = {"tables": {"index.parquet": INDEX.schema}, "keys": {"index.parquet": ("sample_key",)}, "files": (file,)}
    return tmp_path, bare


def facts(bare, **more):
    return Facts(name="sarcoma", version="1.0.0", license="CC-BY-4.0", **bare, **more)


# mlcroissant calls what rdflib and pandas are about to drop
OTHERS = pytest.mark.filterwarnings("ignore::Warning")


@OTHERS
def test_croissant_validates_and_its_records_are_the_rows(stored):
    mlcroissant = pytest.importorskip("mlcroissant", reason="pip install mlcroissant")
    folder, bare = stored
    record = folder / "croissant.json"
    record.write_text(json.dumps(croissant(facts(bare, **FULL))))
    dataset = mlcroissant.Dataset(jsonld=str(record))
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    rows = [
        {k.removeprefix("index/"): v.decode() if isinstance(v, bytes) else v for k, v in row.items()}
        for row in dataset.records("index")
    ]
    assert [row["sample_key"] for row in rows] == ["s1", "s2", "s3"]
    assert [row["row"] for row in rows] == [0, 1, 0]
    assert rows[0]["age_years"] == 50.5
    assert list(rows[2]["affine"]) == [5.0, 6.0]


@OTHERS
def test_a_record_of_which_nothing_is_stated_still_validates_but_for_what_is_missing(stored):
    mlcroissant = pytest.importorskip("mlcroissant", reason="pip install mlcroissant")
    folder, bare = stored
    record = folder / "croissant.json"
    record.write_text(json.dumps(croissant(facts(bare))))
    assert not mlcroissant.Dataset(jsonld=str(record)).metadata.ctx.issues.errors


def test_the_tables_of_the_project_have_a_type_a_column(stored):
    _, bare = stored
    bare = {**bare, "tables": {**bare["tables"], "versions/1/exclusions.parquet": EXCLUSIONS}}
    sets = {r["name"]: r for r in croissant(facts(bare))["recordSet"]}
    assert [f["name"] for f in sets["exclusions"]["field"]] == EXCLUSIONS.names
    kinds = {f["name"]: f["dataType"] for f in sets["index"]["field"]}
    assert kinds == {
        "sample_key": "sc:Text", "person_key": "sc:Text", "split": "sc:Text", "row": "sc:Integer",
        "age_years": "sc:Float", "smoker": "sc:Boolean", "affine": "sc:Float", "findings": "sc:Text",
    }  # fmt: skip
    age = next(f for f in sets["index"]["field"] if f["name"] == "age_years")
    assert age["description"] == "unit a (UCUM), DICOM attribute (0010,1010)"


def test_everything_stated_leaves_no_todo_that_the_data_could_answer(stored):
    _, bare = stored
    texts = catalog(facts(bare, **FULL))
    assert set(texts) == {
        "croissant.json", "datacite.json", "ro-crate-metadata.json", "fair.json", "claim.json", "datasheet.md",
    }  # fmt: skip
    for name, text in texts.items():
        left = todos(json.loads(text) if name.endswith(".json") else text)
        # CLAIM asks who annotated, with which tools and how well they agree: no file says so
        assert len(left) == (4 if name == "claim.json" else 0), (name, left)
    assert "race is unknown for 25.0 %" in texts["datasheet.md"]
    assert "name the authors of every source" in texts["datasheet.md"]


def test_nothing_is_invented(stored):
    _, bare = stored
    texts = catalog(facts(bare))
    assert "TODO" in texts["datasheet.md"]
    assert "TODO" in texts["datacite.json"]
    met = {row["principle"]: row["met"] for row in json.loads(texts["fair.json"])}
    assert not any(met[p] for p in ("F1", "F3", "F4", "A1", "A1.2", "A2", "I3", "R1.2"))
    assert len(met) == 15
    assert "datePublished" not in json.loads(texts["croissant.json"])
    assert texts == catalog(facts(bare))


def test_datacite_is_valid(stored):
    schema = pytest.importorskip("datacite.schema45", reason="pip install datacite")
    _, bare = stored
    record = json.loads(catalog(facts(bare, **FULL))["datacite.json"])
    assert [error.message for error in schema.validator.iter_errors(record)] == []


def test_ro_crate_is_read_by_its_library(stored):
    rocrate = pytest.importorskip("rocrate.rocrate", reason="pip install rocrate")
    folder, bare = stored
    text = catalog(facts(bare, **FULL))["ro-crate-metadata.json"]
    (folder / "ro-crate-metadata.json").write_text(text)
    (folder / "data").mkdir()
    crate = rocrate.ROCrate(folder)
    assert crate.name == "sarcoma"
    assert {e.id for e in crate.data_entities} == {"index.parquet", "data/"}
    assert crate.dereference("index.parquet")["sha256"] == bare["files"][0].sha256


@pytest.mark.parametrize(
    ("licenses", "commercial", "says"),
    [
        (["CC-BY-4.0", "CC0-1.0"], True, "name the authors"),
        (["CC-BY-NC-4.0", "CC-BY-3.0"], False, "commercial use is not allowed"),
        (["CC BY-ND 4.0"], False, "adaptations must not be shared"),
        (["CC-BY-SA-4.0", "CC-BY-NC-SA-4.0"], False, "contradict"),
        (["CC-BY-4.0", None], False, "read by a person"),
        (["Restricted"], False, "read by a person"),
    ],
)
def test_licences_combine(licenses, commercial, says):
    assert allows_commercial_use(licenses) is commercial
    assert any(says in sentence for sentence in combine(licenses))


def test_addresses_of_licences():
    assert license_url("CC-BY-NC-SA-4.0") == "https://creativecommons.org/licenses/by-nc-sa/4.0/"
    assert license_url("CC BY 3.0") == "https://creativecommons.org/licenses/by/3.0/"
    assert license_url("Apache-2.0") == "https://spdx.org/licenses/Apache-2.0"
    assert license_url("see the agreement") == "see the agreement"
