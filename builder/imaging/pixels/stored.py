"""Decoding the stored pixel values of one instance."""

import io
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments, generate_frames
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.pixels.utils import as_pixel_options

from builder.decode.format import (
    BIG_ENDIAN,
    DEFLATED_FRAMES,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    NATIVE,
    RLE,
    PixelFormat,
)
from builder.decode.fragile import PREFERRED, Encoded, decode_apart, decode_encoded
from builder.decode.streams import STREAM_STARTS, check_expansion, check_streams
from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing

LOSSY_STREAM = "lossy_jpeg_stated_lossless"
"""Note on pixels whose transfer syntax says lossless JPEG although the stream is baseline JPEG, which is lossy."""

_START_OF_JPEG = b"\xff\xd8\xff"
_BASELINE = 0xC0
_FRAMES_AND_SCANS = frozenset({*range(0xC1, 0xC4), *range(0xC5, 0xCC), *range(0xCD, 0xD0), 0xD9, 0xDA})
"""JPEG markers (ITU-T T.81 B.1.1.3) that end the search for a baseline frame: other frames, end of image, scan."""


def native_values(content: bytes | memoryview, form: PixelFormat) -> NDArray[Any]:
    """View native bytes as (frame, row, column) or (frame, row, column, sample) stored values, not yet masked.

    Raise CaseError UNDECODABLE_PIXELS when there are fewer bytes than the header states.
    """
    dtype = form.dtype.newbyteorder(">" if form.syntax == BIG_ENDIAN else "<")
    count = form.frames * form.frame_values
    if len(content) < count * dtype.itemsize:
        detail = f"{len(content)} bytes of pixels, expected {count * dtype.itemsize}"
        raise CaseError(Reason.UNDECODABLE_PIXELS, detail)
    flat = np.frombuffer(content, dtype=dtype, count=count)
    if form.samples == 1:
        return flat.reshape(form.frames, form.rows, form.columns)
    if form.planar == 1:
        return flat.reshape(form.frames, form.samples, form.rows, form.columns).transpose(0, 2, 3, 1)
    return flat.reshape(form.frames, form.rows, form.columns, form.samples)


def stored_values(dataset: Dataset, form: PixelFormat) -> NDArray[Any]:
    """Decode all frames of one instance.

    Returns
    -------
    NDArray
        (frame, row, column) stored values in ``form.dtype``, or (frame, row, column, 3) RGB uint8 for colour.

    Raises
    ------
    CaseError
        UNSUPPORTED_TRANSFER_SYNTAX, UNDECODABLE_PIXELS, or TOO_LARGE when few bytes would decode to very many.
    """
    if form.samples == 1 and form.bits_allocated > 1 and form.photometric != "PALETTE COLOR":
        return masked(raw_values(dataset, form), form)
    if not form.native:
        _checked_frames(dataset, form)
    values = _decoded(dataset, form)
    if form.photometric == "PALETTE COLOR":
        values = _palette(values, dataset)
    if form.samples == 3 or form.photometric == "PALETTE COLOR":
        return values.reshape(form.frames, form.rows, form.columns, 3)
    return values.reshape(form.frames, form.rows, form.columns)


