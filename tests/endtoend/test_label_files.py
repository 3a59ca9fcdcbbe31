"""Labels that are no DICOM: mask files beside the images and a class table of many patients, through a whole build."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import builder
from builder.run.pipeline import build
from tests.endtoend.trees import KEY

SPEC = """
name: files
license: CC-BY-3.0
sources:
  - {kind: folder, url: "${tree}"}
cohort: {image: "modality == 'CT'"}
labels:
  drawn: {kind: rtstruct, roi: {tumor: "(?i)gtv|mass"}}
  voxels: {kind: mask, match: "{parent}/*_mask.nii.gz", values: {1: tumor}}
  outcome:
    kind: classes
    table: {match: "*.csv", by: {PatientID: patient}}
    findings: {metastasis: {column: lungmets, values: {"0": negative, "1": positive}}}
    evidence: {tier: outcome}
deid: {patient_key: "${env:BUILDER_KEY}"}
samples: {kind: volumes, chunk: [16, 32, 32]}
splits: {ratios: {train: 0.5, validation: 0.25, test: 0.25}, seed: 7}
"""


def test_masks_and_tables_beside_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: Any) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    tree = tmp_path / "tree"
    tree.mkdir()
    truth = {}
    with (tree / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["PatientID", "lungmets"])
        for number, folder in enumerate(sorted((corpus("sts") / "sts_cohort").iterdir())):
            writer.writerow([folder.name, number % 2])
            if (folder / "CT").is_dir() and len(truth) < 4:
                shutil.copytree(folder / "CT", tree / folder.name / "CT")
                truth[folder.name] = number % 2
    (tmp_path / "spec.yaml").write_text(SPEC)
    build(tmp_path / "spec.yaml", to=tmp_path / "out", parameters={"tree": str(tree)})
    data = builder.open_dataset(tmp_path / "out")
    assert len(data) == len(truth) == 4
    found = []
    for sample in data:
        # the structure set and the published voxels are the same tumour, each by its own way
        assert np.asarray(sample["drawn"]).any()
        np.testing.assert_array_equal(sample["drawn"], sample["voxels"])
        assert sample.row["class_names"] == ["outcome/metastasis"]
        found.append(sample.row["class_values"][0])
    assert sorted(found) == sorted("positive" if v else "negative" for v in truth.values())
    published = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert not any(name.encode() in published for name in truth)
