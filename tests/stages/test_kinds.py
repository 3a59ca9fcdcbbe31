"""Builds of what is no CT, MR or PET slice: radiographs, ultrasound, grids; findings and meanings as columns."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

import builder
from builder.errors import OutcomeError
from builder.imaging.parse import leniently, parse_instance
from tests import synthetic
from tests.endtoend.trees import KEY
from tests.imaging.quantities.test_pet_frames import FACTOR, enhanced
from tests.imaging.stacks.test_grids import grid_of

Build = Callable[..., tuple[Any, list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Build the objects of a folder: the open dataset, rows of its index, cohort and exclusions, and its report."""
    monkeypatch.setenv("BUILDER_TEST_KEY", KEY)

    def built(folder: Path, **blocks: Any) -> Any:
        spec = builder.DatasetSpec.model_validate(
            {
                "name": "kinds", "license": "none", "sources": [{"kind": "folder", "url": str(folder)}],
                "cohort": {"one_per": "series"}, "deid": {"patient_key": "${env:BUILDER_TEST_KEY}"},
                "samples": {"kind": "volumes", "chunk": [1, 32, 32]}, "splits": {"ratios": {"train": 1.0}}, **blocks,
            }
        )  # fmt: skip
        target = tmp_path / "dataset"
        builder.build(spec, to=str(target))
        version = target / "versions" / (target / "CURRENT").read_text().strip()
        tables = [pq.read_table(version / f"{n}.parquet").to_pylist() for n in ("index", "cohort", "exclusions")]
        return builder.open_dataset(str(target)), *tables

    return built


def written(folder: Path, datasets: Sequence[Dataset]) -> Path:
    synthetic.write_all(datasets, folder)
    return folder


