"""Cases of several images: who is chosen, what every channel holds, and that the reference stays what it was alone."""

import inspect
import json
import shutil
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pydicom
import pytest
import SimpleITK

import builder
from builder.errors import SpecError
from builder.model.keyed import Key
from builder.reader import export
from builder.reader.export import export_nnunet, export_webdataset
from builder.run.pipeline import build, plan
from builder.spec import DatasetSpec
from builder.spec.blocks import LeakOptions
from builder.specfile import fill_parameters, load_spec
from builder.stages.planned import SPEC, load_plan
from builder.stages.shard import write
from builder.storage import open_store
from builder.transforms import Intensity
from tests.endtoend.trees import KEY, ROOT
from tests.report.recount import Book, protocols
from tests.synthetic import box_contours, ct_series, grid, mr_series, pt_series, rtstruct

TABLES = ("index", "cohort")
CT, PET = "modality == 'CT'", "modality == 'PT'"
SPACING = [3.0, 1.5, 1.5]
NO_COPIES = LeakOptions(pixels="off")
SPLITS: dict[str, Any] = {"ratios": {"train": 0.5, "test": 0.5}, "seed": 5, "may_be_empty": ["train", "test"]}
OBLIQUE = (0.995004165, 0.0998334166, 0.0, -0.0998334166, 0.995004165, 0.0)


def blobs(shape: tuple[int, int, int], spacing: tuple[float, float, float], origin, *, orientation=None, shift=0.0):
    """A smooth pattern of patient space on a grid, so that two grids show one anatomy."""
    geometry = grid(shape, spacing, origin=origin, **({"orientation": orientation} if orientation else {}))
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    x, y, z = geometry.to_world(places).T
    body = ((x - shift) / 14) ** 2 + (y / 12) ** 2 + (z / 16) ** 2 < 1
    inner = ((x - shift - 4) / 5) ** 2 + ((y + 2) / 4) ** 2 + ((z - 3) / 6) ** 2 < 1
    return np.round(np.where(inner, 600, np.where(body, 300 + 40 * np.sin(x / 5), 0))).reshape(shape)


def person(
    folder: Path, name: str, *, frame: str = "1", shift: float = 0.0, series: str = "1", pet: bool = True
) -> None:
    """A CT, and a PET of another grid that is turned by a tenth, with a tumour drawn on the PET."""
    where = folder / name
    origin, turned = (-16.0, -16.0, -12.0), (-18.0, -18.0, -15.0)
    made = blobs((9, 32, 32), (3.0, 1.0, 1.0), origin)
    ct_series(where, patient_id=name, series=series, origin=origin, slices=9, voxels=made - 300)
    if not pet:
        return
    voxels = blobs((10, 20, 20), (3.0, 2.0, 2.0), turned, orientation=OBLIQUE, shift=shift)
    found = pt_series(
        where, patient_id=name, series="2", frame=frame, origin=turned, slices=10, shape=(20, 20),
        spacing=(3.0, 2.0, 2.0), orientation=OBLIQUE, voxels=voxels, slope=1.0,
    )  # fmt: skip
    rtstruct(found, {"GTV": box_contours(found.geometry, (3, 6, 6), (7, 13, 13))}, directory=where)


