"""Intensity mappings against scikit-learn's scalers and numpy, and back again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from builder.errors import CaseError, Reason
from builder.kernels.statistics import measure
from builder.model.case import Case, Mask, ValueDomain, Volume
from builder.transforms import AnyTransform
from builder.transforms.intensity import recorded_mapping
from tests.transforms.cases import make_case, make_geometry, part

SHAPE = (6, 9, 11)


def intensity(**options):
    return TypeAdapter(AnyTransform).validate_python({"kind": "intensity"} | options)


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32"])
def test_zscore_equals_scikit_learn(dtype):
    case = make_case(make_geometry(SHAPE), dtype=dtype, channels=2)
    volume = intensity(zscore="volume")(case).volume
    for found, source in zip(volume.voxels, case.volume.voxels, strict=True):
        expected = StandardScaler().fit_transform(source.reshape(-1, 1).astype(float)).reshape(SHAPE)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert volume.voxels.dtype == np.float32
    assert volume.domain is ValueDomain.ARBITRARY


def test_scale_equals_scikit_learn():
    case = make_case(make_geometry(SHAPE))
    found = intensity(scale=[-1, 1])(case).volume.voxels[0]
    scaler = MinMaxScaler((-1, 1)).fit_transform(case.volume.voxels.reshape(-1, 1).astype(float))
    np.testing.assert_allclose(found, scaler.reshape(SHAPE), atol=1e-6)


def test_a_window_makes_eight_bits():
    """LINEAR_EXACT of PS3.3 C.11.2.1.3.2: centre 40, width 400 to 0..255."""
    case = make_case(make_geometry(SHAPE))
    found = intensity(window=[40, 400], scale=[0, 255], dtype="uint8")(case).volume.voxels
    expected = np.clip((case.volume.voxels.astype(float) - 40) / 400 + 0.5, 0, 1) * 255
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 0.5 + 1e-9


def test_limits_keep_unit_and_type_and_count_what_they_change():
    case = make_case(make_geometry(SHAPE))
    volume = intensity(clip=[-100, 300])(case).volume
    np.testing.assert_array_equal(volume.voxels, np.clip(case.volume.voxels, -100, 300))
    assert (volume.voxels.dtype, volume.domain) == (np.int16, ValueDomain.HOUNSFIELD)
    assert f"intensity_clipped/c0={(volume.voxels != case.volume.voxels).sum()}" in volume.notes
    assert recorded_mapping(volume, "c0") == (1.0, 0.0)
    half = intensity(clip_percent=[25, 75])(case).volume
    low, high = np.percentile(case.volume.voxels, [25, 75], method="inverted_cdf")
    np.testing.assert_array_equal(half.voxels, np.clip(case.volume.voxels, low, high))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    steps=st.lists(
        st.sampled_from([{"zscore": "volume"}, {"scale": [0, 1]}, {"scale": [-3, 8]}, {"dtype": "float32"}]),
        min_size=1,
        max_size=3,
    ),
    seed=st.integers(0, 99),
)
def test_the_recorded_mapping_undoes_all_steps(steps, seed):
    case = make_case(make_geometry(SHAPE), channels=2, seed=seed)
    volume = case.volume
    for options in steps:
        volume = intensity(**options)(Case("c", volume)).volume
    for number, name in enumerate(volume.channels):
        factor, offset = recorded_mapping(volume, name)
        undone = volume.voxels[number].astype(float) * factor + offset
        assert np.abs(undone - case.volume.voxels[number]).max() < 0.01
        np.testing.assert_array_equal(np.rint(undone), case.volume.voxels[number])


def test_statistics_are_taken_inside():
    case = make_case(make_geometry(SHAPE), padding=True)
    data = ~case.volume.padding
    voxels = case.volume.voxels[0]
    chosen = {
        "inside_mask": (part(case, Mask).voxels[0] > 0) & data,
        "inside_above": (voxels > 100) & data,
    }
    for name, value in (("inside_mask", "tumour"), ("inside_above", 100)):
        found = intensity(zscore="volume", **{name: value})(case).volume.voxels[0]
        values = voxels[chosen[name]]
        np.testing.assert_allclose(found, (voxels - values.mean()) / values.std(), rtol=1e-5, atol=1e-6)
    plain = intensity(scale=[0, 1])(case).volume.voxels[0]
    low, high = voxels[data].min(), voxels[data].max()
    np.testing.assert_allclose(plain, (np.clip(voxels, low, high) - low) / (high - low), atol=1e-6)


def test_masks_and_points_are_not_touched():
    case = make_case(make_geometry(SHAPE))
    before = case.volume.voxels.copy()
    assert intensity(zscore="volume")(case).annotations == case.annotations
    np.testing.assert_array_equal(case.volume.voxels, before)
    assert intensity(dtype="float32").projected(SHAPE, (1.0, 1.0, 1.0)) == (SHAPE, (1.0, 1.0, 1.0))


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8", "float32"])
def test_statistics_equal_numpy(dtype):
    voxels = np.random.default_rng(1).integers(0, 250, SHAPE).astype(dtype)
    inside = voxels > 90
    for chosen in (None, inside):
        values = voxels if chosen is None else voxels[inside]
        found = measure(voxels, chosen)
        assert (found.count, found.lowest, found.highest) == (values.size, values.min(), values.max())
        assert found.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-12)
        assert found.deviation == pytest.approx(values.std(dtype=np.float64), rel=1e-12)
    assert measure(voxels, np.zeros(SHAPE, bool)).count == 0


def test_values_that_are_not_finite_are_left_out_of_statistics():
    case = make_case(make_geometry(SHAPE), dtype="float32")
    voxels = case.volume.voxels.copy()
    voxels[0, 0, 0, :2] = (np.nan, np.inf)
    volume = intensity(clip_percent=[1, 99], scale=[0, 1])(
        Case("c", Volume(voxels, case.volume.geometry, channels=("c0",)))
    )
    assert np.isnan(volume.volume.voxels[0, 0, 0, 0])
    assert np.nanmax(volume.volume.voxels) == 1.0


@pytest.mark.parametrize(
    ("options", "constant"),
    [({"zscore": "volume"}, True), ({"scale": [0, 1]}, True), ({"dtype": "uint8"}, False)],
)
def test_cases_that_cannot_be_scaled_are_excluded(options, constant):
    case = make_case(make_geometry(SHAPE))
    if constant:
        case = Case("c", Volume(np.full((1, *SHAPE), 7, np.int16), case.volume.geometry))
    with pytest.raises(CaseError) as caught:
        intensity(**options)(case)
    assert caught.value.reason is Reason.INCONSISTENT_PIXELS


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip": [1, 1]},
        {"clip": [0, 1], "window": [40, 400]},
        {"scale": [0, 1], "zscore": "volume"},
        {"window": [40, 0]},
        {"clip_percent": [-1, 50]},
        {"zscore": "volume", "inside_mask": "m", "inside_above": 0},
        {"dtype": "int64"},
    ],
)
def test_faulty_options_are_refused(options):
    with pytest.raises(ValidationError):
        intensity(**options)
