"""Standardised uptake values: against a published series, first principles, and every way an input can be missing."""

import copy
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.imaging.quantities.nuclides import named
from builder.imaging.quantities.suv import calibrate
from builder.imaging.rows import instances_of
from builder.imaging.stacks.options import VolumeOptions
from builder.imaging.stacks.series import split_stacks
from builder.imaging.volume import assemble
from builder.model.case import ValueDomain, Volume
from tests import synthetic
from tests.imaging.reading import volume_of

Corpus = Callable[[str], Path]


def assembled(images: tuple[Dataset, ...], options: VolumeOptions = VolumeOptions()) -> Volume:
    (stack,) = split_stacks(instances_of(images))
    return assemble(stack, images, options)


def test_whole_body_pet_in_bqml_gives_the_published_cropped_suv(corpus: Corpus) -> None:
    whole = volume_of(corpus("sts") / "sts001_raw" / "FDG_PET" / "image", VolumeOptions())
    crop = volume_of(corpus("sts") / "sts_cohort" / "STS_001" / "PET" / "image", VolumeOptions())
    assert whole.domain == crop.domain == ValueDomain.SUV_BW
    start = whole.geometry.to_voxel([crop.geometry.origin_mm])[0]
    corner = np.rint(start).astype(int)
    np.testing.assert_allclose(start[1:], corner[1:], atol=0.01)
    slices, rows, columns = crop.geometry.shape
    same = whole.voxels[
        0, corner[0] : corner[0] + slices, corner[1] : corner[1] + rows, corner[2] : corner[2] + columns
    ]
    peak = float(crop.voxels.max())
    np.testing.assert_allclose(same, crop.voxels[0], atol=1e-4 * peak)


def test_factor_is_that_of_first_principles() -> None:
    made = synthetic.pt_series(slices=4)
    volume = assembled(made.images)
    expected = made.voxels * synthetic.suv_factor(made.images[0])
    assert volume.domain == ValueDomain.SUV_BW
    np.testing.assert_allclose(volume.voxels[0], expected, rtol=1e-5, atol=1e-6)


def test_an_injection_before_midnight_is_the_day_before() -> None:
    made = synthetic.pt_series(slices=2, time="003000")
    for image in made.images:
        image.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartTime = "233000"
        image.AcquisitionTime = image.SeriesTime = "003000"
    volume = assembled(made.images)
    assert volume.domain == ValueDomain.SUV_BW
    factor = synthetic.suv_factor(made.images[0])
    np.testing.assert_allclose(volume.voxels[0], made.voxels * factor, rtol=1e-5, atol=1e-6)


def drug(image: Dataset) -> Dataset:
    item: Dataset = image.RadiopharmaceuticalInformationSequence[0]
    return item


def spoil(what: str) -> Callable[[Dataset], None]:
    def edit(image: Dataset) -> None:
        changes: dict[str, Callable[[], Any]] = {
            "weight_absent": lambda: delattr(image, "PatientWeight"),
            "weight_implausible": lambda: setattr(image, "PatientWeight", "0"),
            "dose_absent": lambda: delattr(drug(image), "RadionuclideTotalDose"),
            "dose_implausible": lambda: setattr(drug(image), "RadionuclideTotalDose", "370"),
            "half_life_absent": lambda: delattr(drug(image), "RadionuclideHalfLife"),
            "injection_time_absent": lambda: delattr(drug(image), "RadiopharmaceuticalStartTime"),
            "radiopharmaceutical_absent": lambda: delattr(image, "RadiopharmaceuticalInformationSequence"),
            "not_corrected_attn": lambda: setattr(image, "CorrectedImage", ["DECY"]),
            "not_corrected_decy": lambda: setattr(image, "CorrectedImage", ["ATTN"]),
            "decay_correction_none": lambda: setattr(image, "DecayCorrection", "NONE"),
            "series_time_after_acquisition": lambda: setattr(image, "SeriesTime", "235500"),
            "decay_factor_inconsistent": lambda: setattr(image, "DecayFactor", "2.5"),
        }
        changes[what]()

    return edit


@pytest.mark.parametrize(
    "what",
    [
        *("weight_absent", "weight_implausible", "dose_absent", "dose_implausible", "half_life_absent"),
        *("injection_time_absent", "radiopharmaceutical_absent", "not_corrected_attn", "not_corrected_decy"),
        *("decay_correction_none", "series_time_after_acquisition", "decay_factor_inconsistent"),
    ],
)
def test_a_missing_or_contradicting_input_gives_activity_with_the_reason(what: str) -> None:
    made = synthetic.pt_series(slices=2)
    images = tuple(copy.deepcopy(image) for image in made.images)
    for image in images:
        spoil(what)(image)
    volume = assembled(images)
    assert volume.domain == ValueDomain.ACTIVITY
    assert f"no_suv:{what}" in volume.notes
    np.testing.assert_allclose(volume.voxels[0], made.voxels, rtol=1e-5, atol=1e-3)
    with pytest.raises(CaseError) as caught:
        assembled(images, VolumeOptions(pet="require_suv"))
    assert caught.value.reason == Reason.UNKNOWN_UNITS


