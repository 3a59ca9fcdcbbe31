"""Processes of builder leave out what libraries look for and no build needs; what needs it still gets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pydicom
from pydicom.pixels import pixel_array

from tests import synthetic

ROOT = Path(__file__).resolve().parents[2]
NOT_NEEDED = (
    *("_gdcm", "duckdb", "numexpr", "pandas", "pyarrow._s3fs", "requests", "scipy.linalg", "scipy.stats", "tqdm"),
    *("dask", "distributed", "SimpleITK", "zarr"),
)
SPEC = """
name: tiny
license: CC0-1.0
seed: 1
sources: [{kind: folder, url: "${archive}", site: here}]
cohort: {image: "modality == 'CT'"}
deid: {patient_key: "${env:BUILDER_KEY}", retain: []}
transforms: [{kind: resample, spacing_mm: [2.0, 2.0, 2.0], image: linear, mask: nearest}]
samples: {kind: volumes}
splits: {ratios: {train: 0.7, validation: 0.15, test: 0.15}, seed: 7}
"""


def python(code: str, *arguments: str | Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BUILDER_KEY": "0" * 63 + "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_a_build_of_native_files_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    synthetic.ct_series(tmp_path / "archive")
    (tmp_path / "spec.yaml").write_text(SPEC)
    code = """
import json, sys
from builder.__main__ import run
spec, to, archive = sys.argv[1:]
sys.argv[1:] = ["build", spec, "--to", to, "--param", "archive=" + archive, "--json"]
try:
    run()
except SystemExit as left:
    print(json.dumps([left.code, sorted(sys.modules)]))
"""
    said = python(code, tmp_path / "spec.yaml", tmp_path / "out", tmp_path / "archive")
    left, modules = json.loads(said.splitlines()[-1])
    assert left == 0
    assert {"numba", "pyarrow", "pydicom"} <= set(modules)
    assert not set(NOT_NEEDED) & set(modules)


def test_gdcm_is_loaded_when_it_decodes(tmp_path: Path) -> None:
    image = synthetic.ct_series().images[0]
    file = tmp_path / "encoded.dcm"
    file.write_bytes(synthetic.to_bytes(synthetic.encode(image, "jpegls")))
    code = """
import sys
from builder.run.loading import load_libraries
load_libraries()
from pydicom import dcmread
from pydicom.pixels import get_decoder, pixel_array
image = dcmread(sys.argv[1])
assert "_gdcm" not in sys.modules
decoder = get_decoder(image.file_meta.TransferSyntaxUID)
pixels = pixel_array(image, decoding_plugin="gdcm")
assert "_gdcm" in sys.modules
import gdcm
assert gdcm.__file__ and gdcm.Version.GetVersion()
print(pixels.tobytes().hex(), *decoder.available_plugins)
"""
    found, *plugins = python(code, file).split()
    assert bytes.fromhex(found) == pixel_array(pydicom.dcmread(file), decoding_plugin="gdcm").tobytes()
    assert "gdcm" in plugins


def test_what_was_left_out_can_be_loaded() -> None:
    code = """
from builder.run.loading import load_libraries
load_libraries()
load_libraries()
import pyarrow, requests, scipy.linalg, tqdm
print(pyarrow.table({"a": [1, None]}).to_pandas()["a"].sum(), pyarrow.default_memory_pool().backend_name)
"""
    assert python(code).split() == ["1.0", "system"]
