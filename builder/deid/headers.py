"""The walk that de-identifies an object: default deny, at every depth, one keyed map of UIDs."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from pydicom import DataElement, Dataset, Sequence
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from builder.deid.allowed import Form, forms, safe_private
from builder.deid.identifiers import NOTHING_KNOWN, Identifiers, identifiers_in
from builder.deid.profile import Option, Profile
from builder.deid.uids import UidMap
from builder.deid.values import Treatment, shift_of, treat, treat_code_value
from builder.errors import CaseError, Reason

DEEPEST = 24
"""Levels of nested sequences walked; the deepest the standard's own objects need is about 10."""

UNDECODABLE = (ValueError, TypeError, LookupError, NotImplementedError, AttributeError, OverflowError, EOFError)
"""What pydicom raises for a value that is not what its VR says."""

_NUMBERS = re.compile(rb"[+\-0-9.eE \\\0]*")
_PLAIN_CODES = re.compile(rb"[A-Za-z0-9_ ./+\-:#\\\0]*")
_CODE_ALARM = re.compile(rb"\d{6}|[A-Za-z0-9]{65}|\d\.\d+\.\d+\.\d+\.\d")
_TEXT_VRS = frozenset({"CS", "LO", "SH", "ST", "LT", "UT", "UC", "DS", "IS", "DA", "TM", "DT", "AS", "UI", "PN", "AE"})
_WHOLE_VRS = frozenset({"ST", "LT", "UT", "UR"})
_TEXT_FORMS = frozenset(
    {Form.LABEL, Form.WORDS, Form.PROSE, Form.UID, Form.DATE, Form.DATETIME, Form.TIME, Form.AGE, Form.KEEP}
)
_BINARY_VRS = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "OB", "OW", "OL", "OV", "OF", "OD"})
_SCHEME = 0x00080102


def deidentify(
    dataset: Dataset, *, profile: Profile, uids: UidMap, person: str, known: Identifiers = NOTHING_KNOWN
) -> Dataset:
    """A copy of an object that holds only what the profile and the allow list let through.

    Every fetched object goes through here before anything else sees it: images, SEG, RTSTRUCT, SR, presentation states.
    The input is not changed. Pixel data are passed on by reference, bit by bit the same.

    Parameters
    ----------
    dataset
        The object as read, file meta information included.
    profile
        The Basic Profile and its options.
    uids
        The keyed map; the same for all objects of a build, so that references between them hold.
    person
        Any stable name of the person: selects the shift of dates, and does not enter the result.
    known
        Names and identifiers stated by other objects of the case (``identifiers_in``); those of this object are added.

    Raises
    ------
    CaseError
        UNREADABLE when sequences are nested deeper than ``DEEPEST`` or cannot be decoded.

    Notes
    -----
    Dates move by whole days, the same number for all objects of a person (Retain Longitudinal Temporal Information
    With Modified Dates, PS3.15 E.3.6); times of day stay. Hence every difference of times is kept, across midnight too,
    which the decay correction of PET needs. Without that option dates and times go, and SUV cannot be computed.
    """
    shift = shift_of(uids.key, person) if Option.RETAIN_MODIFIED_DATES in profile.options else 0
    treatment = Treatment(uids, shift, known | identifiers_in((dataset,)))
    walk = _Walk(forms(profile), safe_private(profile), treatment)
    clean = _clean(dataset, walk, depth=0)
    clean.file_meta = _file_meta(dataset, uids)
    implicit, little = dataset.original_encoding
    clean.set_original_encoding(implicit, little)
    for element in _declaration(profile):
        clean[element.tag] = element
    return clean


@dataclass(frozen=True)
class _Walk:
    """What stays the same from level to level."""

    forms: Mapping[int, tuple[Form, str]]
    private: Mapping[tuple[int, str, int], tuple[Form, str]]
    treatment: Treatment


def _clean(source: Dataset, walk: _Walk, *, depth: int) -> Dataset:
    """One level: the surviving elements of ``source`` and, below them, of its sequences."""
    if depth > DEEPEST:
        raise CaseError(Reason.UNREADABLE, f"sequences nested deeper than {DEEPEST} levels, expected at most {DEEPEST}")
    kept: dict[BaseTag, Any] = {}
    nested: list[DataElement] = []
    for tag, element in list(source.items()):
        number = int(tag)
        found = walk.forms.get(number) if not number & 0x10000 else _private(source, number, walk.private, kept)
        if found is None:
            continue
        form, vr = found
        if form is Form.SEQUENCE:
            nested.extend(_sequence(source, tag, walk, depth=depth))
        elif form is not Form.PIXELS or depth == 0:
            result = _element(source, element, form, vr, walk.treatment)
            if result is not None:
                kept[tag] = result
    clean = Dataset(kept)
    for sequence in nested:  # through the mapping, so that pydicom hands Pixel Representation down
        clean[sequence.tag] = sequence
    return clean


