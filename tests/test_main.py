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


def test_a_serial_build_of_native_files_never_loads_what_others_need(tmp_path: Path) -> None:
    synthetic.ct_series(tmp_path / "archive")
    (tmp_path / "spec.yaml").write_text(SPEC)
    code = """
import json, sys
from builder.cli import main
from tests.endtoend.trees import KEY
spec, to, archive = sys.argv[1:]
sys.argv[1:] = ["build", spec, "--to", to, "--param", "archive=" + archive, "--json"]
try:
    main()
except SystemExit as left:
    print(json.dumps([left.code, sorted(sys.modules)]))
"""
    said = python(code, tmp_path / "spec.yaml", tmp_path / "out", tmp_path / "archive")
    code, modules = json.loads(said.splitlines()[-1])
    assert code == 0
    assert {"numba", "pyarrow", "pydicom"} <= set(modules)
    assert not {"duckdb", "scipy.stats", "dask", "distributed", "SimpleITK", "zarr", "highdicom"} & set(modules)
