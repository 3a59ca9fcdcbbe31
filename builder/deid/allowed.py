"""Which attributes survive, and in what form: the allow list combined with the profile's actions.

An attribute is dropped unless the profile retains it or the allow list names it, so unknown, private and future
attributes go without a rule of their own.
"""

from collections.abc import Mapping
from enum import Enum, auto
from functools import lru_cache
from types import MappingProxyType

from pydicom.datadict import DicomDictionary, tag_for_keyword

from builder.deid.profile import Action, Option, Profile, table


class Form(Enum):
    """How to treat the value of a surviving attribute."""

    NUMBER_TEXT = auto()  # DS, IS: kept when every value is a number
    NUMBER = auto()  # binary numbers and attribute tags: kept
    RESOLVED = auto()  # VR depends on Pixel Representation: decoded by the source, kept
    CODE = auto()  # CS and short codes: kept when it has the shape of a code
    CODE_VALUE = auto()  # the code of a coded concept: judged with its coding scheme
    SCHEME = auto()  # who defines a code: one word, or a spelling in use
    SCHEME_VERSION = auto()  # a short number of a version
    CONTEXT = auto()  # which context group or template, and which resource maps it
    LABEL = auto()  # short text: cleaned by shape
    WORDS = auto()  # descriptions: known imaging words only
    PROSE = auto()  # text of reports: scrubbed
    UID = auto()  # mapped
    KEPT_UID = auto()  # the profile retains it: kept when it has the shape of a UID, else mapped
    DATE = auto()  # shifted
    DATETIME = auto()  # shifted
    TIME = auto()  # kept when it is a time
    AGE = auto()  # capped at 90 years
    SEQUENCE = auto()  # walked
    PIXELS = auto()  # passed by reference
    TABLE = auto()  # lookup tables: kept when their length is what their descriptor says
    BYTES = auto()  # binary data the profile retains
    CSA = auto()  # Siemens' CSA image header: cut down to two numbers (builder.deid.csa)
    KEEP = auto()  # the profile retains it: kept when it is text without control characters but line ends, or a number
    EMPTY = auto()  # zero length
    DUMMY = auto()  # a constant


_TEXT_NUMBERS = frozenset({"DS", "IS"})
_NUMBERS = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "OV"})
_OPEN_GROUPS = frozenset(
    {0x0018, 0x0020, 0x0028, 0x0054, 0x0062, 0x0064, 0x0070, 0x3004, 0x3006, 0x300A, 0x300C, 0x5200}
)
"""Acquisition, relationship, image, nuclear medicine, segment, registration, presentation, dose, structure set, plan
and its references, frames: here numbers, codes and sequences survive; text, dates and binary data only where listed."""

