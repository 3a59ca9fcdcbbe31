"""Grids: an affine and its inverse undo each other, on any grid that a scanner could make."""

from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.model.geometry import Geometry, corner_voxels
from tests import synthetic

GRIDS = st.builds(
    lambda shape, spacing, origin, orientation, tilt: synthetic.grid(
        shape, spacing, origin=origin, orientation=orientation, tilt_degrees=tilt
    ),
    st.tuples(*[st.integers(1, 600)] * 3),
    st.tuples(*[st.floats(0.05, 20.0)] * 3),
    st.tuples(*[st.floats(-2000.0, 2000.0)] * 3),
    st.sampled_from([synthetic.AXIAL, synthetic.CORONAL, synthetic.SAGITTAL, synthetic.OBLIQUE]),
    st.floats(-30.0, 30.0),
)
POINTS = st.lists(st.tuples(*[st.floats(-3000.0, 3000.0)] * 3), min_size=1, max_size=5)


@given(grid=GRIDS, points=POINTS)
def test_an_affine_and_its_inverse_undo_each_other(grid: Geometry, points: list[tuple[float, float, float]]) -> None:
    np.testing.assert_allclose(grid.to_world(grid.to_voxel(points)), points, atol=1e-6)
    np.testing.assert_allclose(grid.to_voxel(grid.to_world(points)), points, atol=1e-6)
    homogeneous = np.linalg.inv(grid.affine) @ grid.affine
    np.testing.assert_allclose(homogeneous, np.eye(4), atol=1e-6)


@given(grid=GRIDS, start=st.tuples(*[st.integers(-50, 50)] * 3))
def test_a_box_lies_where_its_voxels_lie(grid: Geometry, start: tuple[int, int, int]) -> None:
    box = grid.box(start, (2, 3, 4))
    corners = corner_voxels(box.shape)
    np.testing.assert_allclose(box.to_world(corners), grid.to_world(corners + start), atol=1e-6)
    assert grid.same_grid(grid.box((0, 0, 0), grid.shape))
    assert grid.spacing_mm == box.spacing_mm


LPS = np.array([[0, 0, 0.5, 10.0], [0, 0.75, 0, -20.0], [3.0, 0, 0, 30.0], [0, 0, 0, 1]])
"""Slices upwards, rows backwards, columns to the left; 3 x 0.75 x 0.5 mm."""


def test_what_a_grid_says_of_itself() -> None:
    grid = Geometry((4, 5, 6), LPS, "1.2.3")
    assert grid.spacing_mm == (3.0, 0.75, 0.5)
    assert grid.origin_mm == (10.0, -20.0, 30.0)
    assert grid.voxel_volume_mm3 == pytest.approx(1.125)
    np.testing.assert_array_equal(grid.directions, [[0, 0, 1], [0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(grid.to_world([1, 2, 4]), [[12.0, -18.5, 33.0]])
    np.testing.assert_allclose(grid.to_voxel([12.0, -18.5, 33.0]), [[1, 2, 4]])
    assert corner_voxels(grid.shape)[[0, -1]].tolist() == [[0, 0, 0], [3, 4, 5]]
    box = grid.box((-1, 2, 4), (2, 2, 2))
    assert (box.origin_mm, box.shape, box.frame_of_reference) == ((12.0, -18.5, 27.0), (2, 2, 2), "1.2.3")


@given(order=st.permutations((0, 1, 2)), signs=st.tuples(*[st.sampled_from([-1, 1])] * 3), turn=st.floats(-40.0, 40.0))
def test_orientation_is_nibabels_for_the_same_axes(order: list[int], signs: tuple[int, ...], turn: float) -> None:
    """nibabel's world is RAS, ours LPS: the first two world axes point the other way."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * signs
    angle = np.deg2rad(turn)
    about_z = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine[:3, :3] = about_z @ affine[:3, :3]
    expected = nibabel.aff2axcodes(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    assert Geometry((2, 2, 2), affine).orientation == "".join(expected)


@pytest.mark.parametrize(("cosine", "orthogonal"), [(0.0, True), (0.9e-4, True), (-1.1e-4, False), (0.3, False)])
def test_sheared_grids_are_not_orthogonal(cosine: float, orthogonal: bool) -> None:
    affine = LPS.copy()
    affine[:3, 1] = 0.75 * np.array([cosine, np.sqrt(1 - cosine**2), 0])
    assert Geometry((4, 5, 6), affine).is_orthogonal is orthogonal


@pytest.mark.parametrize(
    ("shape", "affine", "said"),
    [
        ((4, 5, 6), LPS[:3], "affine: found shape"),
        ((4, 5, 6), np.where(LPS == 10.0, np.nan, LPS), "affine: found shape"),
        ((4, 5, 6), np.where(LPS == 3.0, np.inf, LPS), "affine: found shape"),
        ((4, 5), LPS, "shape: found"),
        ((4, 5, 6, 7), LPS, "shape: found"),
        ((4, 0, 6), LPS, "shape: found"),
        ((4, 5, 6), np.where(LPS == 3.0, 0.0, LPS), "singular"),
    ],
)
def test_what_is_no_grid_is_refused(shape: Any, affine: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Geometry(shape, affine)


def test_one_voxel_and_very_small_voxels_are_a_grid() -> None:
    assert Geometry((1, 1, 1), np.diag([0.01, 0.01, 0.01, 1.0])).spacing_mm == pytest.approx((0.01, 0.01, 0.01))


def test_a_grid_cannot_be_changed() -> None:
    own = LPS.copy()
    grid = Geometry(np.array([4, 5, 6]), own)  # type: ignore[arg-type]
    own[0, 3] = 99
    assert grid.origin_mm[0] == 10.0
    assert [type(n) for n in grid.shape] == [int] * 3
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 3] = 99


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"shape": (4, 5, 7)}, False),
        ({"origin": 0.0049}, True),
        ({"origin": 0.0051}, False),
        ({"spacing": 0.0009}, True),
        ({"spacing": 0.0011}, False),
    ],
    ids=str,
)
def test_grids_are_the_same_within_a_hundredth_of_a_voxel_at_every_corner(change: dict[str, Any], same: bool) -> None:
    """Along the columns: 0.5 mm a voxel, and the far corner is five voxels away."""
    affine = LPS.copy()
    affine[0, 3] += change.get("origin", 0.0)
    affine[0, 2] += change.get("spacing", 0.0)
    other = Geometry(change.get("shape", (4, 5, 6)), affine, "another frame")
    assert Geometry((4, 5, 6), LPS).same_grid(other) is same
    assert Geometry((4, 5, 6), LPS).same_grid(other, tolerance_voxels=1.0) is ("shape" not in change)