def spec(folder: Path, **blocks: Any) -> DatasetSpec:
    base = {
        "name": "sets",
        "license": "CC0-1.0",
        "sources": [{"kind": "folder", "url": str(folder), "site": "here"}],
        "cohort": {"case": "study", "images": {"ct": {"select": CT}, "pet": {"select": PET}}},
        "volumes": {"pet": "activity"},
        "labels": {"tumor": {"kind": "rtstruct", "on": "pet", "roi": {"tumor": "GTV"}}},
        "deid": {"patient_key": "${env:BUILDER_KEY}"},
        "transforms": [
            {"kind": "resample", "spacing_mm": SPACING},
            {"kind": "intensity", "dtype": "float32"},
        ],
        "samples": {"kind": "volumes"},
        "splits": {"ratios": {"train": 1.0}},
        "leaks": {"pixels": "off"},
    }
    return DatasetSpec.model_validate({**base, **blocks})


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One complete person, one without PET, one whose PET has another frame of reference, one with two CTs."""
    folder = tmp_path_factory.mktemp("sets")
    person(folder, "P1")
    person(folder, "P2", pet=False)
    person(folder, "P3", frame="2")
    person(folder, "P4")
    person(folder, "P4", series="7", pet=False)
    return folder


def published(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(next((folder / "versions").glob(f"*/{name}.parquet"))).to_pylist()


def test_every_series_is_used_or_has_its_reason_and_counts_once(archive: Path, tmp_path: Path):
    build(spec(archive), to=tmp_path / "data")
    rows = published(tmp_path / "data", "cohort")
    reasons = Counter((r["modality"], r["rule"], r["reason"]) for r in rows if not r["serves"])
    assert reasons == {
        ("CT", "images", "image_missing"): 1,
        ("CT", "images", "image_not_aligned"): 1,
        ("CT", "one_per_study", "one_per_rule"): 1,
        ("PT", "images", "image_unused"): 1,
    }
    details = [r["detail"] for r in rows if r["reason"] == "image_missing"]
    assert details == ["image pet: found no usable series in the study that it selects, expected one"]
    tie = [r["detail"] for r in rows if r["reason"] == "one_per_rule"]
    assert tie == ["image ct: a tie by -instances, series_key with the series that was taken; its key decided"]
    assert Counter((r["image_name"], r["included"], len(r["serves"])) for r in rows if r["serves"]) == {
        ("ct", True, 1): 2, ("pet", False, 1): 2,
    }  # fmt: skip
    ledger = Counter(r["status"] for r in published(tmp_path / "data", "ledger"))
    assert ledger == {"used": 2 * (9 + 10), "label": 2, "excluded": 3 * 9 + 10 + 1}
    dataset = builder.open_dataset(tmp_path / "data")
    assert dataset.table["present.pet"].to_pylist() == [True, True]
    assert dataset.table["pet.modality"].to_pylist() == ["PT", "PT"]
    (layout,) = [f for f in dataset.manifest.fields if f.name == "image"]
    assert (layout.channels, layout.channel_names, layout.channel_units) == (2, ("ct", "pet"), ("HU", "Bq/ml"))
    assert layout.unit == "mixed"


def test_a_series_that_serves_two_cases_lists_both_and_counts_once(archive: Path, tmp_path: Path):
    images = {"ct": {"select": CT}, "pet": {"select": PET}}
    build(spec(archive, cohort={"images": images}), to=tmp_path / "data")
    rows = published(tmp_path / "data", "cohort")
    shared = [r for r in rows if len(r["serves"]) == 2]
    assert [r["modality"] for r in shared] == ["PT"]
    cases = {r["case_key"] for r in rows if r["included"]}
    assert len(cases) == 3
    assert set(shared[0]["serves"]) < cases
    assert Counter(r["status"] for r in published(tmp_path / "data", "ledger"))["used"] == 3 * 9 + 2 * 10
    report = json.loads(next((tmp_path / "data" / "versions").glob("*/report/report.json")).read_text())
    (box,) = [b for b in report["flow"]["boxes"] if b["title"] == "In the cohort"]
    assert {n: box["counts"][n] for n in ("cases", "images", "series")} == {"cases": 3, "images": 6, "series": 5}


def picture(folder: Path, modality: str) -> SimpleITK.Image:
    """A series as SimpleITK reads it: values after rescale, on its own grid."""
    files = sorted(folder.glob(f"{modality}-*.dcm"), key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2])
    first = pydicom.dcmread(files[0])
    slices = [pydicom.dcmread(f) for f in files]
    values = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.get("RescaleIntercept", 0)) for s in slices])
    image = SimpleITK.GetImageFromArray(values.astype(np.float64))
    across, down = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    image.SetDirection(np.stack([across, down, np.cross(across, down)], axis=1).ravel())
    image.SetOrigin([float(x) for x in first.ImagePositionPatient])
    gap = float(np.linalg.norm(np.subtract(slices[1].ImagePositionPatient, first.ImagePositionPatient)))
    image.SetSpacing([float(first.PixelSpacing[1]), float(first.PixelSpacing[0]), gap])
    return image


def interpolated(image: SimpleITK.Image, geometry, places) -> tuple[np.ndarray, np.ndarray]:
    """Which places lie between voxel centres of the image, and SimpleITK's linear interpolation there."""
    values, inside = [], []
    size = np.array(image.GetSize())
    for point in geometry.to_world(places):
        index = np.array(image.TransformPhysicalPointToContinuousIndex([float(x) for x in point]))
        ok = bool(((index >= 0) & (index <= size - 1)).all())
        inside.append(ok)
        values.append(image.EvaluateAtPhysicalPoint([float(x) for x in point], SimpleITK.sitkLinear) if ok else 0.0)
    return np.array(inside), np.array(values)


