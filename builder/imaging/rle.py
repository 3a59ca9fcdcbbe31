"""RLE Lossless frames (PS3.5 Annex G), decoded into place by one compiled loop."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.imaging.pixels import PixelFormat
from builder.kernels.compiled import compiled

HEADER_BYTES = 64
MAX_SEGMENTS = 15


def decode_rle(frames: Sequence[bytes], form: PixelFormat) -> NDArray[Any]:
    """(frame, row, column) stored values of a one-sample image, in ``form.dtype``.

    Raises
    ------
    CaseError
        UNDECODABLE_PIXELS when a segment is cut off or gives too few or too many bytes.
    """
    size = form.dtype.itemsize
    out = np.empty((form.frames, form.rows * form.columns, size), dtype=np.uint8)
    for plane, frame in zip(out, frames, strict=True):
        _decode_frame(np.frombuffer(frame, dtype=np.uint8), plane)
    return out.reshape(form.frames, form.rows, form.columns * size).view(form.dtype.newbyteorder("<"))


def _decode_frame(content: NDArray[np.uint8], plane: NDArray[np.uint8]) -> None:
    """Decode the segments of a frame, the most significant byte first, into (pixel, byte)."""
    if len(content) < HEADER_BYTES:
        raise CaseError(Reason.UNDECODABLE_PIXELS, f"an RLE frame of {len(content)} bytes")
    header = content[:HEADER_BYTES].view("<u4")
    count, size = int(header[0]), plane.shape[1]
    if count != size or count > MAX_SEGMENTS:
        raise CaseError(Reason.UNDECODABLE_PIXELS, f"{count} RLE segments, expected {size}")
    ends = [*(int(o) for o in header[2 : count + 1]), len(content)]
    for segment, end in enumerate(ends):
        start = int(header[segment + 1])
        written = unpack(content[min(start, len(content)) : min(end, len(content))], plane[:, size - 1 - segment])
        if written != plane.shape[0]:
            detail = f"an RLE segment of {written} bytes, expected {plane.shape[0]}"
            raise CaseError(Reason.UNDECODABLE_PIXELS, detail)


@compiled
def unpack(content: NDArray[np.uint8], out: NDArray[np.uint8]) -> int:
    """Expand PackBits into ``out`` and return how many bytes were written; stops where either side ends."""
    place, read = 0, 0
    size, length = out.shape[0], content.shape[0]
    while read < length and place < size:
        code = content[read]
        read += 1
        if code < 128:
            run = min(int(code) + 1, size - place, length - read)
            for k in range(run):
                out[place + k] = content[read + k]
            place += run
            read += int(code) + 1
        elif code > 128:
            if read >= length:
                break
            run = min(257 - int(code), size - place)
            value = content[read]
            for k in range(run):
                out[place + k] = value
            place += run
            read += 1
    return place
