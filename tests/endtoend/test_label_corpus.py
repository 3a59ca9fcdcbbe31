"""Segmentations and boxes of the corpus on their own images, from spec to reader."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK

import builder
from builder.run.pipeline import build
from tests.endtoend.trees import KEY, ROOT

SPEC = """
name: corpus
license: CC-BY-3.0
sources: [{kind: folder, url: "${tree}"}]
deid: {patient_key: "${env:BUILDER_KEY}"}
samples: {kind: volumes, chunk: [16, 64, 64]}
"""

LIDC = ROOT / "specs" / "lidc-nodules.yaml"
Built = Callable[..., Any]


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Built:
    """Builds a dataset of a folder with further blocks of a spec, and opens it."""

    def run(tree: Path, blocks: str) -> Any:
        monkeypatch.setenv("BUILDER_KEY", KEY)
        (tmp_path / "spec.yaml").write_text(SPEC + blocks)
        build(tmp_path / "spec.yaml", to=tmp_path / "out", parameters={"tree": str(tree)})
        return builder.open_dataset(tmp_path / "out")

    return run


def test_a_segmentation_equals_its_answer_key_in_the_dataset(corpus: Any, tmp_path: Path, built: Built) -> None:
    folder = corpus("segmentation") / "dcmqi_seg_sr_pm" / "segmentations"
    shutil.copytree(folder / "ct-3slice", tmp_path / "tree" / "ct")
    path = shutil.copy(folder / "partial_overlaps.dcm", tmp_path / "tree")
    names = {"green": (1, 1), "orange": (2, 2), "purple": (3, 3), "light": (1, 4), "dark": (1, 5)}
    segments = ", ".join(f"{name}: {name.upper()}" for name in names)
    (sample,) = built(tmp_path / "tree", f"labels: {{parts: {{kind: seg, segments: {{{segments}}}}}}}")
    # channels in the order of the spec, which is not that of the alphabet
    for channel, (file, number) in zip(sample["parts"], names.values(), strict=True):
        key = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / f"partial_overlaps-{file}.nrrd")))
        np.testing.assert_array_equal(channel == 1, key == number)
    assert sample.row["label.parts.overlap_voxels"] > 0
    codes = [s.SegmentedPropertyTypeCodeSequence[0] for s in pydicom.dcmread(path).SegmentSequence]
    assert sample.row["segment_types"] == [f"{c.CodingSchemeDesignator}:{c.CodeValue}" for c in codes]


def test_overlapping_zones_are_channels_with_their_codes(corpus: Any, built: Built) -> None:
    folder = corpus("segmentation") / "qin_prostate_adc_seg"
    dataset = pydicom.dcmread(next((folder / "seg").iterdir()))
    wanted = {}
    for item in dataset.SegmentSequence:
        code = item.SegmentedPropertyTypeCodeSequence[0]
        wanted[f"s{item.SegmentNumber}"] = (item.SegmentLabel, f"{code.CodingSchemeDesignator}:{code.CodeValue}")
    blocks = ", ".join(f'{name}: "^{label}$"' for name, (label, _) in wanted.items())
    (sample,) = built(folder, f"labels: {{zones: {{kind: seg, segments: {{{blocks}}}}}}}")
    assert sample.row["segment_names"] == [f"zones/{name}" for name in wanted]
    # the tables of PS3.16 in pydicom do not hold SRT:T-9200B, so the privacy gate drops it
    codes = [code for _, code in wanted.values()]
    assert codes[3] == "SRT:T-9200B"
    assert sample.row["segment_types"] == [*codes[:3], None]
    volume = highdicom.seg.Segmentation.from_dataset(dataset).get_volume()
    assert [int(c.sum()) for c in sample["zones"]] == [int(volume.array[..., n].sum()) for n in range(4)]
    assert sample.row["label.zones.resampled"] == 0


def test_shares_land_on_every_time_point_by_frame_of_reference(corpus: Any, built: Built) -> None:
    folder = corpus("segmentation") / "ucsf_br06_dce4d"
    stored = pydicom.dcmread(next((folder / "seg_fractional").glob("*.dcm"))).pixel_array
    block = 'labels: {breast: {kind: seg, segments: {breast: "."}, fractional: keep}}\nvolumes: {time_series: split}'
    samples = list(built(folder, block))
    assert len(samples) == 3
    for sample in samples:
        assert sample["breast"].sum(dtype=np.int64) == stored.sum(dtype=np.int64) > 0
        assert sample["breast"].max() == stored.max() == 255


def test_a_pet_keeps_its_two_segments(corpus: Any, built: Built) -> None:
    folder = corpus("segmentation") / "qin_hn_0024_pet_seg"
    dataset = pydicom.dcmread(next(p for p in (folder / "SEG").rglob("*") if p.is_file()))
    block = 'labels: {tumor: {kind: seg, segments: {any: "."}}}\nvolumes: {irregular: resample}'
    (sample,) = built(folder, block)
    # the segments do not overlap: each voxel of the object is one of the image
    assert np.count_nonzero(sample["tumor"]) == np.count_nonzero(dataset.pixel_array)


def test_an_outcome_with_its_time_is_two_columns_of_every_sample(corpus: Any, tmp_path: Path, built: Built) -> None:
    cohort = corpus("sts") / "sts_cohort"
    for name in ("STS_002", "STS_003", "STS_008"):
        shutil.copytree(cohort / name / "CT" / "image", tmp_path / "tree" / name)
    table = next((corpus("sts") / "sts_clinical").glob("*.xlsx"))
    samples = built(
        tmp_path / "tree",
        f"""
