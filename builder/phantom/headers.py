"""Make headers of CT, MR and PET images that are valid by the standard's modules, without clock or random numbers."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from builder.model.geometry import Geometry

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
PET_IMAGE = "1.2.840.10008.5.1.4.1.1.128"
STORAGE = {"CT": CT_IMAGE, "MR": MR_IMAGE, "PT": PET_IMAGE}
IMPLEMENTATION_UID = "2.25.182964263340116379353838431836405461427"
FLUORINE_18_HALF_LIFE_S = 6586.2

Private: TypeAlias = tuple[tuple[int, str, int, str, Any], ...]
"""Private elements: group, creator, element offset in the block, value representation, value (PS3.5 7.8.1)."""


@dataclass(frozen=True)
class Subject:
    """The Patient module's facts; ``size_m`` and ``weight_kg`` go to the Patient Study module."""

    patient_id: str
    name: str = "Phantom^Body"
    sex: str = "O"
    birth_date: str = "19600101"
    age_years: int = 58
    weight_kg: float = 70.0
    size_m: float = 1.70


@dataclass(frozen=True)
class Visit:
    """The General Study module's facts; ``time`` is when scanning began, HHMMSS."""

    uid: str
    date: str = "20190102"
    time: str = "101500"
    accession: str = ""
    study_id: str = "1"
    description: str = "Phantom"


@dataclass(frozen=True)
class Scanner:
    """The device: General Equipment module, and how this vendor fills the acquisition's attributes."""

    manufacturer: str = "Phantom"
    model: str = "Phantom"
    station: str = "PHANTOM1"
    software: str = "1.0"
    institution: str = "Phantom Hospital"
    kernel: str = "STANDARD"
    kvp: float = 120.0
    field_strength_t: float = 1.5
    private: Private = ()


@dataclass(frozen=True)
class Series:
    """The General Series module's facts; for PET ``activity_bq`` is what was injected, ``uptake_s`` before the scan."""

    uid: str
    modality: str = "CT"
    number: int = 1
    description: str = "Axial"
    protocol: str = "Phantom"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL")
    activity_bq: float = 350e6
    uptake_s: int = 3600


@dataclass(frozen=True)
class Stored:
    """How numbers are stored: value = stored * slope + intercept (PS3.3 C.11.1.1.2)."""

    bits_stored: int = 16
    signed: bool = True
    slope: float = 1.0
    intercept: float = 0.0
    padding: int | None = None
    photometric: str = "MONOCHROME2"


def image_header(
    visit: Visit, subject: Subject, *, scanner: Scanner, series: Series, geometry: Geometry, stored: Stored
) -> Dataset:
    """Return the attributes that all images of a series share.

    Returns
    -------
    Dataset
        With file meta, without SOPInstanceUID, position and pixels, which ``place_image`` adds for each image.

    Notes
    -----
    PS3.3 A.3 (CT), A.4 (MR), A.21 (PET): all mandatory modules of the three image objects.
    """
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.FileMetaInformationVersion = b"\x00\x01"
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    header.file_meta.ImplementationVersionName = "PHANTOM_1"
    header.file_meta.MediaStorageSOPClassUID = STORAGE[series.modality]
    header.SOPClassUID = STORAGE[series.modality]
    header.ImageType = list(series.image_type)
    describe_patient(header, subject)
    describe_study(header, visit)
    _describe_series(header, visit, scanner=scanner, series=series, frame=geometry.frame_of_reference)
    _describe_pixels(header, geometry, stored)
    {"CT": _describe_ct, "MR": _describe_mr, "PT": _describe_pet}[series.modality](header, scanner, series)
    if series.modality == "PT":
        header.NumberOfSlices = geometry.shape[0]
    for group, creator, offset, vr, value in scanner.private:
        header.private_block(group, creator, create=True).add_new(offset, vr, value)
    return header


