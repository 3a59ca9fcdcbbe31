"""Cropping: what is kept is untouched, what is cut is recorded."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from builder.errors import CaseError, Reason
from builder.model.case import Boxes, Case, Landmarks, Mask
from builder.model.geometry import corner_voxels
from builder.transforms import AnyTransform
from tests.transforms.cases import make_case, make_geometry, part

BOUNDED = settings(max_examples=25, deadline=None, derandomize=True)


def crop(**options):
    return TypeAdapter(AnyTransform).validate_python({"kind": "crop"} | options)


@BOUNDED
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    wanted=st.tuples(*[st.integers(1, 14)] * 3),
    angles=st.tuples(*[st.floats(-90, 90)] * 3),
    padding=st.booleans(),
)
def test_every_voxel_stays_at_its_point(shape, wanted, angles, padding):
    case = make_case(make_geometry(shape, angles=angles, shear=0.2), padding=padding, channels=2)
    moved = crop(shape=wanted, fill=-5000)(case)
    grid = moved.volume.geometry
    assert grid.shape == wanted
    index = np.indices(wanted).reshape(3, -1).T
    source = case.volume.geometry.to_voxel(grid.to_world(index))
    whole = np.rint(source).astype(int)
    np.testing.assert_allclose(source, whole, atol=1e-6)
    known = ((whole >= 0) & (whole < shape)).all(1)
    found = moved.volume.voxels[:, *index.T]
    np.testing.assert_array_equal(found[:, known], case.volume.voxels[:, *whole[known].T])
    assert (found[:, ~known] == -5000).all()
    if moved.volume.padding is None:
        assert known.all()
    else:
        was = np.zeros(len(index), bool)
        if padding:
            was[known] = case.volume.padding[tuple(whole[known].T)]
        np.testing.assert_array_equal(moved.volume.padding[tuple(index.T)], ~known | was)


@BOUNDED
@given(shape=st.tuples(*[st.integers(2, 9)] * 3), wanted=st.tuples(*[st.integers(1, 12)] * 3))
def test_what_falls_outside_is_recorded(shape, wanted):
    case = make_case(make_geometry(shape, angles=(3, 4, 5)))
    moved = crop(shape=wanted)(case)
    before, after = part(case, Mask), part(moved, Mask)
    size = before.geometry.voxel_volume_mm3
    for segment in before.segments:
        lost = (before.inside(segment).sum() - after.inside(segment).sum()) * size
        assert after.measures[f"{segment.name}/crop_outside_mm3"] == pytest.approx(lost, abs=1e-6)
    notes = dict(note.split("=") for note in moved.volume.notes if "=" in note)
    boxes, marks = part(moved, Boxes), part(moved, Landmarks)
    assert 1 - len(boxes.classes) == int(notes.get("crop_dropped/lesions", 0))
    assert 3 - len(marks.classes) == int(notes.get("crop_dropped/recist", 0))
    grid = moved.volume.geometry
    ends = np.asarray(wanted) - 0.5 + 1e-6
    for points in (boxes.corners_mm.reshape(-1, 3), marks.points_mm):
        at = grid.to_voxel(points)
        assert ((at >= -0.5 - 1e-6) & (at <= ends)).all()
    assert len(boxes.corners_mm) == len(boxes.classes)
    assert len(marks.points_mm) == len(marks.classes) == len(marks.groups)
    if after.inside(after.segments[0]).any():
        corners = grid.to_voxel(boxes.corners_mm)
        inside = np.argwhere(after.inside(after.segments[0]))
        low, high = inside.min(axis=0) - 0.5, inside.max(axis=0) + 0.5
        np.testing.assert_allclose(corners, low + corner_voxels((2, 2, 2)) * (high - low), atol=1e-6)
    else:
        assert not boxes.classes
    assert {marks.groups.count("l1")} <= {0, 2}


def test_around_a_mask_with_a_margin():
    case = make_case(make_geometry((16, 40, 40), (2.0, 1.0, 1.0)))
    moved = crop(mask="tumour", segments=["mass"], margin_mm=[3, 5, 5])(case)
    assert moved.volume.geometry.shape == (4 + 2 + 2, 10 + 5 + 5, 10 + 5 + 5)
    np.testing.assert_array_equal(moved.volume.voxels, case.volume.voxels[:, 2:10, 5:25, 5:25])
    everything = crop(mask="tumour", margin_mm=[0, 0, 0])(case)
    assert everything.volume.geometry.shape == (12, 30, 30)
    fixed = crop(mask="tumour", segments=["mass"], shape=[6, 8, 8])(case)
    np.testing.assert_array_equal(fixed.volume.voxels, case.volume.voxels[:, 3:9, 11:19, 11:19])
    assert "crop_cut/lesions=1" in fixed.volume.notes


@pytest.mark.parametrize(
    ("have", "want", "first"), [(9, 4, 2), (8, 3, 2), (8, 4, 2), (3, 6, -2), (4, 7, -2), (4, 8, -2)]
)
def test_half_a_voxel_goes_to_the_lower_index(have, want, first):
    case = make_case(make_geometry((have, 5, 5)))
    moved = crop(shape=[want, 5, 5])(case)
    start = case.volume.geometry.to_voxel([moved.volume.geometry.origin_mm])
    np.testing.assert_allclose(start, [[first, 0, 0]], atol=1e-9)


def test_margins_stop_at_the_image():
    case = make_case(make_geometry((16, 40, 40)))
    moved = crop(mask="tumour", margin_mm=[900, 900, 900])(case)
    np.testing.assert_array_equal(moved.volume.voxels, case.volume.voxels)
    assert moved.volume.padding is None


def test_the_body_is_the_largest_part():
    geometry = make_geometry((10, 60, 60), (3.0, 1.0, 1.0))
    case = make_case(geometry)
    voxels = np.full((1, *geometry.shape), -1000, np.int16)
    voxels[0, :, 10:40, 15:50] = 40
    voxels[0, :, 58:] = 200  # a table
    case = replace(case, volume=replace(case.volume, voxels=voxels))
    moved = crop(body_above=-500)(case)
    rows, columns = moved.volume.geometry.shape[1:]
    assert 30 <= rows <= 30 + 4 * 4
    assert 35 <= columns <= 35 + 4 * 4
    assert (moved.volume.voxels == 40).sum() == (voxels == 40).sum()
    assert not (moved.volume.voxels == 200).any()
    with pytest.raises(CaseError) as caught:
        crop(body_above=5000)(case)
    assert caught.value.reason is Reason.NO_SAMPLES


@BOUNDED
@given(
    borders=st.tuples(*[st.integers(0, 9)] * 4),
    values=st.tuples(*[st.sampled_from([0.0, 200.0, 255.0])] * 4),
    noise=st.integers(0, 3),
)
def test_borders_and_the_marks_in_them_are_cut_off(borders, values, noise):
    rng = np.random.default_rng(sum(borders))
    film = rng.uniform(20, 180, (1, 2, 60, 70))
    top, bottom, left, right = borders
    plane = film.copy()
    plane[:, :, :top], plane[:, :, 60 - bottom :] = values[0], values[1]
    plane[:, :, top : 60 - bottom, :left], plane[:, :, top : 60 - bottom, 70 - right :] = values[2], values[3]
    plane += rng.uniform(0, noise, plane.shape)
    if top > 3:
        plane[0, :, 1:3, 30:33] = 255 - values[0]  # a mark of three columns in a border of seventy
    case = make_case(make_geometry((2, 60, 70)))
    case = replace(case, volume=replace(case.volume, voxels=plane.astype(np.float32), channels=("image",)))
    found = crop(edges_within=3)(case).volume
    expected = plane[:, :, top : 60 - bottom, left : 70 - right].astype(np.float32)
    np.testing.assert_array_equal(found.voxels, expected)
    corner = case.volume.geometry.to_world(np.array([[0, top, left]]))
    np.testing.assert_allclose(found.geometry.to_world(np.zeros((1, 3))), corner, atol=1e-6)


def test_a_film_of_nothing_but_border_is_refused():
    case = make_case(make_geometry((1, 8, 8)))
    flat = replace(case, volume=replace(case.volume, voxels=np.full_like(case.volume.voxels, 7)))
    with pytest.raises(CaseError, match="found no row or column whose values differ by more than 3"):
        crop(edges_within=3)(flat)


def test_a_turned_box_is_kept_whole():
    """A box that does not lie along the grid cannot be cut at its edges."""
    case = make_case(make_geometry((10, 20, 20), (1.0, 1.0, 1.0)))
    boxes = part(case, Boxes)
    turned = make_geometry((10, 20, 20), (1.0, 1.0, 1.0), angles=(0, 0, 30))
    other = Boxes("lesions", turned.to_world(corner_voxels((4, 12, 12)) + 3).reshape(1, 8, 3), boxes.classes)
    moved = crop(shape=[4, 4, 4])(Case("c", case.volume, (other,)))
    np.testing.assert_array_equal(part(moved, Boxes).corners_mm, other.corners_mm)
    assert "crop_cut/lesions=1" in moved.volume.notes


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mask": "lung"}, Reason.LABEL_MISSING),
        ({"mask": "tumour", "segments": ["liver"]}, Reason.LABEL_MISSING),
        ({"shape": [90, 9, 9], "fill": 70000}, Reason.INCONSISTENT_PIXELS),
        ({"shape": [90, 9, 9], "fill": 0.5}, Reason.INCONSISTENT_PIXELS),
    ],
)
def test_cases_that_do_not_fit_are_excluded(options, reason):
    with pytest.raises(CaseError) as caught:
        crop(**options)(make_case(make_geometry((8, 9, 10))))
    assert caught.value.reason is reason


def test_an_empty_mask_excludes_the_case():
    case = make_case(make_geometry((8, 9, 10)))
    mask = part(case, Mask)
    empty = Case("c", case.volume, (replace(mask, voxels=np.zeros_like(mask.voxels)),))
    with pytest.raises(CaseError) as caught:
        crop(mask="tumour")(empty)
    assert caught.value.reason is Reason.LABEL_EMPTY


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask": "a", "body_above": 0},
        {"shape": [4, 4, 4], "margin_mm": [1, 1, 1]},
        {"shape": [4, 4, 4], "segments": ["a"]},
        {"shape": [0, 4, 4]},
        {"shape": [4, 4, 4], "colour": "red"},
    ],
)
def test_faulty_options_are_refused(options):
    with pytest.raises(ValidationError):
        crop(**options)


def test_the_projection_is_an_upper_bound():
    assert crop(shape=[4, 5, 6]).projected((9, 9, 9), (1.0, 1.0, 1.0)) == ((4, 5, 6), (1.0, 1.0, 1.0))
    assert crop(mask="m").projected((9, 9, 9), (1.0, 1.0, 1.0)) == ((9, 9, 9), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kind": "crop", "mask": "tumour"}, Reason.LABEL_EMPTY),
        ({"kind": "intensity", "zscore": "volume", "inside_mask": "tumour"}, Reason.INCONSISTENT_PIXELS),
        ({"kind": "intensity", "clip_percent": [1, 99], "inside_mask": "tumour"}, Reason.INCONSISTENT_PIXELS),
    ],
)
def test_a_case_without_the_label_is_left_out_and_stops_nothing(options, reason):
    case = make_case(make_geometry((4, 5, 6)))
    mask = replace(case.masks[0], segments=(), voxels=np.zeros_like(case.masks[0].voxels))
    with pytest.raises(CaseError) as caught:
        TypeAdapter(AnyTransform).validate_python(options)(replace(case, annotations=(mask,)))
    assert caught.value.reason is reason
