"""The specs of docs/files.md on real archives: at most 20 lines each, and voxels those of nibabel and SimpleITK."""

import csv
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dcm2niix
import numpy as np
import pytest
from PIL import Image

import builder
from builder.run.pipeline import build
from tests.conftest import ROOT
from tests.endtoend.trees import KEY
from tests.files.writers import lps_of, nifti, values

PAGE = ROOT / "docs" / "files.md"
SPECS = dict(re.findall(r"```yaml\n# ([a-z0-9-]+)\n(.*?)```", PAGE.read_text(), re.DOTALL))


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], Any]:
    """Build a spec of the page from an archive, without its transforms and patches, and open it."""
    monkeypatch.setenv("BUILDER_KEY", KEY)

    def run(name: str, archive: Path) -> Any:
        text = re.sub(r"transforms: .*\n", "", SPECS[name])
        text = re.sub(r"samples: \{kind: patches.*", "samples: {kind: volumes, chunk: [8, 64, 64]}", text)
        spec = tmp_path / f"{name}.yaml"
        spec.write_text(text)
        build(spec, to=tmp_path / name, parameters={"archive": str(archive)})
        return builder.open_dataset(tmp_path / name)

    return run


def same(dataset: Any, paths: list[Path]) -> None:
    """Check that the samples are exactly the images of these files, on their grids, one sample for each file."""
    expected = [lps_of(path) for path in paths]
    assert len(dataset) == len(paths)
    for sample in dataset:
        mine = [
            n
            for n, (voxels, affine) in enumerate(expected)
            if np.array_equal(sample["image"][0], voxels.astype(sample["image"].dtype))
            and np.allclose(sample.geometry.affine, affine, rtol=0, atol=1e-4)
        ]
        assert mine
        del expected[mine[0]]
    assert not expected


def test_every_spec_of_the_page_is_short_and_tried() -> None:
    assert {*SPECS} == {
        "bids", "msd", "nnunet", "pi-cai", "totalsegmentator", "brats", "table", "png", "dcm2niix", "chexpert",
        "challenge",
    }  # fmt: skip
    assert all(len(text.splitlines()) <= 20 for text in SPECS.values())


def test_bids(corpus: Any, built: Any) -> None:
    home = corpus("layouts") / "open_ms_bids"
    same(built("bids", home), sorted(home.glob("sub-*/ses-*/anat/*_FLAIR.nii.gz")))


def test_msd(corpus: Any, tmp_path: Path, built: Any) -> None:
    """Three cases of the archive, and one whose image is listed and absent at the source."""
    home = corpus("layouts") / "msd_hippocampus" / "Task04_Hippocampus"
    task = tmp_path / "archive" / "Task04_Hippocampus"
    facts = json.loads((home / "dataset.json").read_text())
    names = [Path(entry["image"]).name for entry in facts["training"]]
    there = [name for name in names if (home / "imagesTr" / name).exists()][:3]
    absent = next(name for name in names if not (home / "imagesTr" / name).exists())
    facts["training"] = [e for e in facts["training"] if Path(e["image"]).name in (*there, absent)]
    facts["test"] = []
    for folder in ("imagesTr", "labelsTr"):
        (task / folder).mkdir(parents=True)
        for name in there:
            shutil.copy(home / folder / name, task / folder)
    (task / "dataset.json").write_text(json.dumps(facts))
    dataset = built("msd", tmp_path / "archive")
    labelled = sorted(p.name for p in task.glob("imagesTr/*.nii.gz") if (task / "labelsTr" / p.name).exists())
    same(dataset, [task / "imagesTr" / name for name in labelled])
    masks = {lps_of(task / "imagesTr" / n)[0].tobytes(): lps_of(task / "labelsTr" / n)[0] for n in labelled}
    for sample in dataset:
        (mask,) = [
            m for v, m in masks.items() if m.shape == sample["image"].shape[1:]
            and any(np.array_equal(np.frombuffer(v, t).reshape(m.shape), sample["image"][0]) for t in _types(v, m))
        ]  # fmt: skip
        assert np.array_equal(sample["hippocampus"], [mask == 1, mask == 2])