def place_image(
    header: Dataset, sop_uid: str, *, index: int, number: int, geometry: Geometry, pixels: NDArray[Any]
) -> None:
    """Turn the header into slice ``index`` of ``geometry``: UID, position, InstanceNumber and stored pixels.

    Elements are replaced, never changed, so that a shallow copy of the dataset keeps the slice it was made of.
    """
    header.file_meta.MediaStorageSOPInstanceUID = sop_uid
    header.add_new(0x00080018, "UI", sop_uid)
    header.add_new(0x00200013, "IS", str(number))
    position = geometry.to_world([(index, 0, 0)])[0]
    header.add_new(0x00200032, "DS", decimals(position))
    if header.Modality in ("CT", "MR"):
        header.add_new(0x00201041, "DS", decimals([float(position @ _normal(geometry))])[0])
    if header.Modality == "PT":
        header.add_new(0x00541330, "US", number)
    little = np.ascontiguousarray(pixels, dtype="<i2" if header.PixelRepresentation else "<u2")
    header.add_new(0x7FE00010, "OW", little.tobytes())


def describe_patient(dataset: Dataset, subject: Subject) -> None:
    """Fill the Patient and Patient Study modules (PS3.3 C.7.1.1, C.7.2.2)."""
    dataset.PatientName = subject.name
    dataset.PatientID = subject.patient_id
    dataset.PatientBirthDate = subject.birth_date
    dataset.PatientSex = subject.sex
    dataset.PatientAge = f"{subject.age_years:03d}Y"
    dataset.PatientSize = f"{subject.size_m:.2f}"
    dataset.PatientWeight = f"{subject.weight_kg:.1f}"


def describe_study(dataset: Dataset, visit: Visit) -> None:
    """Fill the General Study module (PS3.3 C.7.2.1)."""
    dataset.StudyInstanceUID = visit.uid
    dataset.StudyDate = visit.date
    dataset.StudyTime = visit.time
    dataset.AccessionNumber = visit.accession
    dataset.ReferringPhysicianName = ""
    dataset.StudyID = visit.study_id
    dataset.StudyDescription = visit.description


def later(time: str, seconds: int) -> str:
    """Return HHMMSS moved by ``seconds`` within the day (times wrap at midnight, as clocks do)."""
    total = int(time[:2]) * 3600 + int(time[2:4]) * 60 + int(time[4:6]) + seconds
    return f"{total // 3600 % 24:02d}{total // 60 % 60:02d}{total % 60:02d}"


