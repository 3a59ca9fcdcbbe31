"""Multi-frame objects that hold several stacks, from archive to reader: each stack is a case, judged frame by frame."""

import copy
import shutil
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

import builder
from builder.run.pipeline import build
from tests import synthetic
from tests.endtoend.trees import KEY, tree

SPEC = """
name: frames
license: CC0-1.0
sources: [{kind: folder, url: "${tree}"}]
deid: {patient_key: "${env:BUILDER_KEY}"}
samples: {kind: volumes, chunk: [16, 64, 64]}
"""
FLOAT32 = 2**-14
"""Spacing of float32 values between 512 and 1024, which rescaled values of the corpus do not exceed."""
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
GRID: dict[str, Any] = {"shape": (24, 24), "spacing": (2.0, 2.0, 2.0)}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)


def built(folder: Path, to: Path, blocks: str = "") -> list[Any]:
    """The samples of a folder as a dataset, by the number of their stack."""
    spec = to.with_suffix(".yaml")
    spec.write_text(SPEC + blocks)
    build(spec, to=to, parameters={"tree": str(folder)})
    return sorted(builder.open_dataset(to), key=lambda sample: (sample.row["series_key"], sample.row["stack"]))


def table(to: Path, name: str) -> list[dict[str, Any]]:
    """A published table."""
    (found,) = to.rglob(f"{name}.parquet")
    return pq.read_table(found).to_pylist()


def by_hand(dataset: Dataset, frames: Sequence[int]) -> NDArray[np.float64]:
    """Rescaled frames of an object as pydicom reads them, sorted along their own normal."""

    def item(frame: int, group: str) -> Dataset:
        own = dataset.PerFrameFunctionalGroupsSequence[frame]
        return (own if group in own else dataset.SharedFunctionalGroupsSequence[0])[group][0]

    def along(frame: int) -> float:
        cosines = np.array(item(frame, "PlaneOrientationSequence").ImageOrientationPatient, float)
        position = np.array(item(frame, "PlanePositionSequence").ImagePositionPatient, float)
        return float(np.cross(cosines[:3], cosines[3:]) @ position)

    planes = []
    for frame in sorted(frames, key=along):
        scale = item(frame, "PixelValueTransformationSequence")
        planes.append(dataset.pixel_array[frame] * float(scale.RescaleSlope) + float(scale.RescaleIntercept))
    return np.stack(planes)


