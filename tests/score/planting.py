"""Plant what identifies a person into a real header, in every kind of place, and keep the answer key."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta

from pydicom import Dataset
from pydicom.datadict import DicomDictionary, tag_for_keyword
from pydicom.sequence import Sequence

from tests.score.people import KINDS, Human

_WIDTHS = {"SH": 16, "AE": 16, "LO": 64, "PN": 64, "CS": 16}
_TEXT_VRS = ("LO", "SH", "ST", "LT", "UT", "UC", "PN", "AE", "UR")
_KEPT_GROUPS = (0x0000, 0x0002, 0x0004)
_SCIENCE_TEXT = """
Modality BodyPartExamined Manufacturer ManufacturerModelName ConvolutionKernel ScanningSequence SequenceVariant
ScanOptions MRAcquisitionType PatientPosition PhotometricInterpretation Units CorrectedImage DecayCorrection
CountsSource SeriesType RescaleType LossyImageCompression Laterality ImageLaterality ViewPosition AngioFlag
SOPClassUID ContrastBolusAgent CodeValue CodingSchemeDesignator CodeMeaning SegmentationType SegmentAlgorithmType
ValueType RelationshipType ContinuityOfContent GraphicType ContourGeometricType RTROIInterpretedType
DimensionOrganizationType FrameType VolumetricProperties PixelPresentation ReconstructionMethod
AttenuationCorrectionMethod ScatterCorrectionMethod
"""
SCIENCE_TEXT = tuple(_SCIENCE_TEXT.split())
_SCIENCE_NUMBERS = """
ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness SpacingBetweenSlices SliceLocation Rows
Columns BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel PlanarConfiguration RescaleSlope
RescaleIntercept WindowCenter WindowWidth InstanceNumber SeriesNumber AcquisitionNumber NumberOfFrames KVP
XRayTubeCurrent ExposureTime Exposure GantryDetectorTilt ReconstructionDiameter DataCollectionDiameter TableHeight
EchoTime RepetitionTime InversionTime FlipAngle MagneticFieldStrength EchoTrainLength NumberOfAverages
ImagingFrequency PercentSampling PercentPhaseFieldOfView PixelBandwidth EchoNumbers DiffusionBValue
DiffusionGradientOrientation TriggerTime SAR FrameReferenceTime ActualFrameDuration DecayFactor
DoseCalibrationFactor RadionuclideTotalDose RadionuclideHalfLife RadiopharmaceuticalVolume PatientWeight
PatientSize ImagesInAcquisition TemporalPositionIdentifier NumberOfTemporalPositions ImagerPixelSpacing
SmallestImagePixelValue LargestImagePixelValue SegmentNumber ROINumber ReferencedROINumber ReferencedSegmentNumber
ReferencedFrameNumber ContourData NumberOfContourPoints NumericValue GraphicData DimensionIndexValues
RecommendedDisplayCIELabValue ROIDisplayColor PixelPaddingValue AxisOfRotation DistanceSourceToDetector
DistanceSourceToPatient FilterType SpiralPitchFactor SingleCollimationWidth CTDIvol
"""
SCIENCE_NUMBERS = tuple(_SCIENCE_NUMBERS.split())
_DESCRIPTIONS = (
    "CT CHEST AXIAL", "MR BRAIN T1 SAGITTAL", "PET WHOLE BODY", "CT ABDOMEN WITH CONTRAST", "T2 AXIAL", "LUNG", "LIVER",
    "HEAD WITHOUT CONTRAST", "CHEST PA", "MR PELVIS CORONAL", "ABDOMEN PELVIS", "T1 CORONAL POST CONTRAST",
)  # fmt: skip
_STRUCTURES = ("Liver", "GTV", "PTV 50", "Spinal cord", "Left lung", "Heart", "Tumor")
KEY_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
"""Dates whose differences science needs: they must be there, moved."""


@dataclass
class Planted:
    """The answer key of one object.

    Parameters
    ----------
    texts
        (place, what must not be found there or anywhere).
    dates
        (keyword, planted date).
    uids
        (keyword, planted UID); ``references`` are those of other objects of the person.
    kept
        (keyword, value as text) of descriptions that name nobody.
    """

    human: Human
    texts: list[tuple[str, str]] = field(default_factory=list)
    dates: list[tuple[str, date]] = field(default_factory=list)
    uids: list[tuple[str, str]] = field(default_factory=list)
    references: list[tuple[str, str]] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)


def plantable() -> dict[str, list[str]]:
    """Keywords of the dictionary by what they can hold: text, dates, UIDs."""
    found: dict[str, list[str]] = {"text": [], "date": [], "uid": []}
    science = {*SCIENCE_TEXT, *SCIENCE_NUMBERS}
    for tag, (vr, _, _, retired, keyword) in sorted(DicomDictionary.items()):
        if not keyword or tag >> 16 in _KEPT_GROUPS or keyword in science or (retired and tag >> 16 == 0x0028):
            continue
        if vr in _TEXT_VRS:
            found["text"].append(keyword)
        elif vr in ("DA", "DT"):
            found["date"].append(keyword)
        elif vr == "UI" and "ClassUID" not in keyword and "Syntax" not in keyword:
            found["uid"].append(keyword)
    return found


PLACES = plantable()
_STATED = {
    "PatientName": "name", "PatientID": "mrn", "InstitutionName": "institution", "InstitutionAddress": "address",
    "ReferringPhysicianName": "doctor", "AccessionNumber": "accession", "StationName": "station",
    "DeviceSerialNumber": "serial", "PatientTelephoneNumbers": "phone", "PatientAddress": "address",
}  # fmt: skip
_NOT_AGAIN = {*_STATED, "SpecificCharacterSet", "PatientBirthDate", *KEY_DATES, "StudyInstanceUID", "SeriesInstanceUID",
              "SOPInstanceUID", "FrameOfReferenceUID", "StudyDescription", "SeriesDescription", "ROIName",
              "SegmentLabel"}  # fmt: skip


def plant(dataset: Dataset, who: Human, rng: random.Random, *, uids: dict[str, str], studied: date) -> Planted:
    """Plant into a header; ``uids`` are the person's own (study, series, object, frame of reference)."""
    key = Planted(who)
    for keyword, attribute in _STATED.items():
        value = getattr(who, attribute)
        setattr(dataset, keyword, value)
        _texts(key, keyword, value)
    dataset.PatientBirthDate = f"{who.born:%Y%m%d}"
    key.texts.append(("PatientBirthDate", f"{who.born:%Y%m%d}"))
    for keyword in KEY_DATES:
        _date(dataset, key, keyword, studied)
    for keyword in rng.sample([k for k in PLACES["date"] if k not in _NOT_AGAIN], 8):
        _date(dataset, key, keyword, studied + timedelta(days=rng.randrange(-40, 40)))
    for keyword, uid in uids.items():
        setattr(dataset, keyword, uid)
        key.uids.append((keyword, uid))
    for keyword in rng.sample([k for k in PLACES["uid"] if k not in _NOT_AGAIN], 6):
        _uid(dataset, key, keyword, _new_uid(rng))
    for keyword in rng.sample([k for k in PLACES["text"] if k not in _NOT_AGAIN], 45):
        _text(dataset, key, keyword, rng)
    _describe(dataset, key, rng)
    _nest(dataset, key, rng, uids)
    _private(dataset, key, rng)
    _meta(dataset, key, rng)
    _structures(dataset, key, rng)
    return key


