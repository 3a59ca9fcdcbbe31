"""Stacks and volumes of made series: geometry, encodings, rescale, padding, order, limits."""

import copy
import random
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import CaseError, Reason
from builder.imaging.multiframe import resolve, settle
from builder.imaging.rows import Row, instances_of
from builder.imaging.stacks.axes import stacks_for
from builder.imaging.stacks.options import VolumeOptions, admit
from builder.imaging.stacks.series import split_rows, split_stacks
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.stacks.stack import Stack
from builder.imaging.volume import assemble, assemble_indexed, estimate_bytes
from builder.model.case import ValueDomain, Volume
from tests import synthetic
from tests.imaging.reading import series_of

ENCODINGS = sorted(synthetic.ENCODINGS)


def only(images: object) -> Stack:
    (stack,) = split_stacks(instances_of(images))  # type: ignore[arg-type]
    return stack


def made_volume(made: synthetic.Stack, options: VolumeOptions = VolumeOptions()) -> Volume:
    return assemble(only(made.images), made.images, options)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("signed", [True, False])
def test_every_encoding_gives_the_true_voxels(encoding: str, signed: bool) -> None:
    made = synthetic.ct_series(slices=4, encoding=encoding, signed=signed)
    volume = made_volume(made)
    assert volume.domain == ValueDomain.HOUNSFIELD
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels[0], made.voxels)
    np.testing.assert_allclose(volume.geometry.affine, made.geometry.affine, atol=1e-5)


