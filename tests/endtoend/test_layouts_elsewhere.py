"""Layouts of folders in a bucket, of archives in it too: the same images, persons and masks as from the same folder."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import builder
from builder.run.pipeline import build
from builder.sources import contents, politeness
from builder.storage.buckets import forget_clients
from tests.endtoend.trees import KEY
from tests.files.writers import nifti, values
from tests.sources.test_remote_folder import s3, voxels

SPEC = """\
name: elsewhere
license: CC0-1.0
sources:
  - {{kind: folder, url: "{place}/bids", layout: bids, collection: a}}
  - {{kind: folder, url: "{place}/nnunet", layout: nnunet, collection: b}}
  - {{kind: folder, url: "{place}/pattern", layout: {{pattern: "{{patient}}/{{image}}.nii"}}, collection: c}}
  - {{kind: folder, url: "{place}/table", layout: {{table: list.csv, path: file, modality: MR}}, collection: d}}
  - {{kind: folder, url: "{place}/packed", layout: {{pattern: "**/{{patient}}/{{image}}.nii.gz"}}, collection: e}}
cohort: {{labels: optional}}
labels: {{organ: {{kind: mask, match: "{{label}}", values: {{1: organ}}}}}}
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
splits: {{ratios: {{train: 1.0}}}}
samples: {{kind: volumes, chunk: [3, 4, 5]}}
"""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """One image of each layout, with the documents that the layouts read."""
    root = tmp_path / "archive"
    nifti(root / "bids" / "sub-01" / "anat" / "sub-01_T1w.nii.gz", values(seed=1))
    (root / "bids" / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    (root / "bids" / "participants.tsv").write_text("participant_id\tage\tsex\nsub-01\t41\tF\n")
    (root / "bids" / "T1w.json").write_text('{"Modality": "MR", "MagneticFieldStrength": 30000}')
    described = {"channel_names": {"0": "T2"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    nifti(root / "nnunet" / "imagesTr" / "case_0000.nii.gz", values(seed=2))
    nifti(root / "nnunet" / "labelsTr" / "case.nii.gz", (values(seed=2) > 30).astype("uint8"))
    (root / "nnunet" / "dataset.json").write_text(json.dumps(described | {"numTraining": 1}))
    nifti(root / "pattern" / "p1" / "t1.nii", values(seed=3))
    nifti(root / "table" / "images" / "one.nii.gz", values(seed=4))
    (root / "table" / "list.csv").write_text("patient,file\nP9,images/one.nii.gz\nP10,images/absent.nii.gz\n")
    held = nifti(tmp_path / "held.nii.gz", values(seed=5))
    (root / "packed").mkdir()
    with zipfile.ZipFile(root / "packed" / "some.zip", "w") as packed:
        packed.write(held, "set/p2/t1.nii.gz")
    return root


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    contents._opened.cache_clear()
    politeness._queue.cache_clear()
    forget_clients()


def found(dataset: Path) -> tuple[list[bytes], list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Voxels and masks, what the index says of each image, and the ledger's verdicts, without names of sources."""
    rows = builder.open_dataset(dataset).table.select(["case_key", "modality", "magnetic_field_strength"])
    ledger = pq.read_table(next(dataset.glob("versions/*/ledger.parquet"))).select(["status", "reason"])
    return (
        voxels(dataset),
        sorted(map(tuple, (row.values() for row in rows.to_pylist())), key=str),
        sorted(map(tuple, (row.values() for row in ledger.to_pylist())), key=str),
    )


def test_layouts_on_s3_are_those_of_the_folder(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(place=archive))
    build(spec, to=tmp_path / "near")
    with s3(archive, monkeypatch) as (_, url):
        spec.write_text(SPEC.format(place=url))
        build(spec, to=tmp_path / "far")
    near, far = found(tmp_path / "near"), found(tmp_path / "far")
    assert near == far
    images, rows, ledger = near
    assert len(images) == 10  # five images, and a mask beside each: empty where there is no label
    assert [row[1:] for row in rows].count(("MR", 3.0)) == 1  # by the sidecar that BIDS inherits, in gauss there
    assert ("quarantined", "source_missing") in ledger
    for queue in politeness.queues():
        queue.close()