def check_against_simpleitk(sample, image: SimpleITK.Image, channel: int, *, tolerance: float) -> int:
    """Compare a channel with SimpleITK at 1,000 random places; return how many lie in the image."""
    random = np.random.default_rng(7)
    places = np.stack([random.integers(0, n, 1000) for n in sample.geometry.shape], axis=1)
    inside, expected = interpolated(image, sample.geometry, places)
    found = sample["image"][channel][tuple(places.T)]
    assert np.abs(found[inside] - expected[inside]).max() <= tolerance
    return int(inside.sum())


def test_channels_equal_an_independent_interpolation_and_the_mask_keeps_its_volume(archive: Path, tmp_path: Path):
    build(spec(archive), to=tmp_path / "data")
    dataset = builder.open_dataset(tmp_path / "data")
    sample = next(s for s in dataset if s["image"].shape)
    folder = archive / "P1"  # all complete persons have the same images
    assert check_against_simpleitk(sample, picture(folder, "PT"), 1, tolerance=1e-3) > 500
    # int16 is rounded when the CT is sampled, before it becomes float32
    assert check_against_simpleitk(sample, picture(folder, "CT"), 0, tolerance=0.5 + 1e-6) > 500
    row = sample.row
    before, after = (row[f"label.tumor.tumor.resample_{when}_mm3"] for when in ("before", "after"))
    assert row["label.tumor.tumor.volume_mm3"] == pytest.approx(after)
    assert after == pytest.approx(before, rel=0.08)
    beyond = sample["image"][1][0, 0, 0]
    assert beyond == 0.0  # this corner of the CT is outside the PET, whose fill is 0


def test_another_image_moves_no_patch_and_no_person_and_changes_no_voxel_of_the_reference(
    archive: Path, tmp_path: Path
):
    patches = {"kind": "patches", "shape": [6, 12, 12], "per_case": 3}
    shared = {"samples": patches, "labels": {}, "splits": SPLITS}
    build(spec(archive, cohort={"image": CT}, **shared), to=tmp_path / "one")
    optional = {"images": {"ct": {"select": CT}, "pet": {"select": PET, "required": False}}}
    build(spec(archive, cohort=optional, **shared), to=tmp_path / "two")
    one, two = (builder.open_dataset(tmp_path / name) for name in ("one", "two"))
    names = ["sample_key", "case_key", "split", "start_slice", "start_row", "start_column", "affine", "pad_voxels"]
    rows = [{r["sample_key"]: r for r in d.table.select(names).to_pylist()} for d in (one, two)]
    assert len(rows[0]) == 15
    assert rows[0] == rows[1]
    images = [{s.row["sample_key"]: s["image"] for s in d} for d in (one, two)]
    # One that is required leaves persons out. The others stay where they were.
    required = {"images": {"ct": {"select": CT}, "pet": {"select": PET}}}
    followed = {**shared, "splits": {**SPLITS, "previous": str(tmp_path / "one")}}
    build(spec(archive, cohort=required, **followed), to=tmp_path / "three")
    before, later = (
        d.table.select(["case_key", "split"]).to_pylist() for d in (one, builder.open_dataset(tmp_path / "three"))
    )
    assert len({row["case_key"] for row in later}) == 3
    assert all(row in before for row in later)
    assert all((images[0][key][0] == images[1][key][0]).all() for key in images[0])
    assert {image.shape[0] for image in images[1].values()} == {2}
    present = {r["sample_key"]: r["present.pet"] for r in two.table.to_pylist()}
    assert Counter(present.values()) == {True: 9, False: 6}
    assert all((images[1][key][1] == 0).all() for key, there in present.items() if not there)


def test_an_absent_ct_is_filled_with_air(archive: Path, tmp_path: Path):
    person_only = tmp_path / "more"
    person(person_only, "P8")
    person(person_only, "P9", series="1")
    for path in (person_only / "P9").glob("CT-*"):
        path.unlink()
    images = {"pet": {"select": PET}, "ct": {"select": CT, "required": False}}
    build(spec(person_only, cohort={"case": "study", "images": images}), to=tmp_path / "data")
    dataset = builder.open_dataset(tmp_path / "data")
    filled = [s for s in dataset if not s.row["present.ct"]]
    assert len(filled) == 1
    assert (filled[0]["image"][1] == -1024).all()


