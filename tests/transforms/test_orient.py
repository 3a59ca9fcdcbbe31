"""Orientation against nibabel, and there and back."""

from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from builder.errors import CaseError, Reason
from builder.model.case import Boxes, Landmarks, Mask
from builder.model.geometry import corner_voxels
from builder.transforms import Orient
from builder.transforms.orient import find_turn, turn_array, turn_geometry
from tests.transforms.cases import make_case, make_geometry, part

CODES = ["".join(p) for q in permutations(("LR", "PA", "SI")) for p in product(*q)]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.mark.parametrize("code", CODES)
def test_equals_nibabel_for_every_code(code):
    """nibabel reads an array (i, j, k) = (column, row, slice) and its world is RAS."""
    geometry = make_geometry((3, 4, 5), angles=(20, -15, 100))
    case = make_case(geometry)
    found = Orient(kind="orient", to=code)(case)
    volume = found.volume
    ras = LPS_TO_RAS @ geometry.affine[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(case.volume.voxels[0].transpose(2, 1, 0), ras)
    target = nibabel.orientations.axcodes2ornt(tuple(code))
    turn = nibabel.orientations.ornt_transform(nibabel.orientations.io_orientation(ras), target)
    expected = image.as_reoriented(turn)
    np.testing.assert_array_equal(volume.voxels[0].transpose(2, 1, 0), np.asarray(expected.dataobj))
    np.testing.assert_allclose(LPS_TO_RAS @ volume.geometry.affine[:, [2, 1, 0, 3]], expected.affine, atol=1e-9)
    assert volume.geometry.orientation == code[::-1]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    shear=st.sampled_from([0.0, 0.33]),
    there=st.sampled_from(CODES),
    shape=st.tuples(*[st.integers(1, 5)] * 3),
)
def test_there_and_back_is_where_it_was(angles, shear, there, shape):
    geometry = make_geometry(shape, angles=angles, shear=shear)
    case = make_case(geometry, padding=True)
    turned = Orient(kind="orient", to=there)(case)
    home = "".join(letter for letter in geometry.orientation[::-1])
    if len(set(home.translate(str.maketrans("RAI", "LPS")))) < 3:
        return  # two axes lie nearest to one world axis: the grid's own code does not name it
    back = Orient(kind="orient", to=home)(turned)
    if back.volume.geometry.shape != shape or not np.allclose(back.volume.geometry.affine, geometry.affine):
        assert find_turn(geometry, home) != ((0, 1, 2), (1, 1, 1))  # near 45 degrees the code may name another order
        return
    np.testing.assert_array_equal(back.volume.voxels, case.volume.voxels)
    np.testing.assert_array_equal(back.volume.padding, case.volume.padding)
    np.testing.assert_array_equal(part(back, Mask).voxels, part(case, Mask).voxels)
    np.testing.assert_array_equal(part(back, Boxes).corners_mm, part(case, Boxes).corners_mm)
    np.testing.assert_allclose(back.volume.geometry.affine, geometry.affine, atol=1e-9)


@pytest.mark.parametrize("code", CODES[::5])
def test_every_part_moves_together(code):
    geometry = make_geometry((6, 9, 7), angles=(4, 3, 2), shear=0.3)
    case = make_case(geometry, padding=True)
    moved = Orient(kind="orient", to=code)(case)
    grid = moved.volume.geometry
    inside = np.argwhere(part(moved, Mask).voxels[0] == 1)
    there = np.sort(grid.to_world(inside), axis=0)
    here = np.sort(geometry.to_world(np.argwhere(part(case, Mask).voxels[0] == 1)), axis=0)
    np.testing.assert_allclose(there, here, atol=1e-9)
    corners = grid.to_voxel(part(moved, Boxes).corners_mm)
    low, high = inside.min(axis=0) - 0.5, inside.max(axis=0) + 0.5
    np.testing.assert_allclose(corners, low + corner_voxels((2, 2, 2)) * (high - low), atol=1e-6)
    np.testing.assert_array_equal(part(moved, Landmarks).points_mm, part(case, Landmarks).points_mm)
    assert part(moved, Mask).geometry is grid
    assert grid.frame_of_reference == geometry.frame_of_reference
    assert moved.volume.voxels.flags.c_contiguous
    assert moved.volume.padding.shape == grid.shape
    assert (moved.row, moved.case_key) == (case.row, case.case_key)


def test_a_turned_grid_holds_the_same_points():
    geometry = make_geometry((2, 3, 4), angles=(8, 9, 10), shear=0.2)
    turn = find_turn(geometry, "RSA")
    points = geometry.to_world(np.indices(geometry.shape).reshape(3, -1).T).reshape(*geometry.shape, 3)
    turned = turn_geometry(geometry, turn)
    expected = np.stack([turn_array(points[..., i], turn) for i in range(3)], axis=-1).reshape(-1, 3)
    np.testing.assert_allclose(turned.to_world(np.indices(turned.shape).reshape(3, -1).T), expected, atol=1e-9)


def test_the_named_orientation_is_left_alone():
    case = make_case(make_geometry((3, 4, 5)))
    assert Orient(kind="orient")(case) is case
    assert Orient(kind="orient").projected((3, 4, 5), (1.0, 2.0, 3.0)) == ((3, 4, 5), (1.0, 2.0, 3.0))


@pytest.mark.parametrize("code", ["LP", "LLS", "XYZ", "lps", "LPSS"])
def test_a_wrong_code_is_named(code):
    with pytest.raises(ValidationError, match="expected one letter each"):
        Orient(kind="orient", to=code)


def test_a_mask_on_another_grid_excludes_the_case():
    case = make_case(make_geometry((3, 4, 5)))
    other = make_case(make_geometry((3, 4, 5), origin=(0, 0, 0)))
    mixed = type(case)("case", case.volume, other.annotations)
    with pytest.raises(CaseError) as caught:
        Orient(kind="orient")(mixed)
    assert caught.value.reason is Reason.LABEL_OFF_GRID
