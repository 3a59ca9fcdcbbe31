"""Faces taken out of heads: in releases of DICOM and in the shards of a build, with the answer key of drawn heads."""

import os
import subprocess
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from builder.defacers import Surface
from builder.defacers.cells import united, without
from builder.defacers.defacing import find_face
from builder.defacers.found import NOT_JUDGED, Seen
from builder.errors import OutcomeError
from builder.library.waiting import open_heads
from builder.model.keyed import Key
from builder.phantom.head_scans import HeadScan, head_files, scan_head
from builder.phantom.heads import Pose, make_head
from builder.phantom.scans import axial_grid
from builder.reader import open_dataset
from builder.run.pipeline import build
from builder.run.release import release
from builder.storage import CRASH_VARIABLE
from tests.defacers.known import volume_of
from tests.endtoend.trees import KEY, command, environment, run, tree

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
    path = folder / f"{faces.partition(',')[0]}.yaml"
    path.write_text(SPEC.format(archive=archive, faces=faces, image=image))
    return path


def pixels_in(folder: Path, modality: str) -> np.ndarray:
    images = [image for image in map(dcmread, folder.rglob("*.dcm")) if image.Modality == modality]
    return np.stack([i.pixel_array for i in sorted(images, key=lambda i: float(i.ImagePositionPatient[2]))])


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


def test_heads_wait_for_decisions_which_alone_say_what_goes(
    heads: tuple[Path, dict[str, HeadScan]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    archive, made = heads
    path, out = spec(tmp_path, archive, "remove, face_review: all"), tmp_path / "out"
    with pytest.raises(OutcomeError, match="2 images of heads wait for a person"):
        release(path, to=out)
    queue = open_heads(str(out))
    assert queue is not None
    assert queue.left == 2
    assert all(one.taken_out and not one.brain_taken_out for one in queue.heads)
    faces = tmp_path / "out.private" / "faces"
    pictures = sorted(faces.glob("pictures/*.png"))
    assert [picture.stem for picture in pictures] == sorted(one.stack for one in queue.heads)
    assert "1.2.826" not in " ".join(str(file) for file in faces.rglob("*"))
    numbers = {one.series: number for number, one in enumerate(queue.heads)}
    ct, pet = (numbers[made[name].scan.series.uid] for name in ("CT", "PT"))
    queue.decide([ct], "accept")
    queue.decide([pet], "keep")
    with monkeypatch.context() as patch:
        patch.setattr("builder.stages.faces.find_face", None)  # nothing is looked for again
        assert release(path, to=out).done.objects == 81
    assert (pixels_in(out, "CT") != made["CT"].scan.pixels)[made["CT"].answer.face].mean() > 0.97
    assert (pixels_in(out, "PT") == made["PT"].scan.pixels).all()
    images = [dcmread(path, stop_before_pixels=True) for path in out.rglob("*.dcm")]
    said = {image.Modality for image in images if "113102" in str(image.DeidentificationMethod)}
    assert said == {"CT"}
    assert "brain" not in (out / "release.json").read_text()
    queue.decide([pet], "refuse")
    with pytest.raises(OutcomeError, match="face_shown"):
        build(spec(tmp_path, archive, "remove", "modality == 'PT'"), to=out)


@pytest.mark.parametrize("decision", [None, "accept"])
@pytest.mark.parametrize("faces", ["remove", "refuse"])
def test_what_nobody_could_read_leaves_only_where_a_person_keeps_it(faces: str, decision: str | None) -> None:
    one = Seen("s", "1.2", NOT_JUDGED, "the images could not be read")
    assert one.outcome(decision, faces=faces, review="none") == "doubt"
    assert one.outcome("keep", faces=faces, review="none") == ""


def test_images_of_a_case_lose_one_mask_each_on_its_own_grid(
    heads: tuple[Path, dict[str, HeadScan]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    archive, made = heads
    images = "{ct: {select: \"modality == 'CT'\"}, pet: {select: \"modality == 'PT'\", aligned: none}}"
    path = spec(tmp_path, archive, "remove")
    path.write_text(path.read_text().replace(f'image: "{BOTH}"', f"images: {images}"))
    build(path, to=tmp_path / "out")
    sample = open_dataset(str(tmp_path / "out")).split("train")[0]
    volumes = {name: volume_of(one) for name, one in made.items()}
    alone = {name: find_face(volume, Surface(), told=True) for name, volume in volumes.items()}
    cells = without(united(a.gone for a in alone.values()), united(a.brain for a in alone.values()))
    for field, name in (("image", "CT"), ("pet", "PT")):
        grid, before = volumes[name].geometry, volumes[name].voxels[0]
        gone = sample[field][0] != before
        if name == "PT":  # a build has SUV
            gone = (sample[field][0] == sample[field][0].min()) & (before != before.min())
        assert not gone[made[name].answer.brain].any()
        assert gone[made[name].answer.face].mean() > 0.9
        assert not (gone & ~cells.within(grid)).any()
        other = cells.within(grid) & ~alone[name].gone.within(grid)  # what only the other image gave goes, too
        assert gone[other].mean() > 0.2


@pytest.mark.skipif("BUILDER_RELEASES" not in os.environ, reason="long: make releases")
@pytest.mark.parametrize(
    ("what", "point"),
    [
        ("release", "faces.looked:1"),
        ("release", "write.renamed:9"),
        ("release", "release.object:30"),
        ("release", "release.manifest:1"),
        ("build", "faces.looked:1"),
        ("build", "shard.receipt:1"),
    ],
)
def test_killed_and_continued(heads: tuple[Path, dict[str, HeadScan]], tmp_path: Path, what: str, point: str) -> None:
    path = spec(tmp_path, heads[0], "remove", BOTH if what == "release" else CT)
    run(what, path, "--to", tmp_path / "whole")
    killed = subprocess.run(
        command(what, path, "--to", tmp_path / "out"), env={**environment(), CRASH_VARIABLE: point},
        capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -9
    run(what, path, "--to", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    for name in ("found.csv", "looked", "removals", "pictures"):
        faces = [tmp_path / f"{made}.private" / "faces" / name for made in ("out", "whole")]
        assert faces[0].exists()
        assert len({str(tree(one)) if one.is_dir() else one.read_bytes() for one in faces}) == 1, name
