"""b-values where each maker puts them split a series, and can be joined again as named channels."""

import copy
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from builder.imaging.rows import instances_of
from builder.imaging.stacks.axes import stacks_for
from builder.imaging.stacks.options import VolumeOptions
from builder.imaging.stacks.series import split_stacks
from builder.imaging.volume import assemble
from builder.sources.folder import Folder
from builder.stages.index import index_partition
from tests import synthetic

MAKERS = {
    "Siemens Healthineers": (0x0019, "SIEMENS MR HEADER", 0x0C, "IS", "{}"),
    "GE MEDICAL SYSTEMS": (0x0043, "GEMS_PARM_01", 0x39, "IS", "100000{:04d}\\8\\0\\0"),
    "Philips Medical Systems": (0x2001, "Philips Imaging DD 001", 0x03, "FL", None),
    "UIH": (0x0065, "Image Private Header", 0x09, "FD", None),
}


def weighted(maker: str, *, owner: str = "") -> tuple[list[Dataset], list[np.ndarray]]:
    """A series of two b-values at the same positions, stated by ``maker`` alone; ``owner`` replaces its name."""
    group, creator, element, vr, form = MAKERS[maker]
    images, voxels = [], []
    for number, b_value in enumerate((0, 800)):
        made = synthetic.mr_series(slices=3, series=str(number), attributes={"Manufacturer": owner or maker})
        for image in synthetic.merge(made):
            image = copy.deepcopy(image)
            image.SeriesInstanceUID = "2.25.42"
            image.InstanceNumber = len(images) + 1
            value = float(b_value) if form is None else form.format(b_value).split("\\")
            image.private_block(group, creator, create=True).add_new(element, vr, value)
            images.append(image)
        voxels.append(made.voxels)
    return images, voxels


@pytest.mark.parametrize("maker", sorted(MAKERS))
def test_private_b_values_split_and_join(maker: str) -> None:
    images, voxels = weighted(maker)
    stacks = split_stacks(instances_of(images))
    assert [(s.split_rule, s.b_value, s.verdict) for s in stacks] == [
        ("b_value", 0, "regular"), ("b_value", 800, "regular"),
    ]  # fmt: skip
    options = VolumeOptions(join=("b_value",))
    (stack,) = stacks_for(instances_of(images), options)
    volume = assemble(stack, images, options)
    assert volume.channels == ("b0", "b800")
    np.testing.assert_array_equal(volume.voxels, np.stack(voxels))


@pytest.mark.parametrize("encoding", ["explicit", "implicit"])
@pytest.mark.parametrize("maker", sorted(MAKERS))
def test_the_index_reads_them(maker: str, encoding: str, tmp_path: Path) -> None:
    images, _ = weighted(maker)
    synthetic.write_all([synthetic.encode(image, encoding) for image in images], tmp_path)
    source = Folder(url=str(tmp_path))
    table = index_partition(source, 0, tuple(source.list()))
    assert [s.b_value for s in split_stacks(table)] == [0, 800]


def test_another_makers_element_says_nothing() -> None:
    images, _ = weighted("Siemens Healthineers", owner="GE MEDICAL SYSTEMS")
    assert all(stack.b_value is None for stack in split_stacks(instances_of(images)))
