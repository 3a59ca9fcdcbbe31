"""Rectangles of pixels taken out of an object: no other pixel changes, and what was encoded becomes native."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset
from pydicom.uid import ExplicitVRLittleEndian

from builder.decode.format import BIG_ENDIAN, PixelFormat, pixel_format
from builder.deid import MaskRegion
from builder.deid.pixels import PixelVerdict
from builder.errors import CaseError, Reason
from builder.imaging.pixels.stored import native_values, raw_values, stored_values

LOSSY = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
}
"""Transfer syntaxes that lose, and their Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1)."""

_YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT")
_NO_COLOUR = 128


def blank_pixels(clean: Dataset, verdict: PixelVerdict) -> bool:
    """Blank what a verdict asks for, in every frame of an object, in place. Return whether anything was blanked.

    Native little endian pixels keep their transfer syntax and every other byte. Encoded ones are decoded and become
    native, Explicit VR Little Endian, and say so if they were lossy: Lossy Image Compression stays ``01``.

    Raises
    ------
    CaseError
        If the pixels cannot be decoded, a region was drawn for another size, or colours are stored in a way that has no
        plain black.
    """
    if not verdict.blank and not verdict.regions:
        return False
    form = pixel_format(clean)
    if form.syntax == BIG_ENDIAN or form.bits_allocated == 1:
        raise CaseError(Reason.BURNED_IN, "found big endian pixels or pixels of one bit, expected others to blank")
    if form.native and form.photometric in _YBR[1:]:
        raise CaseError(Reason.BURNED_IN, f"found native {form.photometric}, expected colours that can be blanked")
    gone = _gone(form, verdict)
    rewrite(clean, form, lambda values, photometric: _fill(values, gone, photometric))
    clean.BurnedInAnnotation = "NO"
    return True


def rewrite(clean: Dataset, form: PixelFormat, change: Callable[[NDArray[Any], str], None]) -> None:
    """Change stored values (frame, row, column[, sample]) in place, given with how they are to be understood.

    Native pixels keep their transfer syntax and all bytes that ``change`` leaves alone. Others become native, Explicit
    VR Little Endian, and say so if they were lossy: Lossy Image Compression stays ``01``.
    """
    syntax = str(clean.file_meta.TransferSyntaxUID)
    if form.native:
        content = bytearray(clean["PixelData"].value)
        change(native_values(memoryview(content), form), form.photometric)
        clean["PixelData"].value = bytes(content)
        return
    _decode(clean, form, change)
    if syntax in LOSSY:
        clean.LossyImageCompression = "01"
        clean.LossyImageCompressionMethod = clean.get("LossyImageCompressionMethod") or LOSSY[syntax]


def _gone(form: PixelFormat, verdict: PixelVerdict) -> NDArray[np.bool_]:
    """Return (row, column), True where pixels go: inside what is blanked, and outside what alone is kept."""
    gone = _within(form, verdict.blank)
    return gone | ~_within(form, verdict.regions) if verdict.regions else gone


def _within(form: PixelFormat, regions: tuple[MaskRegion, ...]) -> NDArray[np.bool_]:
    inside = np.zeros((form.rows, form.columns), np.bool_)
    for region in regions:
        if region.size != inside.shape:
            found = f"{form.rows}x{form.columns}"
            raise CaseError(Reason.BURNED_IN, f"regions: found images of {found}, expected size {region.size}")
        inside[slice(*region.rows), slice(*region.columns)] = True
    return inside


def _fill(values: NDArray[Any], gone: NDArray[np.bool_], photometric: str) -> None:
    """Set (frame, row, column[, sample]) values to black, or to the smallest grey outside; palettes to index 0."""
    if values.ndim == 4:
        black = (0, _NO_COLOUR, _NO_COLOUR) if photometric in _YBR else (0, 0, 0)
        values[:, gone] = np.array(black, values.dtype)
        return
    for frame in values:
        left = frame[~gone]
        frame[gone] = left.min() if left.size and photometric != "PALETTE COLOR" else 0


def _decode(clean: Dataset, form: PixelFormat, change: Callable[[NDArray[Any], str], None]) -> None:
    """Replace encoded pixels by native ones, changed."""
    grey = form.samples == 1
    values = np.array(raw_values(clean, form) if grey else stored_values(clean, form))
    change(values, form.photometric if grey else "RGB")
    if not grey:
        clean.PhotometricInterpretation, clean.PlanarConfiguration = "RGB", 0
    content = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"))).tobytes()
    content += b"\0" * (len(content) % 2)
    clean["PixelData"] = DataElement(0x7FE00010, "OB" if values.dtype.itemsize == 1 else "OW", content)
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in clean:
            del clean[keyword]
    clean.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
