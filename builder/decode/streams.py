"""Checking encoded frames before a decoder reads them: their size, their expansion, and that they are complete.

A decoder allocates the memory that a stream's own header asks for. A few hundred bytes can state 60,000 x 60,000 pixels
and exhaust the machine's memory or abort the process.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from builder.decode.format import JPEG_LOSSLESS, PixelFormat
from builder.errors import CaseError, Reason

FREE_BYTES: Final = 256 * 2**20
"""Decoded bytes that any instance may have, however few are stored, because empty images compress without limit."""

EXPANSION_LIMIT: Final = 50
"""Largest ratio of decoded to stored bytes beyond ``FREE_BYTES``; lossy medical images stay below 40."""

JPEG_FAMILY = frozenset({*JPEG_LOSSLESS, "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
JPEG_LS_FAMILY = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
JPEG_2000_FAMILY = frozenset("1.2.840.10008.1.2.4." + s for s in ("90", "91", "92", "93", "201", "202", "203"))

STREAM_STARTS: Final = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
"""First bytes of JPEG and JPEG-LS streams, of JPEG 2000 codestreams, and of JP2 files that wrap those."""

_END_OF_IMAGE = b"\xff\xd9"
_START_OF_CODESTREAM = b"\xff\x4f\xff\x51"
_CODESTREAM_BOX = b"jp2c"
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""Start-of-frame markers of JPEG (ITU-T T.81 Table B.1) and JPEG-LS (T.87)."""
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers that are not followed by a length."""

Size: TypeAlias = tuple[int, int]
"""Rows and columns."""


def check_expansion(stored_bytes: int, form: PixelFormat) -> None:
    """Refuse an instance whose pixels would decode to far more than is stored. May raise CaseError TOO_LARGE."""
    decoded = form.frames * form.frame_values * form.dtype.itemsize
    if decoded > max(FREE_BYTES, EXPANSION_LIMIT * stored_bytes):
        detail = f"found {stored_bytes} bytes that would decode to {decoded}"
        expected = f"at most {FREE_BYTES}, or {EXPANSION_LIMIT} times as many"
        raise CaseError(Reason.TOO_LARGE, f"{detail}, expected {expected}")


def check_streams(frames: Sequence[bytes], form: PixelFormat) -> None:
    """Refuse encoded frames that are truncated or state another size than the data set.

    Raises
    ------
    CaseError
        UNDECODABLE_PIXELS.
    """
    size_of = _SIZES.get(form.syntax)
    for frame in frames if size_of is not None else ():
        assert size_of is not None
        found = size_of(frame)
        if found is None:
            raise CaseError(Reason.UNDECODABLE_PIXELS, "found an encoded frame without a header, expected its size")
        if found != (form.rows, form.columns):
            detail = f"found an encoded frame of {found[0]} x {found[1]}, expected {form.rows} x {form.columns}"
            raise CaseError(Reason.UNDECODABLE_PIXELS, detail)
        # CharLS keeps reading past the end of a truncated frame, which takes seconds even for 40 x 40 pixels.
        if form.syntax in JPEG_LS_FAMILY and _END_OF_IMAGE not in frame:
            raise CaseError(Reason.UNDECODABLE_PIXELS, "found a JPEG-LS frame without its end, expected a whole one")


def jpeg_size(frame: bytes) -> Size | None:
    """Return the rows and columns in the frame header of a JPEG or JPEG-LS stream, or None without such a header."""
    if frame[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xFF:  # fill
            place += 1
        elif marker in _WITHOUT_LENGTH:
            place += 2
        elif marker in _FRAME_HEADERS:
            rows, columns = struct.unpack_from(">HH", frame, place + 5)
            return int(rows), int(columns)
        else:
            place += 2 + max(2, int.from_bytes(frame[place + 2 : place + 4], "big"))
    return None


def jpeg_2000_size(frame: bytes) -> Size | None:
    """Return the rows and columns of a JPEG 2000 codestream (ISO/IEC 15444-1 A.5.1), bare or inside a JP2 file."""
    start = _codestream(frame)
    if frame[start : start + 4] != _START_OF_CODESTREAM or len(frame) < start + 24:
        return None
    width, height, left, top = struct.unpack_from(">4I", frame, start + 8)
    return max(0, height - top), max(0, width - left)


def _codestream(frame: bytes) -> int:
    """Return where the codestream starts: at 0, or inside its box in a JP2 file (Annex I.4)."""
    place = 0
    while frame[place : place + 4] != _START_OF_CODESTREAM and place + 8 <= len(frame):
        length, kind = struct.unpack_from(">I4s", frame, place)
        header = 8
        if length == 1 and place + 16 <= len(frame):
            (length,) = struct.unpack_from(">Q", frame, place + 8)
            header = 16
        if kind == _CODESTREAM_BOX:
            return place + header
        if length < header:
            return len(frame)
        place += length
    return place


_SIZES: Mapping[str, Callable[[bytes], Size | None]] = {
    **dict.fromkeys(sorted(JPEG_FAMILY | JPEG_LS_FAMILY), jpeg_size),
    **dict.fromkeys(sorted(JPEG_2000_FAMILY), jpeg_2000_size),
}
