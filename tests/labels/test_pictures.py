"""Pictures of slices: their greys, their size, and outlines where labels end, as Pillow reads them."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from builder.labels.pictures import OUTLINE, PIXELS, draw_labels, draw_slice
from builder.model.case import Boxes, Landmarks, Mask, Segment, ValueDomain, Volume
from builder.model.geometry import Geometry

GEOMETRY = Geometry((5, 160, 160), np.diag([1.0, 1.0, 1.0, 1.0])[:, [2, 1, 0, 3]])
NOTHING = np.zeros((160, 160), bool)


def seen(png: bytes) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(png)))


def outlined(png: bytes) -> NDArray[np.bool_]:
    picture = seen(png)
    return np.zeros(picture.shape[:2], bool) if picture.ndim == 2 else np.all(picture == (255, 196, 0), axis=2)


def volume() -> Volume:
    """Every slice has one brightness of its own, in its right half."""
    voxels = np.zeros((1, *GEOMETRY.shape), np.float32)
    voxels[0, :, :, 80:] = np.arange(1, 6)[:, None, None]
    return Volume(voxels, GEOMETRY, ValueDomain.HOUNSFIELD)


def test_greys_run_evenly_from_black_to_white_without_the_brightest_and_darkest_pixels() -> None:
    plane = np.zeros((160, 160))
    plane[:, 40:80], plane[:, 80:] = 50, 100
    plane[0, 0], plane[0, 1] = -1e6, 1e6
    picture = seen(draw_slice(plane, NOTHING))
    assert picture.dtype == np.uint8
    assert [int(picture[80, column]) for column in (20, 60, 120)] == [0, 127, 255]
    assert (picture[0, 0], picture[0, 1]) == (0, 255)
    assert set(np.unique(seen(draw_slice(np.full((160, 160), 7.0), NOTHING)))) == {0}, "a flat slice"


@pytest.mark.parametrize(
    ("shape", "size"), [((160, 160), (160, 160)), ((40, 60), (80, 120)), ((640, 320), (160, 80)), ((700, 10), (175, 3))]
)
def test_pixels_are_repeated_or_averaged_towards_the_size_of_a_picture(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    assert seen(draw_slice(np.zeros(shape), np.zeros(shape, bool))).shape == size
    assert max(size) <= 1.5 * PIXELS


def test_the_outline_is_the_rim_of_the_region_and_nothing_else_changes() -> None:
    inside = NOTHING.copy()
    inside[10:20, 0:6] = True
    rim = inside.copy()
    rim[11:19, 1:5] = False  # the border of the picture ends a region too
    plane = np.tile(np.arange(160.0), (160, 1))
    drawn, bare = draw_slice(plane, inside), draw_slice(plane, NOTHING)
    np.testing.assert_array_equal(outlined(drawn), rim)
    np.testing.assert_array_equal(seen(drawn)[~rim], np.repeat(seen(bare)[~rim][:, None], 3, axis=1))
    assert OUTLINE == (255, 196, 0)


def test_labels_are_drawn_on_the_slice_where_most_of_them_lies() -> None:
    inside = np.zeros(GEOMETRY.shape, np.uint8)
    inside[1, 10:20, 10:20], inside[3, 10:30, 10:30] = 1, 1
    mask = Mask("m", inside[None], GEOMETRY, (Segment("t"),))
    rim = NOTHING.copy()
    rim[10:30, 10:30], rim[11:29, 11:29] = True, False
    np.testing.assert_array_equal(outlined(draw_labels(volume(), [mask])), rim)
    assert not outlined(draw_labels(volume(), [])).any()


def test_boxes_are_drawn_whole_and_points_with_two_pixels_around_them() -> None:
    corners = np.array([[4, r, c] for r in (20, 29) for c in (30, 49)], dtype=float)
    box = Boxes("b", GEOMETRY.to_world(corners)[None], ("x",))
    rim = NOTHING.copy()
    rim[20:30, 30:50], rim[21:29, 31:49] = True, False
    np.testing.assert_array_equal(outlined(draw_labels(volume(), [box])), rim)
    point = Landmarks("l", GEOMETRY.to_world(np.array([[2.0, 100, 159], [2.0, 100, 400]])), ("a", "b"))
    rim = NOTHING.copy()
    rim[98:103, 157:160], rim[99:102, 158:159] = True, False
    np.testing.assert_array_equal(outlined(draw_labels(volume(), [point])), rim)
