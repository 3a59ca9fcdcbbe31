"""The sampling kernels against SimpleITK, scipy and Pillow, and their invariants."""

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from scipy.spatial.transform import Rotation

from builder.kernels.sampling import resample, sample, slab_maker
from builder.kernels.taps import Line
from builder.model.geometry import Geometry

ITK = {"nearest": sitk.sitkNearestNeighbor, "linear": sitk.sitkLinear, "cubic": sitk.sitkBSpline}
BOUNDED = settings(max_examples=20, deadline=None, derandomize=True)


def make_grid(shape, spacing, *, angles=(0.0, 0.0, 0.0), shear=0.0, centre=(0.0, 0.0, 0.0)):
    """A grid about ``centre``; unrotated it is S, P, L; ``shear`` tilts the slice axis towards the rows."""
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    axes = rotation @ np.array([[0.0, 0, 1], [shear, 1, 0], [1, 0, 0]])
    axes[:, 0] /= np.linalg.norm(axes[:, 0])
    affine = np.eye(4)
    affine[:3, :3] = axes * np.asarray(spacing)
    affine[:3, 3] = np.asarray(centre) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Geometry(shape, affine)


def ask_itk(volume, source, target, interpolator, *, fill):
    """SimpleITK's own resampling, as float64; its axis order is reversed."""
    image = sitk.GetImageFromArray(volume)
    image.SetOrigin(source.origin_mm)
    image.SetSpacing(source.spacing_mm[::-1])
    image.SetDirection(source.directions[:, ::-1].ravel())
    out = sitk.Resample(
        image,
        target.shape[::-1],
        sitk.Transform(),
        interpolator,
        target.origin_mm,
        target.spacing_mm[::-1],
        target.directions[:, ::-1].ravel(),
        fill,
        sitk.sitkFloat64,
    )
    return sitk.GetArrayFromImage(out)


def noise(shape, dtype, *, seed=0):
    low, high = {"uint8": (0, 256), "uint16": (0, 65536)}.get(dtype, (-1024, 3072))
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


GRIDS = st.builds(
    dict,
    spacing=st.tuples(*[st.floats(0.61, 3.97)] * 3),
    angles=st.sampled_from([(0, 0, 0), (0, 0, 0), (90, 0, 0), (180, 0, 90), (7, -13, 31), (1.5, 0, 0)]),
    shear=st.sampled_from([0.0, 0.0, 0.32]),
    centre=st.tuples(*[st.floats(-6.01, 6.03)] * 3),
    shape=st.tuples(*[st.integers(1, 23)] * 3),
)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8", "float32"])
@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
@BOUNDED
@given(grid=GRIDS, seed=st.integers(0, 99))
def test_equals_simpleitk_on_any_grid(method, dtype, grid, seed):
    source = make_grid(
        (11, 19, 17), (2.513, 0.977, 0.871), angles=(3, 4, 5) if seed % 2 else (0, 0, 0), shear=seed % 3 * 0.15
    )
    volume = noise(source.shape, dtype, seed=seed)
    target = make_grid(**grid)
    found = sample(volume, source, target, method=method, fill=7)
    expected = ask_itk(volume, source, target, ITK[method], fill=7)
    span = float(np.ptp(volume))
    float_error = span * (1.2e-7 if method == "linear" else 5e-7)
    if dtype != "float32":
        limits = np.iinfo(dtype)
        expected = np.clip(expected, limits.min, limits.max)
        float_error += 0 if method == "nearest" else 0.5
    position = np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), -1).reshape(-1, 3)
    at = source.to_voxel(target.to_world(position)).reshape(*target.shape, 3)
    ends = np.asarray(source.shape) - 0.5
    clear = (np.abs(at + 0.5) > 1e-5).all(-1) & (np.abs(at - ends) > 1e-5).all(-1)  # ITK leaves out the upper edge
    if method == "nearest":
        clear &= (np.abs(at - np.floor(at) - 0.5) > 1e-5).all(-1)
    assert found.dtype == np.dtype(dtype)
    assert np.abs(found - expected)[clear].max(initial=0) <= float_error


