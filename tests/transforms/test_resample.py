"""Resampling of whole cases: the grid it chooses, SimpleITK on that grid, and parts that stay together."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel import load
from pydantic import TypeAdapter, ValidationError

from builder.errors import CaseError, Reason
from builder.model.case import Boxes, Case, Landmarks, Mask, Segment, Volume
from builder.model.geometry import Geometry, corner_voxels
from builder.transforms import AnyTransform, Orient, Resample
from builder.transforms.resample import make_grid
from tests.transforms.cases import make_case, make_geometry, part
from tests.transforms.test_contract import same

BOUNDED = settings(max_examples=25, deadline=None, derandomize=True)
SHAPES = st.tuples(*[st.integers(1, 14)] * 3)
SPACINGS = st.tuples(*[st.floats(0.3, 6.0)] * 3)
LATE = ("linear", "nearest")


def resampled(case, spacing, **options):
    return Resample(kind="resample", spacing_mm=spacing, **options)(case)


def outer_corners(geometry):
    """World coordinates of the outer corners of the field of view."""
    return geometry.to_world(corner_voxels((2, 2, 2)) * geometry.shape - 0.5)


def ask_itk(array, source, target, interpolator):
    image = sitk.GetImageFromArray(array)
    image.SetOrigin(source.origin_mm)
    image.SetSpacing(source.spacing_mm[::-1])
    image.SetDirection(source.directions[:, ::-1].ravel())
    frame = (target.origin_mm, target.spacing_mm[::-1], target.directions[:, ::-1].ravel())
    out = sitk.Resample(
        image, target.shape[::-1], sitk.Transform(), interpolator, *frame, float(array.min()), sitk.sitkFloat64
    )
    return sitk.GetArrayFromImage(out)


@BOUNDED
@given(shape=SHAPES, old=SPACINGS, new=SPACINGS, angles=st.tuples(*[st.floats(-90, 90)] * 3))
def test_the_field_of_view_stays(shape, old, new, angles):
    geometry = make_geometry(shape, old, angles=angles)
    grid = make_grid(geometry, new)
    np.testing.assert_allclose(grid.spacing_mm, new, rtol=1e-12)
    np.testing.assert_allclose(grid.directions, geometry.directions, atol=1e-9)
    assert grid.frame_of_reference == geometry.frame_of_reference
    extent = np.asarray(shape) * old
    for size, length, step in zip(grid.shape, extent, new, strict=True):
        assert size == max(1, round(length / step)) or abs(length / step % 1 - 0.5) < 1e-5
    large = np.asarray(grid.shape) > 1
    drift = np.abs((outer_corners(grid) - outer_corners(geometry)) @ geometry.directions)
    assert (drift[:, large] <= np.asarray(new)[large] / 4 + 1e-6).all()
    centres = geometry.to_voxel(grid.to_world(corner_voxels(grid.shape)))
    assert (centres > -0.5 - 1e-9).all()
    assert (centres < np.asarray(shape) - 0.5 + 1e-9).all()


@BOUNDED
@given(shape=SHAPES, old=SPACINGS, new=SPACINGS)
def test_the_projection_is_what_comes_out(shape, old, new):
    transform = Resample(kind="resample", spacing_mm=new)
    made = transform(make_case(make_geometry(shape, old))).volume.geometry
    projected, spacing = transform.projected(shape, old)
    assert projected == made.shape
    np.testing.assert_allclose(spacing, made.spacing_mm)


@pytest.mark.parametrize("angles", [(0, 0, 0), (12, -7, 33)])
@pytest.mark.parametrize(("image", "interpolator"), [("linear", sitk.sitkLinear), ("cubic", sitk.sitkBSpline)])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_equals_simpleitk_on_the_same_grid(image, interpolator, dtype, angles):
    geometry = make_geometry((11, 37, 29), angles=angles)
    case = make_case(geometry, dtype=dtype, channels=2)
    for axes in ("image", "patient"):
        moved = resampled(case, (1.1, 1.0, 0.9), image=image, axes=axes)
        for channel, source in zip(moved.volume.voxels, case.volume.voxels, strict=True):
            expected = ask_itk(source, geometry, moved.volume.geometry, interpolator)
            tolerance = 0.5005 if dtype == "int16" else 0.001
            assert np.abs(channel - expected).max() <= tolerance


def test_equals_simpleitk_on_a_real_image(corpus):
    """An anisotropic CT in Hounsfield units."""
    image = load(next(corpus("sts").glob("sts_nifti/**/*CT*image*.nii.gz")))
    voxels = np.asarray(image.dataobj).astype(np.int16).transpose(2, 1, 0)[None]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine[:, [2, 1, 0, 3]]
    geometry = Geometry(voxels.shape[1:], affine)
    case = Case("real", Volume(voxels, geometry))
    for name, interpolator in (("linear", sitk.sitkLinear), ("cubic", sitk.sitkBSpline)):
        for dtype, tolerance in (("int16", 0.5005), ("float32", 0.0005)):
            typed = Case("real", Volume(voxels.astype(dtype), geometry))
            moved = resampled(typed, (1.0, 1.3, 1.3), image=name)
            expected = ask_itk(voxels[0].astype(np.float32), geometry, moved.volume.geometry, interpolator)
            assert np.abs(moved.volume.voxels[0] - expected).max() <= tolerance
    assert case.volume.voxels.max() > 100


@BOUNDED
@given(code=st.sampled_from(["RPS", "LAS", "LPI", "SRA", "IPL"]), new=SPACINGS)
def test_flipping_before_or_after_gives_the_same_world(code, new):
    case = make_case(make_geometry((5, 9, 7)))
    turn = Orient(kind="orient", to=code)
    after = turn(resampled(case, new))
    spacing = np.abs(after.volume.geometry.affine[:3, :3].sum(axis=0))  # the new spacing in the turned order
    before = resampled(turn(case), tuple(map(float, spacing)))
    assert before.volume.geometry.same_grid(after.volume.geometry, tolerance_voxels=1e-6)
    assert np.abs(before.volume.voxels.astype(int) - after.volume.voxels).max() <= 1


@pytest.mark.parametrize("padding", [False, True])
def test_every_part_moves_together(padding):
    case = make_case(make_geometry((10, 20, 24)), padding=padding)
    moved = resampled(case, (1.0, 1.0, 1.0))
    mask = part(moved, Mask)
    assert mask.geometry is moved.volume.geometry
    assert moved.volume.voxels.dtype == np.int16
    assert (moved.volume.padding is not None) == padding
    if padding:
        world = moved.volume.geometry.to_world(np.argwhere(moved.volume.padding))
        assert set(np.rint(case.volume.geometry.to_voxel(world)[:, 1])) == {0.0}
    np.testing.assert_array_equal(part(moved, Boxes).corners_mm, part(case, Boxes).corners_mm)
    np.testing.assert_array_equal(part(moved, Landmarks).points_mm, part(case, Landmarks).points_mm)
    inside = moved.volume.geometry.to_world(np.argwhere(mask.voxels[0] == 1))
    corners = part(moved, Boxes).corners_mm[0]
    assert (inside >= corners.min(axis=0) - 1e-6).all()
    assert (inside <= corners.max(axis=0) + 1e-6).all()
    assert moved.volume.notes == case.volume.notes


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_the_change_of_every_volume_is_recorded(mode):
    case = make_case(make_geometry((10, 20, 24), (3.0, 1.0, 1.0)))
    moved = resampled(case, (5.0, 2.0, 2.0), mask=mode)
    mask, before = part(moved, Mask), part(case, Mask)
    for segment in mask.segments:
        was = before.inside(segment).sum() * before.geometry.voxel_volume_mm3
        now = mask.inside(segment).sum() * mask.geometry.voxel_volume_mm3
        assert mask.measures[f"{segment.name}/resample_before_mm3"] == pytest.approx(was)
        assert mask.measures[f"{segment.name}/resample_after_mm3"] == pytest.approx(now)
    assert mask.measures["kept"] == 1.0
    again = part(resampled(moved, (3.0, 1.0, 1.0), mask=mode), Mask)
    assert again.measures["mass/resample_before_mm3"] == mask.measures["mass/resample_before_mm3"]


def test_linear_masks_keep_a_sphere_better_than_nearest():
    geometry = make_geometry((16, 16, 16), (2.0, 2.0, 2.0))
    distance = np.sqrt(((np.indices(geometry.shape).T * 2.0 - 15.0) ** 2).sum(-1))
    mask = Mask("m", (distance < 9.0).astype(np.uint8)[None], geometry, (Segment("s"),))
    case = Case("c", make_case(geometry).volume, (mask,))
    overlap = {}
    for mode in ("nearest", "linear"):
        moved = part(resampled(case, (0.5, 0.5, 0.5), mask=mode), Mask)
        at = moved.geometry.to_world(np.indices(moved.geometry.shape).reshape(3, -1).T)
        true = np.linalg.norm(at - geometry.to_world([[7.5, 7.5, 7.5]]), axis=1).reshape(moved.geometry.shape) < 9.0
        found = moved.voxels[0] == 1
        overlap[mode] = 2 * (true & found).sum() / (true.sum() + found.sum())
    assert overlap["linear"] > overlap["nearest"] > 0.8


def test_fractional_masks_are_interpolated():
    geometry = make_geometry((2, 4, 4), (1.0, 1.0, 1.0))
    voxels = np.zeros((1, *geometry.shape), np.uint8)
    voxels[0, :, :, 2:] = 255
    mask = Mask("f", voxels, geometry, (Segment("s"),), fractional=True)
    moved = part(resampled(Case("c", make_case(geometry).volume, (mask,)), (1.0, 1.0, 0.5), mask="linear"), Mask)
    np.testing.assert_array_equal(moved.voxels[0, 0, 0], [0, 0, 0, 64, 191, 255, 255, 255])
    assert moved.measures["s/resample_before_mm3"] == pytest.approx(16.0)


@pytest.mark.parametrize("shear", [0.35, -0.2])
def test_a_sheared_grid_becomes_orthogonal_and_loses_nothing(shear):
    geometry = make_geometry((12, 40, 30), (3.0, 1.0, 1.0), shear=shear, angles=(5, 0, 3))
    assert not geometry.is_orthogonal
    index = np.indices(geometry.shape).reshape(3, -1).T
    linear = (geometry.to_world(index) @ [1.0, 2.0, -0.5]).reshape(1, *geometry.shape).astype(np.float32)
    case = Case("c", Volume(linear, geometry), make_case(geometry).annotations)
    moved = resampled(case, (1.0, 1.0, 1.0))
    grid = moved.volume.geometry
    assert grid.is_orthogonal
    np.testing.assert_allclose(grid.directions[:, 2], geometry.directions[:, 2], atol=1e-12)
    reach = grid.to_voxel(outer_corners(geometry))
    assert (reach >= -0.5 - 0.26).all()
    assert (reach <= np.asarray(grid.shape) - 0.5 + 0.26).all()
    at = grid.to_world(np.indices(grid.shape).reshape(3, -1).T)
    voxel = geometry.to_voxel(at)
    within = ((voxel >= 0) & (voxel <= np.asarray(geometry.shape) - 1)).all(1)
    assert np.abs(moved.volume.voxels.ravel() - at @ [1.0, 2.0, -0.5])[within].max() < 1e-3
    outside = ((voxel < -0.50001) | (voxel > np.asarray(geometry.shape) - 0.49999)).any(1)
    np.testing.assert_array_equal(moved.volume.padding.ravel()[outside], True)
    assert not moved.volume.padding.ravel()[within].any()
    assert (moved.volume.voxels.ravel()[outside] == linear.min()).all()
    measures = part(moved, Mask).measures
    assert measures["mass/resample_after_mm3"] == pytest.approx(measures["mass/resample_before_mm3"], rel=0.1)


def test_tilt_there_and_back():
    """A smooth image on an orthogonal grid, sampled on the tilted one and back, is itself within interpolation."""
    from builder.kernels.sampling import sample

    straight = make_geometry((24, 40, 30), (1.0, 1.0, 1.0))
    tilted = make_geometry((24, 40, 30), (1.0, 1.0, 1.0), shear=0.3)
    waves = np.cos(np.indices(straight.shape) / 4.0).sum(0).astype(np.float32) * 100
    there = sample(waves, straight, tilted, method="cubic", fill=-9999)
    back = sample(there, tilted, straight, method="cubic", fill=-9999)
    reach = tilted.to_voxel(straight.to_world(np.indices(straight.shape).reshape(3, -1).T))
    within = ((reach > 8) & (reach < np.asarray(straight.shape) - 9)).all(1).reshape(straight.shape)
    within[:, :10] = within[:, -10:] = False
    assert within.sum() > 500
    assert np.abs(back - waves)[within].max() < 0.2


def test_patient_axes_straighten_an_oblique_grid():
    geometry = make_geometry((12, 16, 14), (2.0, 1.0, 1.0), angles=(12, 8, -10))
    moved = resampled(make_case(geometry), (1.0, 1.0, 1.0), axes="patient", fill=-77)
    np.testing.assert_array_equal(np.abs(moved.volume.geometry.directions).round(12).sum(axis=0), [1, 1, 1])
    assert moved.volume.geometry.orientation == geometry.orientation
    assert (moved.volume.voxels[0][moved.volume.padding] == -77).all()
    assert 0 < moved.volume.padding.mean() < 0.7


def test_null_keeps_a_spacing_and_nothing_to_do_keeps_the_case():
    case = make_case(make_geometry((7, 10, 12), (2.5, 0.8, 0.7)))
    same = resampled(case, (None, None, None))
    assert same.volume is case.volume
    assert part(same, Mask).voxels is part(case, Mask).voxels
    measures = part(same, Mask).measures
    assert measures["mass/resample_before_mm3"] == measures["mass/resample_after_mm3"] > 0
    moved = resampled(case, (None, 1.0, 1.0))
    assert moved.volume.geometry.spacing_mm[0] == pytest.approx(2.5)
    assert moved.volume.geometry.shape == (7, 8, 8)
    np.testing.assert_array_equal(moved.volume.voxels, resampled(case, (2.5, 1.0, 1.0)).volume.voxels)


@BOUNDED
@given(shape=SHAPES, old=SPACINGS, new=SPACINGS, slices=st.integers(1, 20), rows=st.integers(1, 20),
       image=st.sampled_from(LATE))  # fmt: skip
def test_in_slabs_everything_is_as_in_one_go(shape, old, new, slices, rows, image):
    case = make_case(make_geometry(shape, old), padding=True, channels=2)
    transform = Resample(kind="resample", spacing_mm=new, image=image)
    made = transform.in_slabs(case)
    if make_grid(case.volume.geometry, new).same_grid(case.volume.geometry, tolerance_voxels=1e-9):
        assert made is None
        return
    assert made is not None
    late, slabs = made
    whole = transform(case)
    pieces = [slab.copy() for slab in slabs.make(slices, rows)]
    across = -(-slabs.shape[2] // rows)
    layers = [np.concatenate(pieces[n : n + across], axis=2) for n in range(0, len(pieces), across)]
    image = np.concatenate(layers, axis=1)
    np.testing.assert_array_equal(image, whole.volume.voxels)
    assert (slabs.shape, slabs.dtype, slabs.nbytes) == (image.shape, image.dtype, image.nbytes)
    assert same(replace(late, volume=replace(late.volume, voxels=image, padding=whole.volume.padding)), whole)
    assert late.volume.voxels.strides == (0, 0, 0, 0)


def test_threads_change_no_byte_and_no_fingerprint():
    case = make_case(make_geometry((7, 30, 32)))
    one, four = (resampled(case, (1.0, 1.0, 1.0), image="cubic", threads=n) for n in (1, 4))
    assert one.volume.voxels.tobytes() == four.volume.voxels.tobytes()
    assert Resample(kind="resample", spacing_mm=(1, 1, 1), threads=4).model_dump() == (
        Resample(kind="resample", spacing_mm=(1, 1, 1)).model_dump()
    )


def test_faults_are_named():
    oblique = make_case(make_geometry((5, 6, 7), shear=0.3))
    with pytest.raises(CaseError, match="antialias") as caught:
        resampled(oblique, (1.0, 1.0, 1.0), antialias="lowpass")
    assert caught.value.reason is Reason.SHEARED
    huge = make_case(make_geometry((5, 6, 7), (500.0, 900.0, 900.0)))
    with pytest.raises(CaseError) as caught:
        resampled(huge, (0.01, 0.01, 0.01))
    assert caught.value.reason is Reason.TOO_LARGE
    with pytest.raises(CaseError, match="whole number"):
        resampled(make_case(make_geometry((5, 6, 7), shear=0.3), dtype="uint8"), (1.0, 1.0, 1.0), fill=-1024)
    adapter = TypeAdapter(AnyTransform)
    for block in ({"spacing_mm": [0, 1, 1]}, {"spacing_mm": [1, 1]}, {"spacing_mm": [1, 1, 1], "image": "lanczos"}):
        with pytest.raises(ValidationError):
            adapter.validate_python({"kind": "resample"} | block)
