"""Grids of United Imaging: slices as tiles of one picture, placed by a private sequence; dcm2niix is the judge."""

import copy
import shutil
import subprocess
from math import ceil, sqrt
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.imaging.multiframe import resolve, settle
from builder.imaging.nifti import to_nifti
from builder.imaging.rows import instances_of
from builder.imaging.stacks.options import VolumeOptions
from builder.imaging.stacks.series import split_stacks
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.volume import assemble
from builder.sources.folder import Folder
from builder.stages.index import index_partition
from tests import synthetic
from tests.imaging.reading import assert_same_image

KEEP = VolumeOptions(time_series="keep")


def grid_of(made: synthetic.Stack, *, time: int = 0, creator: str = "Image Private Header") -> Dataset:
    """The slices of a made series as one picture with United Imaging's private block."""
    count = made.voxels.shape[0]
    side = ceil(sqrt(count))
    rows, columns = made.voxels.shape[1:]
    picture = np.zeros((ceil(count / side) * rows, side * columns), dtype="<u2")
    for index, plane in enumerate(made.voxels):
        down, across = divmod(index, side)
        picture[down * rows : (down + 1) * rows, across * columns : (across + 1) * columns] = plane + time
    dataset = copy.deepcopy(made.images[0])
    dataset.Manufacturer = "UIH"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = synthetic.uid("grid", time)
    dataset.InstanceNumber = dataset.AcquisitionNumber = time + 1
    dataset.AcquisitionTime = dataset.ContentTime = f"{101500 + 10 * time}"
    dataset.Rows, dataset.Columns = picture.shape
    dataset.PixelData = picture.tobytes()
    block = dataset.private_block(0x0065, creator, create=True)
    block.add_new(0x50, "DS", str(count))
    frames = []
    for image in made.images:
        frame = Dataset()
        frame.ImagePositionPatient = image.ImagePositionPatient
        frames.append(frame)
    block.add_new(0x51, "SQ", frames)
    return dataset


@pytest.mark.parametrize("slices", [4, 5, 6, 7, 9, 12, 20])
def test_a_grid_is_cut_into_the_slices_it_holds(slices: int) -> None:
    made = synthetic.mr_series(slices=slices, shape=(16, 24), orientation=synthetic.OBLIQUE)
    dataset = grid_of(made)
    if slices % 2 == 0:
        del dataset.ImagePositionPatient  # real grids state positions in the private sequence alone
    (stack,) = split_stacks(instances_of([dataset]))
    assert stack.verdict == Verdict.MOSAIC
    (inner,) = resolve(stack, [dataset])
    assert (inner.verdict, inner.shape) == (Verdict.REGULAR, (slices, 16, 24))
    volume = assemble(stack, [dataset])
    np.testing.assert_array_equal(volume.voxels[0], made.voxels)
    np.testing.assert_allclose(volume.geometry.affine, made.geometry.affine, atol=1e-5)


@pytest.mark.skipif(shutil.which("dcm2niix") is None and not Path(".venv/bin/dcm2niix").exists(), reason="no dcm2niix")
def test_dcm2niix_cuts_grids_over_time_alike(tmp_path: Path) -> None:
    made = synthetic.mr_series(slices=9, shape=(16, 16))
    datasets = [grid_of(made, time=time) for time in range(3)]
    synthetic.write_all(datasets, tmp_path / "in")
    (tmp_path / "out").mkdir()
    tool = shutil.which("dcm2niix") or str(Path(".venv/bin/dcm2niix").resolve())
    command = [tool, "-z", "n", "-m", "n", "-o", str(tmp_path / "out"), str(tmp_path / "in")]
    subprocess.run(command, check=True, capture_output=True)
    (written,) = (tmp_path / "out").glob("*.nii")
    (stack,) = split_stacks(instances_of(datasets))
    volume = assemble(settle(stack, datasets, KEEP), datasets, KEEP)
    assert volume.channels == ("t0", "t1", "t2")
    assert_same_image(to_nifti(volume), nibabel.load(written), mm=1e-4, relative=0)


@pytest.mark.parametrize("encoding", ["explicit", "implicit", "big_endian"])
def test_the_index_knows_a_grid_without_its_pixels(encoding: str, tmp_path: Path) -> None:
    dataset = grid_of(synthetic.mr_series(slices=4))
    synthetic.write_all([synthetic.encode(dataset, encoding)], tmp_path)
    source = Folder(url=str(tmp_path))
    table = index_partition(source, 0, tuple(source.list()))
    assert table.column("grid_tiles").to_pylist() == [4]
    (stack,) = split_stacks(table)
    assert stack.verdict == Verdict.MOSAIC


@pytest.mark.parametrize("spoil", ["no positions", "too few", "another maker"])
def test_a_grid_whose_slices_have_no_place_is_refused(spoil: str) -> None:
    creator = "SOMEBODY ELSE" if spoil == "another maker" else "Image Private Header"
    dataset = grid_of(synthetic.mr_series(slices=4), creator=creator)
    block = dataset.private_block(0x0065, creator)
    if spoil == "no positions":
        del block[0x51]
    elif spoil == "too few":
        block[0x51].value = block[0x51].value[:2]
    (stack,) = split_stacks(instances_of([dataset]))
    with pytest.raises(CaseError) as caught:
        resolve(stack, [dataset])
    assert caught.value.reason == Reason.UNKNOWN_GEOMETRY
