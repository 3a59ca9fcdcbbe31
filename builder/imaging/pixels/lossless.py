"""Decoding lossless JPEG frames (ITU-T T.81 Annex H: Huffman coding of prediction errors) with compiled loops.

The decoder supports one component, 2 to 16 bits and all seven predictors, which covers CT, MR and PET files. It exists
because damaged frames abort gdcm and with it the whole process (seen with gdcm 3.2.6); here they are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.decode.format import PixelFormat
from builder.errors import CaseError, Reason
from builder.model.compiled import compiled

SOI, SOF3, DHT, SOS, DRI, EOI = 0xD8, 0xC3, 0xC4, 0xDA, 0xDD, 0xD9
FRAMES = frozenset({*range(0xC0, 0xD0)} - {DHT, 0xC8, 0xCC})
"""Start-of-frame markers (T.81 Table B.1). All except SOF3 belong to other coding processes."""

PEEK_BITS = 16
"""Length in bits of the longest Huffman code."""

SHORT_BITS = 12
"""Longest code, extra bits included, that is looked up in one step; its tables still fit the first-level cache."""

WORD: Any = np.int64
"""Integer type of the compiled code. numba turns mixed signed and unsigned 64-bit arithmetic into floats, so every
operand is cast to this type."""


@dataclass(frozen=True, eq=False)
class Scan:
    """The header of a frame and its entropy-coded bytes; ``strip`` is the number of rows between restarts."""

    precision: int
    rows: int
    columns: int
    predictor: int
    shift: int
    strip: int
    lengths: NDArray[np.uint8]
    symbols: NDArray[np.uint8]
    coded: NDArray[np.uint8]


def decode_lossless(frames: Sequence[bytes], form: PixelFormat) -> NDArray[Any]:
    """Decode frames to (frame, row, column) stored values in ``form.dtype``.

    Raises
    ------
    CaseError
        UNDECODABLE_PIXELS, as ``decode_frame``.
    """
    out = np.empty((form.frames, form.rows, form.columns), dtype=np.uint16)
    for plane, frame in zip(out, frames, strict=True):
        plane[...] = decode_frame(frame, form)
    return out.view(form.dtype) if form.bits_allocated == 16 else out.astype(form.dtype)


def decode_frame(content: bytes, form: PixelFormat) -> NDArray[Any]:
    """Decode one frame to (row, column) uint16 values.

    Raises
    ------
    CaseError
        UNDECODABLE_PIXELS when the header or the codes are invalid, or end before the picture does.
    """
    scan = parse_scan(content)
    if (scan.rows, scan.columns) != (form.rows, form.columns):
        raise _damaged(f"a picture of {scan.rows} x {scan.columns}, expected {form.rows} x {form.columns}")
    clean = np.empty(len(scan.coded) + 8, dtype=np.uint8)
    table = huffman_table(scan.lengths, scan.symbols)
    out = np.empty((scan.rows, scan.columns), dtype=np.uint16)
    start = 1 << (scan.precision - scan.shift - 1)
    totals, differences = np.empty(1 << SHORT_BITS, np.uint8), np.zeros(1 << SHORT_BITS, np.int32)
    short_codes(table, totals, differences)
    place = 0
    for row in range(0, scan.rows, scan.strip):
        strip = out[row : row + scan.strip]
        size, end = unstuff(scan.coded[place:], clean)
        place += end + 2  # past the restart marker
        done = expand(clean, size, table, totals, differences, strip, start, scan.predictor)
        if done != strip.size:
            raise _damaged(f"{done} of {strip.size} values")
    return out << np.uint16(scan.shift) if scan.shift else out


def parse_scan(content: bytes) -> Scan:
    """Read the tables and parameters of a frame, without reading past the end of the bytes.

    Raises
    ------
    CaseError
        UNDECODABLE_PIXELS when the bytes are not a lossless JPEG of one component.
    """
    place, size = 2, len(content)
    if content[:2] != b"\xff\xd8":
        raise _damaged("no start of image")
    frame, tables, interval = None, {}, 0
    while place + 4 <= size and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        body = content[place + 4 : place + 2 + length]
        place += 2 + length
        if length < 2 or place > size or (marker in FRAMES and marker != SOF3):
            raise _damaged("a segment out of place")
        if marker == DHT:
            tables.update(_tables(body))
        elif marker == DRI:
            interval = int.from_bytes(body[:2], "big")
        elif marker == SOF3:
            frame = body
        elif marker == SOS:
            return _scan(frame, body, tables=tables, coded=content[place:], interval=interval)
    raise _damaged("no scan")


def _damaged(what: str) -> CaseError:
    return CaseError(Reason.UNDECODABLE_PIXELS, f"lossless JPEG: {what}")


def _tables(body: bytes) -> dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Read the Huffman tables of a DHT segment: counts by code length, and symbols (T.81 B.2.4.2)."""
    found, place = {}, 0
    while place + 17 <= len(body):
        lengths = np.frombuffer(body, dtype=np.uint8, count=16, offset=place + 1)
        count = int(lengths.sum())
        if place + 17 + count > len(body):
            break
        symbols = np.frombuffer(body, dtype=np.uint8, count=count, offset=place + 17)
        found[body[place]] = (lengths, symbols)
        place += 17 + count
    return found


