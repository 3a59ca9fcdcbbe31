"""One object as it leaves: the header walk, then what a released object states of its person and its dates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from pydicom import DataElement, Dataset
from pydicom.datadict import DicomDictionary, dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes
from pydicom.tag import BaseTag
from pydicom.uid import ImplicitVRLittleEndian, PositronEmissionTomographyImageStorage

from builder.deid import Deid
from builder.deid.allowed import Form
from builder.deid.headers import constant, deidentify, renaming
from builder.deid.identifiers import Identifiers
from builder.deid.profile import METHOD_CODES, Option, Profile
from builder.deid.uids import UidMap

IMPLEMENTATION_UID = "2.25.156374901652337411265803290113284467815"
"""(0002,0012) of every released file: of this program, and the same for every user."""
IMPLEMENTATION_NAME = "BUILDER_RELEASE"

NEAR_DAYS = 1
"""Days around the study date within which a date leaves: an examination may pass midnight."""

BASIC, CLEANED, DEFACED = "113100", "113101", "113102"
MEANINGS: Mapping[str, str] = MappingProxyType({c.value: c.meaning for c in codes.cid7050.concepts.values()})
"""Meanings of the codes of CID 7050 (PS3.16)."""

_IF_RETAINED = MappingProxyType({0x00100040: "sex", 0x00101010: "age_years", 0x00100043: "sex", 0x00100046: "sex"})
"""Sex, age and sex parameters for clinical use leave only where ``deid.retain`` names the column that they fill."""
_NEVER = (0x00102110, 0x00102160, 0x00102161, 0x001021A0, 0x001021C0, 0x00102203, 0x00380050, 0x00380500, 0x00400012)
"""Characteristics that the profile's option would keep and nothing in a spec retains: allergies, ethnic groups, smoking
and pregnancy status, sex neutered, special needs, patient state, pre-medication."""

_ANCHORS = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")

_EMPTY: Final = """
AccessionNumber StudyID PatientSex PatientBirthDate ReferringPhysicianName StudyDate StudyTime
OperatorsName InstanceNumber PositionReferenceIndicator Laterality RTPlanDate RTPlanTime StructureSetDate
StructureSetTime ReviewDate ReviewTime ReviewerName ROIInterpreter ContentCreatorName PatientOrientation
ReferencedPerformedProcedureStepSequence BeamDescription ContentDescription
"""
_DUMMY: Final = """
ContentDate ContentTime PresentationCreationDate PresentationCreationTime RTPlanLabel StructureSetLabel ContentLabel
SegmentLabel BeamName DeviceSerialNumber SoftwareVersions ManufacturerModelName Manufacturer VerifyingOrganization
VerificationDateTime VerifyingObserverName ObservationDateTime DateTime CodeMeaning
PerformedProcedureStepStartDate RadiopharmaceuticalStartTime AnnotationGroupLabel
"""


@dataclass(frozen=True)
class Rules:
    """How the objects of a release are cleaned; the same for all of them.

    Parameters
    ----------
    retain
        What crosses of the person (``deid.retain``).
    remove
        Tags that go from every object, at every depth (``release.remove``).
    """

    profile: Profile
    uids: UidMap
    retain: frozenset[str] = frozenset()
    remove: frozenset[int] = frozenset()

    @property
    def named(self) -> Callable[[str], str]:
        """What gives the UID under which a study, series or instance of the archive leaves."""
        return renaming(self.uids, self.profile)

    @classmethod
    def of(cls, deid: Deid, uids: UidMap, *, remove: tuple[str, ...] = ()) -> "Rules":
        """Return the rules of a spec. Ages do not leave where ``deid.anonymity`` makes bands of them."""
        retain = frozenset(deid.retain) - ({"age_years"} if deid.anonymity.age_bands is not None else frozenset())
        return cls(deid.profile, uids, retain, frozenset(_tag(keyword) for keyword in remove))


@dataclass(frozen=True)
class Whose:
    """Whose object it is: the pseudonym, the days by which its study moves, and what must not be said of the person."""

    person: str
    shift_days: int
    known: Identifiers


def clean_object(source: Dataset, rules: Rules, whose: Whose) -> Dataset:
    """Return the object as it leaves, apart from its references to others. The input is not changed.

    Raises
    ------
    CaseError
        As ``deidentify`` does.
    """
    clean = deidentify(
        source, profile=rules.profile, uids=rules.uids, person=whose.person, known=whose.known,
        shift_days=whose.shift_days,
    )  # fmt: skip
    _state_person(clean, rules, whose.person)
    if Option.RETAIN_FULL_DATES not in rules.profile.options:
        _drop_far_dates(clean, _anchor(clean))
    for tag in rules.remove:
        _drop(clean, tag)
    _complete(clean, source)
    _complete_pet(clean, source)
    _state_methods(clean, rules.profile)
    _state_file(clean, source)
    return clean


def _state_person(clean: Dataset, rules: Rules, person: str) -> None:
    """Give the pseudonym as name and id, and take out what the spec does not retain of the person."""
    clean.PatientID = person
    clean.PatientName = person
    for tag, column in _IF_RETAINED.items():
        if tag in clean and column not in rules.retain:
            del clean[tag]
    for tag in _NEVER:
        if tag in clean:
            del clean[tag]


def _anchor(clean: Dataset) -> date | None:
    """Return the day of the study, or the first other date that the object states; None if it states none."""
    return next((day for name in _ANCHORS if (day := _day(_said(clean, _tag(name))))), None)


def _drop_far_dates(item: Dataset, anchor: date | None) -> None:
    """Take out dates that are not of the examination: the day of a label tells the shift to whoever knows it."""
    for tag, element in list(item.items()):
        vr = _vr(element)
        if vr == "SQ":
            for nested in _items(element):
                _drop_far_dates(nested, anchor)
        elif vr in ("DA", "DT"):
            said = [day for value in _said(item, tag).split("\\") if value for day in (_day(value),)]
            if anchor is None or any(day is None or abs((day - anchor).days) > NEAR_DAYS for day in said):
                del item[tag]


def _drop(item: Dataset, tag: int) -> None:
    if tag in item:
        del item[tag]
    for element in list(item.values()):
        for nested in _items(element):
            _drop(nested, tag)


def _complete(clean: Dataset, source: Dataset) -> None:
    """Put back, without their values, attributes that an object must have and that the source had (PS3.3, PS3.15 E.1).

    Attributes of type 2 become empty, those of type 1 the constant of their VR.
    """
    required = _required()
    for tag in sorted(required.keys() & source.keys()):
        form, vr = required[tag]
        if tag not in clean or (form is Form.DUMMY and _said(source, tag) and not _said(clean, tag)):
            clean[tag] = constant(BaseTag(tag), form, vr)
    for tag, element in list(clean.items()):
        nested = _items(element)
        if nested and tag in source:
            originals = source[tag].value
            if isinstance(originals, Items):
                for item, original in zip(nested, originals, strict=False):
                    _complete(item, original)


def _complete_pet(clean: Dataset, source: Dataset) -> None:
    """Put dates back that PET must state: its series date is of type 1 (PS3.3 C.8.9.1), its acquisition date of type 2.

    A series date that was taken out becomes the study's, moved as that is, and a constant where that is gone, too.
    """
    if clean.get("SOPClassUID") != PositronEmissionTomographyImageStorage:
        return
    if "SeriesDate" in source and not clean.get("SeriesDate"):
        tag, study = BaseTag(_tag("SeriesDate")), _said(clean, _tag("StudyDate"))
        clean[tag] = DataElement(tag, "DA", study) if study else constant(tag, Form.DUMMY, "DA")
    if "AcquisitionDate" in source and "AcquisitionDate" not in clean:
        clean.AcquisitionDate = ""


@lru_cache(maxsize=1)
def _required() -> Mapping[int, tuple[Form, str]]:
    found = {}
    for names, form in ((_EMPTY, Form.EMPTY), (_DUMMY, Form.DUMMY)):
        for tag in map(_tag, names.split()):
            found[tag] = (form, DicomDictionary[tag][0])
    return MappingProxyType(found)


def methods_of(profile: Profile) -> tuple[str, ...]:
    """Return the codes of what was done to every object: the Basic Profile and its options, sorted."""
    return (BASIC, *sorted(METHOD_CODES[option] for option in profile.options))


def _state_methods(clean: Dataset, profile: Profile) -> None:
    """State the methods as codes and as text, one value each, because a value holds 64 characters (PS3.15 E.1.1)."""
    clean.PatientIdentityRemoved = "YES"
    _state_codes(clean, methods_of(profile))


def state_blanked(clean: Dataset) -> None:
    """Add Clean Pixel Data to the methods of an object of which pixels were blanked."""
    _add_method(clean, CLEANED)


def state_defaced(clean: Dataset) -> None:
    """Add Clean Recognizable Visual Features to the methods of an object out of which a face was taken."""
    _add_method(clean, DEFACED)


def _add_method(clean: Dataset, code: str) -> None:
    first, *others = (item.CodeValue for item in clean.DeidentificationMethodCodeSequence)
    _state_codes(clean, (first, *sorted({code, *others})))


def _state_codes(clean: Dataset, methods: Sequence[str]) -> None:
    clean.DeidentificationMethod = [f"DCM:{code}" for code in methods]
    items = []
    for code in methods:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", MEANINGS[code]
        items.append(item)
    clean.DeidentificationMethodCodeSequence = Items(items)


def _state_file(clean: Dataset, source: Dataset) -> None:
    """Complete the file meta information: it says nothing about who wrote, sent or received the source."""
    meta = clean.file_meta
    meta.FileMetaInformationVersion = b"\0\1"
    if "TransferSyntaxUID" not in meta:
        meta.TransferSyntaxUID = ImplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = IMPLEMENTATION_NAME
    clean.preamble = b"\0" * 128


def texts_in(item: Dataset) -> Iterator[tuple[str, str]]:
    """Yield (keyword, value) of every text of an object that is no UID, code string, number, date or time."""
    for tag, element in item.items():
        for nested in _items(element):
            yield from texts_in(nested)
        vr = _vr(element)
        if vr in _TEXTS and tag not in _OUR_OWN:
            name = dictionary_keyword(tag)
            yield from ((name, value) for value in _said(item, tag).split("\\") if value)


_TEXTS = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "PN", "AE", "UR"})


def dictionary_keyword(tag: int) -> str:
    """Return the keyword of a tag, or its number where the dictionary has none."""
    return DicomDictionary[tag][4] if tag in DicomDictionary else f"{tag:08X}"


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None, f"{keyword} is no keyword of the DICOM dictionary"
    return int(tag)


_OUR_OWN = frozenset({_tag("PatientID"), _tag("PatientName"), _tag("DeidentificationMethod")})


def _vr(element: DataElement | RawDataElement) -> str:
    if element.VR and element.VR != "UN":
        return str(element.VR)
    return dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else "UN"


def _items(element: DataElement | RawDataElement) -> tuple[Dataset, ...]:
    value = element.value
    return tuple(value) if isinstance(value, Items) else ()


def _said(item: Dataset, tag: int) -> str:
    """Return the value of an element as text, values with a backslash between them; "" if it is absent."""
    if tag not in item:
        return ""
    value = item.get_item(tag).value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip(" \0")
    if value is None:
        return ""
    return "\\".join(map(str, value)) if isinstance(value, list | tuple | MultiValue) else str(value)


def _day(value: str) -> date | None:
    digits = value[:10].replace(".", "")[:8]
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])) if digits.isdigit() else None
    except ValueError:
        return None
