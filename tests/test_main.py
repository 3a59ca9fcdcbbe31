"""``python -m builder``: a broken stream is no success, and a build loads little of what it may need."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder.__main__ import run
from tests import synthetic
from tests.endtoend.trees import KEY

SPEC = """
name: tiny
license: CC0-1.0
seed: 1
sources: [{kind: folder, url: "${archive}", site: here}]
cohort: {image: "modality == 'CT'"}
deid: {patient_key: "${env:BUILDER_KEY}", retain: []}
transforms: [{kind: resample, spacing_mm: [2.0, 2.0, 2.0], image: linear, mask: nearest}]
samples: {kind: volumes}
splits: {ratios: {train: 1.0}, seed: 7}
"""


def python(code: str, *arguments: str | Path) -> str:
    environment = {**os.environ, "BUILDER_KEY": KEY}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=120).stdout


def test_a_closed_pipe_is_no_success():
    process = subprocess.Popen(
        [sys.executable, "-m", "builder", "schema"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=120) != 0


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("2", "2")])
def test_linear_algebra_has_one_thread_unless_told_otherwise(before, after, monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if before:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", before)
    for name in ("main", "speak_utf8"):
        monkeypatch.setattr(f"builder.__main__.{name}", lambda: None)
    monkeypatch.setattr("gc.set_threshold", lambda number: None)
    run()
    assert os.environ["OPENBLAS_NUM_THREADS"] == after


def test_a_build_starts_without_what_few_need():
    slow = ["scipy.ndimage", "scipy.stats", "scipy.optimize", "SimpleITK", "highdicom", "nibabel", "jinja2"]
    code = f"import sys, builder.cli, builder.run.pipeline; print([name for name in {slow} if name in sys.modules])"
    assert python(code).strip() == "[]"


def test_a_command_loads_only_what_it_uses(tmp_path: Path) -> None:
    synthetic.ct_series(tmp_path / "archive")
    (tmp_path / "spec.yaml").write_text(SPEC)
    spec = str(tmp_path / "spec.yaml")
    build = ["build", spec, "--to", str(tmp_path / "out"), "--param", f"archive={tmp_path / 'archive'}", "--json"]

    checked = loaded_by("validate", spec, "--json")
    assert {"pyarrow", "pydicom"} <= checked
    assert not {"numba", "pandas", "builder.planning", "builder.stages", "builder.kernels.linear"} & checked

    first = loaded_by(*build)
    assert {"numba", "pyarrow", "pydicom", "builder.stages.shard"} <= first
    assert not {"duckdb", "scipy.stats", "dask", "distributed", "SimpleITK", "zarr", "highdicom"} & first

    again = loaded_by(*build)
    assert "builder.planning.making" in again
    assert not {"numba", "scipy", "jinja2", "builder.headers.scan", "builder.copies", "builder.report.assembly"} & again
    assert not {"builder.stages.shard", "builder.publishing.leaks", "builder.publishing.finish"} & again


def loaded_by(*arguments: str) -> set[str]:
    """Run a command in a process of its own and return the modules that are loaded at its end."""
    code = """
import json, sys
from builder.cli import main
sys.argv[1:] = json.loads(sys.argv[1])
try:
    main()
except SystemExit as left:
    print(json.dumps([left.code, sorted(sys.modules)]))
"""
    left, modules = json.loads(python(code, json.dumps(arguments)).splitlines()[-1])
    assert left == 0
    return set(modules)