def _scan(
    frame: bytes | None,
    body: bytes,
    *,
    tables: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    coded: bytes,
    interval: int,
) -> Scan:
    """Combine a frame header and a scan header. May raise CaseError UNDECODABLE_PIXELS."""
    if frame is None or len(frame) < 9 or frame[5] != 1 or len(body) < 6 or body[0] != 1:
        raise _damaged("no frame of one component")
    precision, predictor, shift = frame[0], body[3], body[5] & 0x0F
    table = tables.get(body[2] >> 4)
    rows, columns = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    if table is None or not 2 <= precision <= 16 or not 1 <= predictor <= 7 or shift >= precision:
        raise _damaged("parameters out of range")
    if len(table[1]) == 0 or int(table[1].max()) > 16 or rows == 0 or columns == 0:
        raise _damaged("a table out of range")
    if interval % columns:  # T.81 H.1.1: a whole number of rows
        raise _damaged("a restart interval that is no number of rows")
    strip = interval // columns or rows
    return Scan(precision, rows, columns, predictor, shift, strip, *table, np.frombuffer(coded, dtype=np.uint8))


def huffman_table(lengths: NDArray[np.uint8], symbols: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return a table over the next 16 bits: code length times 256 plus symbol, or 0 when no code begins like this."""
    table = np.zeros(1 << PEEK_BITS, dtype=np.uint16)
    code, index = 0, 0
    for bits in range(1, 17):
        for _ in range(int(lengths[bits - 1])):
            first = code << (PEEK_BITS - bits)
            table[first : first + (1 << (PEEK_BITS - bits))] = (bits << 8) | int(symbols[index])
            code, index = code + 1, index + 1
        code <<= 1
    return table


@compiled
def unstuff(coded: NDArray[np.uint8], out: NDArray[np.uint8]) -> tuple[int, int]:
    """Copy bytes up to the next marker without the zero that follows each 0xFF, and append eight zeros.

    Return how many bytes were kept, and where the marker is.
    """
    size: int = coded.shape[0]
    kept, place = 0, 0
    while place < size:
        byte = coded[place]
        out[kept] = byte
        kept += 1
        place += 1
        if byte == 0xFF:
            if place < size and coded[place] == 0:
                place += 1
            else:
                kept -= 1
                place -= 1
                break
    for k in range(8):
        out[kept + k] = 0
    return kept, place


@compiled
def short_codes(table: NDArray[np.uint16], totals: NDArray[np.uint8], differences: NDArray[np.int32]) -> None:
    """Fill tables over the next ``SHORT_BITS`` bits with the length and difference of a code that fits into them."""
    size = totals.shape[0]
    for index in range(size):
        entry = WORD(table[index << (PEEK_BITS - SHORT_BITS)])
        length, category = entry >> 8, entry & 0xFF
        totals[index] = 0
        if length > 0 and length + category <= SHORT_BITS:
            value = (index >> (SHORT_BITS - length - category)) & ((1 << category) - 1)
            totals[index] = length + category
            differences[index] = extended(value, category)


@compiled
def extended(value: Any, category: Any) -> Any:
    """Return the signed difference that ``category`` extra bits stand for (T.81 F.2.2.1)."""
    if category == 0:
        return WORD(0)
    return WORD(value) if value >> (category - 1) else WORD(value - (1 << category) + 1)


@compiled
def expand(
    coded: NDArray[np.uint8],
    size: int,
    table: NDArray[np.uint16],
    totals: NDArray[np.uint8],
    differences: NDArray[np.int32],
    out: NDArray[np.uint16],
    start: int,
    predictor: int,
) -> int:
    """Decode prediction errors and add them to the predictions (T.81 H.1.2.1, Table H.1); return the value count."""
    rows: int = out.shape[0]
    columns: int = out.shape[1]
    place, bits = 0, 0
    held = np.uint64(0)
    left = WORD(start)
    for row in range(rows):
        for column in range(columns):
            if bits < 32:
                for _ in range(4):
                    byte = coded[place] if place < size else np.uint8(0)
                    held = (held << np.uint64(8)) | np.uint64(byte)
                    place += 1
                bits += 32
            short = WORD((held >> np.uint64(bits - SHORT_BITS)) & np.uint64((1 << SHORT_BITS) - 1))
            total = WORD(totals[short])
            if total > 0:
                difference = WORD(differences[short])
            else:
                total, difference = long_code(table, held, bits)
                if total == 0:
                    return row * columns + column
            bits -= total
            if row == 0 and column == 0:
                guess = WORD(start)
            elif column == 0:
                guess = WORD(out[row - 1, 0])
            elif predictor == 1 or row == 0:
                guess = left
            else:
                guess = predicted(predictor, left, WORD(out[row - 1, column]), WORD(out[row - 1, column - 1]))
            left = (guess + difference) & 0xFFFF
            out[row, column] = np.uint16(left)
        if place * 8 - bits > size * 8:
            return row * columns
    return rows * columns


@compiled
def long_code(table: NDArray[np.uint16], held: Any, bits: Any) -> tuple[Any, Any]:
    """Return length and difference of the code at the top of the ``bits`` held bits; the length is 0 for no code."""
    entry = WORD(table[WORD((held >> np.uint64(bits - PEEK_BITS)) & np.uint64(0xFFFF))])
    length, category = entry >> 8, entry & 0xFF
    if category == 16:  # no extra bits follow (T.81 H.1.2.2)
        return length, WORD(32768)
    value = WORD((held >> np.uint64(bits - length - category)) & np.uint64((1 << category) - 1))
    return length + category if length > 0 else WORD(0), extended(value, category)


@compiled
def predicted(predictor: int, left: Any, above: Any, corner: Any) -> Any:
    """Return the prediction of predictors 2 to 7 in T.81 Table H.1."""
    if predictor == 2:
        return above
    if predictor == 3:
        return corner
    if predictor == 4:
        return left + above - corner
    if predictor == 5:
        return left + ((above - corner) >> 1)
    if predictor == 6:
        return above + ((left - corner) >> 1)
    return (left + above) >> 1
