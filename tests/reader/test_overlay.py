"""What is drawn over an image: masks by segment, the borders of boxes, squares around points, and their names."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builder.library.view.drawing import COLOURS
from builder.library.view.samples import Look, Samples
from builder.model.case import ClearedSample
from builder.model.geometry import Geometry
from builder.reader.opening import open_dataset
from builder.reader.overlay import overlay_of
from tests.reader.conftest import Made, make_sample, publish


@pytest.fixture
def boxed(tmp_path: Path):
    """One sample with two boxes, one of which ends outside, and two points, one of which lies outside."""
    ragged: dict[str, Any] = {
        "box_names": ["nodes", "nodes"], "box_classes": ["nodule", None],
        "boxes": [1.0, 2.0, 3.0, 2.0, 6.0, 8.0, 0.0, 30.0, 40.0, 0.0, 60.0, 90.0],
        "landmark_names": ["carina", "away"], "landmark_classes": [None, None], "landmark_groups": [None, None],
        "landmarks": [2.0, 20.0, 20.0, 90.0, 5.0, 5.0],
    }  # fmt: skip
    image = np.zeros((1, 3, 40, 50), np.int16)
    row = make_sample(0, (1, 1, 1)).row
    publish(tmp_path / "set", [[ClearedSample({"image": image}, Geometry((3, 40, 50), np.eye(4)), row, ragged)]])
    return open_dataset(tmp_path / "set", uses="off")


def test_boxes_and_points_are_borders(boxed):
    overlay = overlay_of(boxed, 0, "image")
    assert overlay.names == ("nodule", "nodes", "carina", "away")
    expected = np.zeros((3, 40, 50), np.uint8)
    for level in (1, 2):
        expected[level, 2:7, 3:9] = 1
        expected[level, 3:6, 4:8] = 0
    expected[0, 30:40, 40:50] = 2
    expected[0, 31:39, 41:49] = 0
    expected[2, 18:23, 18:23] = 3
    expected[2, 19:22, 19:22] = 0
    assert np.array_equal(overlay.numbers, expected)
    assert overlay.fullest == 0
    assert [entry["name"] for entry in Samples(boxed).about(0, "image")["legend"]] == [*overlay.names]


def test_segments_have_numbers_and_the_rest_is_bare(labelled: Made):
    dataset = open_dataset(labelled.root, uses="off")
    for position in (0, 5):
        mask = dataset[position]["tumor"][0]
        overlay = overlay_of(dataset, position, "image")
        told = dict(enumerate(overlay.names, 1))
        assert set(told.values()) == {"tumor/core", "tumor/edema"}
        values = {"tumor/edema": 5, "tumor/core": 3}
        for number, name in told.items():
            assert np.array_equal(overlay.numbers == number, mask == values[name])
        assert overlay.voxels() == tuple(np.count_nonzero(overlay.numbers == number) for number in told)
        counts = np.count_nonzero(mask, axis=(1, 2))
        assert counts[overlay.fullest] == counts.max()


def test_lines_on_large_pictures_are_thick_enough_to_be_seen(tmp_path: Path):
    image = np.zeros((1, 1, 1300, 1000), np.int16)
    mask = np.zeros((1, 1, 1300, 1000), np.uint8)
    mask[0, 0, 400:900, 300:700] = 1
    row = make_sample(0, (1, 1, 1)).row
    made = ClearedSample({"image": image, "lung": mask}, Geometry((1, 1300, 1000), np.eye(4)), row)
    publish(tmp_path / "set", [[made]])
    samples = Samples(open_dataset(tmp_path / "set", uses="off"))
    picture = np.asarray(Image.open(io.BytesIO(samples.picture(0, "image", 0, Look())[0])))
    yellow = (picture == COLOURS[0]).all(axis=-1)
    assert yellow[600, 290:320].sum() == 5
    assert not yellow[500:800, 400:600].any()
    bare = np.asarray(Image.open(io.BytesIO(samples.picture(0, "image", 0, Look(opacity=0))[0])))
    assert not bare.any()
