"""De-identification changes no voxel, no grid and no SUV: volumes of clean objects equal those of the source."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from builder.deid.headers import deidentify
from builder.deid.profile import Profile
from builder.deid.uids import UidMap
from builder.imaging.multiframe import resolve
from builder.imaging.quantities.philips import scales_of
from builder.imaging.rows import instances_of
from builder.imaging.stacks.options import VolumeOptions
from builder.imaging.stacks.series import split_stacks
from builder.imaging.stacks.stack import Stack
from builder.imaging.volume import Archived, assemble
from builder.model.case import ValueDomain
from builder.model.keyed import Key


def series_of(folder: Path) -> list[list[Dataset]]:
    found: dict[str, list[Dataset]] = defaultdict(list)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        dataset = dcmread(path)
        if "PixelData" in dataset:
            found[str(dataset.SeriesInstanceUID)].append(dataset)
    return list(found.values())


def stacks_of(datasets: list[Dataset]) -> list[Stack]:
    whole = [part for stack in split_stacks(instances_of(datasets)) for part in resolve(stack, datasets)]
    return [part for stack in whole for part in stack.split()]


@pytest.mark.parametrize(
    ("archive", "folder", "domain"),
    [
        ("sts", "sts001_raw", ValueDomain.SUV_BW),
        ("geometry", "enhanced_mr", ValueDomain.ARBITRARY),
        ("geometry", "mosaic_siemens", ValueDomain.ARBITRARY),
    ],
)
def test_volumes_are_the_same(corpus: Callable[[str], Path], archive: str, folder: str, domain: ValueDomain) -> None:
    uids = UidMap(Key(b"sixteen bytes and more"))
    volumes = 0
    for datasets in series_of(corpus(archive) / folder):
        clean = [deidentify(d, profile=Profile(), uids=uids, person="p") for d in datasets]
        for stack in stacks_of(datasets):
            names = [uid for channel in stack.uids for uid in channel]
            names += [stack.series_uid, stack.frame_of_reference or ""]
            mapping = uids.mapping(names)
            scales = scales_of([d for d in datasets if str(d.SOPInstanceUID) in names]).with_uids(mapping)
            before = assemble(stack, datasets, VolumeOptions())
            after = assemble(stack.with_uids(mapping), clean, VolumeOptions(), archived=Archived(scales=scales))
            np.testing.assert_array_equal(before.voxels, after.voxels)
            np.testing.assert_array_equal(before.geometry.affine, after.geometry.affine)
            assert after.domain is before.domain is domain
            assert after.notes == before.notes
            assert after.geometry.frame_of_reference == uids(before.geometry.frame_of_reference or "")
            volumes += 1
    assert volumes