@pytest.mark.parametrize("method", ["linear", "cubic"])
@BOUNDED
@given(
    shape=st.tuples(*[st.integers(18, 26)] * 3),
    factor=st.tuples(*[st.floats(0.31, 2.9)] * 3),
    slope=st.tuples(*[st.floats(-9, 9)] * 3),
    angles=st.sampled_from([(0, 0, 0), (11, 5, -8)]),
)
def test_a_ramp_stays_that_ramp(method, shape, factor, slope, angles):
    """Within the outermost centres; the cubic one away from its mirrored edges."""
    index = np.indices(shape).reshape(3, -1)
    ramp = (np.asarray(slope) @ index).reshape(shape).astype(np.float32)
    source = make_grid(shape, (1.0, 1.0, 1.0))
    target = make_grid(tuple(max(1, round(n / f)) for n, f in zip(shape, factor, strict=True)), factor, angles=angles)
    found = sample(ramp, source, target, method=method, fill=0)
    at = source.to_voxel(target.to_world(np.indices(target.shape).reshape(3, -1).T))
    margin = 0 if method == "linear" else 8
    within = ((at >= margin) & (at <= np.asarray(shape) - 1 - margin)).all(1)
    expected = at @ np.asarray(slope)
    tolerance = 2e-4 if method == "linear" else 3 * 9 * 0.268**margin  # a kink at the edge fades by the spline's pole
    assert np.abs(found.ravel() - expected)[within].max(initial=0) <= tolerance


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8", "float32", "bool"])
@pytest.mark.parametrize("method", ["nearest", "linear", "cubic", "majority"])
def test_the_same_grid_gives_the_same_voxels(method, dtype):
    grid = make_grid((5, 7, 6), (3.1, 0.7, 0.9), angles=(9, 8, 7))
    volume = noise(grid.shape, "int16").astype(dtype)
    if (method == "majority" and dtype in ("int16", "float32")) or (dtype == "bool" and method in ("linear", "cubic")):
        with pytest.raises(ValueError, match="expected"):
            sample(volume, grid, grid, method=method, fill=0)
        return
    found = sample(volume, grid, grid, method=method, fill=0)
    assert found is not volume
    np.testing.assert_array_equal(found, volume)


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
def test_the_kernels_themselves_keep_whole_positions(method):
    """A shift by whole voxels, along axes and along the affine, copies what it reaches."""
    volume = noise((6, 40, 70), "int16")
    lines = (Line(5, 1.0, 1.0), Line(39, 39.0, -1.0), Line(69, 1.0, 1.0))
    np.testing.assert_array_equal(resample(volume, lines, method=method, fill=0), volume[1:, :0:-1, 1:])


def test_a_neighbour_without_weight_is_not_touched():
    volume = np.full((5, 5, 5), np.nan, np.float32)
    volume[::2, ::2, ::2] = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    every_second = (Line(3, 0.0, 2.0),) * 3
    kept = resample(volume, every_second, method="linear", fill=0)
    np.testing.assert_array_equal(kept, volume[::2, ::2, ::2])


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("angles", [(0, 0, 0), (5, 6, 7)])
@pytest.mark.parametrize("method", ["nearest", "linear", "cubic", "majority"])
def test_bytes_do_not_depend_on_threads(method, angles, threads):
    source = make_grid((9, 61, 83), (3.0, 0.8, 0.7))
    target = make_grid((30, 47, 91), (1.0, 1.1, 0.6), angles=angles)
    volume = noise(source.shape, "uint8") // (86 if method == "majority" else 1)
    one = sample(volume, source, target, method=method, fill=3)
    assert sample(volume, source, target, method=method, fill=3, threads=threads).tobytes() == one.tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@BOUNDED
