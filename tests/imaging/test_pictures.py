"""Radiographs, ultrasound, films and photographs against pydicom's own pixels, and the physics lint."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing, pixel_array

from builder.errors import CaseError
from builder.imaging.lint import Rule, lint, lint_stack
from builder.imaging.parse import leniently, parse_instance
from builder.imaging.rows import instances_of
from builder.imaging.stacks.options import VolumeOptions
from builder.imaging.stacks.series import split_stacks
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.volume import assemble
from builder.model.case import Case, ValueDomain, Volume
from builder.model.geometry import Geometry
from builder.transforms import Intensity
from tests import synthetic
from tests.imaging.reading import KEEP

Corpus = Callable[[str], Path]


def picture(path: Path, options: VolumeOptions = KEEP) -> tuple[pydicom.Dataset, Volume]:
    dataset = parse_instance(path.read_bytes())
    (stack,) = split_stacks(instances_of([dataset]))
    return dataset, assemble(stack, [dataset], options)


def test_a_radiograph_goes_through_its_modality_lut(corpus: Corpus) -> None:
    path = corpus("odd") / "xray_mammo" / "CR-ModalitySequenceLUT.dcm"
    dataset, volume = picture(path, KEEP.model_copy(update={"monochrome1": "keep"}))
    with leniently():
        expected = apply_modality_lut(pixel_array(dataset), dataset)
    np.testing.assert_array_equal(volume.voxels[0, 0], expected)
    _, turned = picture(path)
    assert "monochrome1_inverted" in turned.notes
    np.testing.assert_array_equal(np.argsort(turned.voxels[0, 0, 0]), np.argsort(-volume.voxels[0, 0, 0].astype(float)))


def test_a_white_is_small_chest_is_mirrored(corpus: Corpus) -> None:
    dataset, volume = picture(corpus("odd") / "xray_mammo" / "gdcm-CR-MONO1-10-chest.dcm")
    assert dataset.PhotometricInterpretation == "MONOCHROME1"
    np.testing.assert_array_equal(volume.voxels[0, 0], (1 << dataset.BitsStored) - 1 - pixel_array(dataset))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
@pytest.mark.parametrize("inverted", ["invert", "keep"])
def test_the_stated_window_is_pydicoms(corpus: Corpus, function: str, inverted: str) -> None:
    dataset = parse_instance((corpus("odd") / "xray_mammo" / "gdcm-CR-MONO1-10-chest.dcm").read_bytes())
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = [400, 1], [301, 1], function
    (stack,) = split_stacks(instances_of([dataset]))
    volume = assemble(stack, [dataset], KEEP.model_copy(update={"monochrome1": inverted}))
    shown = Intensity(kind="intensity", window="voi", scale=(0, 1))(Case("case", volume)).volume.voxels[0, 0]
    expected = apply_windowing(pixel_array(dataset), dataset) / ((1 << dataset.BitsStored) - 1)
    np.testing.assert_allclose(shown, 1 - expected if inverted == "invert" else expected, atol=1e-6)


@pytest.mark.parametrize("inverted", ["invert", "keep"])
@pytest.mark.parametrize("descriptor", [[1024, 0, 12], [300, 200, 16], [200, -40, 10]])
def test_the_stated_table_is_pydicoms(corpus: Corpus, descriptor: list[int], inverted: str) -> None:
    dataset = parse_instance((corpus("odd") / "xray_mammo" / "gdcm-CR-MONO1-10-chest.dcm").read_bytes())
    count, _, bits = descriptor
    item = Dataset()
    item.add_new("LUTDescriptor", "SS", descriptor)
    item.add_new("LUTData", "OW", (np.linspace(0, 1, count) ** 2 * (2**bits - 1)).astype("<u2").tobytes())
    dataset.VOILUTSequence = [item]
    dataset.WindowCenter, dataset.WindowWidth = 400, 301  # an alternative, which the table goes before
    (stack,) = split_stacks(instances_of([dataset]))
    volume = assemble(stack, [dataset], KEEP.model_copy(update={"monochrome1": inverted}))
    found = Intensity(kind="intensity", window="voi_lut", scale=(0, 1))(Case("case", volume)).volume
    expected = apply_voi(pixel_array(dataset).astype(np.int32), dataset) / (2**bits - 1)
    np.testing.assert_allclose(found.voxels[0, 0], 1 - expected if inverted == "invert" else expected, atol=1e-6)
    assert "intensity_table/image=1" in found.notes
    assert (found.window, found.display) == (None, None)  # they would be read in the wrong unit


def test_a_picture_without_a_table_is_shown_by_its_window_and_a_damaged_table_costs_nothing_unasked(
    corpus: Corpus,
) -> None:
    dataset = parse_instance((corpus("odd") / "xray_mammo" / "gdcm-CR-MONO1-10-chest.dcm").read_bytes())
    dataset.WindowCenter, dataset.WindowWidth = 400, 301
    (stack,) = split_stacks(instances_of([dataset]))
    shown = [
        Intensity(kind="intensity", window=window, scale=(0, 1))(Case("case", assemble(stack, [dataset], KEEP)))
        for window in ("voi", "voi_lut")
    ]
    np.testing.assert_array_equal(shown[0].volume.voxels, shown[1].volume.voxels)
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [1024, 0, 12])
    item.add_new("LUTData", "OW", bytes(100))
    dataset.VOILUTSequence = [item]
    damaged = assemble(stack, [dataset], KEEP)
    assert "voi_lut_damaged" in damaged.notes
    Intensity(kind="intensity", window="voi", scale=(0, 1))(Case("case", damaged))
    with pytest.raises(CaseError, match="found a VOI LUT that cannot be read"):
        Intensity(kind="intensity", window="voi_lut", scale=(0, 1))(Case("case", damaged))


def test_a_picture_without_a_window_is_refused() -> None:
    volume = Volume(np.zeros((1, 1, 4, 4), np.uint8), Geometry((1, 4, 4), np.eye(4)))
    with pytest.raises(CaseError, match="found no Window Center and Width"):
        Intensity(kind="intensity", window="voi", scale=(0, 1))(Case("case", volume))


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("orthanc/TransferSyntaxes/1.2.840.10008.1.2.1.dcm", Verdict.STILL),
        ("orthanc/Formats/jp2k91YBR-ICT.dcm", Verdict.STILL),
        ("orthanc/Encodings/Lena-utf8.dcm", Verdict.SECONDARY_CAPTURE),
    ],
)
def test_colour_is_rgb_in_three_channels(name: str, verdict: Verdict, corpus: Corpus) -> None:
    path = corpus("odd") / "odd_singles" / name
    dataset, volume = picture(path)
    with leniently():
        (stack,) = split_stacks(instances_of([dataset]))
        expected = pixel_array(dataset)
    assert stack.verdict == verdict
    assert (volume.domain, volume.channels) == (ValueDomain.RGB, ("r", "g", "b"))
    assert volume.voxels.dtype == np.uint8
    np.testing.assert_array_equal(volume.voxels[:, 0].transpose(1, 2, 0), expected)


def test_a_palette_becomes_its_colours(corpus: Corpus) -> None:
    dataset, volume = picture(corpus("odd") / "odd_singles" / "orthanc" / "Implicit-vr-us-palette.dcm")
    index = pixel_array(dataset)[100, 200]
    red = np.frombuffer(dataset.RedPaletteColorLookupTableData, "<u2")
    assert volume.channels == ("r", "g", "b")
    assert volume.voxels[0, 0, 100, 200] == red[index] >> 8


def test_a_cine_has_its_frames_along_the_slice_axis(corpus: Corpus) -> None:
    path = next((corpus("odd") / "encapsulated_fragments" / "multi-frame").glob("IM00001.*implicit*"))
    dataset, volume = picture(path)
    assert volume.geometry.shape[0] == dataset.NumberOfFrames == 8
    np.testing.assert_array_equal(volume.voxels.transpose(1, 2, 3, 0), pixel_array(dataset))
    assert "no_patient_geometry" in volume.notes


def test_the_lint_is_silent_on_a_real_ct_and_speaks_on_a_shifted_one(corpus: Corpus) -> None:
    folder = corpus("segmentation") / "lidc_0314_slab" / "ct"
    datasets = [parse_instance(p.read_bytes()) for p in folder.iterdir()]
    (stack,) = split_stacks(instances_of(datasets))
    volume = assemble(stack, datasets)
    assert lint(volume, datasets) == ()
    for dataset in datasets:
        dataset.RescaleIntercept = str(float(dataset.RescaleIntercept) - 1024)
        dataset.KVP = "12"
    rules = {finding.rule for finding in lint(assemble(stack, datasets), datasets)}
    assert {Rule.AIR, Rule.RANGE, Rule.KVP} <= rules


def test_the_lint_names_constant_volumes_and_odd_grids() -> None:
    made = synthetic.mr_series(slices=3, spacing=(30.0, 0.02, 0.02), voxels=np.full((3, 32, 32), 7.0))
    (stack,) = split_stacks(instances_of(made.images))
    found = lint(assemble(stack, made.images), made.images)
    assert [finding.rule for finding in found] == [Rule.CONSTANT, Rule.SPACING, Rule.EXTENT]


@pytest.mark.parametrize(("stated", "rules"), [(None, []), (1.0, [Rule.EXTENT]), (0.1, [])])
def test_a_picture_that_states_no_millimetres_has_no_field_of_view(stated: float | None, rules: list[Rule]) -> None:
    ramp = np.arange(16 * 2730, dtype=np.uint16).reshape(16, 2730)
    made = synthetic.mr_series(slices=1, shape=(16, 2730), voxels=ramp[None])
    (film,) = made.images
    film.SOPClassUID, film.Modality = "1.2.840.10008.5.1.4.1.1.1", "CR"
    del film.ImagePositionPatient, film.ImageOrientationPatient, film.PixelSpacing
    if stated is not None:
        film.ImagerPixelSpacing = [10.0, stated]
    (stack,) = split_stacks(instances_of([film]))
    volume = assemble(stack, [film], KEEP)
    assert volume.geometry.shape == (1, 16, 2730)
    assert [finding.rule for finding in lint(volume, [film])] == rules
    drawn = replace(stack, affine=tuple(map(tuple, volume.geometry.affine)), notes=volume.notes)
    assert [finding.rule for finding in lint_stack(drawn, None)] == rules