clinical:
  - url: "{table}"
    person_id: Patient ID
    person_pattern: STS_\\d{{3}}
    missing: ["--", "N/A"]
    columns:
      status: {{from: "Status (NED, AWD, D)", type: category}}
      outcome_days: {{from: "Time – diagnosis to outcome (days)", type: integer, unit: d}}
      follow_up_days: {{from: "Time – diagnosis to last follow-up (days)", type: integer, unit: d}}
    events:
      death: {{column: status, happened: [D], time: follow_up_days}}
""",  # noqa: RUF001
    )
    rows = [sample.row for sample in samples]
    assert len(rows) == 3
    assert all(row["death_event"] is (row["status"] == "D") for row in rows)
    assert all(row["death_time"] == row["follow_up_days"] > 0 for row in rows)


def test_a_nodule_of_luna16_lands_on_the_lidc_slab(
    corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    (tmp_path / "tables").mkdir()
    shutil.copy(corpus("tables") / "tables" / "luna16_annotations.csv", tmp_path / "tables")
    folders = {"images": str(corpus("segmentation") / "lidc_0314_slab"), "tables": str(tmp_path / "tables")}
    # one person is in one split
    text = LIDC.read_text().replace("test: 0.15}, seed: 7}", "test: 0.15}, may_be_empty: [validation, test], seed: 7}")
    (tmp_path / "spec.yaml").write_text(text)
    build(tmp_path / "spec.yaml", to=tmp_path / "out", parameters=folders)
    (sample,) = builder.open_dataset(tmp_path / "out")
    assert sample.row["box_classes"] == ["nodule"]
    low, high = np.reshape(sample.row["boxes"], (2, 3))
    image = next((corpus("segmentation") / "lidc_0314_slab" / "ct").iterdir())
    uid = pydicom.dcmread(image, stop_before_pixels=True).SeriesInstanceUID
    with (tmp_path / "tables" / "luna16_annotations.csv").open(newline="") as file:
        (row,) = (row for row in csv.DictReader(file) if row["seriesuid"] == uid)
    spot = [float(row[name]) for name in ("coordX", "coordY", "coordZ")]
    assert sample.geometry.to_world([(low + high) / 2])[0] == pytest.approx(spot, abs=1e-6)
    assert (high - low) * sample.geometry.spacing_mm == pytest.approx([float(row["diameter_mm"])] * 3, abs=1e-6)
    middle = tuple(np.round((low + high) / 2).astype(int))
    # soft tissue within, lung outside
    assert sample["image"][(0, *middle)] > -200
    assert sample["image"][0, middle[0], middle[1], int(high[2]) + 8] < -500