_CODES = """
ImageType Modality ModalitiesInStudy ConversionType PresentationIntentType FrameType PixelPresentation
VolumetricProperties VolumeBasedCalculationTechnique ComplexImageComponent AcquisitionContrast LossyImageCompression
ValueType RelationshipType ContinuityOfContent CompletionFlag VerificationFlag GraphicType
TemporalRangeType ReportedValuesOrigin ApprovalStatus
"""
_CODE_VALUES = "CodeValue LongCodeValue"
_CONTEXTS = "ContextIdentifier TemplateIdentifier MappingResource"
_LABELS = """
Manufacturer ManufacturerModelName CodeMeaning SequenceName Radiopharmaceutical FilterType ConvolutionKernel
SoftwareVersions ReceiveCoilName TransmitCoilName PulseSequenceName ImagedNucleus ImageFilter StackID
DimensionDescriptionLabel PositionReferenceIndicator RescaleType WindowCenterWidthExplanation LUTExplanation LUTLabel
ModalityLUTType AttenuationCorrectionMethod ReconstructionMethod ScatterCorrectionMethod RandomsCorrectionMethod
SegmentLabel SegmentDescription SegmentAlgorithmName TrackingID StructureSetLabel StructureSetName ROIName
ROIDescription ROIObservationLabel ROIObservationDescription ContrastBolusAgent ContentLabel GraphicLayer
ReconstructionAlgorithm
"""
_PROSE = "TextValue UnformattedTextValue"
_NUMBERS_ELSEWHERE = """
ReferencedFrameNumber RecommendedDisplayFrameRate StartTrim StopTrim NumericValue FloatingPointValue
RationalNumeratorValue RationalDenominatorValue ReferencedContentItemIdentifier ReferencedSegmentNumber
RealWorldValueFirstValueMapped RealWorldValueLastValueMapped RealWorldValueLUTData RealWorldValueIntercept
RealWorldValueSlope DoubleFloatRealWorldValueFirstValueMapped DoubleFloatRealWorldValueLastValueMapped
ReferencedSamplePositions ReferencedTimeOffsets ReferencedWaveformChannels
FloatPixelPaddingValue DoubleFloatPixelPaddingValue SeriesNumber
"""
_SEQUENCES_ELSEWHERE = """
ReferencedSeriesSequence ReferencedInstanceSequence ReferencedSOPSequence
StudiesContainingOtherReferencedInstancesSequence
AnatomicRegionSequence AnatomicRegionModifierSequence PrimaryAnatomicStructureSequence
PrimaryAnatomicStructureModifierSequence ReferencedImageEvidenceSequence DerivationImageSequence DerivationCodeSequence
SourceImageEvidenceSequence PurposeOfReferenceCodeSequence EquivalentCodeSequence ReferencedImageSequence
SourceImageSequence ConceptNameCodeSequence ConceptCodeSequence MeasuredValueSequence MeasurementUnitsCodeSequence
ContentTemplateSequence CurrentRequestedProcedureEvidenceSequence PertinentOtherEvidenceSequence
RealWorldValueMappingSequence QuantityDefinitionSequence NumericValueQualifierCodeSequence
IdenticalDocumentsSequence ReferencedImageRealWorldValueMappingSequence
"""
_UIDS_ELSEWHERE = """
SOPClassUID ReferencedSOPClassUID ContextUID CodingSchemeUID ContextGroupExtensionCreatorUID
"""
_TABLES = """
RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData LUTData
"""
_OFFSETS = "ExtendedOffsetTable ExtendedOffsetTableLengths"
_PIXELS = "PixelData FloatPixelData DoubleFloatPixelData"
_LISTS = (
    (_CODES, Form.CODE),
    (_CODE_VALUES, Form.CODE_VALUE),
    ("CodingSchemeDesignator", Form.SCHEME),
    ("CodingSchemeVersion", Form.SCHEME_VERSION),
    (_CONTEXTS, Form.CONTEXT),
    (_LABELS, Form.LABEL),
    (_PROSE, Form.PROSE),
    (_SEQUENCES_ELSEWHERE, Form.SEQUENCE),
    (_UIDS_ELSEWHERE, Form.UID),
    (_TABLES, Form.TABLE),
    (_OFFSETS, Form.NUMBER),
    (_PIXELS, Form.PIXELS),
)

_CLEANED = {
    "DA": Form.DATE,
    "TM": Form.TIME,
    "DT": Form.DATETIME,
    "SQ": Form.SEQUENCE,
    "LO": Form.WORDS,
    "SH": Form.WORDS,
    "CS": Form.WORDS,
    "UI": Form.UID,
}
"""What cleaning (action C) means by VR. Long text, names and addresses are emptied (EMPTY)."""

_RETAINED = {
    "AS": Form.AGE,
    "CS": Form.CODE,
    "DS": Form.NUMBER_TEXT,
    "IS": Form.NUMBER_TEXT,
    "US": Form.NUMBER,
    "DA": Form.DATE,
    "DT": Form.DATETIME,
    "TM": Form.TIME,
    "OB": Form.BYTES,
    "UI": Form.KEPT_UID,
}
"""What retaining (action K) means by VR: the value stays, if it is what its VR says (dates: the shift is then zero)."""


_SINCE: Mapping[int, str] = MappingProxyType(
    {
        **dict.fromkeys((0x00081301, 0x00081302, 0x00081303, 0x00081304), "SQ"),  # coded diagnoses
        **dict.fromkeys((0x00100043, 0x00100046), "SQ"),  # sex parameters for clinical use
        **dict.fromkeys((0x0040A034, 0x0040A035, 0x0040B034, 0x0040B036), "DT"),  # effective, annotation, segment
    }
)
"""VRs (PS3.6) of attributes of the table that are younger than the dictionary. Others that it lacks are dropped: the
comments, the reference to a web page, names of montages, and Ethnic Groups."""


def vr_of(tag: int) -> str:
    """Return the VR of an attribute by the dictionary or ``_SINCE``; "" if neither knows it."""
    return DicomDictionary[tag][0] if tag in DicomDictionary else _SINCE.get(tag, "")


@lru_cache(maxsize=64)
def forms(profile: Profile) -> Mapping[int, tuple[Form, str]]:
    """Return every public tag that survives under ``profile``, with its form and the VR of the dictionary."""
    survivors = dict(_allow_list())
    if Option.RETAIN_UIDS in profile.options:
        survivors |= {tag: (Form.KEPT_UID, vr) for tag, (form, vr) in survivors.items() if form is Form.UID}
    for tag, row in table().items():
        listed = survivors.pop(tag, None)
        vr = vr_of(tag)
        if not vr:
            continue
        form = _form_of(profile.action(row), vr=vr, listed=listed[0] if listed else None)
        if form is Form.KEEP and Option.RETAIN_PATIENT_CHARACTERISTICS in row.options:
            form = Form.LABEL  # people type Ethnic Group and the like by hand, so names may stand in it
        if form is not None and tag >> 16 not in (0x0000, 0x0002, 0x0004):
            survivors[tag] = (form, vr)
    return MappingProxyType(survivors)


