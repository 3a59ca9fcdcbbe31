"""Specs of ``builder init``: each plans as it is, and none builds before its placeholders are replaced."""

import json
import re
from pathlib import Path

import numpy as np
import pydicom
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
from tests.synthetic import ct_series


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
    assert spec.read_text().startswith("# yaml-language-server: $schema=schema.json\n")  # editors look there alone
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


def structures(root: Path) -> None:
    for name in ("s1", "s2"):
        nifti(root / name / "ct.nii.gz", values())
        for structure in ("liver", "spleen"):
            nifti(root / name / "segmentations" / f"{structure}.nii.gz", (values() > 30).astype("uint8"))
    nifti(root / "all_labels.nii.gz", (values() > 30).astype("uint8"))


def beside(root: Path) -> None:
    for name in ("b1", "b2"):
        for image in ("t1", "t2", "seg"):
            nifti(root / name / f"{name}_{image}.nii.gz", (values() > 30).astype("uint8"))


def listed(root: Path) -> None:
    for name in ("a", "b", "c"):
        nifti(root / "files" / f"{name}.nii.gz", (values() > 30).astype("uint8"))
    (root / "lists").mkdir()
    rows = ["row,Patient ID,Scan,Mask", "1,P1,../files/a.nii.gz,../files/c.nii.gz", "2,P2,../files/b.nii.gz,"]
    (root / "lists" / "cases.csv").write_text("\n".join(rows) + "\n")


def named_by_accession(root: Path) -> None:
    ct_series(root / "ct", slices=4, shape=(8, 8))
    for path in (root / "ct").rglob("*.dcm"):
        header = pydicom.dcmread(path)
        header.AccessionNumber = "A-17"
        header.save_as(path)
    nifti(root / "masks" / "A-17.nii.gz", values((8, 8, 4)))


@pytest.mark.parametrize(
    ("made", "cases", "said"),
    [
        (structures, 2, 'match: "{folder}/segmentations/{structure}.nii.gz"\n    structures: ["liver", "spleen"]'),
        (beside, 2, 'match: "{folder}/{patient}_seg.nii.gz"'),
        (listed, 1, 'layout: {table: "lists/cases.csv", path: "Scan", patient: "Patient ID", labels: "Mask"}'),
        (named_by_accession, 1, 'match: "masks/{accession}.nii.gz"'),
    ],
)
def test_a_starter_finds_the_masks_of_the_images(tmp_path, monkeypatch, made, cases, said):
    monkeypatch.delenv("BUILDER_KEY", raising=False)
    made(tmp_path / "archive")
    outcome = CliRunner().invoke(app, ["init", str(tmp_path / "archive"), "--task", "segmentation"])
    assert outcome.exit_code == 0, outcome.output
    assert said in outcome.stdout
    spec = tmp_path / "spec.yaml"
    spec.write_text(outcome.stdout)
    planned = plan(spec, to=tmp_path / "dataset")
    assert planned.plan.cohort.filter(planned.plan.cohort["included"]).num_rows == cases


@pytest.mark.parametrize(
    ("shape", "spacing", "said"),
    [
        ((40, 30, 5), (0.7188, 0.7188, 17.0), ("[17, 0.719, 0.719]", "[4, 16, 32]")),
        ((12, 40, 40), (6.0, 1.0, 1.0), ("[1, 1, 6]", "[32, 32, 8]")),
    ],
)
def test_a_starter_proposes_the_distances_that_are_there(tmp_path, shape, spacing, said):
    """Thick slices stay thick, in whatever direction they lie."""
    for name in ("p1", "p2", "p3"):
        affine = np.diag([*(spacing if name != "p3" else (9.0, 9.0, 9.0)), 1.0])
        nifti(tmp_path / name / "a.nii.gz", values(shape), affine)
    layout = {"pattern": "{patient}/{image}.nii.gz"}
    found = scan([str(tmp_path)], layout=layout)
    text = starter_spec(found, str(tmp_path), "pretraining", layout=layout)
    assert f"spacing_mm: {said[0]}}}" in text
    assert f"shape: {said[1]}" in text
    assert "each folder in the place of {patient} counts as a person" in text


def listed_by_path(root: Path) -> None:
    lines = ["Path,Sex,Mass"]
    for number in range(3):
        place = f"train/patient{number}/view1.png"
        (root / "set" / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(root / "set" / place)
        lines.append(f"set/{place},F,{number % 2}")
    (root / "set" / "train.csv").write_text("\n".join(lines))


def listed_by_name(root: Path) -> None:
    pictures(root)
    names = sorted(path.name for path in root.rglob("*.png"))
    (root / "list.csv").write_text("\n".join(["Image,Mass", *(f"{name},{n % 2}" for n, name in enumerate(names))]))


@pytest.mark.parametrize(("made", "by"), [(listed_by_path, '{"Path": path}'), (listed_by_name, '{"Image": file}')])
def test_a_starter_shows_how_to_read_classes_of_a_table(tmp_path, monkeypatch, made, by):
    """The lines plan once their signs are taken off and their two words in capitals are replaced."""
    monkeypatch.delenv("BUILDER_KEY", raising=False)
    made(tmp_path / "archive")
    outcome = CliRunner().invoke(app, ["init", str(tmp_path / "archive"), "--task", "classification"])
    assert outcome.exit_code == 0, outcome.output
    assert f"by: {by}" in outcome.stdout
    text = re.sub(r"(?m)^#   ( *(?:labels|findings|kind|table):)", r"\1", outcome.stdout)
    text = text.replace("FINDING", "mass").replace("COLUMN", "Mass")
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    planned = plan(spec, to=tmp_path / "dataset")
    assert [*planned.plan.spec.labels] == ["findings"]
    assert planned.plan.cohort.filter(planned.plan.cohort["included"]).num_rows == 3


def test_masks_in_folders_of_their_own_list_no_names_of_images(tmp_path):
    """The names hold a date and a number of their person's, so a list of them would fit nobody else."""
    for person, day in (("A1", "20200101_3"), ("B2", "20210203_7")):
        nifti(tmp_path / "nifti" / person / f"{person}_CT_{day}.nii.gz", values())
        nifti(tmp_path / "nifti" / person / f"{person}_MR_{day}.nii.gz", values())
        nifti(tmp_path / person / "CT" / "CT_mask.nii.gz", values())
    layout = '{pattern: "nifti/{patient}/{patient}_{image}.nii.gz", modality: CODE}'
    assert scan([str(tmp_path)]).layout == layout


@pytest.mark.parametrize(("space", "found"), [("", True), ("space-orig_", True), ("space-MNI152_", False)])
def test_masks_in_the_space_of_an_atlas_are_no_masks_of_the_images(tmp_path, space, found):
    nifti(tmp_path / "sub-1" / "anat" / "sub-1_T1w.nii.gz", values())
    nifti(tmp_path / "derivatives" / "sub-1" / f"sub-1_{space}label-lesion_mask.nii.gz", values())
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    masks = scan([str(tmp_path)], layout={"kind": "bids"}).masks
    assert (masks is not None) == found