def decimals(values: Any) -> list[str]:
    """Return Decimal Strings of at most 16 characters (PS3.5 6.2)."""
    return [_decimal(float(value)) for value in values]


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """Return one item of a code sequence (PS3.3 Table 8.8-1)."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def _describe_series(dataset: Dataset, visit: Visit, *, scanner: Scanner, series: Series, frame: str | None) -> None:
    dataset.Modality = series.modality
    dataset.SeriesInstanceUID = series.uid
    dataset.SeriesNumber = str(series.number)
    dataset.SeriesDescription = series.description
    dataset.ProtocolName = series.protocol
    dataset.PatientPosition = "HFS"
    dataset.BodyPartExamined = "CHEST"
    dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = visit.date
    dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = later(visit.time, 60 * series.number)
    dataset.AcquisitionNumber = "1"
    dataset.PositionReferenceIndicator = ""
    if frame is not None:
        dataset.FrameOfReferenceUID = frame
    dataset.Manufacturer = scanner.manufacturer
    dataset.ManufacturerModelName = scanner.model
    dataset.InstitutionName = scanner.institution
    dataset.StationName = scanner.station
    dataset.SoftwareVersions = scanner.software
    dataset.DeviceSerialNumber = "000000"


def _describe_pixels(dataset: Dataset, geometry: Geometry, stored: Stored) -> None:
    directions = geometry.directions
    spacing = geometry.spacing_mm
    dataset.ImageOrientationPatient = decimals([*directions[:, 2], *directions[:, 1]])
    dataset.PixelSpacing = decimals(spacing[1:])
    dataset.SliceThickness = decimals(spacing[:1])[0]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = stored.photometric
    dataset.Rows, dataset.Columns = geometry.shape[1:]
    dataset.BitsAllocated = 16
    dataset.BitsStored = stored.bits_stored
    dataset.HighBit = stored.bits_stored - 1
    dataset.PixelRepresentation = int(stored.signed)
    if stored.padding is not None:
        dataset.add_new(0x00280120, "SS" if stored.signed else "US", stored.padding)
    dataset.RescaleIntercept, dataset.RescaleSlope = decimals([stored.intercept, stored.slope])


def _describe_ct(dataset: Dataset, scanner: Scanner, series: Series) -> None:
    dataset.KVP = decimals([scanner.kvp])[0]
    dataset.ConvolutionKernel = scanner.kernel
    dataset.RescaleType = "HU"
    dataset.GantryDetectorTilt = "0"
    dataset.XRayTubeCurrent = "220"
    dataset.ExposureTime = "500"
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"


def _describe_mr(dataset: Dataset, scanner: Scanner, series: Series) -> None:
    del dataset.RescaleIntercept, dataset.RescaleSlope  # not attributes of the MR Image object
    dataset.ScanningSequence = "SE"
    dataset.SequenceVariant = "SK"
    dataset.ScanOptions = ""
    dataset.MRAcquisitionType = "2D"
    dataset.RepetitionTime, dataset.EchoTime = "3500", "90"
    dataset.EchoTrainLength = "15"
    dataset.FlipAngle = "90"
    dataset.MagneticFieldStrength = decimals([scanner.field_strength_t])[0]


def _describe_pet(dataset: Dataset, scanner: Scanner, series: Series) -> None:
    # everything that SUV by body weight needs: units, decay correction to the series time, dose, its time, half-life
    dataset.Units = "BQML"
    dataset.CountsSource = "EMISSION"
    dataset.SeriesType = ["WHOLE BODY", "IMAGE"]
    dataset.CorrectedImage = ["DECY", "ATTN", "SCAT", "DTIM", "RAN", "NORM"]
    dataset.DecayCorrection = "START"
    dataset.CollimatorType = "NONE"
    dataset.RandomsCorrectionMethod = "DLYD"
    dataset.AttenuationCorrectionMethod = "measured, CT"
    dataset.ReconstructionMethod = "OSEM"
    dataset.FrameReferenceTime = "0"
    dataset.ActualFrameDuration = "180000"
    dataset.DecayFactor = "1"
    drug = Dataset()
    drug.Radiopharmaceutical = "Fluorodeoxyglucose"
    drug.RadiopharmaceuticalStartTime = later(dataset.SeriesTime, -series.uptake_s)
    drug.RadionuclideTotalDose = decimals([series.activity_bq])[0]
    drug.RadionuclideHalfLife = decimals([FLUORINE_18_HALF_LIFE_S])[0]
    drug.RadionuclidePositronFraction = "0.967"
    drug.RadionuclideCodeSequence = Sequence([coded("C-111A1", "SRT", "^18^Fluorine")])
    drug.RadiopharmaceuticalCodeSequence = Sequence([coded("C-B1031", "SRT", "Fluorodeoxyglucose F^18^")])
    dataset.RadiopharmaceuticalInformationSequence = Sequence([drug])
    position = coded("F-10450", "SRT", "recumbent")
    position.PatientOrientationModifierCodeSequence = Sequence([coded("F-10340", "SRT", "supine")])
    del dataset.PatientPosition  # PS3.3 C.7.3.1: not beside Patient Orientation Code Sequence
    dataset.PatientOrientationCodeSequence = Sequence([position])
    dataset.PatientGantryRelationshipCodeSequence = Sequence([coded("F-10470", "SRT", "headfirst")])


def _normal(geometry: Geometry) -> NDArray[np.float64]:
    directions = geometry.directions
    return np.cross(directions[:, 2], directions[:, 1])


def _decimal(value: float) -> str:
    if value == 0.0:
        return "0"
    for digits in range(15, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError(f"decimal string: found {value!r}, expected a number that 16 characters can hold")
