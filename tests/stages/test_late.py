"""Images that are resampled while they are written, beside the same builds that resample first."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder.deid import resolve_key
from builder.run.pipeline import plan
from builder.spec import DatasetSpec
from builder.stages import loading
from builder.stages.late import late_images, late_resample
from builder.stages.planned import SPEC, load_plan
from builder.stages.shard import write
from builder.storage import open_store
from builder.transforms import Resample
from tests.endtoend.trees import KEY
from tests.synthetic import box_contours, ct_series, rtstruct

LINEAR: dict[str, Any] = {"kind": "resample", "spacing_mm": [1.0, 1.5, 0.8], "image": "linear"}
CHANGES: dict[str, dict[str, Any]] = {
    "linear": {},
    "nearest": {"transforms": [{**LINEAR, "image": "nearest"}]},
    "turned first": {"transforms": [{"kind": "orient", "to": "RAS"}, LINEAR]},
    "patient axes": {"transforms": [{**LINEAR, "axes": "patient"}]},
    "chunks of 7 slices": {"samples": {"kind": "volumes", "chunk": [7, 16, 16]}},
    "two threads": {"transforms": [{**LINEAR, "threads": 2}]},
}


def spec_of(archive: Path, change: dict[str, Any]) -> DatasetSpec:
    base = {
        "name": "late",
        "license": "CC0-1.0",
        "sources": [{"kind": "folder", "url": str(archive), "site": "here"}],
        "deid": {"patient_key": "${env:BUILDER_KEY}"},
        "volumes": {"sheared": "resample"},
        "labels": {"tumor": {"kind": "rtstruct", "roi": {"tumor": "GTV"}}},
        "cohort": {"labels": "optional"},
        "transforms": [LINEAR],
        "samples": {"kind": "volumes"},
    }
    return DatasetSpec.model_validate({**base, **change})


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled series with padding, a tilted one, one of thick slices and another matrix, and one without a grid."""
    folder = tmp_path_factory.mktemp("archive")
    first = ct_series(folder / "a", slices=11, shape=(40, 36), padding=0, patient_id="A")
    rtstruct(first, {"GTV": box_contours(first.geometry, (3, 8, 8), (7, 20, 20))}, directory=folder / "a")
    ct_series(folder / "b", slices=9, shape=(24, 30), tilt_degrees=12.0, patient_id="B")
    ct_series(folder / "c", slices=5, shape=(50, 21), spacing=(5.0, 0.7, 0.9), patient_id="C")
    ct_series(folder / "d", slices=1, shape=(20, 20), patient_id="D")
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("change", CHANGES)
def test_every_byte_is_that_of_resampling_first(
    archive: Path, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    planned = plan(spec_of(archive, CHANGES[change]), to=tmp_path / "data").plan
    store = open_store(planned.url)
    spec = DatasetSpec.model_validate_json(store.read(SPEC))
    assert late_resample(spec.transforms, spec.samples, spec.shards.fields.get("image")) == spec.transforms[-1]
    key = resolve_key(spec.deid.patient_key, {"BUILDER_KEY": KEY}, read=lambda path: Path(path).read_bytes())
    rows, in_slabs = 0, []
    made = Resample.in_slabs
    monkeypatch.setattr(Resample, "in_slabs", lambda *a: in_slabs.append(made(*a)) or in_slabs[-1])
    for summary in planned.shards:
        whole = load_plan(store, summary.fingerprint)
        late = write(whole, spec, open_store(tmp_path / "late"), key=key)
        with monkeypatch.context() as first:
            first.setattr(loading, "late_resample", lambda *_: None)
            assert write(whole, spec, open_store(tmp_path / "first"), key=key) == late
        rows += late.rows
    assert rows >= 3
    assert sum(found is not None for found in in_slabs) >= 2


@pytest.mark.parametrize(
    "change",
    [
        {"transforms": []},
        {"transforms": [{**LINEAR, "image": "cubic"}]},
        {"transforms": [{**LINEAR, "antialias": "lowpass"}]},
        {"transforms": [LINEAR, {"kind": "intensity", "clip": [-1000, 1000]}]},
        {"samples": {"kind": "grid", "shape": [8, 8, 8]}},
        {"shards": {"fields": {"image": {"dtype": "int16"}}}},
    ],
    ids=["none", "cubic", "filtered", "not the last", "patches", "stored as another type"],
)
def test_what_is_resampled_first(change: dict[str, Any]) -> None:
    spec = spec_of(Path("/nowhere"), change)
    assert late_resample(spec.transforms, spec.samples, spec.shards.fields.get("image")) is None


ALIKE = {"select": "series_description == 'late'", "aligned": "grid"}
SETS: dict[str, dict[str, Any]] = {
    "another order, scaled first, two threads": {
        "transforms": [{"kind": "intensity", "zscore": "volume"}, {**LINEAR, "threads": 2}],
        "samples": {"kind": "volumes", "fields": {"image": ["apart", "late", "ct", "none"]}},
    },
    "turned first": {"transforms": [{"kind": "orient", "to": "RAS"}, LINEAR]},
}


def set_of(archive: Path, change: dict[str, Any]) -> DatasetSpec:
    """Of four images, one is on the grid of the reference, one on a grid of its own, and one is absent."""
    images = {
        "ct": {"select": "series_description == 'first'"},
        "late": ALIKE,
        "apart": {"select": "series_description == 'apart'"},
        "none": {"select": "modality == 'PT'", "required": False},
    }
    labels = {"tumor": {"kind": "rtstruct", "on": "ct", "roi": {"tumor": "GTV"}}}
    return spec_of(archive, {"cohort": {"case": "study", "images": images}, "labels": labels, **change})


def late_of(spec: DatasetSpec) -> frozenset[str]:
    """The images of a set that are made while they are written."""
    last = late_resample(spec.transforms, spec.samples, spec.shards.fields.get("image"))
    return frozenset() if last is None else late_images(spec.cohort, spec.transforms)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    random = np.random.default_rng(5)
    voxels = [random.integers(-500, 500, (9, 24, 30)) for _ in range(2)]
    words = [{"SeriesDescription": name} for name in ("first", "late", "apart")]
    first = ct_series(folder, slices=9, shape=(24, 30), voxels=voxels[0], padding=0, attributes=words[0])
    rtstruct(first, {"GTV": box_contours(first.geometry, (3, 8, 8), (7, 20, 20))}, directory=folder)
    ct_series(folder, series="2", slices=9, shape=(24, 30), voxels=voxels[1], attributes=words[1])
    ct_series(folder, series="3", slices=8, shape=(20, 20), origin=(-5.0, -7.0, 2.0), attributes=words[2])
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("change", SETS)
def test_every_byte_of_a_set_is_that_of_joining_first(
    sets: Path, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    planned = plan(set_of(sets, SETS[change]), to=tmp_path / "data").plan
    store = open_store(planned.url)
    spec = DatasetSpec.model_validate_json(store.read(SPEC))
    late = {"ct", "late"} if "turned" not in change else {"ct"}
    assert late_of(spec) == late
    key = resolve_key(spec.deid.patient_key, {"BUILDER_KEY": KEY}, read=lambda path: Path(path).read_bytes())
    whole = load_plan(store, planned.shards[0].fingerprint)
    in_slabs = []
    made = Resample.in_slabs
    monkeypatch.setattr(Resample, "in_slabs", lambda *a: in_slabs.append(made(*a)) or in_slabs[-1])
    written = write(whole, spec, open_store(tmp_path / "late"), key=key)
    assert [found is not None for found in in_slabs] == [True] * len(late)
    with monkeypatch.context() as first:
        first.setattr(loading, "late_images", lambda *_: frozenset())
        assert write(whole, spec, open_store(tmp_path / "first"), key=key) == written
    assert written.rows == 1
    (image,) = (field for field in written.fields if field.name == "image")
    assert image.channels == 4


@pytest.mark.parametrize(
    "change",
    [
        {"transforms": [LINEAR, {"kind": "intensity", "zscore": "volume"}]},
        {"cohort": {"case": "study", "images": {
            "ct": {"select": "modality == 'CT'"},
            "mr": {"select": "modality == 'MR'", "aligned": "registration", "registrar": {"kind": "rigid"}},
        }}, "labels": {}},
        {"cohort": {"case": "study", "images": {
            "ct": {"select": "modality == 'CT'"}, "mr": {"select": "modality == 'MR'", "aligned": "none"},
        }}, "labels": {}},
    ],
    ids=["not the last", "a registrar looks at the reference", "two grids"],
)  # fmt: skip
def test_which_sets_are_joined_first(change: dict[str, Any]) -> None:
    assert late_of(set_of(Path("/nowhere"), change)) == frozenset()
