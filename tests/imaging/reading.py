"""Corpus folders as data sets and as canonical NIfTI grids, for the tests of this package."""

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from nibabel.affines import apply_affine
from pydicom.dataset import Dataset

from builder.errors import CaseError
from builder.imaging.multiframe import resolve
from builder.imaging.parse import parse_instance
from builder.imaging.rows import instances_of
from builder.imaging.stacks.options import VolumeOptions
from builder.imaging.stacks.series import split_stacks
from builder.imaging.stacks.stack import Stack
from builder.imaging.volume import assemble
from builder.model.case import Volume

KEEP = VolumeOptions(
    time_series="keep", single_slice="keep", projection="keep", localizer="keep", still="keep", cine="keep",
    secondary_capture="keep", padding="keep", pet="activity",
)  # fmt: skip
"""Everything as the source states it."""

NOT_DICOM = {".gz", ".nii", ".nrrd", ".csv", ".json", ".md", ".xlsx", ".txt", ".xml"}


def series_of(folder: Path) -> list[list[Dataset]]:
    """Data sets of the files of one folder (not below it), by series, in the order of the first file's name."""
    found: dict[str, list[Dataset]] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.suffix in NOT_DICOM:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                dataset = parse_instance(path.read_bytes())
            except CaseError:
                continue
            if "SOPClassUID" not in dataset:
                continue
            found.setdefault(str(dataset.get("SeriesInstanceUID")), []).append(dataset)
    return list(found.values())


def stacks_of(datasets: Sequence[Dataset]) -> list[Stack]:
    """Stacks of one series, those inside multi-frame objects included where they can be read."""
    found: list[Stack] = []
    for stack in split_stacks(instances_of(datasets)):
        try:
            found.extend(resolve(stack, datasets))
        except CaseError:
            found.append(stack)
    return found


def volume_of(folder: Path, options: VolumeOptions = KEEP) -> Volume:
    """The one volume of a folder with one series and one stack."""
    (datasets,) = series_of(folder)
    (stack,) = stacks_of(datasets)
    return assemble(stack, datasets, options)


def assert_same_image(ours: nibabel.Nifti1Image, theirs: nibabel.Nifti1Image, *, mm: float, relative: float) -> None:
    """Both images, turned to the closest RAS order, cover the same places with the same numbers."""
    a, b = nibabel.as_closest_canonical(ours), nibabel.as_closest_canonical(theirs)
    assert a.shape == b.shape
    corners = np.array(list(itertools.product(*[(0, n - 1) for n in a.shape[:3]])))
    apart = apply_affine(a.affine, corners) - apply_affine(b.affine, corners)
    assert np.abs(apart).max() <= mm
    x, y = np.asarray(a.dataobj, dtype=np.float64), np.asarray(b.dataobj, dtype=np.float64)
    np.testing.assert_allclose(x, y, rtol=0, atol=relative * max(1.0, float(np.abs(y).max())))