def _sequence(source: Dataset, tag: BaseTag, walk: _Walk, *, depth: int) -> tuple[DataElement, ...]:
    """The sequence with every item cleaned; nothing when the element is no sequence at all."""
    try:
        value = source[tag].value
    except UNDECODABLE as error:
        raise CaseError(Reason.UNREADABLE, f"sequence {tag}: cannot be decoded ({type(error).__name__})") from None
    if not isinstance(value, Sequence):
        return ()
    return (DataElement(tag, "SQ", Sequence([_clean(item, walk, depth=depth + 1) for item in value])),)


def _private(
    source: Dataset, tag: int, private: Mapping[tuple[int, str, int], tuple[Form, str]], kept: dict[BaseTag, Any]
) -> tuple[Form, str] | None:
    """The form of a private element on the safe list; its block's creator is kept with it."""
    group, block, offset = tag >> 16, (tag >> 8) & 0xFF, tag & 0xFF
    if block < 0x10 or not any(key[0] == group and key[2] == offset for key in private):
        return None
    creator_tag = BaseTag(group << 16 | block)
    creator = _text(source, creator_tag)
    found = private.get((group, creator, offset))
    if found is not None:
        kept[creator_tag] = DataElement(creator_tag, "LO", creator)
    return found


def _text(source: Dataset, tag: BaseTag) -> str:
    """A short ASCII value of ``source`` without reading other elements; "" when absent or something else."""
    if tag not in source:
        return ""
    value = source.get_item(tag).value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value.strip(" \0") if isinstance(value, str) else ""


def _element(
    source: Dataset, element: DataElement | RawDataElement, form: Form, vr: str, treatment: Treatment
) -> DataElement | RawDataElement | None:
    """One surviving element, not a sequence."""
    if form is Form.EMPTY or form is Form.DUMMY:
        return _constant(element.tag, form, vr)
    if isinstance(element, RawDataElement) and element.value is not None and form is not Form.RESOLVED:
        if element.VR in (None, "UN", vr) or _alike(element.VR, vr):
            passed = _raw(element, form, vr, treatment)
            if passed is not None:
                return passed
        else:
            return None  # the VR in the file is of another kind: not the attribute the allow list means
    try:
        decoded = source[element.tag]
    except UNDECODABLE:
        return None
    return _decoded(source, decoded, form, vr, treatment)


def _alike(found: str | None, expected: str) -> bool:
    """Whether two VRs are both text or both binary, as writers confuse SH with LO or OB with OW."""
    if found in _TEXT_VRS:
        return expected in _TEXT_VRS
    return found in _BINARY_VRS and (expected in _BINARY_VRS or " or " in expected)


def _raw(element: RawDataElement, form: Form, vr: str, treatment: Treatment) -> RawDataElement | None:
    """The undecoded element passed on or rewritten; None when it must be decoded to be judged."""
    value = element.value
    assert value is not None
    if form in (Form.NUMBER, Form.BYTES, Form.PIXELS):
        return element
    if form is Form.NUMBER_TEXT:
        return element if _NUMBERS.fullmatch(value) else None
    if form is Form.CODE:
        plain = _PLAIN_CODES.fullmatch(value) and not _CODE_ALARM.search(value)
        return element if plain and not treatment.known.occur_in(value.decode("ascii")) else None
    if form not in _TEXT_FORMS or not value.isascii() or b"\x1b" in value:
        return None
    text = value.decode("ascii")
    parts = treat(form, [text] if vr in _WHOLE_VRS else text.split("\\"), treatment)
    cleaned = "\\".join(parts)
    if not cleaned.isascii():
        return None
    new = cleaned.encode("ascii")
    return element._replace(value=new, length=len(new), VR=None if element.is_implicit_VR else vr)


