"""Several readers of one case, through a whole build: fused masks and classes, evidence, proof, and the report."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import builder
from builder.library.verify import verify
from builder.run.pipeline import build
from tests.endtoend.trees import KEY

SPEC = """
name: readers
license: CC-BY-3.0
sources:
  - {kind: folder, url: "${tree}"}
cohort: {image: "modality == 'CT'"}
labels:
  anna:
    kind: rtstruct
    roi: {tumor: "(?i)gtv|mass"}
    evidence: {readers: [radiologist], time: phase 1}
    proof: {body_overlap: 0.9, volume_ratio: [0.9, 1.1], planes_on_slice: 1, round_trip_dice: 1}
  bert: {kind: mask, match: "{parent}/*_mask.nii.gz", values: {1: tumor}}
  carl: {kind: mask, match: "{parent}/third.nii.gz", values: {1: tumor}, proof: {body_overlap: 0.9}}
  votes:
    kind: classes
    table: {match: "*.csv", by: {PatientID: patient}}
    findings: {spread: {column: spread, values: {"0": negative, "1": positive}}}
    reader: who
    propagate: undecided
consensus:
  truth: {of: [anna, bert, carl], method: staple, readers: keep}
  most: {of: [anna, bert, carl], method: majority}
  spread: {of: [votes], method: dawid_skene, readers: drop}
deid: {patient_key: "${env:BUILDER_KEY}"}
samples: {kind: volumes, chunk: [16, 32, 32]}
splits: {ratios: {train: 0.5, validation: 0.25, test: 0.25}, seed: 7, may_be_empty: [validation, test]}
"""

BADLY_PLACED = "STS_019"
READERS = {"Paperman^Leonore": 0, "Quillfeather^Otto": 0, "Inkwellson^Berta": 2}
"""Who votes, and on how many of the patients wrongly."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, corpus: Any) -> tuple[Path, dict[str, int]]:
    home = tmp_path_factory.mktemp("readers")
    tree = home / "tree"
    people = [p.name for p in sorted((corpus("sts") / "sts_cohort").iterdir()) if (p / "CT").is_dir()][:5]
    truth = {name: number % 2 for number, name in enumerate(people)}
    for name in people:
        shutil.copytree(corpus("sts") / "sts_cohort" / name / "CT", tree / name / "CT")
        _third_reader(tree / name / "CT", far=name == BADLY_PLACED)
    with (tree / "votes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["PatientID", "who", "spread"])
        for who, wrong in READERS.items():
            writer.writerows([name, who, value ^ (n < wrong)] for n, (name, value) in enumerate(truth.items()))
    (home / "spec.yaml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        build(home / "spec.yaml", to=home / "out", parameters={"tree": str(tree)})
    return home / "out", truth


def _third_reader(folder: Path, *, far: bool) -> None:
    """A mask one voxel off the published one; or in a corner of the image, in the air."""
    image = nibabel.load(next(folder.glob("*_mask.nii.gz")))
    voxels = np.asarray(image.dataobj).astype(np.uint8)
    moved = np.roll(voxels, 1, axis=0)
    if far:
        moved = np.zeros_like(voxels)
        moved[:3, :3, :] = 1
    nibabel.save(nibabel.Nifti1Image(moved, image.affine), folder / "third.nii.gz")


def _document(built: Path) -> dict[str, Any]:
    (path,) = built.glob("versions/*/report/report.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_two_equal_readers_outvote_the_third(built: tuple[Path, dict[str, int]]) -> None:
    data = builder.open_dataset(built[0])
    assert len(data) == 4
    for sample in data:
        # the structure set and the published voxels are the same tumour; the third reader is a voxel off
        np.testing.assert_array_equal(sample["most"], sample["anna"])
        np.testing.assert_array_equal(sample["truth"], sample["anna"])
        row = sample.row
        assert row["label.most.tumor.anna~bert.dice"] == 1
        assert row["label.most.tumor.anna.sensitivity"] == 1
        assert 0.5 < row["label.most.tumor.carl.sensitivity"] < 1
        assert row["label.most.tumor.anna~carl.hd95_mm"] == pytest.approx(row["spacing_column_mm"], rel=0.5)
        assert row["label.anna.tumor.round_trip_dice"] == 1
        assert row["label.anna.tumor.body_overlap"] > 0.9


def test_evidence_comes_from_objects_and_from_the_spec(built: tuple[Path, dict[str, int]]) -> None:
    for sample in builder.open_dataset(built[0]):
        row = sample.row
        assert row["evidence.anna.tier"] == "single_reader"
        assert row["evidence.anna.time"] == "phase 1"
        assert row["evidence.truth.tier"] == "consensus"
        assert row["evidence.truth.tool"] == "staple/1"
        assert row["evidence.spread.tier"] == "consensus"
        assert len(row["evidence.spread.readers"]) == 3
        assert "evidence.votes.tier" not in row or row["evidence.votes.tier"] is None


def test_dawid_skene_settles_the_votes_over_all_cases(built: tuple[Path, dict[str, int]]) -> None:
    home, truth = built
    found = [dict(zip(s.row["class_names"], s.row["class_values"], strict=True)) for s in builder.open_dataset(home)]
    expected = [v for name, v in truth.items() if name != BADLY_PLACED]
    assert sorted(f["spread/spread"] for f in found) == sorted("positive" if v else "negative" for v in expected)
    assert all(set(f) == {"spread/spread"} for f in found)
    (entry,) = next(e for e in _document(home)["agreement"] if e["name"] == "spread")["classes"]
    assert entry["readers_in_all"] == 3
    assert sum(r["alike"]["value"] == 1 for r in entry["readers"]) == 2
    outside = sum(row["persons"] for row in _document(home)["splits"] if row["split"] != "train")
    parts = {row["label"]: row["persons_outside_train"] for row in _document(home)["leakage"]["labels"]}
    assert outside > 0
    assert parts == {"anna": 0, "bert": 0, "carl": 0, "votes": 0, "truth": 0, "most": 0, "spread": outside}


def test_a_label_in_the_air_is_left_out_and_shown(built: tuple[Path, dict[str, int]]) -> None:
    document = _document(built[0])
    (failed,) = document["unproven"]
    assert "body_overlap" in failed["detail"]
    assert failed["png"].startswith("data:image/png;base64,")
    (row,) = [r for r in document["quarantine"]["reasons"] if r["stage"] == "shard"]
    assert (row["reason"], row["things"]) == ("label_failed_proof", 1)
    assert not verify(str(built[0])).faults


def test_the_report_has_intervals_over_persons(built: tuple[Path, dict[str, int]]) -> None:
    document = _document(built[0])
    (part,) = next(e for e in document["agreement"] if e["name"] == "truth")["masks"]
    by_name = {row["reader"]: row for row in part["readers"]}
    assert by_name["anna"]["sensitivity"] == {"value": 1, "low": 1, "high": 1, "persons": 4}
    assert by_name["carl"]["sensitivity"]["low"] < by_name["carl"]["sensitivity"]["high"] < 1
    assert [row["readers"] for row in part["pairs"]] == [["anna", "bert"], ["anna", "carl"], ["bert", "carl"]]


def test_names_of_readers_do_not_leave(built: tuple[Path, dict[str, int]]) -> None:
    published = b"".join(p.read_bytes() for p in built[0].rglob("*") if p.is_file())
    assert not any(part.encode() in published for who in READERS for part in who.split("^"))
