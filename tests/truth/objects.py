"""DICOM objects written by hand with pydicom and numpy, so that drawn cases share no code with the engine."""

import io
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

ROOT = "1.2.826.0.1.3680043.10.999."
CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4", "PT": "1.2.840.10008.5.1.4.1.1.128",
    "EMR": "1.2.840.10008.5.1.4.1.1.4.1", "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "SEG": "1.2.840.10008.5.1.4.1.1.66.4",
}  # fmt: skip

Pixels: TypeAlias = NDArray[Any]


def number(value: float) -> str:
    """A DS of at most 16 characters, as exact as that allows (PS3.5 6.2)."""
    text = repr(float(value))
    if len(text) <= 16:
        return text
    for digits in range(16, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError(value)


def header(kind: str, *, case: int, series: int, instance: int) -> Dataset:
    """What every object has: patient, study, series, times. UIDs are made of the three numbers."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SOPClassUID = CLASSES[kind]
    ds.SOPInstanceUID = f"{ROOT}{case}.{series}.{instance}"
    ds.StudyInstanceUID = f"{ROOT}{case}"
    ds.SeriesInstanceUID = f"{ROOT}{case}.{series}"
    ds.FrameOfReferenceUID = f"{ROOT}{case}.900"
    ds.Modality = "MR" if kind == "EMR" else kind
    ds.PatientID, ds.PatientName = person(case), f"Drawn^{person(case)}"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19600101", "F", "060Y"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20200301"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "100000"
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "", "", ""
    ds.SeriesNumber, ds.InstanceNumber, ds.Manufacturer = series, instance, "Synthetic"
    return ds


def person(case: int) -> str:
    """An id in which no word and no date can be found by chance."""
    return "".join("BCDFGHJKLM"[int(digit)] for digit in f"{case:06d}") + "XQZW"


def image(
    kind: str,
    pixels: Pixels,
    *,
    at: Sequence[int],
    position: NDArray[np.float64],
    cosines: NDArray[np.float64],
    spacing: tuple[float, float],
    thickness: float,
    stored: int,
) -> Dataset:
    """One slice of stored values (row, column), whose dtype says bits allocated and sign; ``at`` names the instance."""
    case, series, instance = at
    ds = header(kind, case=case, series=series, instance=instance)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if kind == "CT" else "M"]
    ds.ImagePositionPatient = [number(v) for v in position]
    ds.ImageOrientationPatient = [number(v) for v in cosines]
    ds.PixelSpacing = [number(v) for v in spacing]
    ds.SliceThickness = number(thickness)
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = pixels.dtype.itemsize * 8
    ds.BitsStored, ds.HighBit = stored, stored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    if len(ds.PixelData) % 2:
        ds.PixelData += b"\0"
    ds["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    return ds


def encoded(ds: Dataset, syntax: str) -> Dataset:
    """The data set in another transfer syntax; native pixels are little endian before."""
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        width = ds.BitsAllocated // 8
        if width > 1:
            ds.PixelData = np.frombuffer(ds.PixelData, f"<u{width}").astype(f">u{width}").tobytes()
        elif ds["PixelData"].VR == "OW":  # OW is a string of 16-bit words (PS3.5 7.3)
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    elif syntax not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, "1.2.840.10008.1.2.1.99"):
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        try:
            plugin = "pydicom" if syntax == RLELossless else ""
            ds.compress(syntax, generate_instance_uid=False, encoding_plugin=plugin)
        except RuntimeError:  # noise grows under JPEG-LS, and the encoder has no room for that
            ds.compress(RLELossless, generate_instance_uid=False, encoding_plugin="pydicom")
    return ds


def written(ds: Dataset) -> bytes:
    """The bytes of a file."""
    out = io.BytesIO()
    syntax = ds.file_meta.get("TransferSyntaxUID") or ExplicitVRLittleEndian
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID") or "1.2.3"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID") or "1.2.3.4"
    implicit = syntax == ImplicitVRLittleEndian
    ds.save_as(out, enforce_file_format=True, implicit_vr=implicit, little_endian=syntax != ExplicitVRBigEndian)
    return out.getvalue()


def raw(ds: Dataset, tag: int, vr: str, value: bytes) -> None:
    """Put bytes into an element as they are, whatever pydicom would say of them."""
    value += b" " * (len(value) % 2)
    ds._dict[Tag(tag)] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
    ds.set_original_encoding(False, True, ds._character_set)


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def item(**values: Any) -> Dataset:
    """A data set of keywords and values; a list of data sets becomes a sequence."""
    made = Dataset()
    for keyword, value in values.items():
        items = isinstance(value, list) and value and isinstance(value[0], Dataset)
        setattr(made, keyword, Items(value) if items else value)
    return made