def _decoded(
    source: Dataset, element: DataElement, form: Form, vr: str, treatment: Treatment
) -> DataElement | None:
    """A decoded element rebuilt from its cleaned values; None when it is not what the allow list means."""
    value = element.value
    if form is Form.TABLE:
        return _lookup_table(source, element)
    if form in (Form.PIXELS, Form.BYTES):
        if not isinstance(value, (bytes, bytearray)):
            return None
        copy = DataElement(element.tag, element.VR, value)
        copy.is_undefined_length = element.is_undefined_length
        return copy
    if form in (Form.NUMBER, Form.RESOLVED, Form.NUMBER_TEXT):
        return _numbers(element)
    if isinstance(value, (Sequence, bytes, bytearray)):
        return None
    values = [] if value is None else [str(v) for v in value] if isinstance(value, (MultiValue, list)) else [str(value)]
    if form is Form.CODE_VALUE:
        scheme = _text(source, BaseTag(_SCHEME))
        cleaned = [treat_code_value(v, treatment, scheme=scheme) for v in values]
    else:
        cleaned = treat(form, values, treatment)
    return DataElement(element.tag, vr, cleaned[0] if len(cleaned) == 1 else cleaned or None)


_DESCRIPTORS = {0x00281201: 0x00281101, 0x00281202: 0x00281102, 0x00281203: 0x00281103, 0x00283006: 0x00283002}


def _lookup_table(source: Dataset, element: DataElement) -> DataElement | None:
    """A lookup table that has the length its descriptor states (PS3.3 C.7.6.3.1.5); None for anything else."""
    descriptor = source.get(_DESCRIPTORS[int(element.tag)])
    if descriptor is None or not isinstance(descriptor.value, (MultiValue, list)) or len(descriptor.value) != 3:
        return None
    entries = int(descriptor.value[0]) or 65536
    if not isinstance(element.value, (bytes, bytearray)):
        copy = _numbers(element)
        return copy if copy is not None and copy.VM == entries else None
    fits = len(element.value) in (2 * entries, entries + entries % 2)
    return DataElement(element.tag, element.VR, element.value) if fits else None


def _numbers(element: DataElement) -> DataElement | None:
    """A copy of an element whose values are all numbers; None when one is not."""
    value = element.value
    values = list(value) if isinstance(value, (MultiValue, list)) else [] if value is None or value == "" else [value]
    if not all(isinstance(v, (int, float)) or type(v).__name__ == "DSdecimal" for v in values):
        return None
    return DataElement(element.tag, element.VR, values if isinstance(value, (MultiValue, list)) else value)


_DUMMIES: Mapping[str, Any] = MappingProxyType(
    {
        "DA": "19000101",
        "TM": "000000",
        "DT": "19000101000000",
        "AS": "000D",
        "DS": "0",
        "IS": "0",
        "UR": "urn:removed",
        **dict.fromkeys(("LO", "SH", "ST", "LT", "UT", "UC", "CS", "AE", "PN"), "REMOVED"),
        **dict.fromkeys(("US", "SS", "UL", "SL", "UV", "SV"), 0),
        **dict.fromkeys(("FL", "FD"), 0.0),
    }
)


def _constant(tag: BaseTag, form: Form, vr: str) -> DataElement:
    """An element of zero length, or with the constant that stands for a dummy value of its VR."""
    if vr == "SQ":
        return DataElement(tag, vr, Sequence())
    binary = vr.startswith("O") or vr == "UN"
    empty = b"" if binary else None
    if form is Form.EMPTY:
        return DataElement(tag, vr, empty)
    return DataElement(tag, vr, b"\0\0" if binary else _DUMMIES.get(vr, empty))


def _file_meta(dataset: Dataset, uids: UidMap) -> FileMetaDataset:
    """What decoding needs: the transfer syntax, the class and the mapped instance; nothing about who wrote the file."""
    meta = FileMetaDataset()
    source = getattr(dataset, "file_meta", None) or FileMetaDataset()
    for tag in (0x00020002, 0x00020010):
        value = source.get(tag)
        if value is not None and value.value:
            meta[BaseTag(tag)] = DataElement(tag, "UI", uids(str(value.value)))
    instance = dataset.get(0x00080018)
    if instance is not None and instance.value:
        meta[BaseTag(0x00020003)] = DataElement(0x00020003, "UI", uids(str(instance.value)))
    return meta


@lru_cache(maxsize=64)
def _declared(profile: Profile) -> tuple[tuple[int, str, str], ...]:
    """What an object says about its de-identification (PS3.15 E.1.1 steps 6 and 7)."""
    if Option.RETAIN_FULL_DATES in profile.options:
        temporal = "UNMODIFIED"
    else:
        temporal = "MODIFIED" if Option.RETAIN_MODIFIED_DATES in profile.options else "REMOVED"
    return (
        (0x00080005, "CS", "ISO_IR 192"),
        (0x00120062, "CS", "YES"),
        (0x00120063, "LO", profile.method),
        (0x00280303, "CS", temporal),
    )


def _declaration(profile: Profile) -> Iterable[DataElement]:
    return (DataElement(tag, vr, value) for tag, vr, value in _declared(profile))
