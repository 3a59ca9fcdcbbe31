"""Decoding RLE Lossless frames (PS3.5 Annex G) with one compiled loop."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.decode.format import PixelFormat
from builder.errors import CaseError, Reason
from builder.model.compiled import compiled

HEADER_BYTES = 64
MAX_SEGMENTS = 15
LONGEST = 128
"""Length in bytes of the longest PackBits run."""
SHORT = 16
"""Number of bytes copied in one step."""
SLACK = LONGEST


def decode_rle(frames: Sequence[bytes], form: PixelFormat) -> NDArray[Any]:
    """Decode a one-sample image to (frame, row, column) stored values in ``form.dtype``.

    Raises
    ------
    CaseError
        UNDECODABLE_PIXELS when a segment is cut off or gives too few or too many bytes.
    """
    size, count = form.dtype.itemsize, form.rows * form.columns
    out = np.empty((form.frames, count, size), dtype=np.uint8)
    segments = np.empty((size, count + SLACK), dtype=np.uint8)
    for plane, frame in zip(out, frames, strict=True):
        _decode_frame(np.frombuffer(frame, dtype=np.uint8), plane, segments)
    return out.reshape(form.frames, form.rows, form.columns * size).view(form.dtype.newbyteorder("<"))


def _decode_frame(content: NDArray[np.uint8], plane: NDArray[np.uint8], segments: NDArray[np.uint8]) -> None:
    """Decode the segments of a frame, the most significant byte first, into (pixel, byte)."""
    if len(content) < HEADER_BYTES:
        raise CaseError(Reason.UNDECODABLE_PIXELS, f"an RLE frame of {len(content):,} bytes")
    header = content[:HEADER_BYTES].view("<u4")
    count, size = int(header[0]), plane.shape[1]
    if count != size or count > MAX_SEGMENTS:
        raise CaseError(Reason.UNDECODABLE_PIXELS, f"{count} RLE segments, expected {size}")
    ends = [*(int(o) for o in header[2 : count + 1]), len(content)]
    for segment, end in enumerate(ends):
        start = int(header[segment + 1])
        written = unpack(content[min(start, len(content)) : min(end, len(content))], segments[segment])
        if written != plane.shape[0]:
            detail = f"an RLE segment of {written} bytes, expected {plane.shape[0]}"
            raise CaseError(Reason.UNDECODABLE_PIXELS, detail)
    if size == 2:
        weave(segments[0], segments[1], plane)
        return
    for segment in range(size):
        plane[:, size - 1 - segment] = segments[segment, :-SLACK]


@compiled
def unpack(content: NDArray[np.uint8], out: NDArray[np.uint8]) -> int:
    """Expand PackBits into ``out`` until either side ends, and return how many bytes were written.

    Runs are copied in blocks of a fixed size because that is faster, and short runs in one step. Bytes copied too far
    are overwritten by the next run, or end up in the last ``SLACK`` bytes of ``out``, which are not part of the result.
    """
    place, read = 0, 0
    size, length = out.shape[0] - SLACK, content.shape[0]
    while read < length and place < size:
        code = int(content[read])
        read += 1
        if code > 128 and read < length:
            block, value = out[place : place + LONGEST], content[read]
            for k in range(SHORT):
                block[k] = value
            if 257 - code > SHORT:
                for k in range(SHORT, LONGEST):
                    block[k] = value
            place += 257 - code
            read += 1
        elif code < 128 and read + LONGEST <= length:
            block, source = out[place : place + LONGEST], content[read : read + LONGEST]
            for k in range(SHORT):
                block[k] = source[k]
            if code >= SHORT:
                for k in range(SHORT, LONGEST):
                    block[k] = source[k]
            place += code + 1
            read += code + 1
        elif code < 128:
            run = min(code + 1, size - place, length - read)
            for k in range(run):
                out[place + k] = content[read + k]
            place += run
            read += code + 1
    return int(min(place, size))


@compiled
def weave(high: NDArray[np.uint8], low: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Interleave the bytes of 16-bit values, low byte first."""
    for k in range(out.shape[0]):
        out[k, 0] = low[k]
        out[k, 1] = high[k]