@given(
    slices=st.integers(2, 9),
    spacing=st.tuples(*[st.floats(0.3, 8.0) for _ in range(3)]),
    tilt=st.sampled_from([0.0, 0.0, -21.0, 7.3, 18.5]),
    orientation=st.sampled_from([synthetic.AXIAL, synthetic.CORONAL, synthetic.SAGITTAL, synthetic.OBLIQUE]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None)
def test_any_grid_comes_back_whatever_the_order(
    slices: int, spacing: tuple[float, float, float], tilt: float, orientation: tuple[float, ...], seed: int
) -> None:
    made = synthetic.ct_series(
        slices=slices, shape=(8, 6), spacing=spacing, tilt_degrees=tilt, orientation=orientation, origin=(3, -70, 11.5)
    )
    images = list(made.images)
    random.Random(seed).shuffle(images)
    stack = only(images)
    assert stack.verdict == (Verdict.SHEARED if tilt else Verdict.REGULAR)
    assert stack == only(made.images)
    volume = assemble(stack, images)
    np.testing.assert_allclose(volume.geometry.affine, made.geometry.affine, atol=2e-4)
    np.testing.assert_array_equal(volume.voxels[0], made.voxels)
    points = volume.geometry.to_world([[0, 0, 0], [slices - 1, 7, 5]])
    np.testing.assert_allclose(volume.geometry.to_voxel(points), [[0, 0, 0], [slices - 1, 7, 5]], atol=1e-6)


def test_a_missing_slice_is_a_gap_and_can_be_split_or_filled() -> None:
    made = synthetic.ct_series(slices=8, missing=(3,))
    stack = only(made.images)
    assert (stack.verdict, stack.detail) == (Verdict.GAPPED, "1 missing between 7 slices of 3 mm")
    with pytest.raises(CaseError) as caught:
        admit(stack, VolumeOptions())
    assert caught.value.reason == Reason.GAPPED
    split = VolumeOptions(gapped="split")
    parts = admit(stack, split)
    assert [p.shape[0] for p in parts] == [3, 4]
    for part, first in zip(parts, (0, 4), strict=True):
        volume = assemble(part, made.images, split)
        np.testing.assert_array_equal(volume.voxels[0], made.voxels[first : first + part.shape[0]])
        np.testing.assert_allclose(
            volume.geometry.affine, made.geometry.box((first, 0, 0), part.shape).affine, atol=1e-5
        )
    filled = assemble(stack, made.images, VolumeOptions(gapped="resample"))
    assert filled.geometry.same_grid(made.geometry)
    np.testing.assert_array_equal(np.delete(filled.voxels[0], 3, axis=0), np.delete(made.voxels, 3, axis=0))
    between = np.rint((made.voxels[2].astype(np.float32) + made.voxels[4]) / 2)
    np.testing.assert_array_equal(filled.voxels[0, 3], between)


def test_a_ramp_on_uneven_slices_resamples_to_that_ramp() -> None:
    made = synthetic.ct_series(slices=9, missing=(2, 3, 6), spacing=(2.0, 1.0, 1.0), tilt_degrees=10.0)
    for image in made.images:
        z = float(image.ImagePositionPatient[2])
        image.PixelData = np.full((32, 32), round(z * 10) + 1024, dtype="<u2").tobytes()
        image.RescaleSlope = "0.1"
        image.RescaleIntercept = "-102.4"
    options = VolumeOptions(gapped="resample", irregular="resample")
    volume = assemble(only(made.images), made.images, options)
    z_of_slice = volume.geometry.to_world([[k, 0, 0] for k in range(volume.geometry.shape[0])])[:, 2]
    np.testing.assert_allclose(volume.voxels[0, :, 0, 0], z_of_slice, atol=1e-3)


def test_repeated_positions_without_a_difference_are_duplicates() -> None:
    made = synthetic.ct_series(slices=5, repeated=(2,))
    stack = only(made.images)
    assert stack.verdict == Verdict.DUPLICATE_POSITIONS
    with pytest.raises(CaseError):
        assemble(stack, made.images)


def test_a_time_series_is_channels_or_stacks_or_nothing() -> None:
    made = synthetic.mr_series(slices=4, times=3)
    stack = only(made.images)
    assert stack.verdict == Verdict.TIME_SERIES
    with pytest.raises(CaseError) as caught:
        admit(stack, VolumeOptions())
    assert caught.value.reason == Reason.TIME_SERIES
    keep = VolumeOptions(time_series="keep")
    volume = assemble(stack, made.images, keep)
    assert volume.channels == ("t0", "t1", "t2")
    np.testing.assert_array_equal(volume.voxels, made.voxels)
    split = VolumeOptions(time_series="split")
    for number, part in enumerate(admit(stack, split)):
        np.testing.assert_array_equal(assemble(part, made.images, split).voxels[0], made.voxels[number])


def test_mixed_orientations_are_split_by_that_rule() -> None:
    images = synthetic.merge(
        synthetic.ct_series(slices=4), synthetic.ct_series(slices=3, series="2", orientation=synthetic.SAGITTAL)
    )
    stacks = split_stacks(instances_of(images))
    assert [(s.split_rule, s.shape[0]) for s in stacks] == [("orientation", 4), ("orientation", 3)]


def test_padding_is_a_mask_and_filled_with_air() -> None:
    voxels = synthetic.pattern((3, 32, 32))
    voxels[:, :4] = -2000
    made = synthetic.ct_series(slices=3, voxels=voxels, signed=True, intercept=0.0, padding=-2000)
    volume = made_volume(made)
    assert volume.padding is not None
    assert volume.padding[:, :4].all()
    assert not volume.padding[:, 4:].any()
    assert (volume.voxels[0, :, :4] == -1024).all()
    np.testing.assert_array_equal(volume.voxels[0, :, 4:], voxels[:, 4:])
    kept = made_volume(made, VolumeOptions(padding="keep"))
    np.testing.assert_array_equal(kept.voxels[0], voxels)


def test_overlay_bits_above_the_stored_ones_are_cleared() -> None:
    made = synthetic.mr_series(slices=2, bits_stored=12)
    for image in made.images:
        stored = np.frombuffer(image.PixelData, "<u2") & 0x0FFF
        image.PixelData = (stored | 0xA000).astype("<u2").tobytes()
    np.testing.assert_array_equal(made_volume(made).voxels[0], made.voxels)


def test_slices_with_their_own_slopes_become_floats() -> None:
    made = synthetic.ct_series(slices=3, slope=[1.0, 2.0, 0.5], voxels=np.abs(synthetic.pattern((3, 32, 32))) // 2 * 2)
    volume = made_volume(made)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_allclose(volume.voxels[0], made.voxels, atol=1e-3)


def test_values_beyond_int16_become_floats_with_a_note() -> None:
    voxels = np.abs(synthetic.pattern((2, 32, 32)))
    voxels[0, 0, 0] = 40_000
    volume = made_volume(synthetic.ct_series(slices=2, voxels=voxels))
    assert volume.voxels.dtype == np.float32
    assert "beyond_int16" in volume.notes
    np.testing.assert_array_equal(volume.voxels[0], voxels)


def test_native_pixels_can_come_from_elsewhere() -> None:
    made = synthetic.ct_series(slices=3)
    content = {str(image.SOPInstanceUID): image.PixelData for image in made.images}
    headers = [copy.deepcopy(image) for image in made.images]
    for header in headers:
        del header.PixelData

    def fill(uid: str, target: memoryview) -> None:
        target[:] = content[uid]

    volume = assemble(only(made.images), headers, fill=fill)
    np.testing.assert_array_equal(volume.voxels[0], made.voxels)


def test_uids_can_be_exchanged() -> None:
    made = synthetic.ct_series(slices=3)
    stack = only(made.images)
    frame = stack.frame_of_reference or ""
    mapping = {stack.series_uid: "2.25.1", frame: "2.25.2"} | {u: f"2.25.1{i}" for i, u in enumerate(stack.uids[0])}
    moved = stack.with_uids(mapping)
    assert moved.uids == (("2.25.10", "2.25.11", "2.25.12"),)
    assert moved.uid_to_slice == {"2.25.10": 0, "2.25.11": 1, "2.25.12": 2}
    assert moved.geometry is not None
    assert moved.geometry.frame_of_reference == "2.25.2"


def test_limits_hold_before_anything_is_decoded() -> None:
    made = synthetic.ct_series(slices=3)
    for image in made.images:
        image.Rows = image.Columns = 65_000
    stack = only(made.images)
    with pytest.raises(CaseError) as caught:
        assemble(stack, made.images)
    assert caught.value.reason == Reason.TOO_LARGE


def test_a_short_or_absent_slice_names_its_reason() -> None:
    made = synthetic.ct_series(slices=3)
    stack = only(made.images)
    with pytest.raises(CaseError) as caught:
        assemble(stack, made.images[:2])
    assert caught.value.reason == Reason.SOURCE_MISSING
    made.images[1].PixelData = made.images[1].PixelData[:100]
    with pytest.raises(CaseError) as caught:
        assemble(stack, made.images)
    assert caught.value.reason == Reason.UNDECODABLE_PIXELS


def test_the_memory_estimate_is_that_of_the_result() -> None:
    made = synthetic.ct_series(slices=8)
    volume = made_volume(made)
    assert volume.voxels.nbytes <= estimate_bytes(only(made.images)) <= 2 * volume.voxels.nbytes + 2**16


def test_a_white_is_small_radiograph_is_turned_round() -> None:
    made = synthetic.image_series(
        modality="MR", slices=1, signed=False, bits_stored=12, photometric="MONOCHROME1",
        attributes={"Modality": "DX", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1"},
    )  # fmt: skip
    stack = only(made.images)
    assert stack.verdict == Verdict.PROJECTION
    volume = assemble(stack, made.images, VolumeOptions(projection="keep"))
    np.testing.assert_array_equal(volume.voxels[0], 4095 - made.voxels)
    assert "monochrome1_inverted" in volume.notes
    assert volume.geometry.frame_of_reference == str(made.images[0].SOPInstanceUID)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("kind", ["ct", "mr"])
def test_index_rows_and_bytes_give_the_same_volume_as_data_sets(kind: str, signed: bool) -> None:
    make = synthetic.ct_series if kind == "ct" else synthetic.mr_series
    made = make(slices=4, signed=signed, padding=5, bits_stored=16 if signed else 14)
    content = {str(image.SOPInstanceUID): image.PixelData for image in made.images}

    def fill(uid: str, target: memoryview) -> None:
        target[:] = content[uid]

    rows = instances_of(made.images)
    (stack,) = split_stacks(rows)
    indexed = assemble_indexed(stack, rows, fill=fill)
    parsed = assemble(stack, made.images)
    assert indexed.voxels.dtype == parsed.voxels.dtype
    assert (indexed.domain, indexed.notes) == (parsed.domain, parsed.notes)
    np.testing.assert_array_equal(indexed.voxels, parsed.voxels)
    np.testing.assert_array_equal(indexed.padding, parsed.padding)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_a_legacy_converted_object_gives_the_volume_of_its_slices(modality: str) -> None:
    make = {"CT": synthetic.ct_series, "MR": synthetic.mr_series, "PT": synthetic.pt_series}[modality]
    made = make(slices=5, orientation=synthetic.OBLIQUE)
    convert = {
        "CT": highdicom.legacy.LegacyConvertedEnhancedCTImage,
        "MR": highdicom.legacy.LegacyConvertedEnhancedMRImage,
        "PT": highdicom.legacy.LegacyConvertedEnhancedPETImage,
    }[modality]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        enhanced = convert(list(made.images), "2.25.77", 1, "2.25.78", 1)
    stack = only([enhanced])
    assert stack.verdict == Verdict.MULTIFRAME
    (inner,) = resolve(stack, [enhanced])
    assert inner.verdict == Verdict.REGULAR
    options = VolumeOptions(pet="activity")
    volume, slices = assemble(stack, [enhanced], options), made_volume(made, options)
    np.testing.assert_allclose(volume.geometry.affine, slices.geometry.affine, atol=1e-5)
    np.testing.assert_allclose(volume.voxels, slices.voxels, rtol=1e-6)


@pytest.mark.parametrize("make", [synthetic.ct_series, synthetic.mr_series, synthetic.pt_series])
@pytest.mark.parametrize("padding", [None, 3])
def test_peak_memory_is_within_a_quarter_of_the_estimate(make: Callable[..., synthetic.Stack], padding: int) -> None:
    made = make(slices=12, shape=(256, 256), padding=padding)
    stack = only(made.images)
    assemble(stack, made.images)  # load what is loaded once
    tracemalloc.start()
    volume = assemble(stack, made.images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert volume.voxels.size == 12 * 256 * 256
    assert 0.75 * estimate_bytes(stack) <= peak <= 1.25 * estimate_bytes(stack)


def test_echoes_can_be_joined_as_named_channels() -> None:
    echoes = [
        synthetic.mr_series(slices=4, series=str(n), attributes={"EchoTime": str(20 * n), "EchoNumbers": n})
        for n in (3, 1, 2)
    ]
    images = synthetic.merge(*echoes)
    for number, image in enumerate(images):
        image.SOPInstanceUID = f"2.25.5{number}"
    rows = instances_of(images)
    apart = stacks_for(rows, VolumeOptions())
    assert [s.split_rule for s in apart] == ["echo_time"] * 3
    options = VolumeOptions(join=("echo_time",))
    (stack,) = stacks_for(rows, options)
    assert (stack.verdict, stack.channels) == (Verdict.CHANNELS, ("te20", "te40", "te60"))
    for shuffled in (images[::-1], images[3:] + images[:3]):
        assert stacks_for(instances_of(shuffled), options) == (stack,)
    volume = assemble(stack, images, options)
    assert volume.voxels.shape == (3, 4, 32, 32)
    for channel, source in enumerate((1, 2, 0)):
        np.testing.assert_array_equal(volume.voxels[channel], echoes[source].voxels)


def test_echoes_inside_one_object_can_be_joined() -> None:
    echoes = [
        synthetic.mr_series(slices=3, series=str(n), attributes={"EchoTime": str(20 * n), "EchoNumbers": str(n)})
        for n in (1, 2)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = list(synthetic.merge(*echoes))
        enhanced = highdicom.legacy.LegacyConvertedEnhancedMRImage(images, "2.25.77", 1, "2.25.78", 1)
    (stack,) = split_stacks(instances_of([enhanced]))
    assert [(s.split_rule, s.echo_time) for s in resolve(stack, [enhanced])] == [("echo_time", 20), ("echo_time", 40)]
    with pytest.raises(CaseError) as caught:
        assemble(stack, [enhanced])
    assert caught.value.reason == Reason.UNSUPPORTED_OBJECT
    volume = assemble(stack, [enhanced], VolumeOptions(join=("echo_time",)))
    assert volume.channels == ("te20", "te40")
    for channel, echo in enumerate(echoes):
        np.testing.assert_array_equal(volume.voxels[channel], echo.voxels)


def test_echoes_over_time_are_named_by_both() -> None:
    series = [
        synthetic.mr_series(slices=3, times=2, series=str(n), attributes={"EchoTime": str(20 * n)}) for n in (1, 2)
    ]
    images = synthetic.merge(*series)
    options = VolumeOptions(join=("echo_time",), time_series="keep")
    (stack,) = stacks_for(instances_of(images), options)
    volume = assemble(stack, images, options)
    assert volume.channels == ("te20_t0", "te20_t1", "te40_t0", "te40_t1")
    np.testing.assert_array_equal(volume.voxels.reshape(2, 2, 3, 32, 32), np.stack([s.voxels for s in series]))
    assert len(stacks_for(instances_of(images), VolumeOptions(join=("echo_time",)))) == 2


def test_magnitude_and_field_map_of_one_object_can_be_joined(corpus: Callable[[str], Path]) -> None:
    (datasets,) = series_of(corpus("geometry") / "enhanced_mr" / "Philips")
    (stack,) = split_stacks(instances_of(datasets))
    parts = resolve(stack, datasets)
    assert [part.split_rule for part in parts] == ["image_type", "image_type"]
    volume = assemble(stack, datasets, VolumeOptions(join=("component", "echo_time")))
    assert volume.channels == ("fieldmap-real_te0", "m-magnitude_te1.52")
    for part in parts:
        channel = int("M" in part.component)
        np.testing.assert_allclose(volume.voxels[channel], assemble(part, datasets).voxels[0], rtol=1e-6)


def test_echoes_on_different_grids_stay_apart() -> None:
    first = synthetic.mr_series(slices=4, attributes={"EchoTime": "20"})
    other = synthetic.mr_series(slices=4, series="2", origin=(-16, -16, 0), attributes={"EchoTime": "40"})
    stacks = stacks_for(instances_of(synthetic.merge(first, other)), VolumeOptions(join=("echo_time",)))
    assert [s.verdict for s in stacks] == [Verdict.REGULAR, Verdict.REGULAR]


def test_a_settled_mosaic_needs_no_private_header_any_more(corpus: Callable[[str], Path]) -> None:
    (datasets,) = series_of(corpus("geometry") / "mosaic_siemens")
    options = VolumeOptions(time_series="keep")
    stack = settle(only(datasets), datasets, options)
    expected = assemble(stack, datasets, options)
    mapping = {uid: f"2.25.{n}" for n, uid in enumerate(sorted({u for c in stack.uids for u in c}), start=100)}
    mapping |= {stack.series_uid: "2.25.1", stack.frame_of_reference or "": "2.25.2"}
    for dataset in datasets:
        dataset.remove_private_tags()
        dataset.ImageType = ["ORIGINAL", "PRIMARY"]
        dataset.SOPInstanceUID = mapping[str(dataset.SOPInstanceUID)]
    stripped = assemble(stack.with_uids(mapping), datasets, options)
    np.testing.assert_array_equal(stripped.voxels, expected.voxels)
    np.testing.assert_array_equal(stripped.geometry.affine, expected.geometry.affine)


@pytest.mark.parametrize(("syntax", "known"), [("4.102", False), ("4.110", False), ("4.201", True), ("4.50", True)])
def test_a_transfer_syntax_nobody_decodes_is_named_by_the_plan(syntax: str, known: bool) -> None:
    rows = instances_of(synthetic.ct_series(slices=3).images).to_pylist()
    for row in rows:
        row["transfer_syntax_uid"] = f"1.2.840.10008.1.2.{syntax}"
    (stack,) = split_rows([Row.of(row) for row in rows])
    if known:
        assert admit(stack, VolumeOptions()) == (stack,)
        return
    with pytest.raises(CaseError) as caught:
        admit(stack, VolumeOptions())
    assert caught.value.reason == Reason.UNSUPPORTED_TRANSFER_SYNTAX