@given(factor=st.tuples(*[st.floats(0.4, 2.3)] * 3), labels=st.integers(2, 5), seed=st.integers(0, 99))
def test_majority_is_the_largest_of_linear_labels(dtype, factor, labels, seed):
    shape = (7, 11, 13)
    volume = np.random.default_rng(seed).integers(0, labels, shape).astype(dtype)
    source = make_grid(shape, (1.0, 1.0, 1.0))
    target = make_grid(tuple(max(1, round(n / f)) for n, f in zip(shape, factor, strict=True)), factor)
    each = [
        ask_itk((volume == label).astype(np.float64), source, target, sitk.sitkLinear, fill=0)
        for label in range(labels)
    ]
    ranked = np.sort(each, axis=0)
    clear = ranked[-1] - ranked[-2] > 1e-4
    found = sample(volume, source, target, method="majority", fill=0)
    np.testing.assert_array_equal(found[clear], np.argmax(each, axis=0)[clear])
    turned = make_grid(target.shape, factor, angles=(0.002, 0, 0))  # the kernel along the affine, at the same points
    assert (sample(volume, source, turned, method="majority", fill=0) != found)[clear].mean() < 0.02


def test_majority_prefers_structures_and_lower_values_at_a_tie():
    volume = np.array([[[0, 2, 2, 1, 1, 0]]], dtype=np.uint8)
    found = resample(volume, (Line(1, 0, 1), Line(1, 0, 1), Line(5, 0.5, 1.0)), method="majority", fill=0)
    np.testing.assert_array_equal(found.ravel(), [2, 2, 1, 1, 1])


def test_majority_keeps_a_voxel_that_rounding_would_lose():
    """A structure of half a weight stands against several neighbours of less."""
    volume = np.zeros((1, 3, 3), dtype=np.uint8)
    volume[0, 1] = (1, 5, 2)
    lines = (Line(1, 0, 1), Line(1, 1.0, 1), Line(1, 1.5, 1))
    assert resample(volume, lines, method="majority", fill=0).item() == 2
    lines = (Line(1, 0, 1), Line(1, 1.0, 1), Line(1, 1.45, 1))
    assert resample(volume, lines, method="majority", fill=0).item() == 5


@pytest.mark.parametrize(
    ("method", "kernel"), [("linear", Image.Resampling.BILINEAR), ("cubic", Image.Resampling.BICUBIC)]
)
@pytest.mark.parametrize("size", [(9, 31), (40, 17), (13, 11)])
def test_lowpass_equals_pillow_where_every_axis_shrinks(method, kernel, size):
    plane = noise((47, 53), "float32")
    lines = [Line(o, (n / o - 1) / 2, n / o) for n, o in zip(plane.shape, size, strict=True)]
    found = resample(plane[None], (Line(1, 0, 1), lines[0], lines[1]), method=method, fill=0, antialias="lowpass")
    expected = np.asarray(Image.fromarray(plane).resize(size[::-1], kernel))
    np.testing.assert_allclose(found[0], expected, atol=2e-3)


def test_lowpass_changes_nothing_where_no_axis_shrinks():
    volume = noise((4, 9, 9), "int16")
    lines: Any = tuple(Line(2 * n, -0.25, 0.5) for n in volume.shape)
    for method in ("linear", "cubic"):
        plain = resample(volume, lines, method=method, fill=0)
        np.testing.assert_array_equal(resample(volume, lines, method=method, fill=0, antialias="lowpass"), plain)


def test_lowpass_removes_what_the_new_grid_cannot_hold():
    checker = np.indices((4, 64, 64)).sum(0).astype(np.float32) % 2 * 1000
    lines = (Line(4, 0, 1), Line(21, 1.0, 3.0), Line(21, 1.0, 3.0))
    plain = resample(checker, lines, method="linear", fill=0)
    assert plain.std() > 400
    assert resample(checker, lines, method="linear", fill=0, antialias="lowpass").std() < 40


