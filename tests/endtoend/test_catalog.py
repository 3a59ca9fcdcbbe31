"""The catalog records of a built dataset: valid by their makers' tools, and nothing open that the data could answer."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from builder.report.catalog import todos


@pytest.fixture(scope="module")
def version(sarcoma) -> Path:
    return sarcoma / "versions" / (sarcoma / "CURRENT").read_text().split()[0]


@pytest.mark.filterwarnings("ignore::Warning")  # mlcroissant calls what rdflib and pandas are about to drop
def test_croissant_is_valid_and_reads_the_index(version):
    mlcroissant = pytest.importorskip("mlcroissant", reason="pip install mlcroissant")
    dataset = mlcroissant.Dataset(jsonld=str(version / "catalog" / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    keys = [row["index/sample_key"] for row in dataset.records("index")]
    expected = pq.read_table(version / "index.parquet")["sample_key"].to_pylist()
    assert [k.decode() if isinstance(k, bytes) else k for k in keys] == expected


def test_only_what_a_person_must_state_is_open(version):
    answers = {row["item"]: row["answered"] for row in json.loads((version / "catalog" / "claim.json").read_text())}
    assert [item for item, answered in answers.items() if not answered] == [15, 16, 17, 18]
    open_questions = todos((version / "catalog" / "datasheet.md").read_text())
    for word in ("samples", "splits", "preprocess", "sources", "de-identified", "labels were made"):
        assert not any(word in line for line in open_questions)