def test_intensity_steps_before_the_resampling_run_on_each_images_own_grid(archive: Path, tmp_path: Path):
    steps = [
        {"kind": "intensity", "of": ["pet"], "scale": [0, 1]},
        {"kind": "resample", "spacing_mm": SPACING},
        {"kind": "intensity", "of": ["ct"], "clip": [-200, 200], "dtype": "float32"},
    ]
    samples = {"kind": "volumes", "fields": {"image": ["pet", "ct"]}}
    build(spec(archive, transforms=steps, samples=samples), to=tmp_path / "data")
    dataset = builder.open_dataset(tmp_path / "data")
    sample = next(iter(dataset))
    assert dataset.layout("image").channel_names == ("pet", "ct")
    whole = SimpleITK.GetArrayFromImage(picture(archive / "P1", "PT"))
    scaled = (picture(archive / "P1", "PT") - float(whole.min())) / float(np.ptp(whole))
    assert check_against_simpleitk(sample, scaled, 0, tolerance=1e-6) > 500
    assert sample["image"][1].min() >= -200
    assert sample["image"][1].max() <= 200


def test_an_image_of_another_study_needs_within_days(tmp_path: Path):
    for study, date, words in (("1", "20200301", "T2"), ("2", "20200306", "ADC"), ("3", "20200223", "ADC")):
        shared: dict[str, Any] = {"study": study, "series": study, "date": date}
        mr_series(tmp_path / "in", patient_id="P1", slices=4, attributes={"SeriesDescription": words}, **shared)
    t2, adc = ({"select": f"series_description == '{words}'"} for words in ("T2", "ADC"))

    def found(**options: Any) -> dict[str, Any]:
        images = {"t2": t2, "adc": {**adc, "aligned": "assumed", **options}}
        made = spec(tmp_path / "in", cohort={"case": "study", "images": images}, labels={}, volumes={})
        rows = plan(made, to=tmp_path / "data").plan.cohort.to_pylist()
        days = {row["series_key"]: row["study_date"].day for row in rows}
        return next(row | {"day": days.get(row["adc.series_key"])} for row in rows if row["series_description"] == "T2")

    assert found()["detail"] == "image adc: found no usable series in the study that it selects, expected one"
    assert found(within_days=4)["reason"] == "image_missing"
    assert found(within_days=5)["day"] == 6
    assert {found(within_days=7, prefer=[f"{sign}study_date"])["day"] for sign in ("", "-")} == {6, 23}


def test_rules_and_strata_name_other_images(archive: Path, tmp_path: Path):
    rules = [{"name": "thick", "keep": "pet.slices >= 11"}]
    cohort = {"case": "study", "images": {"ct": {"select": CT}, "pet": {"select": PET}}, "rules": rules}
    found = plan(spec(archive, cohort=cohort), to=tmp_path / "data").plan.cohort
    reasons = Counter((r["modality"], r["rule"]) for r in found.to_pylist() if r["rule"] == "thick")
    assert reasons == {("CT", "thick"): 3}
    rules[0]["keep"] = "present.pet and pet.slices == 10"
    assert plan(spec(archive, cohort=cohort), to=tmp_path / "data").plan.cohort["included"].to_pylist().count(True) == 2


def test_a_label_of_two_images_needs_on(archive: Path, tmp_path: Path):
    ct = {"kind": "rtstruct", "roi": {"tumor": "GTV"}}
    found = plan(spec(archive, labels={"tumor": ct}), to=tmp_path / "a").plan
    # the objects name slices of the PET, and share a frame with the CT, which is weaker
    assert {p for case in found.cases for p in case.labels_on} == {("tumor", "pet")}
    (tmp_path / "copy").mkdir()
    person(tmp_path / "copy", "P1")
    made = ct_series(patient_id="P1", origin=(-16.0, -16.0, -12.0), slices=9)
    rtstruct(made, {"GTV": box_contours(made.geometry, (3, 6, 6), (7, 13, 13))}, directory=tmp_path / "copy", name="2")
    cohort = plan(spec(tmp_path / "copy", labels={"tumor": ct}), to=tmp_path / "b").plan.cohort.to_pylist()
    (detail,) = [r["detail"] for r in cohort if r["reason"] == "label_ambiguous"]
    assert detail == "label tumor: found objects for the images ct and pet, expected one: state labels.tumor.on"


def test_images_of_several_number_types_are_refused_in_the_plan(archive: Path, tmp_path: Path):
    transforms = [{"kind": "resample", "spacing_mm": SPACING}]
    with pytest.raises(SpecError, match="the number types ct int16, pet float32 on the grid of ct, expected one"):
        plan(spec(archive, transforms=transforms), to=tmp_path / "data")