def test_cubic_clamps_where_it_overshoots():
    volume = np.full((1, 1, 16), -32768, dtype=np.int16)
    volume[..., 8:] = 32767
    lines = (Line(1, 0, 1), Line(1, 0, 1), Line(61, 0.0, 0.25))
    found = resample(volume, lines, method="cubic", fill=0).ravel().astype(int)
    coefficients = ndimage.spline_filter1d(volume.astype(float), 3, axis=2, mode="mirror")
    at = np.array([np.zeros(61), np.zeros(61), np.arange(61) * 0.25])
    exact = ndimage.map_coordinates(coefficients, at, order=3, mode="mirror", prefilter=False)
    assert exact.max() > 34000
    assert np.abs(found - np.clip(exact, -32768, 32767)).max() <= 0.51


@pytest.mark.parametrize("bands", [1, 4])
def test_bands_of_rows_do_not_change_the_bytes(bands, monkeypatch):
    """The float stack is bounded by working in bands: many slices to few, small planes to large."""
    volume = noise((60, 8, 8), "uint8")
    lines = (Line(3, 9.5, 20.0), Line(64, -0.4375, 0.125), Line(64, -0.4375, 0.125))
    found = resample(volume, lines, method="cubic", fill=0)
    source, target = make_grid(volume.shape, (1, 1, 1)), make_grid((3, 64, 64), (20.0, 0.125, 0.125))
    expected = np.clip(ask_itk(volume, source, target, sitk.sitkBSpline, fill=0), 0, 255)
    assert np.abs(found - expected).max() <= 0.501


@pytest.mark.parametrize("size", [31, 150])
def test_planes_blended_in_parts_give_the_same_bytes(size, monkeypatch):
    """Large slices are blended by as many rows as the cache holds; columns that shrink and that grow differ in how."""
    from builder.kernels import linear

    volume = noise((9, 53, 71), "int16")
    lines: Any = tuple(Line(o, (n / o - 1) / 2, n / o) for n, o in zip(volume.shape, (20, 47, size), strict=True))
    whole = resample(volume, lines, method="linear", fill=0)
    monkeypatch.setattr(linear, "PLANE_VOXELS", 5 * size)
    np.testing.assert_array_equal(resample(volume, lines, method="linear", fill=0), whole)


def test_fill_is_used_outside_the_field_and_only_there():
    source = make_grid((4, 4, 4), (1.0, 1.0, 1.0))
    volume = np.full(source.shape, 5, dtype=np.int16)
    for angles, outside in (((0, 0, 0), 8**3 - 4**3), ((45, 0, 0), None)):
        target = make_grid((8, 8, 8), (1.0, 1.0, 1.0), angles=angles)
        found = sample(volume, source, target, method="linear", fill=-7)
        assert set(np.unique(found)) == {-7, 5}
        if outside is not None:
            assert (found == -7).sum() == outside
    far = make_grid((2, 2, 2), (1.0, 1.0, 1.0), centre=(100.0, 0, 0))
    assert (sample(volume, source, far, method="cubic", fill=-7) == -7).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"volume": np.zeros((2, 2, 3), np.int16)}, "shape"),
        ({"volume": np.zeros((2, 2, 2), np.int64)}, "int64"),
        ({"fill": 0.5}, "whole number"),
        ({"fill": 40000}, "whole number"),
        ({"method": "nearest", "antialias": "lowpass"}, "expected 'linear' or 'cubic'"),
        ({"method": "lanczos"}, "lanczos"),
    ],
)
def test_bad_arguments_say_what_was_found(change, message):
    grid = make_grid((2, 2, 2), (1.0, 1.0, 1.0))
    arguments = {"volume": np.zeros((2, 2, 2), np.int16), "method": "linear", "fill": 0} | change
    with pytest.raises(ValueError, match=message):
        sample(arguments.pop("volume"), grid, grid, **arguments)


