"""Pixels rewritten in place, under an unchanged header and length, after their shard was finished."""

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest

import builder
from builder.phantom import write_archive
from builder.run.pipeline import build
from tests.endtoend.trees import KEY, ROOT

SPEC = (ROOT / "specs" / "phantom.yaml").read_text()


def rewrite(archive: Path, modality: str) -> None:
    """Another value in every pixel of a modality; nothing before the pixels, and no length, changes."""
    for path in sorted(archive.rglob("*")):
        if not path.is_file() or path.read_bytes()[128:132] != b"DICM":
            continue
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if header.Modality != modality or header.file_meta.TransferSyntaxUID.is_compressed:
            continue
        dataset = pydicom.dcmread(path)
        size = len(dataset.PixelData)
        data = path.read_bytes()
        at = data.rindex(dataset.PixelData)
        new = (np.frombuffer(dataset.PixelData, np.uint8) ^ 1).tobytes()
        path.write_bytes(data[:at] + new + data[at + size :])
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000_000))


@pytest.mark.parametrize(("identity", "noticed"), [("header", False), ("content", True)])
def test_rewritten_pixels(identity: str, noticed: bool, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    write_archive(tmp_path / "phantom", patients=6, seed=3)
    spec = tmp_path / "spec.yaml"
    text = SPEC.replace("{kind: folder,", f"{{kind: folder, identity: {identity},")
    assert text != SPEC
    spec.write_text(text)
    parameters, target = {"phantom": str(tmp_path / "phantom")}, tmp_path / "dataset"
    first = build(spec, to=target, parameters=parameters)
    before = [sample["image"].sum(dtype=np.float64) for sample in builder.open_dataset(target)]
    rewrite(tmp_path / "phantom" / "archive", "CT")
    second = build(spec, to=target, parameters=parameters)
    after = [sample["image"].sum(dtype=np.float64) for sample in builder.open_dataset(target)]
    assert (first.published.version != second.published.version) is noticed
    assert (before != after) is noticed
    assert second.published.rewritten is not noticed
    assert ("files were written again since then" in second.text()) is not noticed