def _types(data: bytes, mask: Any) -> list[str]:
    return {1: ["u1"], 2: ["i2", "u2"], 4: ["f4"]}[len(data) // mask.size]


def test_nnunet(corpus: Any, built: Any) -> None:
    home = corpus("layouts") / "nnunet_v2" / "nnUNet_raw" / "Dataset501_CordMT"
    same(built("nnunet", home), [home / "imagesTr" / "cord_001_0002.nii.gz"])


def test_pi_cai(corpus: Any, built: Any) -> None:
    home = corpus("layouts") / "picai_mha"
    same(built("pi-cai", home), sorted(home.glob("images/*/*_adc.mha")))


def test_totalsegmentator(corpus: Any, built: Any) -> None:
    home = corpus("layouts") / "totalsegmentator_layout"
    (ct,) = home.rglob("ct.nii.gz")
    dataset = built("totalsegmentator", home)
    same(dataset, [ct])
    parts = ct.parent / "segmentations"
    liver, spleen = (lps_of(parts / f"{name}.nii.gz")[0] > 0 for name in ("liver", "spleen"))
    lobes = [lps_of(parts / f"lung_lower_lobe_{side}.nii.gz")[0] > 0 for side in ("left", "right")]
    assert np.array_equal(dataset[0]["organs"], [liver, spleen, lobes[0] | lobes[1]])


def test_brats(tmp_path: Path, built: Any) -> None:
    home = tmp_path / "archive"
    for case in ("BraTS2021_00000", "BraTS2021_00002"):
        for n, image in enumerate(("t1", "t1ce", "t2", "flair")):
            nifti(home / case / f"{case}_{image}.nii.gz", values((9, 8, 7), seed=int(case[-1]) * 10 + n))
        nifti(home / case / f"{case}_seg.nii.gz", values((9, 8, 7), seed=int(case[-1])).astype("uint8") % 5)
    images = sorted(home.glob("*/*_flair.nii.gz"))
    dataset = built("brats", home)
    same(dataset, images)
    masks = {
        lps_of(path)[0].astype("f8").tobytes(): path.with_name(path.name.replace("flair", "seg")) for path in images
    }
    for sample in dataset:
        mask = lps_of(masks[sample["image"][0].astype("f8").tobytes()])[0]
        assert np.array_equal(sample["tumour"], [mask == 1, mask == 2, mask == 4])


def test_a_table_of_paths(corpus: Any, built: Any) -> None:
    home = corpus("layouts")
    tasks = home / "msd_hippocampus" / "Task04_Hippocampus" / "imagesTr"
    paths = [tasks / f"hippocampus_{n}.nii.gz" for n in ("001", "003", "004")]
    paths += [home / "sct_multicontrast" / "t1" / "t1w.nii.gz"]
    paths += sorted((home / "open_ms_longitudinal" / "raw" / "patient01").glob("study?_T1W.nii.gz"))
    same(built("table", home), paths)


def test_png_radiographs(corpus: Any, tmp_path: Path, built: Any) -> None:
    home = corpus("layouts") / "nih_cxr_png"
    table = "Data_Entry_2017_subset.csv"
    folder = tmp_path / "archive" / "0_normal"
    folder.mkdir(parents=True)
    for path in sorted((home / "NIH1000" / "test" / "0_normal").iterdir())[:12]:
        shutil.copy(path, folder)
    shutil.copy(home / table, tmp_path / "archive" / table)
    dataset = built("png", tmp_path / "archive")
    with (home / table).open(newline="") as file:
        stated = {row["Image Index"]: row for row in csv.DictReader(file)}
    mine = [stated[path.name] for path in folder.iterdir()]
    rows = dataset.table.to_pylist()
    assert len(rows) == len(mine) == 12
    assert len({row["person_key"] for row in rows}) == len({row["Patient ID"] for row in mine})
    pixels = Counter(np.asarray(Image.open(path).convert("L")).tobytes() for path in folder.iterdir())
    assert Counter(sample["image"].astype("u1").tobytes() for sample in dataset) == pixels
    assert dataset[0]["image"].shape == (1, 1, 64, 64)
    found = [dict(zip(row["class_names"], row["class_values"], strict=True)) for row in rows]
    assert sorted((f["findings/age"], f["findings/view"].upper()) for f in found) == sorted(
        (row["Patient Age"], row["View Position"]) for row in mine
    )


def test_what_dcm2niix_made_of_the_sarcoma_patients(corpus: Any, tmp_path: Path, built: Any) -> None:
    folders = sorted(p for p in corpus("sts").rglob("*") if p.is_dir() and p.name.upper() == "CT")[:2]
    home = tmp_path / "archive"
    for n, folder in enumerate(folders):
        (home / f"p{n}").mkdir(parents=True)
        series = tmp_path / f"series{n}"
        shutil.copytree(folder, series)
        command = [dcm2niix.bin, "-z", "y", "-f", "ct", "-o", str(home / f"p{n}"), str(series)]
        subprocess.run(command, check=True, capture_output=True)
    same(built("dcm2niix", home), sorted(home.glob("*/ct.nii.gz")))
