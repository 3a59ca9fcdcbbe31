"""Mask files through a whole build: each goes to its own patient of its own site, and lies where its units put it."""

from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest

import builder
from builder.errors import SpecError
from builder.run.pipeline import build, plan
from tests import synthetic
from tests.endtoend.trees import KEY

SPEC = """
name: mask-files
license: CC0-1.0
sources: [{sources}]
cohort: {{labels: optional}}
labels:
  lesion: {{kind: mask, match: "{match}", values: {{1: tumor}}}}
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
samples: {{kind: volumes, chunk: [8, 16, 16]}}
splits: {{ratios: {{train: 0.6, test: 0.4}}, seed: 7}}
"""


def write_image(folder: Path, number: int, *, patient_id: str | None = None) -> synthetic.Stack:
    """A CT whose every voxel is ``number``."""
    name = f"s{number}"
    return synthetic.ct_series(
        folder,
        patient_id=patient_id or f"P{number}",
        study=name,
        series=name,
        frame=name,
        voxels=np.full((8, 32, 32), float(number)),
    )


def write_nifti(path: Path, made: synthetic.Stack, voxels: int) -> None:
    """A mask of ``voxels`` voxels of slice 3, on the image's grid."""
    inside = np.zeros(made.geometry.shape, np.uint8)
    inside[3].flat[:voxels] = 1
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ made.geometry.affine[:, [2, 1, 0, 3]]
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(inside.transpose(2, 1, 0), affine), path)


def spec_of(folder: Path, match: str, **sites: str) -> Path:
    tree = folder / "tree"
    parts = [f'{{kind: folder, url: "{tree / part}", site: {site}}}' for part, site in sites.items()]
    path = folder / "spec.yaml"
    path.write_text(SPEC.format(sources=", ".join(parts) or f'{{kind: folder, url: "{tree}"}}', match=match))
    return path


def masks(folder: Path, match: str, **sites: str) -> dict[int, int]:
    """Number of each image to the voxels of its mask."""
    build(spec_of(folder, match, **sites), to=folder / "out")
    return {int(s["image"].flat[0]): int(s["lesion"].sum()) for s in builder.open_dataset(folder / "out")}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)


def test_the_same_path_in_another_site_is_another_patients(tmp_path: Path) -> None:
    for number, site in enumerate("ab", start=1):
        made = write_image(tmp_path / "tree" / site / "case001" / "image", number)
    write_nifti(tmp_path / "tree" / "b" / "case001" / "mask.nii.gz", made, 50)
    assert masks(tmp_path, "{parent}/mask.nii.gz", a="a", b="b") == {1: 0, 2: 50}


def test_the_same_patient_id_at_another_site_is_another_patients(tmp_path: Path) -> None:
    for number, site in enumerate("ab", start=1):
        made = write_image(tmp_path / "tree" / site / "case" / "image", number, patient_id="001")
        write_nifti(tmp_path / "tree" / f"{site}_masks" / "001.nii.gz", made, 10 * number)
    found = masks(tmp_path, "{patient}.nii.gz", a="a", b="b", a_masks="a", b_masks="b")
    assert found == {1: 10, 2: 20}


def test_ids_that_begin_others_keep_their_own_files(tmp_path: Path) -> None:
    ids = {1: "P1", 2: "P10", 3: "P1-2", 4: "P1_2_b", 5: "P100"}
    for number, patient_id in ids.items():
        made = write_image(tmp_path / "tree" / patient_id / "image", number, patient_id=patient_id)
        if number != 5:
            write_nifti(tmp_path / "tree" / "masks" / f"{patient_id}_mask.nii.gz", made, 10 * number)
    assert masks(tmp_path, "masks/{patient}*.nii.gz") == {1: 10, 2: 20, 3: 30, 4: 40, 5: 0}


def test_a_file_that_serves_two_persons_stops_the_plan(tmp_path: Path) -> None:
    for number in (1, 2):
        made = write_image(tmp_path / "tree" / f"P{number}" / "image", number)
    write_nifti(tmp_path / "tree" / "mask.nii.gz", made, 50)
    with pytest.raises(SpecError, match=r"labels\.lesion\.match: found 1 file that fits images of up to 2 persons"):
        plan(spec_of(tmp_path, "**/mask.nii.gz"), to=tmp_path / "out")
    assert not (tmp_path / "out" / "CURRENT").exists()


def test_units_of_an_nrrd_are_applied_and_unknown_ones_refuse_it(tmp_path: Path) -> None:
    units: dict[str, Any] = {"mm": 1, "cm": 0.1, "um": 1000, "m": 1e-3, "inch": 1 / 25.4}
    for number, (unit, scale) in enumerate(units.items(), start=1):
        made = write_image(tmp_path / "tree" / unit / "image", number)
        inside = np.zeros(made.geometry.shape, np.uint8)
        inside[2:6, 5:25, 5:25] = 1
        step, origin = np.array(made.geometry.spacing_mm) * scale, np.array(made.geometry.origin_mm) * scale
        head = [
            "NRRD0004", "type: uint8", "dimension: 3", "space: LPS", "sizes: 32 32 8", "encoding: raw",
            f"space directions: ({step[2]:.12g},0,0) (0,{step[1]:.12g},0) (0,0,{step[0]:.12g})",
            f"space origin: ({origin[0]:.12g},{origin[1]:.12g},{origin[2]:.12g})",
            f'space units: "{unit}" "{unit}" "{unit}"', "", "",
        ]  # fmt: skip
        (tmp_path / "tree" / unit / "mask.nrrd").write_bytes("\n".join(head).encode() + inside.tobytes())
    assert masks(tmp_path, "{parent}/mask.nrrd") == dict.fromkeys(range(1, 5), 4 * 20 * 20)
    version = (tmp_path / "out" / "CURRENT").read_text().strip()
    excluded = pq.read_table(tmp_path / "out" / "versions" / version / "exclusions.parquet")
    assert Counter(excluded.column("reason").to_pylist()) == {"label_geometry_conflict": 1}