def _texts(key: Planted, place: str, value: str) -> None:
    """Every secret of the person that stands in a value is one that must go."""
    low = value.lower()
    for secret in key.human.secrets().values():
        if secret in low:
            key.texts.append((place, secret))
            return
    if any(ch.isdigit() for ch in value):
        key.texts.append((place, low))


def _text(dataset: Dataset, key: Planted, keyword: str, rng: random.Random, *, place: str = "") -> None:
    vr = DicomDictionary[tag_for_keyword(keyword)][0]
    kind = "family" if vr == "PN" else rng.choice(KINDS)
    value = key.human.name if vr == "PN" else key.human.written(kind, rng)
    value = value[: _WIDTHS.get(vr, 200)]
    if vr == "UR":
        value = f"http://pacs.{key.human.town.lower()}.example/{key.human.mrn}"
    secrets = key.human.secrets()
    secret = value.lower() if kind == "born" and vr != "UR" else secrets.get("mrn" if vr == "UR" else kind, "")
    if secret and secret in value.lower():
        setattr(dataset, keyword, value)
        key.texts.append((place + keyword, secret))


def _date(dataset: Dataset, key: Planted, keyword: str, day: date) -> None:
    vr = DicomDictionary[tag_for_keyword(keyword)][0]
    setattr(dataset, keyword, f"{day:%Y%m%d}" + ("083000" if vr == "DT" else ""))
    key.dates.append((keyword, day))


def _uid(dataset: Dataset, key: Planted, keyword: str, uid: str) -> None:
    setattr(dataset, keyword, uid)
    key.uids.append((keyword, uid))


def _new_uid(rng: random.Random) -> str:
    return f"1.3.6.1.4.1.{rng.randrange(10**4, 10**6)}.{rng.randrange(10**9, 10**12)}.{rng.randrange(1, 10**6)}"


