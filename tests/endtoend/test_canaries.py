"""Tokens of its own in every attribute of every object of an archive are nowhere in what leaves.

``BUILDER_CANARIES=all`` (``make canaries``) plants more than 60,000.
"""

import os
import re
import subprocess
from pathlib import Path

import pydicom
import pytest

import builder
from builder.phantom import write_archive
from builder.phantom.canary import plant
from builder.reader.export import export_nifti, export_webdataset
from tests.endtoend.published import everything
from tests.endtoend.trees import ROOT, command, environment

LONG = os.environ.get("BUILDER_CANARIES") == "all"
PATIENTS, LEAST = (30, 60_000) if LONG else (8, 15_000)
TOKEN = re.compile(rb"QZ\d{6}XQ", re.IGNORECASE)
TECHNICAL = ("Manufacturer", "ManufacturerModelName", "BodyPartExamined", "ConvolutionKernel", "SoftwareVersions")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """An archive with a token for every object, and in how many places they stand."""
    folder = tmp_path_factory.mktemp("canaries")
    write_archive(folder, patients=PATIENTS, seed=7)
    planted = 0
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))):
        dataset = pydicom.dcmread(path)
        token = f"QZ{number:06d}XQ"
        plant(dataset, token)
        for keyword in TECHNICAL:
            setattr(dataset, keyword, token)
        if "ImageType" in dataset:
            dataset.ImageType = [*list(dataset.ImageType)[:2], token]
        dataset.save_as(path)
        planted += len(TOKEN.findall(path.read_bytes()))
    return folder, planted


def test_no_token_leaves(archive: tuple[Path, int], tmp_path: Path) -> None:
    folder, planted = archive
    assert planted >= LEAST
    target = tmp_path / "dataset"
    said = _said("build", ROOT / "specs" / "phantom.yaml", "--to", target, "--param", f"phantom={folder}", "--json")
    if LONG:
        said += _everything_else(folder, target)
    assert not TOKEN.search(said)
    searched = 0
    for place in (target, tmp_path / "exports", tmp_path / "volumes", target.with_name("dataset.private") / "journal"):
        for where, data in everything(place):
            assert not TOKEN.search(data), where
            searched += 1
    for beside in tmp_path.glob("dataset.*"):  # uses, training runs, pages
        for path in (p for p in beside.rglob("*") if p.is_file() and beside.suffix != ".private"):
            assert not TOKEN.search(path.read_bytes()), path
    assert searched > 40


def _said(*arguments: str | Path, code: int = 0) -> bytes:
    """What a command prints, on both streams."""
    done = subprocess.run(
        command(*arguments), env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == code, done.stderr[-3000:]
    return (done.stdout + done.stderr).encode()


def _everything_else(folder: Path, target: Path) -> bytes:
    """Whole volumes, exports, a use, a report of a training run, pages and errors."""
    beside = target.parent
    spec = (ROOT / "specs" / "phantom.yaml").read_text()
    samples = next(line for line in spec.splitlines() if line.startswith("samples:"))
    volumes = beside / "volumes.yaml"
    volumes.write_text(spec.replace(samples, "samples: {kind: volumes}"))
    said = _said("build", volumes, "--to", beside / "volumes", "--param", f"phantom={folder}", "--json")
    dataset = builder.open_dataset(target)
    assert len(list(dataset)) > 0
    export_webdataset(dataset, beside / "exports" / "webdataset")
    export_nifti(builder.open_dataset(beside / "volumes"), beside / "exports" / "nifti")
    for arguments in (("verify", target), ("inspect", target, "--json"), ("uses", target), ("records", target),
                      ("diff", target, beside / "volumes"), ("report", target)):  # fmt: skip
        said += subprocess.run(
            command(*arguments), env=environment(), cwd=ROOT, capture_output=True, timeout=600
        ).stdout
    broken = beside / "broken"
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))[:6]):
        place = broken / "archive" / "north" / f"QZ{number:06d}XQ" / f"QZ{number:06d}XQ.dcm"
        place.parent.mkdir(parents=True)
        place.write_bytes(path.read_bytes()[: 2000 + 700 * number])
    alone = beside / "broken.yaml"
    alone.write_text(
        f'name: broken\nlicense: CC0-1.0\nsources: [{{kind: folder, url: "{broken / "archive" / "north"}"}}]\n'
        'deid: {patient_key: "${env:BUILDER_KEY}"}\nsamples: {kind: volumes}\nsplits: {ratios: {train: 1.0}}\n'
    )
    return said + _said("build", alone, "--to", beside / "none", code=1)
