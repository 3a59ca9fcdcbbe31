"""What the plan says of memory, beside what tracemalloc counts while the case is built."""

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from builder.deid import resolve_key
from builder.planning.memory import BESIDES
from builder.run.pipeline import plan
from builder.spec import DatasetSpec
from builder.stages.shard import SPEC, load_plan, write
from builder.storage import open_store
from tests.endtoend.trees import KEY
from tests.synthetic import box_contours, ct_series, rtstruct

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
    base = {
        "name": "memory",
        "license": "CC0-1.0",
        "sources": [{"kind": "folder", "url": str(archive), "site": "here"}],
        "deid": {"patient_key": "${env:BUILDER_KEY}"},
        "samples": {"kind": "volumes"},
    }
    planned = plan(DatasetSpec.model_validate({**base, **WAYS[way]}), to=tmp_path / "data").plan
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
    assert peak * 0.75 <= case.peak_bytes <= peak * 1.25 + BESIDES
    voxels_in, voxels_out = 24 * 512 * 512, 48 * 512 * 512
    assert peak <= 3 * 2 * (voxels_in + voxels_out)