def raw_values(dataset: Dataset, form: PixelFormat) -> NDArray[Any]:
    """Decode (frame, row, column) grey values, keeping the bits that are not stored. Raise as ``stored_values``."""
    if not form.native:
        frames = _checked_frames(dataset, form)
        return _encoded_values(dataset, form, frames).reshape(form.frames, form.rows, form.columns)
    content = _pixel_bytes(dataset, form)
    if lies_in_swapped_words(dataset, form):
        content = np.frombuffer(content[: len(content) // 2 * 2], dtype="<u2").byteswap().tobytes()
    return native_values(content, form)


def lies_in_swapped_words(dataset: Dataset, form: PixelFormat) -> bool:
    """Return whether 8-bit values are stored in big endian 16-bit words (PS3.5 A.3, VR OW), which swaps each pair."""
    eight = form.syntax == BIG_ENDIAN and form.bits_allocated == 8
    return eight and "PixelData" in dataset and dataset["PixelData"].VR == "OW"


@lru_cache(maxsize=256)
def check_syntax(syntax: str) -> None:
    """Raise CaseError UNSUPPORTED_TRANSFER_SYNTAX when no installed decoder reads a transfer syntax.

    "" passes: the index does not know the syntax of such a file, and it is checked when the pixels are read.
    """
    if not syntax or syntax in NATIVE or syntax in JPEG_LOSSLESS or syntax in (RLE, DEFLATED_FRAMES):
        return
    try:
        available = get_decoder(syntax).is_available
    except (NotImplementedError, ValueError):
        raise CaseError(Reason.UNSUPPORTED_TRANSFER_SYNTAX, f"no decoder for {syntax}") from None
    if not available:
        raise CaseError(Reason.UNSUPPORTED_TRANSFER_SYNTAX, f"no permissive decoder installed for {syntax}")


def masked(values: NDArray[Any], form: PixelFormat) -> NDArray[Any]:
    """Clear the bits above HighBit and below the lowest stored bit, which may hold overlays, and extend the sign."""
    values = values.astype(form.dtype, copy=False)
    below = form.high_bit + 1 - form.bits_stored
    above = form.bits_allocated - 1 - form.high_bit
    if form.real or (above == 0 and below == 0):
        return values
    if not form.signed and below == 0:
        return np.asarray(np.bitwise_and(values, np.array(form.limits[1], dtype=form.dtype)))
    width = form.dtype.itemsize * 8
    shift = np.array(width - form.bits_allocated + above, dtype=form.dtype)
    back = np.array(shift + below, dtype=form.dtype)
    return np.asarray(np.right_shift(np.left_shift(values, shift), back))


def _pixel_bytes(dataset: Dataset, form: PixelFormat) -> bytes:
    """Return the value of Pixel Data, Float Pixel Data or Double Float Pixel Data. May raise CaseError."""
    for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if keyword in dataset:
            content = dataset[keyword].value
            if isinstance(content, (bytes, bytearray, memoryview)) and len(content):
                return bytes(content) if not isinstance(content, bytes) else content
    raise CaseError(Reason.UNDECODABLE_PIXELS, f"no pixel bytes, expected {form.frames} frames")


def _checked_frames(dataset: Dataset, form: PixelFormat) -> list[bytes] | None:
    """Return the encoded frames after checking their headers against the data set; None when they cannot be separated.

    pydicom may still separate such frames in other ways. Therefore each fragment that it may decode is checked here.
    """
    check_syntax(form.syntax)
    content = _pixel_bytes(dataset, form)
    check_expansion(len(content), form)
    try:
        frames = encapsulated_frames(dataset, form)
    except CaseError:
        with parsing(Reason.UNDECODABLE_PIXELS, "the fragments of Pixel Data cannot be told apart"):
            fragments = list(generate_fragments(content))
        check_streams([f for f in fragments if f.startswith(STREAM_STARTS)], form)
        return None
    check_streams(frames, form)
    return frames


def _encoded_values(dataset: Dataset, form: PixelFormat, frames: list[bytes] | None) -> NDArray[Any]:
    """Decode one-sample frames with the fastest available decoder."""
    if form.syntax == RLE and form.bits_allocated in (8, 16, 32):
        from builder.imaging.pixels.rle import decode_rle  # loaded on first use, because it is compiled code

        return decode_rle(frames or encapsulated_frames(dataset, form), form)
    if form.syntax == DEFLATED_FRAMES:
        deflated = frames or encapsulated_frames(dataset, form)
        return native_values(b"".join(_inflated(frame, form) for frame in deflated), form)
    if stream_notes(dataset, form):
        return _baseline(frames or encapsulated_frames(dataset, form), form)
    if form.syntax in JPEG_LOSSLESS and form.bits_allocated in (8, 16):
        from builder.imaging.pixels.lossless import decode_lossless

        return decode_lossless(frames or encapsulated_frames(dataset, form), form)
    if form.syntax == JPEG_EXTENDED and form.bits_allocated == 16:
        from builder.imaging.pixels.extended import decode_extended

        whole = frames or encapsulated_frames(dataset, form)
        extended: NDArray[Any] = decode_apart(decode_extended, (whole, form))
        return extended
    values = _by_library(frames, form) if form.syntax in PREFERRED and frames is not None else None
    return _decoded(dataset, form) if values is None else values


def _inflated(frame: bytes, form: PixelFormat) -> bytes:
    """Inflate one frame of Deflated Image Frame Compression (PS3.5 A.4.12)."""
    size = form.frame_values * form.dtype.itemsize
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(frame, size + 1)
    except zlib.error:
        raise CaseError(Reason.UNDECODABLE_PIXELS, "the deflated frame is damaged") from None
    if not size <= len(content) <= size + size % 2:
        raise CaseError(Reason.UNDECODABLE_PIXELS, f"{len(content):,} bytes in a deflated frame, expected {size:,}")
    return content[:size]


def _by_library(frames: list[bytes], form: PixelFormat) -> NDArray[Any] | None:
    """Decode frames whose streams agree with the data set; None for others, which need pydicom's corrections."""
    from builder.imaging.pixels.codestreams import decode_codestreams

    with parsing(Reason.UNDECODABLE_PIXELS, "the decoder failed"):
        return decode_codestreams(frames, form)


def stream_notes(dataset: Dataset, form: PixelFormat) -> tuple[str, ...]:
    """Return ``LOSSY_STREAM`` when the first encapsulated stream is baseline JPEG under a lossless transfer syntax."""
    if form.syntax not in JPEG_LOSSLESS or form.bits_allocated != 8:
        return ()
    content = _pixel_bytes(dataset, form)
    start = content.find(_START_OF_JPEG)
    place = start + 2
    while start >= 0 and place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == _BASELINE:
            return (LOSSY_STREAM,)
        if marker in _FRAMES_AND_SCANS:
            return ()
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return ()


def _baseline(frames: Sequence[bytes], form: PixelFormat) -> NDArray[Any]:
    """Decode baseline JPEG to (frame, row, column) grey values with libjpeg; gdcm can abort on damaged streams."""
    out = np.empty((form.frames, form.rows, form.columns), dtype=np.uint8)
    for plane, frame in zip(out, frames, strict=True):
        with parsing(Reason.UNDECODABLE_PIXELS, "Pillow cannot decode a baseline JPEG"):
            picture = np.asarray(Image.open(io.BytesIO(frame)))
        if picture.shape != plane.shape or picture.dtype != np.uint8:
            detail = f"a baseline JPEG of {picture.shape} {picture.dtype}, expected {plane.shape} uint8"
            raise CaseError(Reason.UNDECODABLE_PIXELS, detail)
        plane[...] = picture
    return out.astype(form.dtype, copy=False)


def encapsulated_frames(dataset: Dataset, form: PixelFormat) -> list[bytes]:
    """Return the encoded bytes of every frame (PS3.5 A.4). May raise CaseError UNDECODABLE_PIXELS."""
    with parsing(Reason.UNDECODABLE_PIXELS, "the frames of Pixel Data cannot be told apart"):
        frames = list(generate_frames(_pixel_bytes(dataset, form), number_of_frames=form.frames))
    if len(frames) != form.frames:
        raise CaseError(Reason.UNDECODABLE_PIXELS, f"{len(frames)} encapsulated frames, expected {form.frames}")
    return frames


def _decoded(dataset: Dataset, form: PixelFormat) -> NDArray[Any]:
    """Decode all frames with pydicom; colour is returned as RGB."""
    check_syntax(form.syntax)
    content = _pixel_bytes(dataset, form)
    with parsing(Reason.UNDECODABLE_PIXELS, "the attributes that a decoder needs cannot be read"):
        options = {"pixel_keyword": "PixelData", **as_pixel_options(dataset)}
    values = decode_encoded(Encoded(form.syntax, content, options, raw=form.samples == 1))
    expected = form.frames * form.frame_values
    if values.size != expected:
        raise CaseError(Reason.UNDECODABLE_PIXELS, f"{values.size} decoded values, expected {expected}")
    return np.asarray(values)


def _palette(values: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    """Convert palette indices to colours (PS3.3 C.7.9) with 8 bits per channel."""
    with parsing(Reason.UNDECODABLE_PIXELS, "the palette cannot be read"):
        colours = apply_color_lut(values, dataset)
    shifted = colours >> 8 if colours.dtype == np.uint16 else colours
    return np.asarray(shifted, dtype=np.uint8)
