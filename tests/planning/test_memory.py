"""What the plan says of memory, beside what tracemalloc counts while the case is built."""

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from builder.deid import resolve_key
from builder.planning.memory import BESIDES
from builder.run.pipeline import plan
from builder.spec import DatasetSpec
from builder.stages.planned import SPEC, load_plan
from builder.stages.shard import write
from builder.storage import open_store
from tests.endtoend.trees import KEY
from tests.synthetic import box_contours, ct_series, mr_series, rtstruct

LINEAR = {"kind": "resample", "spacing_mm": [1.5, 1.0, 1.0], "image": "linear"}
WAYS: dict[str, dict[str, Any]] = {
    "linear": {"transforms": [LINEAR]},
    "cubic": {"transforms": [{**LINEAR, "image": "cubic"}]},
    "turned": {"transforms": [{"kind": "orient", "to": "RAS"}, LINEAR]},
    "scaled": {"transforms": [LINEAR, {"kind": "intensity", "clip": [-1000, 1000], "scale": [0, 1]}]},
    "patches": {"transforms": [LINEAR], "samples": {"kind": "grid", "shape": [48, 64, 64]}},
    "labelled": {"transforms": [LINEAR], "labels": {"tumor": {"kind": "rtstruct", "roi": {"tumor": "GTV"}}}},
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CT series of 12.6 MB with a structure set."""
    folder = tmp_path_factory.mktemp("archive")
    made = ct_series(folder, slices=24, shape=(512, 512), spacing=(3.0, 1.0, 1.0), padding=0)
    rtstruct(made, {"GTV": box_contours(made.geometry, (4, 100, 100), (8, 130, 130))}, directory=folder)
    return folder


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_projected_within_a_quarter_and_at_most_three_times_input_and_output(
    archive: Path, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    peak, projected = measured(archive, tmp_path, WAYS[way])
    assert peak * 0.75 <= projected <= peak * 1.25 + BESIDES
    voxels_in, voxels_out = 24 * 512 * 512, 48 * 512 * 512
    assert peak <= 3 * 2 * (voxels_in + voxels_out)


IMAGES = {name: {"select": f"series_description == '{name}'"} for name in ("t1", "t1c", "t2", "flair")}
SETS: dict[str, dict[str, Any]] = {
    "in slabs": {"transforms": [{**LINEAR, "spacing_mm": [1.5, 0.7, 0.7]}]},
    "joined": {"transforms": [LINEAR, {"kind": "intensity", "zscore": "volume"}]},
}


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four MR series of 1.8 MB each on one grid."""
    folder = tmp_path_factory.mktemp("four")
    for number, name in enumerate(IMAGES, start=1):
        mr_series(folder, series=str(number), slices=24, shape=(192, 192), attributes={"SeriesDescription": name})
    return folder


@pytest.mark.parametrize("way", SETS)
def test_a_set_of_four_is_projected_within_a_quarter(
    four: Path, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    alike = {name: image if name == "t1" else {**image, "aligned": "grid"} for name, image in IMAGES.items()}
    change = {**SETS[way], "cohort": {"case": "study", "images": alike}, "leaks": {"pixels": "off"}}
    peak, projected = measured(four, tmp_path, change)
    assert peak * 0.75 <= projected <= peak * 1.25
    if way == "in slabs":  # the four series, slabs and what is compared, where the channels have 29 MB
        assert peak < 16e6


def measured(archive: Path, tmp_path: Path, change: dict[str, Any]) -> tuple[int, int]:
    """The peak of the allocations of the only case of an archive, and what the plan says of it."""
    base = {
        "name": "memory",
        "license": "CC0-1.0",
        "sources": [{"kind": "folder", "url": str(archive), "site": "here"}],
        "deid": {"patient_key": "${env:BUILDER_KEY}"},
        "samples": {"kind": "volumes"},
    }
    planned = plan(DatasetSpec.model_validate({**base, **change}), to=tmp_path / "data").plan
    store = open_store(planned.url)
    spec = DatasetSpec.model_validate_json(store.read(SPEC))
    whole = load_plan(store, planned.shards[0].fingerprint)
    (case,) = whole.cases
    key = resolve_key(spec.deid.patient_key, {"BUILDER_KEY": KEY}, read=lambda path: Path(path).read_bytes())
    write(whole, spec, open_store(tmp_path / "first"), key=key)  # compiles, imports
    tracemalloc.start()
    receipt = write(whole, spec, open_store(tmp_path / "second"), key=key)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert receipt.rows
    return peak, case.peak_bytes
