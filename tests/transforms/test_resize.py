"""Resizing pictures: places go where the closed form says, aspect is kept, and what is padded is marked."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import CaseError
from builder.model.case import Boxes, Case, Landmarks, Volume
from builder.model.geometry import Geometry, corner_voxels
from builder.model.keyed import Key
from builder.patches import Images, cut
from builder.transforms.resize import Resize
from tests.transforms.cases import make_geometry


def picture(rows: int, columns: int, down: float = 1.0, across: float = 1.0) -> Case:
    """A picture whose value grows along its columns, with two boxes and a point."""
    geometry = make_geometry((1, rows, columns), (1.0, down, across))
    values = np.broadcast_to(np.arange(columns, dtype=np.float32), (1, 1, rows, columns)).copy()
    lows = np.array([[-0.5, 0.5, 1.5], [-0.5, rows / 3, columns / 4]])
    sizes = np.array([[1.0, 3.25, 4.5], [1.0, rows / 3, columns / 2]])
    boxes = [geometry.to_world(low + corner_voxels((2, 2, 2)) * size) for low, size in zip(lows, sizes, strict=True)]
    points = geometry.to_world(np.array([[0.0, rows / 2 - 0.5, columns / 2 - 0.5]]))
    notes = (Boxes("finding", np.array(boxes), ("a", "b")), Landmarks("middle", points, ("m",)))
    return Case("case", Volume(values, geometry), notes)


def boxes_of(case: Case) -> Any:
    (sample,) = cut(case, Images(), key=Key(b"0" * 32), seed=0)
    return np.reshape(sample.ragged["boxes"], (-1, 2, 3)), np.reshape(sample.ragged["landmarks"], (-1, 3))


@settings(max_examples=60)
@given(
    st.tuples(st.integers(12, 60), st.integers(12, 60)),
    st.tuples(st.floats(0.1, 2.0), st.floats(0.1, 2.0)),
    st.tuples(st.integers(8, 48), st.integers(8, 48)),
)
def test_boxes_go_where_the_closed_form_says(shape: Any, spacing: Any, pixels: Any) -> None:
    case = picture(*shape, *spacing)
    side = max(n * s / p for n, s, p in zip(shape, spacing, pixels, strict=True))
    (before, middle), (after, moved) = boxes_of(case), boxes_of(Resize(kind="resize", pixels=pixels)(case))
    for axis in (1, 2):
        n, s, p = shape[axis - 1], spacing[axis - 1], pixels[axis - 1]
        expected = (before[:, :, axis] + 0.5 - n / 2) * s / side + p / 2 - 0.5
        assert np.abs(after[:, :, axis] - expected).max() < 1e-6
    assert np.abs(moved[0, 1:] - (np.array(pixels) / 2 - 0.5)).max() < 1e-6
    assert np.abs(middle[0, 1:] - (np.array(shape) / 2 - 0.5)).max() < 1e-6


def test_the_aspect_is_kept_and_the_rest_is_padding() -> None:
    made = Resize(kind="resize", pixels=(40, 40), antialias="none")(picture(20, 40)).volume
    assert made.geometry.shape == (1, 40, 40)
    assert made.padding is not None
    assert made.padding[0].sum(axis=0).tolist() == [20] * 40
    assert not made.padding[0, 10:30].any()
    assert np.allclose(made.voxels[0, 0, 10:30], np.arange(40), atol=1e-4)
    assert (made.voxels[0, 0, :10] == 0).all()


def test_a_film_keeps_its_frames() -> None:
    case = picture(20, 30)
    frames = np.repeat(case.volume.voxels, 5, axis=1)
    geometry = Geometry((5, 20, 30), case.volume.geometry.affine, "2.25.1")
    made = Resize(kind="resize", pixels=(10, 10))(Case("case", Volume(frames, geometry)))
    assert made.volume.voxels.shape == (1, 5, 10, 10)
    assert (made.volume.voxels[:, :1] == made.volume.voxels).all()


def test_a_fill_that_no_pixel_can_hold_is_refused() -> None:
    case = picture(20, 40)
    whole = replace(case, volume=replace(case.volume, voxels=case.volume.voxels.astype(np.uint8)))
    with pytest.raises(CaseError, match="expected a whole number from 0 to 255"):
        Resize(kind="resize", pixels=(8, 8), fill=-1)(whole)
