"""Tokens in every form of label, table, text and image file are nowhere in what leaves, whichever way it leaves.

``BUILDER_CANARIES=all`` (``make canaries``) does it with more persons, and through every command.
"""

import csv
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset

import builder
from builder.errors import BuilderError
from builder.library.training import record_training
from builder.phantom.canary import plant
from builder.reader.export import export_datalist, export_nifti, export_nnunet, export_webdataset
from builder.run.pipeline import build
from tests.endtoend import test_label_forms as forms
from tests.endtoend.published import everything
from tests.endtoend.trees import KEY, command, environment, run
from tests.files.writers import nifti, values

LONG = os.environ.get("BUILDER_CANARIES") == "all"
PERSONS = 12 if LONG else 3
TOKEN = re.compile(rb"QZ\d{6}XQ", re.IGNORECASE)


def token(number: int) -> str:
    return f"QZ{number:06d}XQ"


FORMS = (
    forms.SPEC.replace('"{parent}/mask.nii.gz"', '"{parent}/*_mask.nii.gz"')
    .replace("ratios: {train: 0.5, validation: 0.25, test: 0.25}", "ratios: {train: 1.0}")
    .replace(", may_be_empty: [validation, test], seed: 7", "")
    .replace("\nlabels:\n", """
cohort: {labels: optional}
clinical:
  - url: "${tree}/clinical.csv"
    person_id: Patient
    columns:
      outcome: {from: Outcome, type: category, levels: [dead, alive]}
      remark: {from: Remark, type: text}
      size: {from: Size, type: number}
labels:
""")
    + 'leaks: {pixels: "off"}\n'
)  # fmt: skip

IMAGES = """
name: images
license: CC0-1.0
sources: [{kind: folder, url: "${tree}", layout: {pattern: "{patient}/{patient}_{image:t1|t2}.nii.gz", modality: MR}}]
cohort: {case: study, images: {t1: {select: "image == 't1'"}, t2: {select: "image == 't2'", aligned: grid}}}
deid: {patient_key: "${env:BUILDER_KEY}"}
samples: {kind: volumes, chunk: [8, 16, 16]}
splits: {ratios: {train: 1.0}}
"""

PICTURES = """
name: pictures
license: CC0-1.0
sources: [{kind: folder, url: "${tree}", layout: {pattern: "{patient}/{file}", modality: DX}}]
deid: {patient_key: "${env:BUILDER_KEY}", reviewed: [DX]}
volumes: {projection: keep}
samples: {kind: volumes, chunk: [1, 16, 16]}
splits: {ratios: {train: 1.0}}
"""


def write_forms(tree: Path) -> None:
    """Every form of label, with the token of its person wherever a text can stand."""
    people = [forms.write_person(tree, number) for number in range(PERSONS + 1)]
    forms.write_tables(tree, people)
    for number in range(PERSONS + 1):
        home = tree / f"person{number}"
        for path in home.rglob("*.dcm"):
            _plant_in_object(path, token(number))
        _plant_in_files(home, token(number))
        home.rename(tree / token(number))
    _plant_in_tables(tree)


def _plant_in_object(path: Path, secret: str) -> None:
    dataset = pydicom.dcmread(path)
    named = dataset.PatientID
    plant(dataset, secret)
    dataset.PatientID, dataset.PatientName = named, f"{secret}^ANNA"
    for keyword in ("Manufacturer", "ManufacturerModelName", "BodyPartExamined", "SoftwareVersions"):
        setattr(dataset, keyword, secret)
    _plant_in_items(dataset, secret)
    dataset.save_as(path)


def _plant_in_items(dataset: Dataset, secret: str) -> None:
    """The meanings of codes, observers, algorithms and graphics, at every depth."""
    for item in (i for element in dataset if element.VR == "SQ" for i in element.value):
        for keyword in ("CodeMeaning", "PersonName", "TextValue", "SegmentAlgorithmName", "ROIName"):
            if keyword in item:
                setattr(item, keyword, f"{item.get(keyword)} {secret}" if keyword == "ROIName" else secret)
        _plant_in_items(item, secret)