def _form_of(action: Action, *, vr: str, listed: Form | None) -> Form | None:
    """Return how an action of the table applies to an attribute of this VR."""
    if action is Action.REMOVE:
        return None
    if action is Action.EMPTY:
        return Form.EMPTY
    if action is Action.DUMMY and vr != "UI":
        return Form.DUMMY
    if vr == "SQ":
        return Form.SEQUENCE
    if action is Action.UID or (action is Action.DUMMY and vr == "UI"):
        return Form.UID
    if action is Action.CLEAN:
        return listed or _CLEANED.get(vr, Form.EMPTY)
    return _RETAINED.get(vr, Form.KEEP)


@lru_cache(maxsize=1)
def _allow_list() -> Mapping[int, tuple[Form, str]]:
    """Return the attributes outside the table that survive under every profile."""
    survivors: dict[int, tuple[Form, str]] = {}
    for tag, (vr, _, _, _, _) in DicomDictionary.items():
        form = _form_by_group(vr) if tag >> 16 in _OPEN_GROUPS else None
        if form is not None:
            survivors[tag] = (form, vr)
    for keywords, form in _LISTS:
        for tag in map(_tag, keywords.split()):
            survivors[tag] = (form, DicomDictionary[tag][0])
    for tag in map(_tag, _NUMBERS_ELSEWHERE.split()):
        vr = DicomDictionary[tag][0]
        survivors[tag] = (_form_by_group(vr) or Form.NUMBER, vr)
    return MappingProxyType(survivors)


def _form_by_group(vr: str) -> Form | None:
    """Return the form of an attribute that is kept because of its group."""
    if vr in _TEXT_NUMBERS:
        return Form.NUMBER_TEXT
    if vr in _NUMBERS:
        return Form.NUMBER
    if vr.startswith("US or SS"):
        return Form.RESOLVED
    return {"CS": Form.CODE, "SQ": Form.SEQUENCE, "UI": Form.UID}.get(vr)


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None, f"{keyword} is no keyword of the DICOM dictionary"
    return int(tag)


SAFE_PRIVATE: Mapping[tuple[int, str, int], tuple[Form, str]] = MappingProxyType(
    {
        # The entries of PS3.15 Table E.3.10-1 that are used here: SUV, diffusion weighting, table and tube motion.
        (0x7053, "Philips PET Private Group", 0x00): (Form.NUMBER_TEXT, "DS"),  # SUV factor
        (0x7053, "Philips PET Private Group", 0x09): (Form.NUMBER_TEXT, "DS"),  # activity concentration factor
        (0x0019, "SIEMENS MR HEADER", 0x0C): (Form.NUMBER_TEXT, "IS"),  # b value
        (0x0019, "SIEMENS MR HEADER", 0x0E): (Form.NUMBER, "FD"),  # diffusion gradient direction
        (0x2001, "Philips Imaging DD 001", 0x03): (Form.NUMBER, "FL"),  # diffusion b factor
        (0x2001, "Philips Imaging DD 001", 0x04): (Form.CODE, "CS"),  # diffusion direction
        (0x0019, "GEMS_ACQU_01", 0x23): (Form.NUMBER_TEXT, "DS"),  # table speed
        (0x0019, "GEMS_ACQU_01", 0x27): (Form.NUMBER_TEXT, "DS"),  # rotation speed
        (0x0043, "GEMS_PARM_01", 0x27): (Form.CODE, "SH"),  # scan pitch ratio
        # Not in that table. What cuts a mosaic apart, and the start of a PET scan, which the vendor's SUV recipe decays
        # to (QIBA SUV vendor-neutral pseudo-code); the former are numbers, the latter is shifted.
        (0x0019, "SIEMENS MR HEADER", 0x0A): (Form.NUMBER, "US"),  # number of images in mosaic
        (0x0029, "SIEMENS CSA HEADER", 0x10): (Form.CSA, "OB"),  # that number and the slices' normal, rebuilt
        (0x0009, "GEMS_PETD_01", 0x0D): (Form.DATETIME, "DT"),  # scan date and time
    }
)
"""(group, private creator, element within the block) of the private attributes kept under Retain Safe Private."""


def safe_private(profile: Profile) -> Mapping[tuple[int, str, int], tuple[Form, str]]:
    """Return the private attributes that survive under ``profile``."""
    return SAFE_PRIVATE if Option.RETAIN_SAFE_PRIVATE in profile.options else MappingProxyType({})