def _describe(dataset: Dataset, key: Planted, rng: random.Random) -> None:
    """Descriptions that name nobody stay; others lose who is named."""
    for keyword in ("StudyDescription", "SeriesDescription"):
        said = rng.choice(_DESCRIPTIONS)
        if rng.random() < 0.5:
            setattr(dataset, keyword, said)
            key.kept.append((keyword, said))
        else:
            kind = rng.choice(KINDS[:-1])
            value = f"{said} {key.human.written(kind, rng)}"[:64]
            if key.human.secrets()[kind] in value.lower():
                setattr(dataset, keyword, value)
                key.texts.append((keyword, key.human.secrets()[kind]))


_SEQUENCE_NAMES = """
RequestAttributesSequence ReferencedStudySequence PerformedProtocolCodeSequence AnatomicRegionSequence
ReferencedImageSequence SourceImageSequence DerivationCodeSequence ContributingEquipmentSequence
OtherPatientIDsSequence ReferencedPatientSequence SharedFunctionalGroupsSequence PersonIdentificationCodeSequence
OriginalAttributesSequence ProcedureCodeSequence ContentSequence EncryptedAttributesSequence
"""
_SEQUENCES = tuple(_SEQUENCE_NAMES.split())


def _nest(dataset: Dataset, key: Planted, rng: random.Random, uids: dict[str, str]) -> None:
    for keyword in rng.sample(_SEQUENCES, 4):
        item, inner = Dataset(), Dataset()
        for target, place in ((item, f"{keyword}/"), (inner, f"{keyword}/{keyword}/")):
            for name in rng.sample([k for k in PLACES["text"] if k not in _NOT_AGAIN], 5):
                _text(target, key, name, rng, place=place)
        item.ReferencedSOPInstanceUID = uids["SOPInstanceUID"]
        key.references.append((f"{keyword}/ReferencedSOPInstanceUID", uids["SOPInstanceUID"]))
        setattr(item, keyword, Sequence([inner]))
        held = list(dataset[keyword].value) if keyword in dataset and dataset[keyword].VR == "SQ" else []
        setattr(dataset, keyword, Sequence([*held, item]))


def _private(dataset: Dataset, key: Planted, rng: random.Random) -> None:
    group = rng.choice([0x0009, 0x0019, 0x0029, 0x0099, 0x2001, 0x7053])
    block = dataset.private_block(group, "SCORE PRIVATE 01", create=True)
    for offset, vr in ((0x01, "LO"), (0x02, "UT"), (0x03, "SH"), (0x10, "OB"), (0x11, "UN")):
        kind = rng.choice(("family", "mrn", "accession", "doctor"))
        secret = key.human.secrets()[kind]
        text = secret[: _WIDTHS.get(vr, 64)]
        block.add_new(offset, vr, text.encode().ljust(32) if vr in ("OB", "UN") else text)
        key.texts.append((f"private {vr}", text))
    item = Dataset()
    _text(item, key, "PatientComments", rng, place="private SQ/")
    block.add_new(0x20, "SQ", Sequence([item]))


def _meta(dataset: Dataset, key: Planted, rng: random.Random) -> None:
    meta = dataset.file_meta
    meta.SourceApplicationEntityTitle = key.human.station[:16]
    meta.ImplementationVersionName = key.human.station[:16]
    meta.PrivateInformationCreatorUID = "1.3.6.1.4.1.99999.1"
    meta.PrivateInformation = key.human.family.encode().ljust(32)
    for keyword in ("SourceApplicationEntityTitle", "ImplementationVersionName"):
        key.texts.append((f"file meta {keyword}", key.human.station.lower()))
    key.texts.append(("file meta PrivateInformation", key.human.family.lower()))


def _structures(dataset: Dataset, key: Planted, rng: random.Random) -> None:
    """Names of ROIs and segments, and what the content items of a report say."""
    for keyword, sequence in (("ROIName", "StructureSetROISequence"), ("SegmentLabel", "SegmentSequence")):
        for item in list(dataset.get(sequence, []))[:6]:
            said = rng.choice(_STRUCTURES)
            if rng.random() < 0.5:
                setattr(item, keyword, said)
                continue
            kind = rng.choice(("family", "doctor", "mrn", "town"))
            setattr(item, keyword, f"{said} {key.human.written(kind, rng)}"[:64])
            if key.human.secrets()[kind] in str(item[keyword].value).lower():
                key.texts.append((f"{sequence}/{keyword}", key.human.secrets()[kind]))
    for item in list(_items(dataset))[:8]:
        kind = rng.choice(KINDS[:-1])
        if "TextValue" in item:
            item.TextValue = f"Nodule in the left lung. {key.human.written(kind, rng)} was informed."
            key.texts.append(("ContentSequence/TextValue", key.human.secrets()[kind]))
        if "PersonName" in item:
            item.PersonName = key.human.name
            key.texts.append(("ContentSequence/PersonName", key.human.family.lower()))


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """The content items of a structured report, at every depth."""
    todo = list(dataset.get("ContentSequence", []))
    while todo:
        item = todo.pop()
        yield item
        todo += list(item.get("ContentSequence", []))