def test_slices_that_state_different_doses_give_no_suv() -> None:
    made = synthetic.pt_series(slices=2)
    images = tuple(copy.deepcopy(image) for image in made.images)
    drug(images[0]).RadionuclideTotalDose = "2e8"
    assert calibrate(images).notes == ("no_suv:radiopharmaceutical_differs_between_slices",)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_nuclide_that_any_slice_names_counts(which: int) -> None:
    images = tuple(copy.deepcopy(image) for image in synthetic.pt_series(slices=3).images)
    drug(images[which]).RadionuclideCodeSequence = C_11
    assert calibrate(images).notes == ("no_suv:nuclides_differ",)


@pytest.mark.parametrize("keyword", ["RadionuclideCodeSequence", "RadiopharmaceuticalCodeSequence"])
def test_codes_that_are_no_sequence_name_nothing(keyword: str) -> None:
    images = tuple(copy.deepcopy(image) for image in synthetic.pt_series(slices=2).images)
    for image in images:
        drug(image).add_new(keyword, "FL", [1.0, 2.0])
    assert calibrate(images).domain == ValueDomain.SUV_BW
    images[0].add_new("RadiopharmaceuticalInformationSequence", "FL", [1.0, 2.0])
    assert calibrate(images).notes == ("no_suv:radiopharmaceutical_absent",)


def test_counts_use_philips_private_factor() -> None:
    made = synthetic.pt_series(slices=2, attributes={"Units": "CNTS"})
    for image in made.images:
        block = image.private_block(0x7053, "Philips PET Private Group", create=True)
        block.add_new(0x00, "DS", "0.000552")
    found = calibrate(made.images)
    assert found.domain == ValueDomain.SUV_BW
    assert found.factor == pytest.approx(0.000552)


def test_counts_without_a_factor_stay_counts() -> None:
    made = synthetic.pt_series(slices=2, attributes={"Units": "CNTS"})
    assert calibrate(made.images).domain == ValueDomain.ARBITRARY


def edited(**changes: Any) -> list[Dataset]:
    """A PET of 70 kg and F-18, injected an hour before the scan, with changes to its header or its drug."""
    images = [copy.deepcopy(image) for image in synthetic.pt_series(slices=2).images]
    for image in images:
        if "Radiopharmaceutical" in changes:
            drug(image).pop("RadiopharmaceuticalCodeSequence", None)
        for name, value in changes.items():
            target = image if hasattr(image, name) or name.startswith(("Patient", "Acquisition")) else drug(image)
            if value is None:
                delattr(target, name)
            else:
                setattr(target, name, value)
    return images


def coded(value: str, scheme: str, meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


C_11 = coded("C-105A1", "SRT", "^11^Carbon")
ZR_89 = coded("C-168A4", "SRT", "^89^Zirconium")
LU_177 = coded("C-177", "99LOCAL", "^177^Lutetium")

CONTRADICTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("half_life_contradicts_nuclide", {"RadionuclideHalfLife": "1221.8"}),
    ("half_life_contradicts_nuclide", {"RadionuclideHalfLife": "109.77"}),
    ("half_life_contradicts_nuclide", {"RadionuclideHalfLife": "1.83"}),
    ("half_life_contradicts_nuclide", {"RadionuclideHalfLife": "6935"}),
    ("nuclides_differ", {"RadionuclideCodeSequence": C_11}),
    ("half_life_of_no_nuclide", {
        "RadionuclideHalfLife": "109.77", "RadionuclideCodeSequence": None, "Radiopharmaceutical": "tracer"
    }),
    ("injection_day_unknown", {
        "RadionuclideHalfLife": "282276", "RadionuclideCodeSequence": ZR_89, "Radiopharmaceutical": "Zr-89 antibody"
    }),
    ("injection_day_unknown", {
        "RadionuclideHalfLife": "574300", "RadionuclideCodeSequence": LU_177, "Radiopharmaceutical": "DOTATATE"
    }),
    ("injection_day_unknown", {
        "RadionuclideHalfLife": "45724", "RadionuclideCodeSequence": None, "Radiopharmaceutical": "Cu-64 PSMA-11"
    }),
    ("weight_implausible", {"PatientWeight": "0.7"}),
    ("weight_implausible", {"PatientWeight": "70000"}),
    ("weight_implausible", {"PatientWeight": "700"}),
    ("weight_contradicts_age", {"PatientWeight": "7", "PatientAge": "061Y"}),
    ("weight_contradicts_age", {"PatientWeight": "24", "PatientAge": "018Y"}),
    ("weight_contradicts_size", {"PatientWeight": "20", "PatientAge": "012Y", "PatientSize": "1.7"}),
    ("dose_implausible", {"RadionuclideTotalDose": "1000001"}),
    ("dose_implausible", {"RadionuclideTotalDose": "370000"}),
)  # fmt: skip