def test_another_grid_is_refused_where_one_grid_is_stated(tmp_path: Path):
    folder = tmp_path / "in"
    for series, origin in (("1", (-16.0, -16.0, -12.0)), ("2", (-16.0, -16.0, -11.0))):
        ct_series(folder, series=series, origin=origin, attributes={"KVP": "80" if series == "2" else "120"})
    images = {"high": {"select": "kvp == 120"}, "low": {"select": "kvp == 80", "aligned": "grid"}}
    blocks: dict[str, Any] = {"labels": {}, "max_lost": {"cases": 1.0, "persons": 1.0}}
    cohort = {"case": "study", "images": images}
    with pytest.raises(builder.errors.OutcomeError, match="image_not_aligned"):
        build(spec(folder, cohort=cohort, **blocks), to=tmp_path / "data")
    images["low"]["aligned"] = "frame"
    build(spec(folder, cohort=cohort, **blocks), to=tmp_path / "data")
    assert len(builder.open_dataset(tmp_path / "data")) == 1


def test_an_image_that_cannot_be_read_costs_its_case_alone_and_is_named(tmp_path: Path):
    for name in ("P1", "P2"):
        person(tmp_path / "in", name)
    (path, *_) = sorted((tmp_path / "in" / "P2").glob("PT-*"))
    image = pydicom.dcmread(path)
    image.PixelData = image.PixelData[:-2]
    image.Rows, image.Columns = 20, 20
    image.save_as(path)
    blocks: dict[str, Any] = {"labels": {}, "max_lost": {"cases": 1.0, "persons": 1.0}}
    optional = {"case": "study", "images": {"ct": {"select": CT}, "pet": {"select": PET, "required": False}}}
    build(spec(tmp_path / "in", cohort=optional, **blocks), to=tmp_path / "data")
    assert builder.open_dataset(tmp_path / "data").table["present.pet"].to_pylist() == [True]
    details = [r["detail"] for r in published(tmp_path / "data", "exclusions") if r["stage"] == "shard"]
    assert [detail.partition(":")[0] for detail in details] == ["image pet"]
    ledger = published(tmp_path / "data", "ledger")
    assert Counter(r["status"] for r in ledger) == {"used": 19, "quarantined": 19, "excluded": 2}
    assert len({r["object_key"] for r in ledger}) == 40


