"""The reading benchmark prints figures that fit together, and compares them with those it kept."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from builder.cli import app
from builder.errors import SpecError
from builder.reader.bench import Options, measure_reading, parse_numbers, rates_of

NAMES = [
    "cold, 2 threads, checksums",
    "warm, 0 threads, checksums",
    "warm, 2 threads, checksums",
    "warm, 0 loader workers, checksums",
    "warm, 1 loader workers, checksums",
    "warm, 0 threads, no checksums",
    "warm, 2 threads, no checksums",
    "warm, 0 loader workers, no checksums",
    "warm, 1 loader workers, no checksums",
]


def test_figures_fit_together(patches: Any, volumes: Any) -> None:
    options = Options(batch_size=4, threads=(0, 2), loader_workers=(0, 1), seconds=0.2)
    record = measure_reading(patches.root, options)
    assert [one.name for one in record.readings] == NAMES
    bytes_a_sample = 6 * 7 * 8 * (2 + 1)
    for one in record.readings:
        assert one.samples_per_s > 0
        assert one.megabytes_per_s == pytest.approx(one.samples_per_s * bytes_a_sample / 1e6)
        assert 0 < one.median_ms <= one.slowest_percent_ms
        assert one.cpu_ms_per_sample > 0
    assert record.samples == 17
    crops = measure_reading(volumes.root, Options(batch_size=2, threads=(1,), crop=(3, 3, 3), seconds=0.1))
    assert all(one.megabytes_per_s == pytest.approx(one.samples_per_s * 81 / 1e6) for one in crops.readings)


def test_the_command_keeps_and_compares(patches: Any, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    arguments = ["bench", "read", str(patches.root), "--threads", "1", "--seconds", "0.1", "--batch", "4"]
    first = CliRunner().invoke(app, [*arguments, "--keep", str(kept), "--json"])
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout) == json.loads(kept.read_text())
    rates = rates_of(kept)
    names = ["cold, 1 threads, checksums", "warm, 1 threads, checksums", "warm, 1 threads, no checksums"]
    assert sorted(rates) == names
    second = CliRunner().invoke(app, [*arguments, "--compare", str(kept)])
    assert second.exit_code == 0, second.output
    assert second.stdout.count("x before") == 3
    with pytest.raises(SpecError, match="record"):
        rates_of(tmp_path / "nothing.json")
    with pytest.raises(SpecError, match="3 whole numbers"):
        parse_numbers("1,2", name="--crop", count=3)
