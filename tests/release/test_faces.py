"""Faces taken out of heads: in releases of DICOM and in the shards of a build, with the answer key of drawn heads."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from builder.errors import OutcomeError
from builder.model.keyed import Key
from builder.phantom.head_scans import HeadScan, head_files, scan_head
from builder.phantom.heads import Pose, make_head
from builder.phantom.scans import axial_grid
from builder.reader import open_dataset
from builder.run.pipeline import build
from builder.run.release import release
from tests.endtoend.trees import KEY

SPEC = """
name: heads
license: CC0-1.0
sources: [{{kind: folder, url: "{archive}"}}]
deid: {{patient_key: "${{env:BUILDER_KEY}}", faces: {faces}}}
samples: {{kind: volumes}}
cohort: {{image: "{image}"}}
splits: {{ratios: {{train: 1.0}}}}
leaks: {{pixels: "off"}}
report: {{thumbnails: 0}}
"""
CT, BOTH = "modality == 'CT'", "modality == 'CT' or modality == 'PT'"


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, HeadScan]]:
    """A small CT and PET of one head in one frame of reference."""
    key = Key(sha256(b"release").digest())
    folder = tmp_path_factory.mktemp("heads") / "archive"
    head = make_head(Pose(pitch_degrees=6.0, yaw_degrees=-5.0, rest=True))
    grids = {
        "CT": axial_grid((46, 120, 100), (6.0, 2.5, 2.5), (0.0, 0.0, 0.0), "1.2.826.0.1.3680043.8.498.77"),
        "PT": axial_grid((35, 90, 80), (8.0, 3.4, 3.4), (0.0, 0.0, 0.0), "1.2.826.0.1.3680043.8.498.77"),
    }
    made = {name: scan_head(key, 1, name, head, grid) for name, grid in grids.items()}
    for one in made.values():
        for item in head_files(key, one.scan):
            path = folder / item.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(item.data)
    return folder, made


def spec(folder: Path, archive: Path, faces: str, image: str = BOTH) -> Path:
    path = folder / f"{faces}.yaml"
    path.write_text(SPEC.format(archive=archive, faces=faces, image=image))
    return path


def test_a_release_loses_the_face_and_nothing_else(
    heads: tuple[Path, dict[str, HeadScan]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    archive, made = heads
    done = release(spec(tmp_path, archive, "remove"), to=tmp_path / "out").done
    assert done.objects == 81
    images = [dcmread(path) for path in (tmp_path / "out").rglob("*.dcm")]
    for modality, known in made.items():
        slices = sorted((i for i in images if i.Modality == modality), key=lambda i: float(i.ImagePositionPatient[2]))
        after = np.stack([image.pixel_array for image in slices])
        before = known.scan.pixels
        gone = after != before
        assert not gone[known.answer.brain].any()
        least = np.array([plane.min() for plane in after])[:, None, None]
        assert (after == least)[known.answer.face].mean() > 0.99
        assert gone.mean() < 0.5
        for image, changed in zip(slices, gone, strict=True):
            codes = [item.CodeValue for item in image.DeidentificationMethodCodeSequence]
            assert not changed.any() or "113102" in codes
            assert ("113102" in codes) == ("DCM:113102" in image.DeidentificationMethod)
        assert {"113102" in str(image.DeidentificationMethod) for image in slices} == {True, False}
    assert release(spec(tmp_path, archive, "remove"), to=tmp_path / "out").done.unchanged


def test_a_release_that_refuses_faces_holds_none(
    heads: tuple[Path, dict[str, HeadScan]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    with pytest.raises(OutcomeError, match="no image that may leave"):
        release(spec(tmp_path, heads[0], "refuse"), to=tmp_path / "out")


def test_shards_lose_the_face_and_say_so(
    heads: tuple[Path, dict[str, HeadScan]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    archive, made = heads
    for faces in ("remove", "keep"):
        build(spec(tmp_path, archive, faces, CT), to=tmp_path / faces)
    removed, kept = (open_dataset(str(tmp_path / faces)).split("train")[0] for faces in ("remove", "keep"))
    gone = removed["image"][0] != kept["image"][0]
    known = made["CT"].answer
    assert not gone[known.brain].any()
    assert gone[known.face].mean() > 0.97  # noise may have had the value of air before
    index = open_dataset(str(tmp_path / "remove")).table.to_pylist()
    assert "faces_removed" in str(index[0]["notes"])
    assert "face_risk" not in str(index[0]["notes"])