def test_a_shared_frame_of_reference_does_not_prove_alignment(tmp_path: Path):
    for name, shift in (("P1", 0.0), ("P2", 9.0)):
        person(tmp_path / "in", name, shift=shift)
    build(spec(tmp_path / "in", labels={}), to=tmp_path / "data")
    found = [s.row["findings"] for s in builder.open_dataset(tmp_path / "data")]
    told = [[f for f in findings if "misaligned" in f] for findings in found]
    assert sorted(map(len, told)) == [0, 1]


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"cohort": {"images": {"ct": {"select": CT}}}}, "found one image, expected at least two"),
        ({"cohort": {"case": "study"}}, "case: found it without images"),
        (
            {"cohort": {"image": CT, "images": {"ct": {"select": CT}, "pet": {"select": PET}}}},
            "images: found image beside it",
        ),
        (
            {"cohort": {"images": {"ct": {"select": CT, "aligned": "grid"}, "pet": {"select": PET}}}},
            "images.ct: found aligned of the reference",
        ),
        ({"cohort": {"images": {"ct": {"select": CT}, "label": {"select": PET}}}}, "'label', which is reserved"),
        ({"samples": {"kind": "volumes", "fields": {"image": ["ct"]}}}, r"expected each of \['ct', 'pet'\] once"),
        ({"samples": {"kind": "volumes", "fields": {"other": ["ct", "pet"]}}}, "fields"),
        ({"volumes": {"of": {"mr": {"pet": "suv"}}}}, "volumes.of: found 'mr'"),
        ({"labels": {"tumor": {"kind": "rtstruct", "on": "mr", "roi": {"t": "G"}}}}, "labels.tumor.on: found 'mr'"),
        (
            {"transforms": [{"kind": "resample", "spacing_mm": SPACING}, {"kind": "resample", "spacing_mm": SPACING}]},
            "found several resample steps",
        ),
        ({"transforms": [{"kind": "crop", "mask": "tumor"}]}, "found the label 'tumor' of the image pet"),
        (
            {"transforms": [{"kind": "intensity", "zscore": "volume", "inside_mask": "organ"}],
             "labels": {"organ": {"kind": "rtstruct", "roi": {"t": "G"}}}},
            "inside_mask: found it before pet is sampled onto the grid of the mask",
        ),
    ],
)  # fmt: skip
def test_what_a_spec_of_images_may_not_say(tmp_path: Path, blocks: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        spec(tmp_path, **blocks)


@pytest.mark.parametrize("aligned", ["frame", "grid"])
def test_every_channel_may_be_scaled_by_its_values_inside_a_mask_of_the_reference(aligned: str, tmp_path: Path):
    """On the sample's grid for any image, and before for one whose affine and shape are the reference's."""
    steps = [{"kind": "resample", "spacing_mm": SPACING}, {"kind": "intensity", "zscore": "volume", "inside_mask": "t"}]
    if aligned == "grid":
        steps = steps[1:]
        first = ct_series(tmp_path / "in", slices=9, shape=(24, 24))
        rtstruct(first, {"GTV": box_contours(first.geometry, (3, 6, 6), (7, 13, 13))}, directory=tmp_path / "in")
        ct_series(tmp_path / "in", series="2", slices=9, shape=(24, 24), attributes={"SeriesNumber": 7})
        select = {"one": "series_number != 7", "other": "series_number == 7"}
    else:
        person(tmp_path / "in", "P1")
        select = {"one": PET, "other": CT}
    images = {"one": {"select": select["one"]}, "other": {"select": select["other"], "aligned": aligned}}
    labels = {"t": {"kind": "rtstruct", "on": "one", "roi": {"t": "GTV"}}}
    cohort = {"case": "study", "images": images}
    build(spec(tmp_path / "in", cohort=cohort, labels=labels, transforms=steps), to=tmp_path / "data")
    (sample,) = builder.open_dataset(tmp_path / "data")
    inside = sample["t"][0] > 0
    for channel in sample["image"]:
        assert 20 < inside.sum() < channel.size / 4
        assert channel[inside].mean() == pytest.approx(0, abs=1e-4)
        assert channel[inside].std() == pytest.approx(1, abs=1e-4)
        assert abs(channel.mean()) > 0.05


def test_sarcoma_pet_on_the_grid_of_its_ct(corpus, tmp_path: Path):
    """The recipe of docs/images.md on one person."""
    home = corpus("sts") / "sts_cohort"
    name = next(p.name for p in sorted(home.iterdir()) if (p / "CT").is_dir())
    shutil.copytree(home / name, tmp_path / "corpus" / "sts_cohort" / name)
    path = ROOT / "specs" / "soft-tissue-sarcoma-pet-ct.yaml"
    recipe = fill_parameters(load_spec(path), {"corpus": str(tmp_path / "corpus")})
    splits = recipe.splits.model_copy(update={"ratios": {"train": 1.0}})
    alone = recipe.model_copy(update={"splits": splits, "leaks": NO_COPIES})
    build(alone, to=tmp_path / "data")
    (sample,) = list(builder.open_dataset(tmp_path / "data"))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(home / name / "PET" / "image")))
    image = SimpleITK.Cast(reader.Execute(), SimpleITK.sitkFloat64)
    assert SimpleITK.GetArrayFromImage(image).max() < 25  # what the recipe clips
    assert check_against_simpleitk(sample, image, 1, tolerance=1e-3) > 500
    row = sample.row
    structure = next(n for n in row if n.startswith("label.") and n.endswith(".resample_before_mm3"))
    after = row[structure.replace("before", "after")]
    assert after == pytest.approx(row[structure], rel=0.05)


def test_prostate_channels_from_dicom(corpus, tmp_path: Path):
    """The recipe of docs/images.md on two men: ADC and high b-value on the grid of the T2."""
    recipe = fill_parameters(load_spec(ROOT / "specs" / "prostate-mpmri.yaml"), {"corpus": str(corpus("layouts"))})
    steps = [step for step in recipe.transforms if step.kind != "intensity"]
    changes = {"transforms": (*steps, Intensity(kind="intensity", dtype="float32")), "leaks": NO_COPIES}
    whole = recipe.model_copy(update=changes)
    build(whole, to=tmp_path / "data")
    dataset = builder.open_dataset(tmp_path / "data")
    assert len(dataset) == 2
    assert dataset.layout("image").channel_names == ("t2", "adc", "hbv")
    folder = corpus("layouts") / "prostatex_dicom"
    reader = SimpleITK.ImageSeriesReader()
    for sample in dataset:
        assert sample["image"].shape == (3, 16, 192, 192)
        (place,) = [p for p in folder.glob("*/*/*ADC-*") if lies_at(p, sample.row["adc.series_key"])]
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(place)))
        image = SimpleITK.Cast(reader.Execute(), SimpleITK.sitkFloat64)
        assert check_against_simpleitk(sample, image, 1, tolerance=0.51) > 500


