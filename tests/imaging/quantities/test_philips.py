"""Philips' private scale: against dcm2niix' precise values on real files, and what happens when it is absent."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.imaging.nifti import to_nifti
from builder.imaging.rows import instances_of
from builder.imaging.stacks.options import VolumeOptions
from builder.imaging.stacks.series import split_stacks
from builder.imaging.volume import assemble
from builder.model.case import Volume
from tests import synthetic
from tests.imaging.reading import KEEP, assert_same_image, volume_of

PRECISE = KEEP.model_copy(update={"philips": "precise"})


@pytest.mark.skipif(shutil.which("dcm2niix") is None and not Path(".venv/bin/dcm2niix").exists(), reason="no dcm2niix")
@pytest.mark.parametrize("name", ["philips_enhanced/anatomical/001", "philips_enhanced/fmri/001"])
def test_precise_values_are_those_of_dcm2niix(name: str, corpus: Callable[[str], Path], tmp_path: Path) -> None:
    folder = corpus("geometry") / "d2n_awkward" / name
    tool = shutil.which("dcm2niix") or str(Path(".venv/bin/dcm2niix").resolve())
    command = [tool, "-z", "n", "-p", "y", "-m", "n", "-o", str(tmp_path), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (made,) = tmp_path.glob("*.nii")
    volume = volume_of(folder, PRECISE)
    assert "philips_scale_applied" in volume.notes
    assert_same_image(to_nifti(volume), nibabel.load(made), mm=6e-3, relative=1e-6)
    shown = volume_of(folder)
    assert "philips_scale_not_applied" in shown.notes
    assert float(np.abs(shown.voxels).max()) < 0.01 * float(np.abs(volume.voxels).max())


def scaled(image: Dataset, slope: float) -> None:
    image.Manufacturer = "Philips Medical Systems"
    image.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", slope)


def assembled(made: synthetic.Stack, options: VolumeOptions) -> Volume:
    (stack,) = split_stacks(instances_of(made.images))
    return assemble(stack, made.images, options)


def test_every_slice_goes_by_its_own_scale() -> None:
    made = synthetic.mr_series(slices=3)
    for number, image in enumerate(made.images):
        image.RescaleSlope, image.RescaleIntercept = "2.5", "-5"
        scaled(image, 0.5 + number)
    volume = assembled(made, VolumeOptions(philips="precise"))
    for number, plane in enumerate(made.voxels):
        expected = (plane * 2.5 - 5) / (2.5 * (0.5 + number))
        np.testing.assert_allclose(volume.voxels[0, number], expected, rtol=1e-6)


def test_a_slice_without_its_scale_excludes_the_series() -> None:
    made = synthetic.mr_series(slices=3)
    for image in made.images:
        image.Manufacturer = "Philips"
    for image in made.images[1:]:
        scaled(image, 2.0)
    with pytest.raises(CaseError) as caught:
        assembled(made, VolumeOptions(philips="precise"))
    assert caught.value.reason == Reason.UNKNOWN_UNITS
    assert "philips_scale_not_applied" in assembled(made, VolumeOptions()).notes


def test_other_makers_are_left_alone() -> None:
    made = synthetic.mr_series(slices=3)
    volume = assembled(made, VolumeOptions(philips="precise"))
    np.testing.assert_array_equal(volume.voxels[0], made.voxels)
    assert volume.notes == ()
