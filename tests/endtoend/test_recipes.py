"""Recipes built on pictures made for them: what each page of docs/recipes says of its spec is seen in the dataset."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

import builder
from builder.run.pipeline import build
from tests.conftest import ROOT
from tests.endtoend.trees import KEY
from tests.synthetic import uid

PERSONS = 12
ULTRASOUND, MAMMOGRAPHY = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.1.2"
Pixels = NDArray[Any]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)


def write(path: Path, pixels: Pixels, *, sop_class: str, patient: str, study: str, **attributes: Any) -> None:
    """Write a grey picture of a patient."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = sop_class
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = uid("image", path.as_posix())
    image.StudyInstanceUID, image.SeriesInstanceUID = uid("study", study), uid("series", path.as_posix())
    image.PatientID, image.PatientName = patient, f"Sonne^{patient}"
    image.Manufacturer, image.StudyDate, image.InstanceNumber = "Phantom", "20200203", 1
    image.ImageType = ["ORIGINAL", "PRIMARY"]
    for name, value in attributes.items():
        setattr(image, name, value)
    image.Rows, image.Columns, image.SamplesPerPixel = *pixels.shape, 1
    image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 0
    image.BitsAllocated = image.BitsStored = 8 * pixels.itemsize
    image.HighBit = 8 * pixels.itemsize - 1
    image.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)


def breast(side: str, seed: int) -> Pixels:
    """A half disc at the side of the chest wall on black, and a mark of the largest value in the other corner."""
    row, column = np.mgrid[:130, :110]
    reach = column if side == "L" else 109 - column
    tissue = ((row - 75) / 43) ** 2 + (reach / 65) ** 2 < 1
    pixels = np.where(tissue, 1800 + np.random.default_rng(seed).integers(0, 900, tissue.shape), 0).astype("<u2")
    pixels[1:4, slice(-5, -1) if side == "L" else slice(1, 5)] = 4095
    return pixels


def test_mammograms_lose_their_marks_and_keep_their_views(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    exams = ["study,density"]
    for number in range(PERSONS):
        patient = f"MG-{number:03d}"
        exams.append(f"{uid('study', patient)},{'ABCD'[number % 4]}")
        for view in ("LCC", "LMLO", "RCC", "RMLO")[number == 5 :]:  # somebody lacks a view
            write(
                archive / patient / f"{view}.dcm", breast(view[0], number), sop_class=MAMMOGRAPHY, patient=patient,
                study=patient, Modality="MG", ImageLaterality=view[0], ViewPosition=view[1:],
                ImagerPixelSpacing=[1.5, 1.5], BurnedInAnnotation="NO",
            )  # fmt: skip
    (archive / "exams.csv").write_text("\n".join(exams))
    text = (ROOT / "specs" / "mammography-views.yaml").read_text()
    assert "pixels: [1024, 832]" in text
    small = text.replace("pixels: [1024, 832]", "pixels: [128, 104]")  # a test has no time for more
    (tmp_path / "spec.yaml").write_text(small + 'leaks: {pixels: "off"}\nreport: {thumbnails: 0}\n')
    build(tmp_path / "spec.yaml", to=tmp_path / "out", parameters={"archive": str(archive)})
    dataset = builder.open_dataset(tmp_path / "out")
    names = ("study_key", "laterality", "view_position", "label.density", "person_key", "split")
    rows = list(zip(*(dataset.table[name].to_pylist() for name in names), strict=True))
    assert len(rows) == len({row[:3] for row in rows}) == 4 * PERSONS - 1
    exams_of = {study: Counter(row[0] for row in rows)[study] for study in {row[0] for row in rows}}
    assert sorted(exams_of.values()) == [3] + [4] * (PERSONS - 1)
    densities = {row[0]: row[3] for row in rows}
    assert Counter(densities.values()) == dict.fromkeys("ABCD", PERSONS // 4)
    assert len({row[4:] for row in rows}) == PERSONS  # no person has two splits
    for item in dataset:
        pixels = item["image"][0, 0]
        assert pixels.shape == (128, 104)
        assert pixels.dtype == np.uint16
        tissue = pixels > 10000  # a mark of the largest value would be far from it, and in the box
        rows_, columns = np.flatnonzero(tissue.any(1)), np.flatnonzero(tissue.any(0))
        share = tissue[rows_[0] : rows_[-1] + 1, columns[0] : columns[-1] + 1].mean()
        assert abs(share - np.pi / 4) < 0.08


def still(path: Path, number: int) -> None:
    """Write an ultrasound still with its text above the region of the image."""
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 10, 20
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 89, 69
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    pixels = np.random.default_rng(number).integers(40, 200, (80, 100), np.uint8)
    pixels[:20] = 250  # the name of the patient, for all anybody knows
    patient = f"US-{number // 2:03d}"
    write(
        path, pixels, sop_class=ULTRASOUND, patient=patient, study=patient, Modality="US",
        SequenceOfUltrasoundRegions=[region],
    )  # fmt: skip


def test_stills_are_blanked_outside_their_regions_and_take_their_class_from_the_folder(tmp_path: Path) -> None:
    names = ("benign", "malignant", "normal")
    for number in range(2 * PERSONS):
        still(tmp_path / "archive" / names[number // 2 % 3] / f"{number}.dcm", number)
    given = {"archive": str(tmp_path / "archive")}
    build(ROOT / "specs" / "ultrasound-stills.yaml", to=tmp_path / "out", parameters=given)
    dataset = builder.open_dataset(tmp_path / "out")
    assert len(dataset) == 2 * PERSONS
    assert sorted(dataset.table["label.finding"].to_pylist()) == sorted(names * (2 * PERSONS // 3))
    for item in dataset:
        pixels = item["image"][0, 0].astype(int)
        assert pixels.shape == (256, 256)
        assert pixels.max() < 220  # no text
        side = 256 / 100  # the picture is 100 wide and 80 high, and lies in the middle
        inside = pixels[round(25.6 + 22 * side) : round(25.6 + 68 * side), round(12 * side) : round(88 * side)]
        assert inside.mean() > 100
        outside = pixels.copy()
        outside[round(25.6 + 18 * side) : round(25.6 + 72 * side), round(8 * side) : round(92 * side)] = 0
        assert outside.max() <= 40  # the smallest value of the regions
