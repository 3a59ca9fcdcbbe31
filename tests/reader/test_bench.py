"""The reading benchmark prints figures that fit together."""

import json
from typing import Any

import pytest

from builder.reader.bench import measure_reading


def test_figures_fit_together(patches: Any, volumes: Any) -> None:
    found = list(measure_reading(patches.root, batch_size=4, threads=(0, 2), seconds=0.2))
    assert [one.name for one in found] == [
        "first pass",
        "0 threads, checksums",
        "0 threads, no checksums",
        "2 threads, checksums",
        "2 threads, no checksums",
    ]
    bytes_a_sample = 6 * 7 * 8 * (2 + 1)
    for one in found:
        assert one.samples_per_s > 0
        assert one.megabytes_per_s == pytest.approx(one.samples_per_s * bytes_a_sample / 1e6)
        assert 0 < one.median_ms <= one.slowest_percent_ms
        assert json.loads(json.dumps(one.to_dict()))["name"] == one.name
    assert list(measure_reading(volumes.root, batch_size=2, threads=(1,), crop=(3, 3, 3), seconds=0.1))
