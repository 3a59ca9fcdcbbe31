"""Every disagreement with other tools that docs/volumes.md lists, measured: what they give, and what we give."""

import csv
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pytest
from nibabel.affines import apply_affine
from pydicom import dcmread

from builder.errors import CaseError, Reason
from builder.imaging.nifti import to_nifti
from builder.imaging.stacks.options import VolumeOptions
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.volume import assemble
from tests.imaging.reading import KEEP, assert_same_image, series_of, stacks_of, volume_of

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "volumes.md"
HEADINGS = {
    "data": "data", "against": "tool", "theirs": "what it does", "ours": "what builder does", "right": "right",
    "why": "why",
}  # fmt: skip
TOOL = shutil.which("dcm2niix") or next((str(p.resolve()) for p in [Path(".venv/bin/dcm2niix")] if p.exists()), None)
needs_dcm2niix = pytest.mark.skipif(TOOL is None, reason="no dcm2niix")

Corpus = Callable[[str], Path]
Convert = Callable[..., list[Any]]


def entries() -> list[dict[str, str]]:
    with (HERE / "disagreements.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def table() -> str:
    """The list as Markdown."""
    rows = [[entry[name] for name in HEADINGS] for entry in entries()]
    lines = [list(HEADINGS.values()), ["---"] * len(HEADINGS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def test_the_page_lists_every_disagreement_and_every_one_is_measured() -> None:
    assert table() in PAGE.read_text(encoding="utf-8")
    measured = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {entry["id"] for entry in entries()} <= measured
    assert {entry["right"] for entry in entries()} == {"ours", "both"}


@pytest.fixture
def converted(tmp_path: Path) -> Convert:
    """Images that dcm2niix makes of a folder, in the order of their names."""

    def convert(folder: Path, *options: str) -> list[Any]:
        command = [str(TOOL), "-z", "n", "-m", "n", *(options or ("-p", "n")), "-o", str(tmp_path), str(folder)]
        subprocess.run(command, check=False, capture_output=True)
        return [nibabel.load(path) for path in sorted(tmp_path.glob("*.nii"))]

    return convert


def extent_mm(image: Any) -> float:
    """From the first to the last slice."""
    return float(np.linalg.norm(image.affine[:3, 2]) * (image.shape[2] - 1))


def places(folder: Path) -> np.ndarray:
    """ImagePositionPatient of every file, by height."""
    found = [[float(v) for v in dcmread(path).ImagePositionPatient] for path in folder.iterdir()]
    return np.array(sorted(found, key=lambda place: place[2]))


@needs_dcm2niix
def test_tilt(corpus: Corpus, converted: Convert) -> None:
    folder = corpus("geometry") / "d2n_awkward" / "failing" / "gantrytilting" / "001"
    last = places(folder)[-1]
    theirs = converted(folder)[0]
    corner = apply_affine(theirs.affine, [0, theirs.shape[1] - 1, 3]) * [-1, -1, 1]
    assert np.linalg.norm(corner - last) == pytest.approx(0.446, abs=0.01)
    ours = volume_of(folder)
    np.testing.assert_allclose(ours.geometry.to_world([[3, 0, 0]])[0], last, atol=1e-4)


@needs_dcm2niix
def test_tilt_upright(corpus: Corpus, converted: Convert) -> None:
    folder = corpus("geometry") / "d2n_awkward" / "failing" / "gantrytilting" / "001"
    shapes = [image.shape for image in converted(folder)]
    assert shapes == [(512, 512, 4), (512, 521, 4)]
    assert not volume_of(folder).geometry.is_orthogonal


@needs_dcm2niix
def test_two_spacings(corpus: Corpus, converted: Convert) -> None:
    folder = corpus("geometry") / "ct_ge_tilt18"
    plain, resampled = converted(folder)
    (stack,) = stacks_of(series_of(folder)[0])
    along = np.array(stack.offsets) * np.linalg.norm(np.array(stack.uneven)[:3, 0])
    assert stack.verdict == Verdict.IRREGULAR
    assert (plain.shape[2], resampled.shape[2]) == (28, 56)
    heights = places(folder) @ np.cross(*np.reshape(_cosines(folder), (2, 3)))
    true_mm = float(np.ptp(heights))
    assert true_mm - extent_mm(plain) == pytest.approx(36, abs=1)
    assert along[-1] >= true_mm


def _cosines(folder: Path) -> list[float]:
    return [float(v) for v in dcmread(next(folder.iterdir())).ImageOrientationPatient]


@needs_dcm2niix
def test_missing_slice(corpus: Corpus, converted: Convert) -> None:
    folder = corpus("geometry") / "d2n_awkward" / "failing" / "sliceincrement" / "001"
    plain, resampled = converted(folder)
    assert np.ptp(places(folder)[:, 2]) == pytest.approx(20.0, abs=1e-3)
    assert (plain.shape[2], extent_mm(plain)) == (4, pytest.approx(15.0, abs=1e-3))
    assert np.linalg.norm(resampled.affine[:3, 2]) == pytest.approx(4.0, abs=1e-3)
    filled = volume_of(folder, KEEP.model_copy(update={"gapped": "resample"}))
    assert (filled.geometry.shape[0], filled.geometry.spacing_mm[0]) == (5, pytest.approx(5.0, abs=1e-3))


@needs_dcm2niix
def test_missing_echo(corpus: Corpus, converted: Convert) -> None:
    folder = corpus("geometry") / "multiecho_qt2"
    first = converted(folder)[0]
    stack = stacks_of(series_of(folder)[0])[0]
    assert stack.verdict == Verdict.GAPPED
    assert (first.shape[2], extent_mm(first)) == (3, pytest.approx(21.0, abs=1e-3))
    assert stack.offsets[-1] * 10.5 == pytest.approx(31.5, abs=1e-3)


@needs_dcm2niix
def test_one_position(corpus: Corpus, converted: Convert) -> None:
    folder = corpus("geometry") / "d2n_awkward" / "failing" / "notavolume" / "001"
    (theirs,) = converted(folder)
    assert theirs.shape == (512, 512, 1, 4)
    (stack,) = stacks_of(series_of(folder)[0])
    assert stack.verdict == Verdict.DUPLICATE_POSITIONS


@needs_dcm2niix
def test_content_time(corpus: Corpus, converted: Convert) -> None:
    folder = corpus("geometry") / "ct_philips_head_with_localizer" / "S2010"
    assert len(converted(folder)) == 16
    assert volume_of(folder).geometry.shape[0] == 28


@needs_dcm2niix
def test_scout(corpus: Corpus, converted: Convert) -> None:
    folder = corpus("geometry") / "ct_philips_head_with_localizer" / "S1000"
    (theirs,) = converted(folder)
    assert nibabel.aff2axcodes(theirs.affine)[2] in "LR"
    ours = volume_of(folder)
    assert ours.geometry.frame_of_reference not in {str(d.FrameOfReferenceUID) for d in series_of(folder)[0]}
    pixels = np.asarray(theirs.dataobj)[..., 0].T[::-1]
    np.testing.assert_array_equal(pixels, ours.voxels[0, 0])


@needs_dcm2niix
def test_padding(corpus: Corpus, converted: Convert) -> None:
    folder = corpus("segmentation") / "dcmqi_seg_sr_pm" / "segmentations" / "ct-3slice"
    (theirs,) = converted(folder)
    assert np.asarray(theirs.dataobj).min() == -3024
    ours = volume_of(folder, VolumeOptions())
    assert ours.padding is not None
    assert ours.voxels.min() == -1024
    assert_same_image(to_nifti(volume_of(folder)), theirs, mm=6e-3, relative=1e-6)


@needs_dcm2niix
def test_pet_units(corpus: Corpus, converted: Convert) -> None:
    folder = corpus("segmentation") / "qin_hn_0024_pet_seg" / "PET"
    (theirs,) = converted(folder, "-p", "y")
    assert volume_of(folder, VolumeOptions()).domain == "SUVbw"
    assert_same_image(to_nifti(volume_of(folder)), theirs, mm=6e-3, relative=1e-6)


@needs_dcm2niix
def test_philips_scale(corpus: Corpus, converted: Convert) -> None:
    folder = corpus("geometry") / "d2n_awkward" / "philips_enhanced" / "anatomical" / "001"
    (theirs,) = converted(folder, "-ba", "n")
    assert "philips_scale_not_applied" in volume_of(folder).notes
    precise = volume_of(folder, KEEP.model_copy(update={"philips": "precise"}))
    assert_same_image(to_nifti(precise), theirs, mm=6e-3, relative=1e-6)


@needs_dcm2niix
def test_segmentations(corpus: Corpus, converted: Convert) -> None:
    folder = corpus("segmentation") / "dcmqi_seg_sr_pm" / "segmentations" / "24x38x3" / "seg"
    assert len(converted(folder)) == 1
    assert [s.verdict for d in series_of(folder) for s in stacks_of(d)] == [Verdict.NOT_AN_IMAGE]


@needs_dcm2niix
def test_slides(corpus: Corpus, converted: Convert) -> None:
    folder = corpus("segmentation") / "highdicom_seg_sr"
    assert sum(image.shape[:3] == (10, 10, 25) for image in converted(folder)) == 5
    slides = [d for d in series_of(folder) if d[0].Modality == "SM"]
    assert slides
    assert all(stack.verdict == Verdict.WHOLE_SLIDE for d in slides for stack in stacks_of(d))


@needs_dcm2niix
def test_lone_slice(corpus: Corpus, converted: Convert) -> None:
    folder = corpus("segmentation") / "rtutils_ct_rtstruct" / "one_slice_data"
    (theirs,) = converted(folder)
    assert theirs.shape == (100, 50, 1)
    with pytest.raises(CaseError) as caught:
        volume_of(folder)
    assert caught.value.reason == Reason.UNKNOWN_GEOMETRY


def test_jitter(corpus: Corpus) -> None:
    folder = corpus("sts") / "sts001_raw" / "FDG_PET" / "image"
    with pytest.raises(ValueError, match="regularly-spaced"):
        highdicom.get_volume_from_series(series_of(folder)[0], orientation_tol=1e-3)
    assert any(note.startswith("jitter_mm") for note in volume_of(folder).notes)


def test_private_frames(corpus: Corpus) -> None:
    folder = corpus("segmentation") / "lidc_0314_slab" / "ct"
    with pytest.raises(ValueError, match="frame of reference"):
        highdicom.get_volume_from_series(series_of(folder)[0], orientation_tol=1e-3)
    ours = volume_of(folder)
    assert "frame_of_reference_not_shared" in ours.notes
    assert ours.geometry.frame_of_reference is None


def test_direction(corpus: Corpus) -> None:
    (datasets,) = series_of(corpus("geometry") / "toshiba_mr_adc")
    theirs = highdicom.get_volume_from_series(datasets, orientation_tol=1e-3)
    (stack,) = stacks_of(datasets)
    ours = assemble(stack, datasets, KEEP)
    np.testing.assert_allclose(theirs.affine[:3, 0], -ours.geometry.affine[:3, 0], atol=1e-3)
    np.testing.assert_allclose(theirs.array[::-1], ours.voxels[0], rtol=1e-6)


@needs_dcm2niix
def test_lossy_colour(corpus: Corpus, converted: Convert, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(corpus("odd") / "odd_singles" / "orthanc" / "Encodings" / "Lena-utf8.dcm", folder)
    (theirs,) = converted(folder)
    pixels = np.asarray(theirs.dataobj)[..., 0]
    colour = np.stack([pixels[name] for name in pixels.dtype.names]).transpose(0, 2, 1)[:, ::-1].astype(int)
    apart = np.abs(colour - volume_of(folder).voxels[:, 0]).max()
    assert 0 < apart <= 3