def converted(images: Sequence[Dataset], name: str) -> Dataset:
    """A legacy converted enhanced MR object by highdicom, all in one series."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: Dataset = highdicom.legacy.LegacyConvertedEnhancedMRImage(
            list(images), synthetic.uid("converted"), 7, synthetic.uid("converted", name), 1
        )
    return made


def planes(**options: Any) -> list[Dataset]:
    return list(synthetic.mr_series(**GRID, **options).images)


def oriented(dataset: Dataset, cosines: Sequence[float]) -> list[int]:
    """Frames of an object with these direction cosines."""
    groups = dataset.PerFrameFunctionalGroupsSequence
    shared = dataset.SharedFunctionalGroupsSequence[0]
    found = []
    for frame, own in enumerate(groups):
        held = own if "PlaneOrientationSequence" in own else shared
        if np.allclose(held.PlaneOrientationSequence[0].ImageOrientationPatient, cosines):
            found.append(frame)
    return found


def merged(axial: Sequence[Dataset], coronal: Sequence[Dataset]) -> list[Dataset]:
    """Both as instances of one series."""
    joined = [copy.deepcopy(image) for image in (*axial, *coronal)]
    for number, image in enumerate(joined, start=1):
        image.SeriesInstanceUID, image.InstanceNumber = joined[0].SeriesInstanceUID, number
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = synthetic.uid("merged", number)
    return joined


def test_magnitude_and_field_map_of_one_object_are_a_case_each(corpus: Any, tmp_path: Path) -> None:
    shutil.copytree(corpus("geometry") / "enhanced_mr" / "Philips", tmp_path / "in")
    (dataset,) = (pydicom.dcmread(path) for path in (tmp_path / "in").rglob("*.dcm"))
    kinds: dict[str, list[int]] = {}
    for frame, own in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        kinds.setdefault(own.MRImageFrameTypeSequence[0].ComplexImageComponent, []).append(frame)
    assert sorted(map(len, kinds.values())) == [32, 32]
    samples = built(tmp_path / "in", tmp_path / "out")
    assert [sample.row["stack"] for sample in samples] == [0, 1]
    for sample, frames in zip(samples, kinds.values(), strict=True):
        np.testing.assert_allclose(sample["image"][0], by_hand(dataset, frames), rtol=1e-6, atol=FLOAT32)
    assert [row["split_rule"] for row in table(tmp_path / "out", "cohort")] == ["image_type", "image_type"]
    assert Counter(row["status"] for row in table(tmp_path / "out", "ledger")) == {"used": 1}
    # joined as channels it stays one case
    (both,) = built(tmp_path / "in", tmp_path / "joined", "volumes: {join: [component, echo_time]}")
    assert both["image"].shape[0] == 2


def two_objects() -> tuple[Dataset, Dataset]:
    """Axial planes shared by two objects, of which the first holds coronal ones too."""
    axial, coronal = planes(slices=8), planes(slices=6, orientation=CORONAL)
    images = merged(axial, coronal)
    return converted([*images[:3], *images[8:]], "first"), converted(images[3:8], "second")


def test_stacks_that_share_objects_take_their_own_frames_of_each(tmp_path: Path) -> None:
    first, second = two_objects()
    coronal = by_hand(first, oriented(first, CORONAL))
    lower, upper = by_hand(first, oriented(first, synthetic.AXIAL)), by_hand(second, range(5))
    synthetic.write_all([first, second], tmp_path / "in")
    samples = built(tmp_path / "in", tmp_path / "out")
    assert [sample.row["stack"] for sample in samples] == [0, 1]
    np.testing.assert_array_equal(samples[0]["image"][0], np.concatenate([lower, upper]))
    np.testing.assert_array_equal(samples[1]["image"][0], coronal)
    assert [row["instances"] for row in table(tmp_path / "out", "cohort")] == [2, 1]
    ledger = table(tmp_path / "out", "ledger")
    assert [(row["status"], row["stage"]) for row in ledger] == [("used", None)] * 2
    assert table(tmp_path / "out", "exclusions") == []


def test_an_object_counts_once_where_one_of_its_stacks_is_excluded(tmp_path: Path) -> None:
    first, second = two_objects()
    synthetic.write_all([first, second], tmp_path / "in")
    rule = "cohort: {rules: [{name: coronal, keep: slices == 6}]}"
    (sample,) = built(tmp_path / "in", tmp_path / "out", rule)
    np.testing.assert_array_equal(sample["image"][0], by_hand(first, oriented(first, CORONAL)))
    # the second object has axial planes only, the first is used for its coronal ones
    ledger = Counter((row["status"], row["reason"]) for row in table(tmp_path / "out", "ledger"))
    assert ledger == {("used", None): 1, ("excluded", "cohort_rule"): 1}
    (gone,) = table(tmp_path / "out", "exclusions")
    assert (gone["rule"], gone["instances"]) == ("coronal", 1)


def test_other_cases_keep_their_shards(tmp_path: Path) -> None:
    other = converted(planes(slices=5, patient_id="P2"), "third")
    synthetic.write_all([other], tmp_path / "in", prefix="other")
    built(tmp_path / "in", tmp_path / "alone")
    synthetic.write_all(two_objects(), tmp_path / "in")
    assert len(built(tmp_path / "in", tmp_path / "out", "shards: {cases: 1}")) == 3
    alone, beside = (tree(tmp_path / name / "data") for name in ("alone", "out"))
    assert alone
    assert alone.items() <= beside.items()


def test_a_segmentation_is_placed_in_each_stack_by_its_place_in_space(tmp_path: Path) -> None:
    axial = synthetic.mr_series(slices=8, **GRID)
    coronal = synthetic.mr_series(slices=6, orientation=CORONAL, origin=(-16.0, -16.0, 4.0), **GRID)
    whole = converted(merged(axial.images, coronal.images), "whole")
    mask = np.zeros(coronal.voxels.shape, np.uint8)
    mask[1:5, 2:9, 4:20] = 1
    seg = synthetic.seg(coronal, {"tumor": mask})
    seg.ReferencedSeriesSequence[0].SeriesInstanceUID = whole.SeriesInstanceUID
    synthetic.write_all([whole, seg], tmp_path / "in")
    label = "labels: {tumor: {kind: seg, segments: {tumor: (?i)tumor}}}"
    on_axial, on_coronal = built(tmp_path / "in", tmp_path / "out", label)
    np.testing.assert_array_equal(on_coronal["tumor"].squeeze(), mask)
    # every centre of an axial voxel is one of a coronal voxel, or lies outside of the coronal planes
    centres = axial.geometry.to_world(np.argwhere(np.ones(axial.voxels.shape)).astype(float))
    places = np.rint(coronal.geometry.to_voxel(centres)).astype(int)
    inside = ((places >= 0) & (places < mask.shape)).all(axis=1)
    expected = np.where(inside, mask[tuple(np.where(inside[:, None], places, 0).T)], 0)
    assert expected.any()
    np.testing.assert_array_equal(on_axial["tumor"].squeeze(), expected.reshape(axial.voxels.shape))


def test_time_points_of_an_object_are_split_as_those_of_slices(corpus: Any, tmp_path: Path) -> None:
    shutil.copytree(corpus("geometry") / "enhanced_mr" / "Siemens", tmp_path / "in")
    samples = built(tmp_path / "in", tmp_path / "split", "volumes: {time_series: split}")
    kept = built(tmp_path / "in", tmp_path / "kept", "volumes: {time_series: keep}")
    by_series: dict[str, list[Any]] = {}
    for sample in samples:
        by_series.setdefault(sample.row["series_key"], []).append(sample["image"][0])
    assert len(kept) == len(by_series) > 0
    for sample in kept:
        np.testing.assert_array_equal(sample["image"], np.stack(by_series[sample.row["series_key"]]))
    files = sum(path.is_file() for path in (tmp_path / "in").rglob("*"))
    assert Counter(row["status"] for row in table(tmp_path / "split", "ledger")) == {"used": files}


def test_an_object_of_one_stack_stays_as_it_is(corpus: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = shutil.copy(corpus("odd") / "dcmjs_misc" / "cine-test.dcm", tmp_path / "in")
    (sample,) = built(tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(sample["image"][0], by_hand(pydicom.dcmread(path), range(8)))
    assert [(row["verdict"], row["split_rule"]) for row in table(tmp_path / "out", "cohort")] == [("multiframe", "")]


def test_an_object_whose_frames_are_not_told_is_excluded_alone(tmp_path: Path) -> None:
    first, second = two_objects()
    second.SeriesInstanceUID = synthetic.uid("another series")
    del second.PerFrameFunctionalGroupsSequence[-1]
    synthetic.write_all([first, second], tmp_path / "in")
    assert len(built(tmp_path / "in", tmp_path / "out")) == 2
    (gone,) = table(tmp_path / "out", "exclusions")
    assert (gone["stage"], gone["reason"], gone["instances"]) == ("shard", "inconsistent_pixels", 1)