def test_radiographs_are_a_kind_of_their_own(build: Build, corpus: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    source = corpus("odd") / "xray_mammo" / "gdcm-CR-MONO1-10-chest.dcm"
    (folder / "a.dcm").write_bytes(source.read_bytes())
    dataset, index, cohort, exclusions = build(folder, volumes={"projection": "keep"})
    assert [(row["verdict"], row["domain"]) for row in index] == [("projection", "stored")]
    assert {"no_patient_geometry", "monochrome1_inverted"} <= set(index[0]["notes"])
    original = parse_instance(source.read_bytes())
    np.testing.assert_array_equal(dataset[0]["image"][0, 0], (1 << original.BitsStored) - 1 - pixel_array(original))
    assert exclusions == []
    assert cohort[0]["included"]


def test_colour_cine_is_a_kind_of_its_own(build: Build, corpus: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    source = next((corpus("odd") / "encapsulated_fragments" / "multi-frame").glob("IM00001.*implicit*"))
    (folder / "a.dcm").write_bytes(source.read_bytes())
    blocks = {"volumes": {"cine": "keep"}, "deid": {"patient_key": "${env:BUILDER_TEST_KEY}", "reviewed": ["US"]}}
    dataset, index, cohort, _ = build(folder, **blocks)
    assert [(row["verdict"], row["domain"], row["channels"]) for row in index] == [("cine", "rgb", 3)]
    assert (cohort[0]["channels"], cohort[0]["slices"]) == (3, 8)
    with leniently():
        expected = pixel_array(parse_instance(source.read_bytes()))
    np.testing.assert_array_equal(dataset[0]["image"].transpose(1, 2, 3, 0), expected)


def test_a_structure_set_in_patient_space_does_not_land_in_a_scout(build: Build, tmp_path: Path) -> None:
    made = synthetic.ct_series(slices=1, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    drawn = synthetic.rtstruct(made, {"GTV": synthetic.box_contours(made.geometry, (0, 5, 5), (1, 20, 20))})
    folder = written(tmp_path / "archive", [*made.images, drawn])
    labels = {"gtv": {"kind": "rtstruct", "roi": {"gtv": "GTV"}}}
    with pytest.raises(OutcomeError, match="label_geometry_conflict: 1 case"):
        build(folder, volumes={"localizer": "keep"}, labels=labels)


def test_findings_and_meanings_are_columns(build: Build, tmp_path: Path) -> None:
    voxels = synthetic.pattern((4, 32, 32)) - 600
    shifted = synthetic.ct_series(slices=4, attributes={"KVP": "12"}, intercept=-3072.0, voxels=voxels)
    folder = written(tmp_path / "archive", shifted.images)
    dataset, index, cohort, _ = build(folder)
    assert index[0]["domain"] == "HU"
    assert any(finding.startswith("value_range=") for finding in index[0]["findings"])
    assert "kvp=12" in index[0]["findings"]
    assert cohort[0]["header_findings"] == "kvp=12"
    assert "kvp=12" in dataset[0].row["findings"]


def test_a_cohort_can_ask_for_headers_without_findings(build: Build, tmp_path: Path) -> None:
    good = synthetic.ct_series(slices=3)
    odd = synthetic.ct_series(slices=3, series="2", patient_id="P2", attributes={"KVP": "12"})
    folder = written(tmp_path / "archive", [*good.images, *odd.images])
    rules = [{"name": "plausible", "keep": "header_findings is missing"}]
    _, index, cohort, _ = build(folder, cohort={"one_per": "series", "rules": rules})
    assert len(index) == 1
    assert sorted(row["rule"] or "" for row in cohort) == ["", "plausible"]


def test_grids_scales_and_enhanced_pet_survive_deidentification(build: Build, tmp_path: Path) -> None:
    grid = synthetic.mr_series(slices=5, shape=(32, 32))
    pet = synthetic.pt_series(slices=4, patient_id="P2")
    philips = synthetic.mr_series(slices=4, patient_id="P3")
    for image in philips.images:
        image.Manufacturer = "Philips Medical Systems"
        image.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 0.25)
    folder = written(tmp_path / "archive", [grid_of(grid), enhanced(pet), *copy.deepcopy(philips.images)])
    transforms = [{"kind": "intensity", "dtype": "float32"}]
    dataset, index, _, exclusions = build(folder, volumes={"philips": "precise"}, transforms=transforms)
    assert exclusions == []
    found = {(row["modality"], row["slices"]): (row, dataset[i]["image"][0]) for i, row in enumerate(index)}
    np.testing.assert_array_equal(found["MR", 5][1], grid.voxels)
    row, voxels = found["PT", 4]
    assert row["domain"] == "SUVbw"
    np.testing.assert_allclose(voxels, pet.voxels * FACTOR, rtol=1e-5, atol=1e-6)
    row, voxels = found["MR", 4]
    assert "philips_scale_applied" in row["notes"]
    np.testing.assert_allclose(voxels, philips.voxels / 0.25, rtol=1e-6)


def test_a_scale_left_alone_is_noted(build: Build, tmp_path: Path) -> None:
    philips = synthetic.mr_series(slices=3)
    for image in philips.images:
        image.Manufacturer = "Philips Medical Systems"
        image.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 0.25)
    dataset, index, _, _ = build(written(tmp_path / "archive", philips.images))
    assert "philips_scale_not_applied" in index[0]["notes"]
    np.testing.assert_array_equal(dataset[0]["image"][0], philips.voxels)


@pytest.mark.parametrize("action", ["keep", "resample"])
def test_a_tilted_gantry_is_kept_or_made_straight_with_its_label(build: Build, action: str, tmp_path: Path) -> None:
    made = synthetic.ct_series(slices=12, tilt_degrees=15.0)
    inside = np.zeros(made.geometry.shape, bool)
    inside[3:9, 8:24, 8:24] = True
    folder = written(tmp_path / "archive", [*made.images, synthetic.seg(made, {"Box": inside})])
    labels = {"box": {"kind": "seg", "segments": {"box": "Box"}}}
    dataset, index, _, _ = build(folder, labels=labels, volumes={"sheared": action})
    sample = dataset[0]
    assert index[0]["verdict"] == "sheared"
    assert sample.geometry.is_orthogonal == (action == "resample")
    assert sample["box"].shape == sample["image"].shape
    volume_mm3 = np.count_nonzero(sample["box"]) * sample.geometry.voxel_volume_mm3
    assert volume_mm3 == pytest.approx(inside.sum() * made.geometry.voxel_volume_mm3, rel=0.05)
    middle = sample.geometry.to_world(np.argwhere(sample["box"][0])).mean(axis=0)
    np.testing.assert_allclose(middle, made.geometry.to_world(np.argwhere(inside)).mean(axis=0), atol=0.3)


@pytest.mark.parametrize("form", ["seg", "rtstruct"])
def test_a_label_beyond_a_filled_gap_stays_where_it_was_drawn(build: Build, form: str, tmp_path: Path) -> None:
    whole = synthetic.ct_series(slices=12)
    made = synthetic.ct_series(slices=12, missing=(4,))
    inside = np.zeros(whole.geometry.shape, bool)
    inside[7:10, 8:24, 8:24] = True
    if form == "seg":
        drawn = synthetic.seg(made, {"Box": np.delete(inside, 4, axis=0)})
        label = {"kind": "seg", "segments": {"box": "Box"}}
    else:
        drawn = synthetic.rtstruct(made, {"Box": synthetic.box_contours(whole.geometry, (7, 8, 8), (10, 24, 24))})
        label = {"kind": "rtstruct", "roi": {"box": "Box"}}
    folder = written(tmp_path / "archive", [*made.images, drawn])
    dataset, index, _, exclusions = build(folder, labels={"box": label}, volumes={"gapped": "resample"})
    assert exclusions == []
    assert index[0]["verdict"] == "gapped"
    np.testing.assert_array_equal(dataset[0]["box"][0] > 0, inside)
