"""Heads of the phantom: their answer key agrees with what is drawn, by another way of counting."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from builder.errors import SpecError
from builder.model.keyed import Key
from builder.phantom import write_heads
from builder.phantom.head_scans import HeadScan, draw_scans
from builder.phantom.heads import Pose, make_head


@pytest.fixture(scope="module")
def scans() -> list[HeadScan]:
    return list(draw_scans(Key(sha256(b"heads").digest()), 2))


def test_the_face_is_the_skin_before_the_ears_and_the_ears(scans: list[HeadScan]):
    ct = scans[0]
    head = ct.scan.pixels + ct.scan.stored.intercept > -200
    parts, _ = ndimage.label(ndimage.binary_opening(head))
    person = parts == np.bincount(parts[ct.answer.brain]).argmax()
    skin = ndimage.binary_dilation(person, iterations=2) & ~ndimage.binary_erosion(person, iterations=3)
    assert skin[ct.answer.face].mean() > 0.97  # noise moves the surface that the image shows
    s, r, c = np.nonzero(ct.answer.face)
    places = ct.scan.geometry.to_world(np.stack([s, r, c], axis=1))
    brain = ct.scan.geometry.to_world(np.argwhere(ct.answer.brain)).mean(axis=0)
    assert places[:, 1].mean() < brain[1] - 40  # the patient's front
    assert places[:, 2].mean() < brain[2] - 40  # and below the brain
    assert not (ct.answer.face & ct.answer.brain).any()


def test_the_brain_is_what_the_images_show_as_brain(scans: list[HeadScan]):
    ct, pet, mr = scans
    inside = ndimage.binary_erosion(ct.answer.brain, iterations=2)
    assert abs(float((ct.scan.pixels + ct.scan.stored.intercept)[inside].mean()) - 36) < 2
    activity = pet.scan.pixels * np.asarray(pet.scan.slopes)[:, None, None]
    assert np.median(activity[pet.answer.brain]) > 5 * np.median(activity[pet.answer.face])
    volumes = [float(one.answer.brain.sum() * one.scan.geometry.voxel_volume_mm3) for one in (ct, pet)]
    assert abs(volumes[0] / volumes[1] - 1) < 0.02  # one brain in one frame of reference
    assert mr.scan.geometry.frame_of_reference != ct.scan.geometry.frame_of_reference


def test_a_turned_head_has_the_same_solids():
    straight, turned = make_head(Pose()), make_head(Pose(12.0, -9.0, 5.0, (4.0, 5.0, 6.0)))
    for one, other in zip(straight.body.organs, turned.body.organs, strict=True):
        assert one.solid.volume_mm3 == pytest.approx(other.solid.volume_mm3)
        back = turned.to_head[:3, :3] @ np.asarray(other.solid.centre_mm) + turned.to_head[:3, 3]
        assert back == pytest.approx(one.solid.centre_mm)


def test_heads_are_written_with_their_answer_key(tmp_path: Path):
    made = write_heads(tmp_path / "a", patients=1, seed=3)
    assert (made.series, made.files) == (3, len(list((tmp_path / "a" / "archive").rglob("*.dcm"))))
    truth = json.loads((tmp_path / "a" / "truth.json").read_text())
    assert [series["modality"] for series in truth["series"]] == ["CT", "PT", "MR"]
    for series in truth["series"]:
        masks = np.load(tmp_path / "a" / "truth" / f"{series['series_uid']}.npz")
        count = int(np.prod(series["shape"]))
        assert np.unpackbits(masks["face"], count=count).sum() > 1000
    dataset = pydicom.dcmread(next((tmp_path / "a" / "archive").rglob("*.dcm")))
    assert (dataset.BodyPartExamined, dataset.PatientID) == ("HEAD", "PHH-0001")
    with pytest.raises(SpecError, match="new or an empty folder"):
        write_heads(tmp_path / "a", patients=1)
