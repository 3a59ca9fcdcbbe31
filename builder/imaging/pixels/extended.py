"""Decoding 12-bit extended JPEG with gdcm, because pydicom's plugins refuse it.

gdcm can abort the process on a damaged stream, so call this only through ``fragile.decode_apart``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.decode.format import JPEG_EXTENDED, PixelFormat
from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing


def decode_extended(argument: tuple[Sequence[bytes], PixelFormat]) -> NDArray[Any]:
    """Decode frames to (frame, row, column) stored values in ``form.dtype``. May raise CaseError UNDECODABLE_PIXELS."""
    frames, form = argument
    out = np.empty((form.frames, form.rows, form.columns), dtype=form.dtype)
    for plane, frame in zip(out, frames, strict=True):
        with parsing(Reason.UNDECODABLE_PIXELS, "gdcm cannot decode a frame"):
            content = _decoded(frame, form)
        if len(content) != plane.nbytes:
            detail = f"{len(content)} bytes of extended JPEG values, expected {plane.nbytes}"
            raise CaseError(Reason.UNDECODABLE_PIXELS, detail)
        plane[...] = np.frombuffer(content, dtype=form.dtype.newbyteorder("<")).reshape(plane.shape)
    return out


def _decoded(frame: bytes, form: PixelFormat) -> bytes:
    """Decode one frame to bytes with a gdcm image."""
    import gdcm  # here, because only the process apart may load it

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((form.columns, form.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(form.photometric)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(JPEG_EXTENDED)))
    bits = (form.samples, form.bits_allocated, form.bits_stored, form.bits_stored - 1, int(form.signed))
    image.SetPixelFormat(gdcm.PixelFormat(*bits))
    content: bytes = image.GetBuffer().encode("utf-8", "surrogateescape")
    return content
