"""Pixels rewritten in place, under an unchanged header and length, after their shard was finished."""

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest

import builder
from builder.run.pipeline import build
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series, mr_series

SPEC = """\
name: identity
license: CC0-1.0
sources: [{{kind: folder, identity: {identity}, url: "{archive}"}}]
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
samples: {{kind: volumes}}
splits: {{ratios: {{train: 1.0}}}}
leaks: {{pixels: "off"}}
report: {{thumbnails: 0}}
"""


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
    archive, spec, target = tmp_path / "archive", tmp_path / "spec.yaml", tmp_path / "dataset"
    ct_series(archive / "ct", patient_id="P1", slices=4)
    mr_series(archive / "mr", patient_id="P2", slices=4)
    spec.write_text(SPEC.format(identity=identity, archive=archive))
    first = build(spec, to=target)
    before = [sample["image"].sum(dtype=np.float64) for sample in builder.open_dataset(target)]
    rewrite(archive, "CT")
    second = build(spec, to=target)
    after = [sample["image"].sum(dtype=np.float64) for sample in builder.open_dataset(target)]
    assert (first.published.version != second.published.version) is noticed
    assert (before != after) is noticed
    assert second.published.rewritten is not noticed
    assert ("files were written again since then" in second.text()) is not noticed
