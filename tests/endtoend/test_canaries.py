"""Tokens of its own in every attribute of every object of an archive are nowhere in what leaves.

``BUILDER_CANARIES=all`` (``make canaries``) plants more than 60,000.
"""

import os
import re
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest

from builder.phantom import write_archive
from builder.phantom.canary import plant
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
    done = subprocess.run(
        command("build", ROOT / "specs" / "phantom.yaml", "--to", target, "--param", f"phantom={folder}", "--json"),
        env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert not TOKEN.search((done.stdout + done.stderr).encode())
    files = [path for path in target.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        assert not TOKEN.search(path.relative_to(target).as_posix().encode())
        assert not TOKEN.search(path.read_bytes()), path
        if path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            assert not TOKEN.search(f"{file.metadata} {file.schema_arrow.metadata} {file.read().to_pydict()}".encode())