def test_byte_order_and_strides_of_the_input_do_not_matter():
    source, target = make_grid((4, 9, 8), (2.0, 1.0, 1.0)), make_grid((8, 7, 9), (1.0, 1.3, 0.9))
    volume = noise(source.shape, "int16")
    plain = sample(volume, source, target, method="linear", fill=0)
    for other in (volume.astype(">i2"), np.asfortranarray(volume), volume[::-1][::-1]):
        np.testing.assert_array_equal(sample(other, source, target, method="linear", fill=0), plain)


@pytest.mark.parametrize("digits", [0.0, -1e-10, 1e-10])
def test_the_middle_between_two_voxels_goes_to_the_higher_index(digits):
    """Also when rounding errors put the position just below the middle."""
    volume = np.arange(8, dtype=np.int16).reshape(1, 1, 8)
    lines = (Line(1, 0, 1), Line(1, 0, 1), Line(4, 0.5 + digits, 2.0))
    assert resample(volume, lines, method="nearest", fill=0).ravel().tolist() == [1, 3, 5, 7]
    source = make_grid((2, 2, 2), (1.0, 1.0, 1.0))
    middle = Geometry((1, 1, 1), source.box((0, 0, 0), (1, 1, 1)).affine + np.outer([0.5, 0.5, 0.5, 0], [0, 0, 0, 1]))
    assert sample(np.arange(8, dtype=np.int16).reshape(2, 2, 2), source, middle, method="nearest", fill=0).item() == 7


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 40), (2, 19, 3), (18, 1, 5), (19, 3, 1), (40, 2, 18)])
def test_cubic_equals_scipy_on_short_axes(shape):
    volume = np.random.default_rng(3).normal(0, 100, shape).astype(np.float32)
    lines: Any = tuple(Line(o, (n / o - 1) / 2, n / o) for n, o in zip(shape, (5, 3, 7), strict=True))
    points = np.meshgrid(*[line.positions for line in lines], indexing="ij")
    coefficients = ndimage.spline_filter(volume.astype(float), 3, mode="mirror")
    expected = ndimage.map_coordinates(coefficients, points, order=3, mode="mirror", prefilter=False)
    found = resample(volume, lines, method="cubic", fill=0)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@BOUNDED
@given(
    shape=st.tuples(*[st.integers(1, 30)] * 3),
    old=st.tuples(*[st.floats(0.5, 4)] * 3),
    new=st.tuples(*[st.integers(1, 40)] * 3),
    slices=st.integers(1, 45),
    rows=st.integers(1, 45),
    method=st.sampled_from(["linear", "nearest"]),
    dtype=st.sampled_from(["int16", "uint8", "float32"]),
    threads=st.integers(1, 3),
)
def test_slabs_are_the_parts_of_the_whole(shape, old, new, slices, rows, method, dtype, threads):
    volume = noise(shape, dtype)
    spacing = tuple(n * s / m for n, s, m in zip(shape, old, new, strict=True))
    source, target = make_grid(shape, old), make_grid(new, spacing)  # one centre, one field of view
    maker = slab_maker(volume, source, target, method=method, threads=threads)
    assert maker is not None
    rest = maker(slices, rows)
    whole = sample(volume, source, target, method=method, fill=0)
    deep = rows if threads == 1 else new[1]
    for first in range(0, new[0], slices):
        for top in range(0, new[1], deep):
            np.testing.assert_array_equal(next(rest), whole[first : first + slices, top : top + deep])
    assert next(rest, None) is None


@pytest.mark.parametrize(
    ("change", "method"),
    [
        ({"angles": (0, 0, 7)}, "linear"),
        ({"angles": (90, 0, 0)}, "linear"),
        ({"centre": (9.0, 0, 0)}, "nearest"),
        ({}, "cubic"),
        ({}, "majority"),
    ],
    ids=["oblique", "turned", "reaches out", "cubic", "majority"],
)
def test_what_needs_the_whole_volume_has_no_slabs(change, method):
    source, target = make_grid((6, 7, 8), (2.0, 1.0, 1.0)), make_grid((6, 7, 8), (1.0, 1.0, 1.0), **change)
    assert slab_maker(noise((6, 7, 8), "uint8"), source, target, method=method) is None