def _plant_in_files(home: Path, secret: str) -> None:
    mask = nibabel.load(home / "mask.nii.gz")
    mask.header["descrip"], mask.header["intent_name"], mask.header["aux_file"] = (secret.encode(),) * 3
    mask.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", f"of {secret}".encode()))
    nibabel.save(mask, home / f"{secret}_mask.nii.gz")
    (home / "mask.nii.gz").unlink()
    nrrd = SimpleITK.ReadImage(str(home / "slicer.seg.nrrd"))
    nrrd.SetMetaData("Segment0_Name", f"Tumor {secret}")
    nrrd.SetMetaData("Patient", secret)
    nrrd.SetMetaData("Segmentation_ReferenceImage", secret)
    SimpleITK.WriteImage(nrrd, str(home / "slicer.seg.nrrd"))
    aim = (home / "aim.xml").read_text()
    for stated in ('loginName value="jdoe', 'unitOfMeasure value="mm', 'shapeIdentifier value="1', 'code="G-D7FE'):
        aim = aim.replace(stated, f"{stated} {secret}")
    (home / "aim.xml").write_text(aim.replace("</user>", f'</user><comment value="{secret}"/>'))
    report = (home / "report.txt").read_text()
    (home / "report.txt").write_text(f"Name: {secret}\n{report}\nSigned by Dr. {secret}, {secret} informed.")


def _plant_in_tables(tree: Path) -> None:
    for name, column in (("boxes.csv", 7), ("points.csv", 4), ("lines.csv", 5)):
        with (tree / name).open(newline="") as file:
            rows = list(csv.reader(file))
        for number, row in enumerate(rows[1:]):
            row[column] = token(number)
        _write_rows(tree / name, rows)
    coco = json.loads((tree / "coco.json").read_text())
    coco["info"] = {"contributor": token(1), "description": token(2)}
    coco["categories"].append({"id": 2, "name": token(1)})
    coco["annotations"] += [{**coco["annotations"][0], "category_id": 2}]
    (tree / "coco.json").write_text(json.dumps(coco))
    rows = [["Patient", "Outcome", "Remark", "Size", "Name", token(7)]]
    for number in range(PERSONS):
        remark = (f"seen by {token(number)}", f"{token(number)}^ANNA", "stable")[number % 3]
        rows.append([f"ANNA^{number:03d}", "alive", remark, "1", token(number), token(number)])
    _write_rows(tree / "clinical.csv", rows)


