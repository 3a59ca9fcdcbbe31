"""SUV of enhanced and legacy converted PET: against their single-frame originals and first principles."""

import copy
import warnings
from collections.abc import Callable

import highdicom
import numpy as np
import pytest
from pydicom.dataset import Dataset

from builder.imaging.quantities.suv import calibrate
from builder.imaging.rows import instances_of
from builder.imaging.stacks.options import VolumeOptions
from builder.imaging.stacks.series import split_stacks
from builder.imaging.volume import assemble
from builder.model.case import ValueDomain, Volume
from tests import synthetic

FACTOR = 70.0 * 1000 / (350e6 * 2 ** (-3600 / 6586.2))
"""SUVbw of 1 Bq/ml in the made series: 70 kg, 350 MBq an hour before the scan."""


def code(value: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "UCUM", value
    return item


def mapping(slope: float, unit: str) -> Dataset:
    item = Dataset()
    item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, 0.0
    item.MeasurementUnitsCodeSequence = [code(unit)]
    return item


def converted(made: synthetic.Stack) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert = highdicom.legacy.LegacyConvertedEnhancedPETImage
        dataset: Dataset = convert(list(made.images), "2.25.77", 1, "2.25.78", 1)
    return dataset


def enhanced(made: synthetic.Stack, *, dose: str = "350", unit: str = "Bq/ml") -> Dataset:
    """An Enhanced PET image of the made slices, its facts where PS3.3 A.56 and C.8.22 put them."""
    dataset = converted(made)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.130"
    shared = dataset.SharedFunctionalGroupsSequence[0]
    del shared.UnassignedSharedConvertedAttributesSequence
    for own in dataset.PerFrameFunctionalGroupsSequence:
        del own.UnassignedPerFrameConvertedAttributesSequence
        own.RealWorldValueMappingSequence = [mapping(float(own.PixelValueTransformationSequence[0].RescaleSlope), unit)]
    del dataset.SeriesDate, dataset.SeriesTime
    dataset.DecayCorrected = dataset.AttenuationCorrected = "YES"
    dataset.DecayCorrectionDateTime = "20190102101600.000"
    drug = Dataset()
    drug.RadiopharmaceuticalAgentNumber = 1
    drug.RadiopharmaceuticalStartDateTime = "20190102091600"
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = dose, "6586.2"
    dataset.RadiopharmaceuticalInformationSequence = [drug]
    return dataset


def assembled(dataset: Dataset) -> Volume:
    (stack,) = split_stacks(instances_of([dataset]))
    return assemble(stack, [dataset], VolumeOptions())


@pytest.mark.parametrize("time", ["101500", "000500"])
def test_a_legacy_converted_pet_has_the_suv_of_its_slices(time: str) -> None:
    made = synthetic.pt_series(slices=4, time=time)
    volume = assembled(converted(made))
    (stack,) = split_stacks(instances_of(made.images))
    slices = assemble(stack, made.images, VolumeOptions())
    assert volume.domain == slices.domain == ValueDomain.SUV_BW
    np.testing.assert_allclose(volume.voxels, slices.voxels, rtol=1e-6)


@pytest.mark.parametrize("dose", ["350", "350000000"])
def test_an_enhanced_pet_gives_suv(dose: str) -> None:
    made = synthetic.pt_series(slices=4)
    volume = assembled(enhanced(made, dose=dose))
    assert volume.domain == ValueDomain.SUV_BW
    np.testing.assert_allclose(volume.voxels[0], made.voxels * FACTOR, rtol=1e-5, atol=1e-6)


def test_an_enhanced_pet_that_is_suv_already_is_left_alone() -> None:
    made = synthetic.pt_series(slices=3)
    volume = assembled(enhanced(made, unit="{SUVbw}g/ml"))
    assert volume.domain == ValueDomain.SUV_BW
    np.testing.assert_allclose(volume.voxels[0], made.voxels, rtol=1e-6)


def test_the_frame_says_which_of_two_agents_it_shows() -> None:
    dataset = enhanced(synthetic.pt_series(slices=3))
    other = copy.deepcopy(dataset.RadiopharmaceuticalInformationSequence[0])
    other.RadiopharmaceuticalAgentNumber, other.RadionuclideTotalDose = 2, "700"
    dataset.RadiopharmaceuticalInformationSequence.append(other)
    assert calibrate([dataset]).notes == ("no_suv:several_radiopharmaceuticals",)
    usage = Dataset()
    usage.RadiopharmaceuticalAgentNumber = 1
    dataset.SharedFunctionalGroupsSequence[0].RadiopharmaceuticalUsageSequence = [usage]
    assert calibrate([dataset]).factor == pytest.approx(FACTOR)


def test_offsets_from_utc_are_reckoned_with() -> None:
    dataset = enhanced(synthetic.pt_series(slices=2))
    dataset.DecayCorrectionDateTime = "20190102101600+0100"
    dataset.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime = "20190102081600+0000"
    assert calibrate([dataset]).factor == pytest.approx(FACTOR)


def edits() -> dict[str, Callable[[Dataset], None]]:
    """What stands against SUV to what makes it so."""

    def two_scales(dataset: Dataset) -> None:
        for own in dataset.PerFrameFunctionalGroupsSequence:
            own.RealWorldValueMappingSequence[0].RealWorldValueSlope *= 2

    def without_mapping(dataset: Dataset) -> None:
        for own in dataset.PerFrameFunctionalGroupsSequence:
            del own.RealWorldValueMappingSequence

    return {
        "no_suv:not_corrected_attn": lambda d: setattr(d, "AttenuationCorrected", "NO"),
        "no_suv:not_corrected_decy": lambda d: setattr(d, "DecayCorrected", "NO"),
        "no_suv:series_time_absent": lambda d: delattr(d, "DecayCorrectionDateTime"),
        "no_suv:weight_absent": lambda d: delattr(d, "PatientWeight"),
        "no_suv:radiopharmaceutical_absent": lambda d: delattr(d, "RadiopharmaceuticalInformationSequence"),
        "no_suv:injection_to_scan_implausible": lambda d: setattr(
            d.RadiopharmaceuticalInformationSequence[0], "RadiopharmaceuticalStartDateTime", "20190103091600"
        ),
        "pet_units=OTHER_SCALE": two_scales,
        "pet_units=absent": without_mapping,
    }


@pytest.mark.parametrize("note", sorted(edits()))
def test_what_is_missing_or_contradicts_leaves_the_stated_values(note: str) -> None:
    made = synthetic.pt_series(slices=2)
    dataset = enhanced(made)
    edits()[note](dataset)
    volume = assembled(dataset)
    assert note in volume.notes
    assert volume.domain in (ValueDomain.ACTIVITY, ValueDomain.ARBITRARY)
    np.testing.assert_allclose(volume.voxels[0], made.voxels, rtol=1e-6)
