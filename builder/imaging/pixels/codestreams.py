"""Decoding JPEG-LS and JPEG 2000 frames of one component directly with their libraries, bypassing pydicom.

This is only for streams that agree with the data set in rows, columns and sign, and that state at least its bits. Other
frames need pydicom's corrections and are left to it.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builder.decode.format import PixelFormat

JPEG_LS = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"

_JLS_HEADER = struct.Struct(">HHHBHHB")
"""SOI, SOF55, its length, precision, rows, columns, components (ISO/IEC 14495-1 C.1.4, C.2.2)."""
_J2K_HEADER = struct.Struct(">HHHH8IHB")
"""SOC, SIZ, its length, capabilities, eight extents, components, precision and sign (ISO/IEC 15444-1 A.5.1)."""

Content: TypeAlias = bytearray | NDArray[np.uint8]
Decoder: TypeAlias = Callable[[bytes], Content]


@dataclass(frozen=True)
class Stated:
    """What a stream states about its picture. JPEG-LS does not state a sign, so ``signed`` is None for it."""

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool | None

    def is_of(self, form: PixelFormat) -> bool:
        """Return whether the stream's values are those of the data set, apart from bits that are not stored."""
        alike = (self.rows, self.columns, self.components) == (form.rows, form.columns, 1)
        wide = form.bits_stored <= self.precision <= form.bits_allocated  # many writers state the allocated bits
        return alike and wide and self.signed in (None, form.signed)


def decode_codestreams(frames: Sequence[bytes], form: PixelFormat) -> NDArray[Any] | None:
    """Decode frames to (frame, row, column) stored values in ``form.dtype``, not yet masked.

    Return None when pydicom must decode them. Exceptions of the libraries on damaged streams are passed on.
    """
    read, decode = _WAYS[form.syntax]
    stated = [found for found in map(read, frames) if found is not None and found.is_of(form)]
    if form.bits_allocated not in (8, 16) or len(stated) != len(frames):
        return None
    planes = [_values(decode(frame), found, form) for frame, found in zip(frames, stated, strict=True)]
    return planes[0][None] if len(planes) == 1 else np.stack(planes)


def _values(content: Content, stated: Stated, form: PixelFormat) -> NDArray[Any]:
    """View a decoded frame as (row, column) values; their width follows from the precision of the stream."""
    dtype = np.dtype(f"<{form.dtype.kind}{1 if stated.precision <= 8 else 2}")
    return np.frombuffer(content, dtype=dtype).reshape(form.rows, form.columns).astype(form.dtype, copy=False)


def stated_by_jpeg_ls(frame: bytes) -> Stated | None:
    """Read what a JPEG-LS stream states; None when its frame header is not the first segment."""
    if len(frame) < _JLS_HEADER.size:
        return None
    start, marker, _, precision, rows, columns, components = _JLS_HEADER.unpack_from(frame)
    if (start, marker) != (0xFFD8, 0xFFF7):
        return None
    return Stated(rows, columns, components, precision, None)


def stated_by_jpeg_2000(frame: bytes) -> Stated | None:
    """Read what a JPEG 2000 stream states about its first component; None when it is wrapped in a file format."""
    if len(frame) < _J2K_HEADER.size:
        return None
    start, marker, _, _, width, height, left, top, *_, components, bits = _J2K_HEADER.unpack_from(frame)
    if (start, marker) != (0xFF4F, 0xFF51):
        return None
    return Stated(height - top, width - left, components, (bits & 0x7F) + 1, bool(bits & 0x80))


def _decode_jpeg_ls(frame: bytes) -> bytearray:
    import jpeg_ls  # loaded on first use, because it is compiled code

    content: bytearray = jpeg_ls.decode_pixel_data(frame)[0]
    return content


def _decode_jpeg_2000(frame: bytes) -> NDArray[np.uint8]:
    from openjpeg.utils import decode

    content: NDArray[np.uint8] = decode(frame, j2k_format=0, reshape=False)
    return content


_WAYS: Mapping[str, tuple[Callable[[bytes], Stated | None], Decoder]] = {
    **dict.fromkeys(sorted(JPEG_LS), (stated_by_jpeg_ls, _decode_jpeg_ls)),
    JPEG_2000_LOSSLESS: (stated_by_jpeg_2000, _decode_jpeg_2000),
}