def test_prostate_channels_from_mha_equal_those_from_dicom(corpus, tmp_path: Path):
    home = corpus("layouts")
    man = "ProstateX-0001"  # the other one has no T2 as MHA
    steps = [
        {"kind": "crop", "shape": [16, 192, 192]},
        {"kind": "resample", "spacing_mm": [3.0, 0.5, 0.5]},
        {"kind": "intensity", "dtype": "float32"},
    ]
    told = {
        "dicom": {
            "t2": {"select": "series_type == 'T2w' and plane == 'axial'"},
            "adc": {"select": "series_type == 'ADC'"},
            "hbv": {"select": "series_type == 'DWI' and b_value >= 800", "prefer": ["-b_value"]},
        },
        "mha": {
            "t2": {"select": "image == 't2w'"},
            "adc": {"select": "image == 'adc'", "aligned": "assumed"},
            "hbv": {"select": "image == 'hbv'", "aligned": "assumed"},
        },
    }
    layout = {"pattern": "{patient}/{patient}_{visit:[0-9-]+}_{image}.mha", "modality": "MR"}
    sources = {
        "dicom": {"kind": "folder", "url": str(home / "prostatex_dicom" / man)},
        "mha": {"kind": "folder", "url": str(tmp_path / "mha"), "layout": layout},
    }
    shutil.copytree(home / "picai_mha" / "images" / man, tmp_path / "mha" / man)
    samples = {}
    for form, images in told.items():
        cohort = {"case": "study", "images": images}
        blocks: dict[str, Any] = {"sources": [sources[form]], "labels": {}, "volumes": {}, "transforms": steps}
        build(spec(tmp_path, cohort=cohort, **blocks), to=tmp_path / f"{form}-data")
        (samples[form],) = list(builder.open_dataset(tmp_path / f"{form}-data"))
    assert samples["dicom"]["image"].shape == (3, 16, 192, 192)
    assert np.array_equal(samples["dicom"]["image"], samples["mha"]["image"])
    assert samples["dicom"].geometry.same_grid(samples["mha"].geometry)


def lies_at(folder: Path, series_key: str) -> bool:
    """Whether a folder holds the series of a keyed name."""
    first = pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True)
    return Key(KEY.encode()).name("series", str(first.SeriesInstanceUID)) == series_key


def test_an_image_of_one_case_that_is_another_image_elsewhere_is_a_leak(tmp_path: Path):
    person(tmp_path / "in", "P1")
    person(tmp_path / "in", "P2", shift=5.0)
    for mine, other in zip(*(sorted((tmp_path / "in" / n).glob("PT-*")) for n in ("P1", "P2")), strict=True):
        one, two = pydicom.dcmread(mine), pydicom.dcmread(other)
        two.PixelData = one.PixelData
        two.save_as(other)
    blocks: dict[str, Any] = {"labels": {}, "leaks": {"pixels": "exact", "on_match": "stop"}}
    with pytest.raises(builder.errors.LayoutError, match="volumes of different persons that show one image"):
        build(spec(tmp_path / "in", **blocks), to=tmp_path / "data")


def test_a_channel_of_one_case_that_is_another_channel_elsewhere_is_found(tmp_path: Path):
    """P2's images of one name are copies of P1's images of another name."""
    folder = tmp_path / "in"
    for name, t2, adc in (("P1", 1, 2), ("P2", 3, 1)):
        for series, seed in (("1", t2), ("2", adc)):
            voxels = np.random.default_rng(seed).integers(0, 900, (8, 24, 24)).astype(float)
            words = {"SeriesDescription": "T2" if series == "1" else "ADC"}
            mr_series(folder / name, patient_id=name, series=series, shape=(24, 24), voxels=voxels, attributes=words)
    images = {"t2": {"select": "series_description == 'T2'"}, "adc": {"select": "series_description == 'ADC'"}}
    blocks: dict[str, Any] = {"labels": {}, "volumes": {}, "cohort": {"case": "study", "images": images}}
    leaks = {"pixels": "exact", "on_match": "stop"}
    with pytest.raises(builder.errors.LayoutError, match="volumes of different persons that show one image"):
        build(spec(folder, **blocks, leaks=leaks), to=tmp_path / "data")


