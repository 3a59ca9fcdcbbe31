"""Grids: an affine and its inverse undo each other, on any grid that a scanner could make."""

import numpy as np
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
