"""Write what DICOM JSON (PS3.18 annex F) says of an instance as a DICOM file without bulk data and pixels.

The bytes are those that pydicom writes of the whole data set, which takes it milliseconds for each instance. Plain
values are encoded here. pydicom encodes the others, each once for all the instances of a series that state it alike.
"""

import io
import marshal
import math
import re
import struct
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing
from builder.headers.values import CHARSETS
from builder.protocols import Description
from builder.sources.dicom_json import UID

VALUES_LIMIT: Final = 256
"""Most values of an element in a description; longer elements are left out."""

KNOWN_LIMIT: Final = 16 * 2**10
"""Largest element, in bytes as marshalled, whose encoding is remembered."""

_CHARSET: Final = "00080005"
_CLASS, _INSTANCE = "00080016", "00080018"
_PIXELS = frozenset({"7FE00008", "7FE00009", "7FE00010"})
_TEXTS = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM"})
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_AMBIGUOUS = re.compile(rb"(?:US|OB) or (?:SS|OW)")
_SHORTEST_LONG = 0xFFFF

Item = Mapping[str, Any]


class HeaderFiles:
    """Header files of instances of one series."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def of(self, item: Item, syntax: str) -> Description | CaseError:
        """Encode metadata as a DICOM file, or say why they cannot be parsed.

        Parameters
        ----------
        syntax
            Transfer syntax of the object itself; "" if it is not known. The file is in explicit VR little endian.
        """
        try:
            with parsing(Reason.UNREADABLE, "pydicom cannot parse the metadata"):
                data = self._file(item)
        except CaseError as error:
            return error
        return Description(data, whole=False, transfer_syntax_uid=syntax or None)

    def _file(self, item: Item) -> bytes:
        class_uid, instance_uid = (_only_uid(item.get(tag) or {}) for tag in (_CLASS, _INSTANCE))
        if not class_uid or not instance_uid:
            return _whole(item)
        stated = item.get(_CHARSET) or {}
        ascii_alike = "\\".join(map(str, stated.get("Value") or ())) in CHARSETS
        found: dict[int, bytes] = {}
        for tag, element in item.items():
            if not _is_left_out(tag, element):
                encoded = _plain(int(tag, 16), element, ascii_alike) or self._other(tag, element, stated)
                if encoded is None:
                    return _whole(item)
                found[int(tag, 16)] = encoded
        return b"".join([_meta(class_uid, instance_uid), *(found[number] for number in sorted(found))])

    def _other(self, tag: str, element: Item, charset: Item) -> bytes | None:
        """Return what pydicom makes of an element; None if that depends on others."""
        values: Any = (tag, element, charset)
        name = marshal.dumps(values, 2)  # in this version the bytes depend on nothing but the values
        if _AMBIGUOUS.search(name) or not 0x0008 <= int(tag, 16) >> 16 < 0x7FE0:
            return None
        encoded = self._known.get(name)
        if encoded is None:
            around = {_CHARSET: charset} if charset and tag != _CHARSET else {}
            both, head = _dataset({**around, tag: element}), _dataset(around)
            after = int(tag, 16) > int(_CHARSET, 16)
            encoded = both[len(head) :] if after else both[: len(both) - len(head)]
            if len(name) <= KNOWN_LIMIT:
                self._known[name] = encoded
        return encoded


def _plain(tag: int, element: Item, ascii_alike: bool) -> bytes | None:
    """Return an element of plain text or numbers; None for any other."""
    vr, values = element["vr"], element.get("Value", [])
    if type(values) is not list or "InlineBinary" in element:
        return None
    if not values:
        encoded: bytes | None = b"" if vr in _TEXTS or vr in _NUMBERS or vr in ("UI", "DS", "IS") else None
    elif vr in _TEXTS:
        encoded = _text(values) if ascii_alike else None
    elif vr == "UI":
        encoded = _padded("\\".join(values), "\0") if all(map(_is_uid, values)) else None
    elif vr == "DS":
        decimal = all(type(value) in (int, float) and math.isfinite(value) for value in values)
        encoded = _padded("\\".join(repr(float(value)) for value in values), " ") if decimal else None
    elif vr == "IS":
        whole = all(type(value) is int and -(2**31) <= value < 2**31 for value in values)
        encoded = _padded("\\".join(map(str, values)), " ") if whole else None
    else:
        encoded = _binary(vr, values)
    if encoded is None or len(encoded) >= _SHORTEST_LONG:
        return None
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(encoded)) + encoded


def _text(values: Sequence[Any]) -> bytes | None:
    text = "\\".join(values) if all(type(value) is str for value in values) else "\x80"
    return _padded(text, " ") if text.isascii() else None


def _binary(vr: str, values: Sequence[Any]) -> bytes | None:
    letter = _NUMBERS.get(vr, "")
    if not letter or not all(type(value) is int or (type(value) is float and letter in "fd") for value in values):
        return None
    try:
        return struct.pack(f"<{len(values)}{letter}", *values)
    except (struct.error, OverflowError):
        return None


def _padded(text: str, filler: str) -> bytes:
    return (text + filler * (len(text) % 2)).encode("ascii")


def _is_uid(value: Any) -> bool:
    return type(value) is str and UID.fullmatch(value) is not None


def _only_uid(element: Item) -> str:
    """Return the value of an element that is one UID; "" for any other."""
    values = element.get("Value")
    if type(values) is not list or len(values) != 1 or not _is_uid(values[0]):
        return ""
    return str(values[0])


def _meta(class_uid: str, instance_uid: str) -> bytes:
    """Return preamble and file meta information (PS3.10 7.1), as pydicom writes them."""
    version = ".".join(pydicom.__version_info__[:3])
    elements = [b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01"]
    for element, vr, text in (
        (0x02, b"UI", class_uid),
        (0x03, b"UI", instance_uid),
        (0x10, b"UI", ExplicitVRLittleEndian),
        (0x12, b"UI", pydicom.uid.PYDICOM_IMPLEMENTATION_UID),
        (0x13, b"SH", f"PYDICOM {version}"),
    ):
        value = _padded(text, "\0" if vr == b"UI" else " ")
        elements.append(struct.pack("<HH2sH", 2, element, vr, len(value)) + value)
    rest = b"".join(elements)
    return b"".join([bytes(128), b"DICM", struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(rest)), rest])


def _dataset(item: Item) -> bytes:
    """Return a data set as pydicom encodes it."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(stream, Dataset.from_json(_without_bulk(item)), implicit_vr=False, little_endian=True)
    return stream.getvalue()


def _whole(item: Item) -> bytes:
    """Return the file as pydicom writes it."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = Dataset.from_json(_without_bulk(item))
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def _is_left_out(tag: str, element: Item) -> bool:
    """Return whether an element is file meta information, bulk data, pixels, or a long list of numbers."""
    if tag.startswith("0002") or tag in _PIXELS or "BulkDataURI" in element:
        return True
    # contours are slow to convert and useless to the index
    return element.get("vr") != "SQ" and len(element.get("Value", ())) > VALUES_LIMIT


def _without_bulk(item: Item) -> dict[str, Any]:
    """Return metadata without what is left out, at any depth."""
    kept: dict[str, Any] = {}
    for tag, element in item.items():
        if _is_left_out(tag, element):
            continue
        if element.get("vr") == "SQ":
            element = {"vr": "SQ", "Value": [_without_bulk(child) for child in element.get("Value", [])]}
        kept[tag] = element
    return kept