def test_an_export_refuses_channels_that_are_only_filled(archive: Path, tmp_path: Path):
    optional = {"images": {"ct": {"select": CT}, "pet": {"select": PET, "required": False}}}
    build(spec(archive, cohort=optional, labels={}), to=tmp_path / "data")
    dataset = builder.open_dataset(tmp_path / "data")
    for name in export.__all__:
        function: Any = getattr(export, name)
        asked = {"label": "image", "number": 1}
        options = {n: v for n, v in asked.items() if n in inspect.signature(function).parameters}
        with pytest.raises(SpecError, match="2 of 5 samples without the image pet"):
            function(dataset, tmp_path / name, **options)
    assert export_webdataset(dataset, tmp_path / "told", missing="fill")
    assert export_webdataset(dataset.where("present.pet"), tmp_path / "chosen")


def test_sets_of_two_readers_are_fused_sequestered_and_broken_down_by_the_vendor_of_every_image(tmp_path: Path):
    folder = tmp_path / "in"
    for name in ("P1", "P2"):
        person(folder, name)
        made = pt_series(
            patient_id=name, series="2", origin=(-18.0, -18.0, -15.0), slices=10, shape=(20, 20),
            spacing=(3.0, 2.0, 2.0), orientation=OBLIQUE, slope=1.0,
        )  # fmt: skip
        rtstruct(
            made, {"GTV2": box_contours(made.geometry, (3, 6, 7), (7, 13, 14))}, directory=folder / name, name="two"
        )
    reader = {"kind": "rtstruct", "on": "pet", "several": "join"}
    labels = {name: {**reader, "roi": {"tumor": f"^{roi}$"}} for name, roi in (("one", "GTV"), ("two", "GTV2"))}
    splits = {"ratios": {"train": 0.5, "test": 0.5}, "sequester": {"url": str(tmp_path / "sealed")}}
    consensus = {"tumor": {"of": ["one", "two"], "method": "majority", "readers": "drop"}}
    build(spec(folder, labels=labels, consensus=consensus, splits=splits), to=tmp_path / "open")
    seen, sealed = builder.open_dataset(tmp_path / "open"), builder.open_dataset(tmp_path / "sealed")
    assert seen.channels() == sealed.channels() == ("ct", "pet")
    for here, there in zip(seen, sealed, strict=True):
        assert (here["image"] == there["image"]).all()
        assert there["tumor"].any()
        assert here["tumor"].any() == (here.row["split"] == "train")
    report = json.loads(next((tmp_path / "sealed" / "versions").glob("*/report/report.json")).read_text())
    assert "pet.vendor" in json.dumps(report)
    book = Book(report)
    protocols(book, *(pd.read_parquet(next((tmp_path / "sealed" / "versions").glob(f"*/{n}.parquet"))) for n in TABLES))
    assert not [path for path in book.complaints() if path.startswith("/protocols")]
    told = {entry["image"]: [fact["column"] for fact in entry["facts"]] for entry in report["protocols"]}
    assert told == {"ct": ["kvp", "slice_thickness_mm", "convolution_kernel"], "pet": ["slice_thickness_mm"]}
    page = next((tmp_path / "sealed" / "versions").glob("*/report/index.html")).read_text()
    assert "How each image was acquired" in page


def test_nnunet_gets_a_file_and_a_name_for_each_channel(archive: Path, tmp_path: Path):
    tumor = {"kind": "rtstruct", "on": "pet", "layout": "map", "roi": {"tumor": "GTV"}}
    build(spec(archive, labels={"tumor": tumor}), to=tmp_path / "data")
    target = export_nnunet(builder.open_dataset(tmp_path / "data"), tmp_path / "out", label="tumor", number=7)
    about = json.loads((target / "dataset.json").read_text())
    assert about["channel_names"] == {"0": "CT", "1": "pet"}
    files = sorted(p.name[-12:] for p in (target / "imagesTr").iterdir())
    assert files == ["_0000.nii.gz"] * 2 + ["_0001.nii.gz"] * 2


def test_the_memory_of_a_set_is_projected_within_a_quarter(tmp_path: Path):
    ct_series(tmp_path / "in", slices=24, shape=(256, 256))
    pt_series(tmp_path / "in", series="2", slices=24, shape=(128, 128), spacing=(3.0, 2.0, 2.0))
    planned = plan(spec(tmp_path / "in", labels={}), to=tmp_path / "data").plan
    store = open_store(planned.url)
    read, shard = DatasetSpec.model_validate_json(store.read(SPEC)), load_plan(store, planned.shards[0].fingerprint)
    write(shard, read, open_store(tmp_path / "first"), key=Key(KEY.encode()))  # compiles, imports
    tracemalloc.start()
    write(shard, read, open_store(tmp_path / "second"), key=Key(KEY.encode()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.75 <= shard.cases[0].peak_bytes / peak <= 1.25
