"""The test factory is checked by tools that are not ours: dciodvfy, SimpleITK, pydicom's decoders, highdicom."""

import shutil
import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK

from tests import synthetic


def dicom_faults(path: Path) -> list[str]:
    """The lines in which dciodvfy reports an error."""
    tool = shutil.which("dciodvfy") or str(Path(sys.executable).parent / "dciodvfy")
    done = subprocess.run([tool, str(path)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith("Error")]


@pytest.mark.parametrize("make", [synthetic.ct_series, synthetic.mr_series, synthetic.pt_series])
def test_series_valid_and_readable_by_simpleitk(tmp_path, make):
    made = make(tmp_path, slices=5, shape=(12, 10), spacing=(2.5, 0.7, 0.9), orientation=synthetic.OBLIQUE)
    assert dicom_faults(made.paths[2]) == []
    image = SimpleITK.ReadImage([str(p) for p in made.paths], SimpleITK.sitkFloat64)
    np.testing.assert_allclose(SimpleITK.GetArrayFromImage(image), made.voxels, atol=1e-6)
    corner = image.TransformContinuousIndexToPhysicalPoint((9.0, 11.0, 4.0))
    np.testing.assert_allclose(corner, made.geometry.to_world([(4, 11, 9)])[0], atol=1e-4)


@pytest.mark.parametrize("encoding", sorted(synthetic.ENCODINGS))
def test_encodings_keep_the_voxels(tmp_path, encoding):
    made = synthetic.ct_series(tmp_path, slices=2, encoding=encoding)
    for path, plane in zip(made.paths, made.voxels, strict=True):
        read = pydicom.dcmread(path)
        assert read.file_meta.TransferSyntaxUID == synthetic.ENCODINGS[encoding]
        np.testing.assert_array_equal(read.pixel_array + float(read.RescaleIntercept), plane)


def test_oddities():
    assert len(synthetic.ct_series(missing=(3,)).images) == 7
    twice = synthetic.ct_series(repeated=(3,)).images
    assert len({i.SOPInstanceUID for i in twice}) == 9
    assert len({tuple(i.ImagePositionPatient) for i in twice}) == 8
    times = synthetic.mr_series(times=3)
    assert times.voxels.shape == (3, 8, 32, 32)
    assert [i.TemporalPositionIdentifier for i in times.images[::8]] == [1, 2, 3]
    tilted = synthetic.ct_series(tilt_degrees=15)
    assert not tilted.geometry.is_orthogonal
    np.testing.assert_allclose(
        np.array(tilted.images[1].ImagePositionPatient, float) - np.array(tilted.images[0].ImagePositionPatient, float),
        (0, 0, 3),
        atol=1e-9,
    )
    mixed = synthetic.merge(synthetic.ct_series(), synthetic.ct_series(series="2", orientation=synthetic.SAGITTAL))
    assert len({i.SeriesInstanceUID for i in mixed}) == 1
    assert len({tuple(i.ImageOrientationPatient) for i in mixed}) == 2


def test_pet_activity_and_suv():
    made = synthetic.pt_series()
    first = made.images[0]
    assert first.Units == "BQML"
    assert synthetic.suv_factor(first) == pytest.approx(70 * 1000 / (350e6 * 2 ** (-3600 / 6586.2)))


def test_labels_valid_and_readable_by_highdicom(tmp_path):
    made = synthetic.ct_series(tmp_path / "ct")
    mask = np.zeros(made.geometry.shape, bool)
    mask[2:5, 5:20, 6:21] = True
    contours = synthetic.box_contours(made.geometry, (2, 5, 6), (5, 20, 21))
    struct = synthetic.rtstruct(made, {"GTV": contours, "empty": []}, directory=tmp_path)
    assert len(struct.ROIContourSequence[0].ContourSequence) == 3
    for kind in ("BINARY", "FRACTIONAL", "LABELMAP"):
        synthetic.seg(made, {"GTV": mask}, kind=kind, directory=tmp_path, name=f"seg-{kind}")
        again = synthetic.seg(made, {"GTV": mask}, kind=kind, name=f"seg-{kind}")
        assert synthetic.to_bytes(again) == (tmp_path / f"seg-{kind}-0001.dcm").read_bytes()
        read = highdicom.seg.segread(tmp_path / f"seg-{kind}-0001.dcm")
        volume = read.get_volume(combine_segments=True) if kind != "FRACTIONAL" else read.get_volume()
        assert int((volume.array > 0).sum()) == int(mask.sum())
    faults = {p.name: dicom_faults(p) for p in sorted(tmp_path.glob("*.dcm"))}
    assert all(not lines for lines in faults.values()), faults
