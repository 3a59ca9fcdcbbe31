"""Standardised uptake values: against a published series, first principles, and every way an input can be missing."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.imaging.quantities.suv import calibrate
from builder.imaging.rows import instances_of
from builder.imaging.stacks.options import VolumeOptions
from builder.imaging.stacks.series import split_stacks
from builder.imaging.volume import assemble
from builder.model.case import ValueDomain, Volume
from tests import synthetic
from tests.imaging.reading import volume_of

Corpus = Callable[[str], Path]


def assembled(images: tuple[Dataset, ...], options: VolumeOptions = VolumeOptions()) -> Volume:  # noqa: B008
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
