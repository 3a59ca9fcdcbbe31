"""How the pixels of an instance are stored: transfer syntaxes and the Image Pixel module."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason

NATIVE = frozenset("1.2.840.10008.1.2" + s for s in ("", ".1", ".2", ".1.99", ".1.98"))
"""Transfer syntaxes whose Pixel Data is not encapsulated (PS3.5 A.1 to A.5); deflated ones once inflated."""

BIG_ENDIAN = "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
JPEG_LOSSLESS = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})

JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels of one instance are stored (PS3.3 C.7.6.3).

    ``real`` is True for Float and Double Float Pixel Data (7FE0,0008 and 0009).
    """

    syntax: str
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    planar: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    real: bool = False

    @property
    def native(self) -> bool:
        """Whether the bytes are the values themselves."""
        return self.syntax in NATIVE

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored values in this machine's byte order."""
        letter = "f" if self.real else "i" if self.signed else "u"
        return np.dtype(f"{letter}{max(8, self.bits_allocated) // 8}")

    @property
    def frame_values(self) -> int:
        """Values in one frame."""
        return self.rows * self.columns * self.samples

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value that can be stored."""
        if self.signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1


def pixel_format(dataset: Dataset) -> PixelFormat:
    """Read and check the Image Pixel module. Raises CaseError UNDECODABLE_PIXELS naming what is missing or odd."""
    try:
        found = PixelFormat(
            syntax=transfer_syntax(dataset),
            rows=int(dataset.Rows),
            columns=int(dataset.Columns),
            frames=int(dataset.get("NumberOfFrames", 1) or 1),
            samples=int(dataset.get("SamplesPerPixel", 1) or 1),
            photometric=str(dataset.get("PhotometricInterpretation", "") or ""),
            planar=int(dataset.get("PlanarConfiguration", 0) or 0),
            bits_allocated=int(dataset.BitsAllocated),
            bits_stored=int(dataset.get("BitsStored", 0) or dataset.BitsAllocated),
            high_bit=int(dataset.get("HighBit", 0) or (dataset.get("BitsStored", 0) or dataset.BitsAllocated) - 1),
            signed=int(dataset.get("PixelRepresentation", 0) or 0) == 1,
            real="FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset,
        )
    except (AttributeError, ValueError, TypeError) as error:
        detail = f"Image Pixel attributes are missing or malformed ({type(error).__name__})"
        raise CaseError(Reason.UNDECODABLE_PIXELS, detail) from None
    if found.bits_allocated not in (1, 8, 16, 32, 64) or not 1 <= found.bits_stored <= found.bits_allocated:
        detail = f"BitsAllocated {found.bits_allocated}, BitsStored {found.bits_stored}"
        raise CaseError(Reason.UNDECODABLE_PIXELS, f"{detail}, expected 1, 8, 16, 32 or 64 and no more stored")
    if min(found.rows, found.columns, found.frames) < 1 or found.samples not in (1, 3):
        detail = f"{found.rows} x {found.columns} x {found.frames} frames x {found.samples} samples"
        raise CaseError(Reason.UNDECODABLE_PIXELS, f"{detail}, expected positive counts and 1 or 3 samples")
    if found.high_bit < found.bits_stored - 1 or found.high_bit >= found.bits_allocated:
        raise CaseError(Reason.UNDECODABLE_PIXELS, f"HighBit {found.high_bit} for {found.bits_stored} stored bits")
    return found


def transfer_syntax(dataset: Dataset) -> str:
    """TransferSyntaxUID (0002,0010), or the encoding pydicom noticed when the file states none."""
    meta = getattr(dataset, "file_meta", None)
    stated = meta.get("TransferSyntaxUID") if meta is not None else None
    if stated:
        return str(stated)
    implicit, little = dataset.original_encoding
    return BIG_ENDIAN if little is False else "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"
