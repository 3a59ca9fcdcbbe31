"""The walk that de-identifies an object: default deny, at every depth, one keyed map of UIDs."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag

from builder.deid.allowed import Form, forms, safe_private
from builder.deid.csa import reduce_csa
from builder.deid.identifiers import NOTHING_KNOWN, UNDECODABLE, Identifiers, identifiers_in
from builder.deid.profile import Option, Profile
from builder.deid.uids import UidMap, is_uid
from builder.deid.values import Treatment, shift_of, treat, treat_code_value
from builder.errors import CaseError, Reason

DEEPEST = 24
"""Most levels of nested sequences. The objects of the standard need about 10."""

_NUMBERS = re.compile(rb"[+\-0-9.eE \\\0]*")
_PLAIN_CODES = re.compile(rb"[A-Za-z0-9_ ./+\-:#\\\0]*")
_CODE_ALARM = re.compile(rb"\d{6}|[A-Za-z0-9]{65}|\d\.\d+\.\d+\.\d+\.\d")
_TEXT_VRS = frozenset({"CS", "LO", "SH", "ST", "LT", "UT", "UC", "DS", "IS", "DA", "TM", "DT", "AS", "UI", "PN", "AE"})
_WHOLE_VRS = frozenset({"ST", "LT", "UT", "UR"})
_TEXT_FORMS = frozenset(
    {Form.LABEL, Form.WORDS, Form.UID, Form.KEPT_UID, Form.DATE, Form.DATETIME, Form.TIME, Form.AGE, Form.KEEP}
    | {Form.SCHEME, Form.SCHEME_VERSION, Form.CONTEXT}
)
_BINARY_VRS = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "OB", "OW", "OL", "OV", "OF", "OD"})
_SCHEME = BaseTag(0x00080102)
_NOTHING: Mapping[BaseTag, RawDataElement] = MappingProxyType({})


def deidentify(
    dataset: Dataset,
    *,
    profile: Profile,
    uids: UidMap,
    person: str,
    known: Identifiers = NOTHING_KNOWN,
    shift_days: int | None = None,
) -> Dataset:
    """Return a copy of an object that holds only what the profile and the allow list let through.

    Every fetched object (image, SEG, RTSTRUCT, SR, presentation state) passes through here before all else.
    The input is not changed. Pixel data are passed on by reference, unchanged to the bit.

    Parameters
    ----------
    dataset
        The object as read, file meta information included.
    profile
        The Basic Profile and its options.
    uids
        The keyed map. It is the same for all objects of a build, so that references between them hold.
    person
        Any stable name of the person. It selects the shift of dates and does not enter the result.
    known
        Names and identifiers stated by other objects of the case (``identifiers_in``); those of this object are added.
    shift_days
        Days by which dates move, in place of the person's own (``shift_of``).

    Raises
    ------
    CaseError
        UNREADABLE if sequences are nested deeper than ``DEEPEST`` or cannot be decoded.

    Notes
    -----
    Dates move by whole days, the same number for all objects of a person (Retain Longitudinal Temporal Information
    With Modified Dates, PS3.15 E.3.6), and times of day stay. Every difference of times is thus kept, also across
    midnight, which the decay correction of PET needs. Without that option dates and times are removed, and SUV cannot
    be computed.
    """
    own = shift_of(uids.key, person) if shift_days is None else shift_days
    shift = own if Option.RETAIN_MODIFIED_DATES in profile.options else 0
    treatment = Treatment(uids, shift, known | identifiers_in((dataset,)))
    walk = _Walk(forms(profile), safe_private(profile), treatment)
    clean = _clean(dataset, walk, depth=0, stated=_declaration(profile))
    clean.file_meta = _file_meta(dataset, renaming(uids, profile))
    implicit, little = dataset.original_encoding
    clean.set_original_encoding(implicit, little)
    return clean


def deidentify_all(datasets: Sequence[Dataset], *, profile: Profile, uids: UidMap, person: str) -> tuple[Dataset, ...]:
    """De-identify all objects of a case, each also of the names and identifiers that any of the others states."""
    known = identifiers_in(datasets)
    return tuple(deidentify(d, profile=profile, uids=uids, person=person, known=known) for d in datasets)


def renaming(uids: UidMap, profile: Profile) -> Callable[[str], str]:
    """Return what gives the UID of a study, series or instance after the walk: its replacement, or where the profile
    retains UIDs itself."""
    if Option.RETAIN_UIDS not in profile.options:
        return uids
    return lambda uid: uid if is_uid(uid) else uids(uid)


@dataclass(frozen=True)
class _Walk:
    """What stays the same from level to level."""

    forms: Mapping[int, tuple[Form, str]]
    private: Mapping[tuple[int, str, int], tuple[Form, str]]
    treatment: Treatment


def _clean(source: Dataset, walk: _Walk, *, depth: int, stated: Mapping[BaseTag, RawDataElement] = _NOTHING) -> Dataset:
    """Clean one level: the surviving elements of ``source`` and of its sequences, then the ``stated`` ones."""
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
    kept.update(stated)
    clean = Dataset(kept)
    for sequence in nested:  # looked up by tag, so that pydicom passes Pixel Representation down
        clean[sequence.tag] = sequence
    return clean


def _sequence(source: Dataset, tag: BaseTag, walk: _Walk, *, depth: int) -> tuple[DataElement, ...]:
    """Return the sequence with every item cleaned; None if the element is no sequence."""
    try:
        value = source[tag].value
    except UNDECODABLE as error:
        raise CaseError(Reason.UNREADABLE, f"sequence {tag}: cannot be decoded ({type(error).__name__})") from None
    if not isinstance(value, Items):
        return ()
    return (DataElement(tag, "SQ", Items([_clean(item, walk, depth=depth + 1) for item in value])),)


def _private(
    source: Dataset, tag: int, private: Mapping[tuple[int, str, int], tuple[Form, str]], kept: dict[BaseTag, Any]
) -> tuple[Form, str] | None:
    """Return the form of a private element on the safe list; the creator of its block is kept with it."""
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
    """Return a short ASCII value of ``source`` without reading other elements; "" if absent or something else."""
    if tag not in source:
        return ""
    value = source.get_item(tag).value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value.strip(" \0") if isinstance(value, str) else ""


def _element(
    source: Dataset, element: DataElement | RawDataElement, form: Form, vr: str, treatment: Treatment
) -> DataElement | RawDataElement | None:
    """Return one surviving element that is not a sequence."""
    if form is Form.EMPTY or form is Form.DUMMY:
        return constant(element.tag, form, vr)
    if isinstance(element, RawDataElement):
        if not (element.VR in (None, "UN", vr) or _alike(element.VR, vr)):
            return None  # the VR in the file is of another kind: not the attribute the allow list means
        passed = _raw(element, form, vr, treatment)
        if passed is not None:
            return passed
    try:
        decoded = source[element.tag]
    except UNDECODABLE:
        return None
    if form is Form.PROSE and _is_tracking_identifier(source):
        form = Form.LABEL
    return _decoded(source, decoded, form, vr, treatment)


def _is_tracking_identifier(item: Dataset) -> bool:
    """Return whether an item is the Tracking Identifier (112039, DCM), a label and not prose (PS3.16 TID 1501)."""
    concept = item.get(0x0040A043)
    if concept is None or not isinstance(concept.value, Items) or not concept.value:
        return False
    return _text(concept.value[0], BaseTag(0x00080100)) == "112039" and _text(concept.value[0], _SCHEME) == "DCM"


def _alike(found: str | None, expected: str) -> bool:
    """Return whether two VRs are both text or both binary, because writers confuse SH with LO or OB with OW."""
    if found in _TEXT_VRS:
        return expected in _TEXT_VRS
    return found in _BINARY_VRS and (expected in _BINARY_VRS or " or " in expected)


def _raw(element: RawDataElement, form: Form, vr: str, treatment: Treatment) -> RawDataElement | None:
    """Pass on or rewrite an undecoded element; return None if it must be decoded to be judged."""
    value = element.value
    if not value:
        return element if not element.length else None  # reading was deferred
    if form in (Form.NUMBER, Form.BYTES, Form.PIXELS) or (form is Form.RESOLVED and element.VR in ("US", "SS")):
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
    return element._replace(
        value=new, length=len(new), VR=None if element.is_implicit_VR and element.tag in DicomDictionary else vr
    )


def _decoded(source: Dataset, element: DataElement, form: Form, vr: str, treatment: Treatment) -> DataElement | None:
    """Rebuild a decoded element from its cleaned values; return None if it is not what the allow list means."""
    value = element.value
    if form is Form.TABLE:
        return _lookup_table(source, element)
    if form is Form.CSA:
        reduced = reduce_csa(bytes(value)) if isinstance(value, (bytes, bytearray)) else None
        return None if reduced is None else DataElement(element.tag, vr, reduced)
    if form in (Form.PIXELS, Form.BYTES):
        if not isinstance(value, (bytes, bytearray)):
            return None
        copy = DataElement(element.tag, element.VR, value)
        copy.is_undefined_length = element.is_undefined_length
        return copy
    if form in (Form.NUMBER, Form.RESOLVED, Form.NUMBER_TEXT):
        return _numbers(element)
    if isinstance(value, (Items, bytes, bytearray)):
        return None
    values = [] if value is None else [str(v) for v in value] if isinstance(value, (MultiValue, list)) else [str(value)]
    if form is Form.CODE_VALUE:
        scheme = _text(source, _SCHEME)
        cleaned = [treat_code_value(v, treatment, scheme=scheme) for v in values]
    else:
        cleaned = treat(form, values, treatment)
    return DataElement(element.tag, vr, cleaned[0] if len(cleaned) == 1 else cleaned or None)


_DESCRIPTORS = {0x00281201: 0x00281101, 0x00281202: 0x00281102, 0x00281203: 0x00281103, 0x00283006: 0x00283002}


def _lookup_table(source: Dataset, element: DataElement) -> DataElement | None:
    """Return a lookup table if it has the length that its descriptor states (PS3.3 C.7.6.3.1.5), else None."""
    descriptor = source.get(_DESCRIPTORS[int(element.tag)])
    if descriptor is None or not isinstance(descriptor.value, (MultiValue, list)) or len(descriptor.value) != 3:
        return None
    entries = int(descriptor.value[0]) or 65536
    if not isinstance(element.value, (bytes, bytearray)):
        copy = _numbers(element)
        return copy if copy is not None and entries == copy.VM else None
    fits = len(element.value) in (2 * entries, entries + entries % 2)
    return DataElement(element.tag, element.VR, element.value) if fits else None


def _numbers(element: DataElement) -> DataElement | None:
    """Return a copy of an element whose values are all numbers; None if one is not."""
    value = element.value
    values = list(value) if isinstance(value, (MultiValue, list)) else [] if value is None or value == "" else [value]
    if not all(isinstance(v, (int, float)) or type(v).__name__ == "DSdecimal" for v in values):
        return None
    return DataElement(element.tag, element.VR, values if isinstance(value, (MultiValue, list)) else value)


_DUMMIES: Mapping[str, bytes] = MappingProxyType(
    {
        "DA": b"19000101",
        "TM": b"000000",
        "DT": b"19000101000000",
        "AS": b"000D",
        "DS": b"0",
        "IS": b"0",
        "UR": b"urn:removed",
        **dict.fromkeys(("LO", "SH", "ST", "LT", "UT", "UC", "CS", "AE", "PN"), b"REMOVED"),
        **dict.fromkeys(("US", "SS", "OB", "OW", "UN"), b"\0\0"),
        **dict.fromkeys(("UL", "SL", "FL", "OL", "OF", "AT"), b"\0\0\0\0"),
        **dict.fromkeys(("UV", "SV", "FD", "OV", "OD"), b"\0\0\0\0\0\0\0\0"),
    }
)


def constant(tag: BaseTag, form: Form, vr: str) -> DataElement | RawDataElement:
    """Return an element of zero length, or with the constant that serves as dummy value of its VR."""
    if vr == "SQ":
        return DataElement(tag, vr, Items())
    return _stated(tag, vr, b"" if form is Form.EMPTY else _DUMMIES[vr.split(" ")[0]])


def _stated(tag: BaseTag, vr: str, value: bytes) -> RawDataElement:
    """Return an element with a value of ours. It stays undecoded, because it is rarely read."""
    return RawDataElement(tag, vr.split(" ")[0], len(value), value, 0, False, True)


def _file_meta(dataset: Dataset, renamed: Callable[[str], str]) -> FileMetaDataset:
    """Return what decoding needs: transfer syntax, class and mapped instance, but nothing about who wrote the file."""
    source = getattr(dataset, "file_meta", None) or Dataset()
    stated = {
        BaseTag(0x00020002): _text(source, BaseTag(0x00020002)) or _text(dataset, BaseTag(0x00080016)),
        BaseTag(0x00020003): _text(dataset, BaseTag(0x00080018)),
        BaseTag(0x00020010): _text(source, BaseTag(0x00020010)),
    }
    return FileMetaDataset({t: _stated(t, "UI", renamed(v).encode()) for t, v in stated.items() if v})


@lru_cache(maxsize=64)
def _declaration(profile: Profile) -> Mapping[BaseTag, RawDataElement]:
    """Return what an object says about its de-identification (PS3.15 E.1.1 steps 6 and 7)."""
    if Option.RETAIN_FULL_DATES in profile.options:
        temporal = b"UNMODIFIED"
    else:
        temporal = b"MODIFIED" if Option.RETAIN_MODIFIED_DATES in profile.options else b"REMOVED"
    stated = (
        (0x00080005, "CS", b"ISO_IR 192"),
        (0x00120062, "CS", b"YES"),
        (0x00120063, "LO", "\\".join(profile.methods).encode()),
        (0x00280303, "CS", temporal),
    )
    return MappingProxyType({BaseTag(tag): _stated(BaseTag(tag), vr, value) for tag, vr, value in stated})