def _write_rows(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_images(tree: Path) -> None:
    """Two NIfTI images a person, named after the person, with text in header and sidecar."""
    for number in range(PERSONS):
        secret = token(number)
        for seed, name in enumerate(("t1", "t2")):
            path = nifti(
                tree / secret / f"{secret}_{name}.nii.gz", values(seed=10 * number + seed),
                descrip=secret.encode(), aux_file=secret.encode(), intent_name=secret.encode(),
            )  # fmt: skip
            said = dict.fromkeys(
                ("InstitutionName", "SeriesDescription", "PatientName", "ManufacturersModelName"), secret
            )
            path.with_name(f"{secret}_{name}.json").write_text(json.dumps(said | {"Manufacturer": secret}))
        (tree / secret / f"{secret}.txt").write_text(secret)


def write_pictures(tree: Path) -> None:
    """PNG with text chunks, JPEG with a comment, TIFF with a description."""
    pixels = np.random.default_rng(3).integers(0, 255, (24, 24), dtype=np.uint8)
    for number in range(PERSONS):
        secret = token(number)
        home = tree / secret
        home.mkdir(parents=True)
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", secret)
        text.add_itxt("Description", f"of {secret}")
        Image.fromarray(pixels + np.uint8(3 * number)).save(home / f"{secret}.png", pnginfo=text)
        Image.fromarray(pixels + np.uint8(3 * number + 1)).save(home / f"{secret}.jpg", comment=secret)
        Image.fromarray(pixels + np.uint8(3 * number + 2)).save(home / f"{secret}.tif", description=secret)


ARCHIVES: dict[str, tuple[Any, str]] = {
    "forms": (write_forms, FORMS),
    "images": (write_images, IMAGES),
    "pictures": (write_pictures, PICTURES),
}


@pytest.fixture(scope="module", params=ARCHIVES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of each archive, in the folder ``out`` beside its ``tree``."""
    folder = tmp_path_factory.mktemp(request.param)
    write, spec = ARCHIVES[request.param]
    write(folder / "tree")
    (folder / "spec.yaml").write_text(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        build(folder / "spec.yaml", to=folder / "out", parameters={"tree": str(folder / "tree")})
    return folder


def test_no_token_is_published(built: Path) -> None:
    dataset = builder.open_dataset(built / "out")
    assert len(dataset) >= PERSONS
    found = [where for where, data in everything(built / "out") if TOKEN.search(data)]
    found += [where for where, data in everything(built / "out.private" / "journal") if TOKEN.search(data)]
    assert not found


def test_no_token_is_exported(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.reader.uses._seen", set())
    dataset, to = builder.open_dataset(built / "out"), built / "exports"
    record_training(
        str(built / "out"),
        {
            "architecture": "U-Net",
            "loss": "Dice",
            "optimizer": "Adam",
            "learning_rate": 0.1,
            "batch_size": 1,
            "epochs": 1,
        },
    )
    export_webdataset(dataset, to / "webdataset")
    export_nifti(dataset, to / "nifti")
    if built.name.startswith("forms"):
        export_datalist(dataset, to / "datalist", label="voxels")
        export_nnunet(dataset, to / "nnunet", number=1, label="voxels")
    assert len(list(to.rglob("*"))) > PERSONS
    beside = [path for path in built.glob("out.*") if path.suffix != ".private"]
    assert {path.suffix for path in beside} >= {".training"}
    assert not [where for place in (to, *beside) for where, data in everything(place) if TOKEN.search(data)]


def test_what_stays_private_is_readable_by_its_owner_alone(built: Path) -> None:
    private = built / "out.private"
    paths = [private, *private.rglob("*")]
    assert len(paths) > 10
    assert not [path for path in paths if path.stat().st_mode & 0o077]


def test_an_error_names_no_token(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of one archive cut short: the messages name files by what may be said of them."""
    monkeypatch.setenv("BUILDER_KEY", KEY)
    for path in sorted(p for p in (built / "tree").rglob("*") if p.is_file()):
        place = tmp_path / "tree" / path.relative_to(built / "tree")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "spec.yaml").write_text((built / "spec.yaml").read_text())
    with pytest.raises(BuilderError) as caught:
        build(tmp_path / "spec.yaml", to=tmp_path / "out", parameters={"tree": str(tmp_path / "tree")})
    assert not TOKEN.search(str(caught.value).encode())
    for place in (tmp_path / "out", tmp_path / "out.private" / "journal"):
        assert not [where for where, data in everything(place) if TOKEN.search(data)]


@pytest.mark.skipif(not LONG, reason="make canaries")
def test_no_command_says_a_token_but_scan_which_says_that_it_is_private(built: Path) -> None:
    out, tree = built / "out", built / "tree"
    planned = ("plan", built / "spec.yaml", "--to", out, "--param", f"tree={tree}")
    told = [
        *(("verify", out), ("verify", out, "--json"), ("inspect", out), ("inspect", out, "--json"), ("report", out)),
        *(("diff", out, out), ("diff", out, out, "--json"), ("records", out), ("uses", out), ("uses", out, "--json")),
        *(planned, (*planned, "--json"), ("init", tree)),
    ]  # fmt: skip
    for arguments in told:
        done = run(*arguments)
        assert not TOKEN.search((done.stdout + done.stderr).encode()), arguments
    page = built / "page.html"
    for arguments in (("scan", tree, "--html", page), ("scan", tree, "--json")):
        assert "Private: this" in run(*arguments).stdout
    assert "Private: this" in page.read_text()
    assert page.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(not LONG, reason="make canaries")
def test_a_damaged_dataset_is_told_without_a_token(built: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "out"
    shutil.copytree(built / "out", damaged)
    large = max((p for p in damaged.glob("data/**/*") if p.is_file()), key=lambda p: p.stat().st_size)
    large.write_bytes(large.read_bytes()[:-9])
    for arguments in (
        ("verify", damaged),
        ("verify", damaged, "--json"),
        ("inspect", tmp_path),
        ("diff", tmp_path, damaged),
    ):
        done = subprocess.run(command(*arguments), env=environment(), capture_output=True, timeout=600, check=False)
        assert done.returncode != 0, arguments
        assert not TOKEN.search(done.stdout + done.stderr), arguments