@pytest.mark.parametrize(("what", "changes"), CONTRADICTIONS)
def test_inputs_that_contradict_one_another_or_physics_give_no_suv(what: str, changes: dict[str, Any]) -> None:
    found = calibrate(edited(**changes))
    assert (found.domain, found.factor) == (ValueDomain.ACTIVITY, 1.0)
    assert found.notes == (f"no_suv:{what}",)


@pytest.mark.parametrize(
    "changes",
    [
        {"RadionuclideHalfLife": "6588"}, {"RadionuclideHalfLife": "6586.2"}, {"RadionuclideHalfLife": "6600"},
        {"RadionuclideCodeSequence": coded("77004003", "SCT", "^18^Fluorine")}, {"RadionuclideCodeSequence": None},
        {"Radiopharmaceutical": "FDG -- fluorodeoxyglucose"}, {"Radiopharmaceutical": "[18F]PSMA-1007"},
        {"PatientWeight": "25", "PatientAge": "061Y"},
        {"PatientWeight": "24", "PatientAge": "017Y", "PatientSize": "1.3"},
        {"PatientSize": "170"}, {"PatientAge": "000Y", "PatientSize": "0.5", "PatientWeight": "4"},
    ],
)  # fmt: skip
def test_what_agrees_is_suv(changes: dict[str, Any]) -> None:
    assert calibrate(edited(**changes)).domain == ValueDomain.SUV_BW


def test_a_long_lived_nuclide_needs_the_day_of_its_injection() -> None:
    images = edited(
        RadionuclideHalfLife="282276", RadionuclideCodeSequence=ZR_89, Radiopharmaceutical="Zr-89 antibody",
        RadiopharmaceuticalStartTime=None,
    )  # fmt: skip
    for image in images:
        scan = f"{image.SeriesDate}{str(image.SeriesTime)[:6]}"
        moment = datetime.strptime(scan, "%Y%m%d%H%M%S") - timedelta(hours=73)
        drug(image).RadiopharmaceuticalStartDateTime = f"{moment:%Y%m%d%H%M%S}"
        image.DecayFactor = "1"
    found = calibrate(images)
    dose, weight = float(drug(images[0]).RadionuclideTotalDose), float(images[0].PatientWeight)
    assert found.factor == pytest.approx(weight * 1000 / (dose * 2 ** (-73 / 78.41)), rel=1e-4)


@pytest.mark.parametrize(("seconds", "notes"), [(0, ()), (1, ()), (2, ("no_suv:injection_times_differ",))])
def test_two_statements_of_the_injection_may_differ_by_a_truncated_second(seconds: int, notes: tuple[str, ...]) -> None:
    images = edited()
    for image in images:
        clock = str(drug(image).RadiopharmaceuticalStartTime)[:6]
        stated = datetime.strptime(f"{image.SeriesDate}{clock}", "%Y%m%d%H%M%S")
        drug(image).RadiopharmaceuticalStartDateTime = f"{stated - timedelta(seconds=seconds):%Y%m%d%H%M%S}"
    assert calibrate(images).notes == notes


def test_limits_of_weight_are_the_users_for_newborns_and_animals() -> None:
    mouse = edited(PatientWeight="0.025", RadionuclideTotalDose="5000000")
    assert calibrate(mouse).notes == ("no_suv:weight_implausible",)
    assert calibrate(mouse, weight_kg=(0.01, 1.0)).domain == ValueDomain.SUV_BW


def test_nuclides_are_read_in_words() -> None:
    texts = ("^52^Manganese", "52Mn", "52mMn", "Ga68-PSMA-11", "I-124 girentuximab", "AV-45", "5-HT", "FDG")
    assert [sorted(named(text)) for text in texts] == [
        ["Mn-52"], ["Mn-52"], ["Mn-52m"], ["Ga-68"], ["I-124"], [], [], ["F-18"]
    ]  # fmt: skip
