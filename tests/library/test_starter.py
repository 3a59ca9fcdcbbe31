"""Specs of ``builder init``: each plans as it is, and none builds before its placeholders are replaced."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from builder.cli import app
from builder.errors import SpecError
from builder.library.starter import TASKS, starter_spec
from builder.phantom.archive import write_archive
from builder.run.pipeline import build, plan
from builder.run.scan import scan
from tests.files.writers import nifti, values


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("phantom")
    write_archive(folder, patients=2)
    return str(folder / "archive")


@pytest.fixture(scope="module")
def found(archive):
    return scan([archive])


@pytest.mark.parametrize("task", TASKS)
def test_a_starter_plans_unchanged(found, archive, tmp_path, task, monkeypatch):
    monkeypatch.delenv("BUILDER_KEY", raising=False)
    spec = tmp_path / "spec.yaml"
    spec.write_text(starter_spec(found, archive, task))
    outcome = plan(spec, to=tmp_path / "dataset")
    assert not outcome.refused
    assert outcome.plan.cohort.filter(outcome.plan.cohort["included"]).num_rows > 0
    assert bool(outcome.plan.spec.cohort.images) == (task == "multimodal")


def test_a_starter_does_not_build(found, archive, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(starter_spec(found, archive, "pretraining"))
    with pytest.raises(SpecError, match=r"license: found the placeholder.*\n.*deid.patient_key: found the placeholder"):
        build(spec, to=tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_an_unknown_task_is_named(tmp_path):
    outcome = CliRunner().invoke(app, ["init", str(tmp_path), "--task", "dancing"])
    assert isinstance(outcome.exception, SpecError)
    assert "segmentation" in str(outcome.exception)


def pictures(root: Path) -> None:
    for number in range(3):
        (root / "set").mkdir(parents=True, exist_ok=True)
        Image.fromarray(values((40, 30), "uint8", seed=number)).save(root / "set" / f"p{number}.png")


def volumes(root: Path) -> None:
    for number in range(2):
        for image in ("t1", "t2"):
            nifti(root / f"p{number}" / f"{image}.nii.gz", values(seed=number))


def bids(root: Path) -> None:
    (root / "T1w.json").parent.mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    for image in ("T1w", "T1w", "FLAIR"):
        name = f"sub-0{len([*root.rglob('*.nii')])}"
        nifti(root / name / "anat" / f"{name}_{image}.nii", values())


def nnunet(root: Path) -> None:
    nifti(root / "imagesTr" / "case_0000.nii.gz", values())
    nifti(root / "labelsTr" / "case.nii.gz", (values() > 30).astype("uint8"))
    described = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(described | {"numTraining": 1}))


def two_nnunets(root: Path) -> None:
    nnunet(root / "Dataset001_A")
    nnunet(root / "Dataset002_B")


@pytest.mark.parametrize(
    ("made", "task", "cases", "said"),
    [
        (pictures, "classification", 3, "cohort:\n  one_per: study"),
        (volumes, "pretraining", 2, "image: \"image == 't1'\""),
        (bids, "segmentation", 2, "image: \"modality == 'MR' and image == 'T1w'\""),
        (nnunet, "segmentation", 1, 'match: "{label}", values: {1: "organ"}'),
        (two_nnunets, "segmentation", 2, 'site: "Dataset002_B"'),
    ],
)
def test_a_starter_for_files_that_are_not_dicom_has_their_layout(tmp_path, monkeypatch, made, task, cases, said):
    monkeypatch.delenv("BUILDER_KEY", raising=False)
    root = tmp_path / "archive"
    made(root)
    outcome = CliRunner().invoke(app, ["init", str(root), "--task", task])
    assert outcome.exit_code == 0, outcome.output
    assert said in outcome.stdout
    spec = tmp_path / "spec.yaml"
    spec.write_text(outcome.stdout)
    planned = plan(spec, to=tmp_path / "dataset")
    assert not planned.refused
    included = planned.plan.cohort.filter(planned.plan.cohort["included"])
    assert included.num_rows == cases
