"""What is measured of each case is what pydicom and numpy find in its files, and what a build publishes."""

import os

import numpy as np
import pydicom
import pytest

from builder.phantom import write_archive
from builder.run.measuring import measure
from builder.run.pipeline import build, plan
from builder.run.progress import SilentProgress
from builder.specfile import parse_spec
from tests.endtoend.trees import KEY, ROOT
from tests.federation.conftest import federated_spec, published

if not os.environ.get("BUILDER_FEDERATION"):
    pytest.skip("make federation reads and builds an archive", allow_module_level=True)

TEXT = federated_spec((ROOT / "specs" / "phantom.yaml").read_text()).replace(
    "{train: 0.6, validation: 0.2, test: 0.2}", "{train: 1}"
)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    write_archive(tmp_path / "phantom", patients=3, seed=20251121)
    return {"archive": str(tmp_path / "phantom" / "archive"), "tables": str(tmp_path / "phantom")}


def test_limits_and_sizes_are_those_of_the_images(archive, tmp_path):
    step = "- {kind: intensity, clip_percent: [0.5, 99.5]}\n  - {kind: orient, to: LPS}"
    spec = parse_spec(TEXT.replace("- {kind: orient, to: LPS}", step).encode(), name="spec")
    planned = plan(spec, to=tmp_path / "dataset", parameters=archive)
    own = planned.plan
    to = str(tmp_path / "dataset")
    found = measure(own.url, own.shards, to, cluster="serial", progress=SilentProgress()).to_pylist()
    assert not (tmp_path / "dataset").exists()  # nothing is built
    cohort = planned.plan.cohort.filter(planned.plan.cohort["included"])
    series = dict(zip(cohort["case_key"].to_pylist(), cohort["series_uid"].to_pylist(), strict=True))
    images: dict[str, list[np.ndarray]] = {uid: [] for uid in series.values()}
    for path in (p for p in (tmp_path / "phantom" / "archive").rglob("*") if p.is_file()):
        held = pydicom.dcmread(path, force=True)
        if held.get("SeriesInstanceUID") in images and "PixelData" in held:
            inside = held.pixel_array[held.pixel_array != held.get("PixelPaddingValue", -32_768)]
            images[held.SeriesInstanceUID].append(inside * held.RescaleSlope + held.RescaleIntercept)
    assert len(found) == len(series) > 0
    for row in found:
        values = np.concatenate(images[series[row["case_key"]]])
        limits = np.percentile(values, (0.5, 99.5), method="inverted_cdf")
        assert (row["unit"], row["clip_low"], row["clip_high"]) == ("HU", *limits)
    build(spec, to=tmp_path / "dataset", parameters=archive)
    index = published(tmp_path / "dataset", "index.parquet")
    name = "label.tumor.tumor.volume_mm3"
    assert {row["case_key"]: row[name] for row in found} == dict(
        zip(index["case_key"].to_pylist(), index[name].to_pylist(), strict=True)
    )
