"""Converting values of DICOM elements to cells of the instance table."""

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from pydicom.charset import decode_bytes
from pydicom.datadict import dictionary_VR

from builder.model.tables import HEADER_COLUMNS, IDENTITY_COLUMNS, REAL, REALS, SMALL, TEXT, WHOLE, Column

CHARSETS: Final = (
    "",
    *(f"ISO_IR {n}" for n in (6, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166, 192)),
    *(f"ISO 2022 IR {n}" for n in (6, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166)),
    *(f"{first}\\ISO 2022 IR {n}" for first in ("", "ISO 2022 IR 6") for n in (58, 87, 149)),
    "GB18030",
    "GBK",
)
"""Specific Character Sets in which the bytes 20 to 7E mean ASCII when no escape is used."""

MAXIMUM_VALUE_BYTES: Final = 4096
"""Longest value accepted for a wanted attribute; the longest legal one is Software Versions, n values of 64 bytes."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FD": "d", "FL": "f", "UV": "Q", "SV": "q"}
LOCAL_TYPES = frozenset({"SH", "LO", "ST", "LT", "UC", "UT", "PN"})
_TEXT_TYPES = LOCAL_TYPES | frozenset({"CS", "UI", "DA", "TM", "DT", "AS", "AE", "DS", "IS", "UR"})
_DELIMITERS = {0x0D, 0x0A, 0x09, 0x0C}
_BOUNDS = {SMALL: 2**31, WHOLE: 2**63}


PRESENT: Final = "present"
"""Cell value for a sequence that is present; its items are not stored."""


class NotAValue(ValueError):
    """Raised when the bytes of an element are not a valid value; the message becomes a note, so it omits the value."""


@dataclass(frozen=True)
class Wanted:
    """A column of the instance table, and the VR of its attribute in the dictionary (PS3.6)."""

    column: Column
    tag: int
    vr: str


PRIVATE_VRS: Final = {
    0x00651050: "DS", 0x0019100C: "IS", 0x00431039: "IS", 0x20011003: "FL", 0x00651009: "FD",
}  # fmt: skip
"""VRs of the private attributes among the columns, taken from the vendors' conformance statements."""

WANTED: Final = tuple(
    Wanted(c, c.tag, PRIVATE_VRS.get(c.tag) or dictionary_VR(c.tag).split(" ")[0])
    for c in (*HEADER_COLUMNS, *IDENTITY_COLUMNS)
    if c.tag is not None
)
"""All header columns and identity columns.

Pixel Padding Value has VR US here; readers treat it as SS when Pixel Representation is 1.
"""


def joined_identity(values: dict[str, Any]) -> str | None:
    """Remove the values of IDENTITY_COLUMNS from ``values`` and return them, one per line; None when all are empty."""
    lines = [(values.pop(column.name, None) or "").replace("\n", " ") for column in IDENTITY_COLUMNS]
    return "\n".join(lines) if any(lines) else None


def cell(wanted: Wanted, raw: bytes, *, vr: str, little: bool, encodings: Sequence[str]) -> Any:
    """Convert the value of one element to the type of its column; return None when it is empty.

    Parameters
    ----------
    vr
        The VR as encoded; for UN and unknown VRs the dictionary's VR is used.
    encodings
        Python codecs of the Specific Character Set (0008,0005).

    Raises
    ------
    NotAValue
        When the value is too long, has the wrong type, is not a finite number, or is not single as the column expects.
    """
    if len(raw) > MAXIMUM_VALUE_BYTES:
        raise NotAValue("too long")
    if vr not in _BINARY and vr not in _TEXT_TYPES:
        vr = wanted.vr
    if wanted.column.type == TEXT:
        return _text(raw, vr, encodings)
    numbers = _unpacked(raw, vr, little) if vr in _BINARY else _parsed(_text(raw, vr, encodings))
    if not numbers:
        return None
    if wanted.column.type == REALS:
        return numbers
    if len(numbers) > 1:
        raise NotAValue("several values")
    return numbers[0] if wanted.column.type == REAL else _whole(numbers[0], wanted.column.type)


def _text(raw: bytes, vr: str, encodings: Sequence[str]) -> str | None:
    if vr in _BINARY:
        raise NotAValue("a number, expected text")
    if vr in LOCAL_TYPES:
        text = decode_bytes(raw, encodings, _DELIMITERS)
    else:
        text = raw.decode("latin-1")
    return text.strip(" \0") or None


def _parsed(text: str | None) -> list[float]:
    numbers = []
    for part in (text or "").split("\\"):
        part = part.strip(" \0")
        if not part:
            if text:
                raise NotAValue("an empty number")
            continue
        if not _NUMBER.fullmatch(part):
            raise NotAValue("not a number")
        numbers.append(_finite(float(part)))
    return numbers


def _unpacked(raw: bytes, vr: str, little: bool) -> list[float]:
    code = _BINARY[vr]
    size = struct.calcsize(code)
    if len(raw) % size:
        raise NotAValue(f"{len(raw)} bytes for VR {vr}")
    return [_finite(v) for v in struct.unpack(f"{'<' if little else '>'}{len(raw) // size}{code}", raw)]


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise NotAValue("not finite")
    return number


def _whole(number: float, kind: pa.DataType) -> int:
    if number != int(number):
        raise NotAValue("not a whole number")
    if not -_BOUNDS[kind] <= number < _BOUNDS[kind]:
        raise NotAValue("out of range")
    return int(number)
