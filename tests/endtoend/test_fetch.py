"""Pixels read in place give the voxels that parsing whole objects gives."""

from pathlib import Path

import numpy as np
import pytest

import builder
from builder.phantom import write_archive
from builder.run import serial
from builder.run.pipeline import build
from builder.stages import fetch
from tests.endtoend.trees import KEY, ROOT

SPEC = (ROOT / "specs" / "phantom.yaml").read_text()
SPEC = SPEC.replace("  seed: 7\n", "  seed: 7\n  may_be_empty: [validation, test]\n")
SPEC = SPEC.replace("per_case: 4", "per_case: 2").replace("report: {groups:", "report: {thumbnails: 0, groups:")


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("phantom")
    write_archive(folder, patients=6, seed=4)
    return folder


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_both_ways_to_read_agree(phantom: Path, tmp_path: Path, monkeypatch, modality: str):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    spec = tmp_path / "spec.yaml"
    text = SPEC.replace("modality == 'CT'", f"modality == '{modality}'")
    if modality != "CT":
        text = text.replace("{kind: intensity, clip: [-1000, 1000], dtype: int16}", "{kind: intensity, dtype: float32}")
    spec.write_text(text.replace("instances >= 20", "instances >= 5"))
    asked = []
    whole_rule = fetch._rows_suffice

    def never(rows, volumes):
        asked.append(whole_rule(rows, volumes))
        return False

    monkeypatch.setattr(serial, "_apart", lambda task, apart: task.function(task.argument))
    parameters = {"phantom": str(phantom)}
    build(spec, to=tmp_path / "inplace", parameters=parameters)
    monkeypatch.setattr(fetch, "_rows_suffice", never)
    build(spec, to=tmp_path / "parsed", parameters=parameters)
    assert any(asked)
    one, other = builder.open_dataset(tmp_path / "inplace"), builder.open_dataset(tmp_path / "parsed")
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert a.row["sample_key"] == b.row["sample_key"]
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["tumor"], b["tumor"])
