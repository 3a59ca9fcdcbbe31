"""Formats that are not read: scan, plan and flow name and count each, and none of them becomes an image or a mask."""

import json
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest

from builder.run.pipeline import build
from builder.run.progress import SilentProgress
from builder.run.scan import scan
from tests import synthetic
from tests.endtoend.trees import KEY
from tests.files.writers import nifti, values

SPEC = """
name: refused
license: CC0-1.0
sources: [{{kind: folder, url: "{tree}"}}]
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
samples: {{kind: volumes, chunk: [2, 8, 8]}}
splits: {{ratios: {{train: 1.0}}}}
"""

PAR = """# === DATA DESCRIPTION FILE ======================================================
#
# CAUTION - Investigational device.
#
# Dataset name: E:\\\\Export\\\\phantom
#
# CLINICAL TRYOUT             Research image export tool     V4.2
"""


class Said(SilentProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A CT, two NIfTI, and one file of each format that is refused."""
    tree = tmp_path / "tree"
    synthetic.ct_series(tree / "ct", patient_id="P1", slices=3, shape=(8, 8))
    for name in ("one.nii.gz", "two.nii"):
        nifti(tree / "nii" / name, values())
    other = tree / "other"
    other.mkdir()
    nibabel.save(nibabel.MGHImage(values(dtype="int32"), np.eye(4)), other / "a.mgz")
    nibabel.save(nibabel.MGHImage(values(dtype="int32"), np.eye(4)), other / "b.mgh")
    nibabel.AnalyzeImage(values(), np.eye(4)).to_filename(other / "c.hdr")
    (other / "d.HEAD").write_text("\ntype  = string-attribute\nname  = TYPESTRING\ncount = 15\n'3DIM_HEAD_ANAT~\n")
    (other / "e.mnc").write_bytes(b"CDF\1" + bytes(200))
    (other / "f.mnc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    (other / "g.PAR").write_text(PAR)
    dose = pydicom.dcmread(next((tree / "ct").iterdir()))
    dose.SOPClassUID = dose.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.2"
    dose.SOPInstanceUID = dose.file_meta.MediaStorageSOPInstanceUID = "2.25.77"
    dose.SeriesInstanceUID, dose.Modality = "2.25.78", "RTDOSE"
    dose.save_as(other / "h.dcm")
    return tree


def test_every_format_that_is_not_read_is_named_and_counted(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(tree=tree))
    said = Said()
    build(spec, to=tmp_path / "out", progress=said)
    expected = {
        "2 NIfTI files: no source reads them as an image",
        "2 FreeSurfer MGH files: this format is not read",
        "1 Analyze file: this format is not read",
        "1 AFNI file: this format is not read",
        "1 MINC file: this format is not read",
        "1 HDF5 file: this format is not read",
        "1 Philips PAR file: this format is not read",
        "1 RTDOSE object: dose grids are not read",
    }
    told = [line.removeprefix("files: ") for line in said.lines if line.startswith("files: ")]
    found = scan([str(tree)])
    for lines in (told, found.unread):
        assert {start for start in expected if any(line.startswith(start) for line in lines)} == expected
    version = (tmp_path / "out" / "CURRENT").read_text().strip()
    home = tmp_path / "out" / "versions" / version
    ledger = pq.read_table(home / "ledger.parquet")
    reasons = Counter(zip(ledger["status"].to_pylist(), ledger["reason"].to_pylist(), strict=True))
    assert reasons == {
        ("used", None): 3, ("excluded", "not_selected"): 3,  # two NIfTI, and the voxels of the Analyze file
        ("quarantined", "not_dicom"): 7, ("quarantined", "not_an_image"): 1,
    }  # fmt: skip
    assert ledger.num_rows == sum(path.is_file() for path in tree.rglob("*"))
    left = json.loads((home / "report" / "report.json").read_text())["flow"]["boxes"][0]["left"]
    assert {one["rule"]: one["things"] for one in left}["read_nifti"] == 2
    details = " ".join(one["detail"] for one in found.damaged)
    for tool in ("mri_convert", "3dAFNItoNIFTI", "mnc2nii", "dcm2niix", "where left is"):
        assert tool in details
