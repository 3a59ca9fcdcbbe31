"""The voxels and sample rows of the example specs stay the same from release to release, byte for byte."""

import hashlib
import json
from pathlib import Path

import pytest

from builder.phantom import write_archive
from builder.run.pipeline import build
from tests.endtoend.trees import KEY, ROOT

STORED = json.loads((Path(__file__).parent / "stored_bytes.json").read_text())
"""By spec: one digest over all array objects, and one over all sample tables.

A change here renames nothing but means that users' shards differ: the commit that changes a digest says why.
"""
PHANTOM = ROOT / "specs" / "phantom.yaml"


def digests(dataset: Path) -> dict[str, str]:
    """One digest over the array objects of all shards, and one over their sample tables; names of shards left out."""
    found: dict[str, list[str]] = {"arrays": [], "samples": []}
    for shard in (dataset / "data").iterdir():
        named = [shard / "receipt.json", shard / "zarr.json"]  # they hold the shard's own name
        for path in shard.rglob("*"):
            kind = "samples" if path.name == "samples.parquet" else "arrays"
            if path.is_file() and path not in named:
                name = path.relative_to(shard).as_posix()
                found[kind].append(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return {kind: hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest() for kind, lines in found.items()}


def test_pet_of_the_sarcoma_cohort(sarcoma: Path):
    assert digests(sarcoma) == STORED["soft-tissue-sarcoma"]


def test_ct_and_mr_of_the_sarcoma_cohort(ct_mr: Path):
    assert digests(ct_mr) == STORED["soft-tissue-sarcoma-ct-mr"]


def test_phantom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    write_archive(tmp_path / "phantom", patients=12, seed=20251121)
    build(PHANTOM, to=tmp_path / "dataset", parameters={"phantom": str(tmp_path / "phantom")})
    assert digests(tmp_path / "dataset") == STORED["phantom"]
