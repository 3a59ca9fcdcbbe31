"""How the pixels of an instance are stored: transfer syntaxes and the Image Pixel module."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing

NATIVE = frozenset("1.2.840.10008.1.2" + s for s in ("", ".1", ".2", ".1.99", ".1.98"))
"""Transfer syntaxes whose Pixel Data is not encapsulated (PS3.5 A.1 to A.5), or is not after inflation."""

BIG_ENDIAN = "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
JPEG_LOSSLESS = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})

JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"


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
        """Whether the bytes are the pixel values, with no encoding."""
        return self.syntax in NATIVE

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the stored values, in this machine's byte order."""
        letter = "f" if self.real else "i" if self.signed else "u"
        return np.dtype(f"{letter}{max(8, self.bits_allocated) // 8}")

    @property
    def frame_values(self) -> int:
        """The number of values in one frame."""
        return self.rows * self.columns * self.samples

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and largest value that can be stored."""
        if self.signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1


def pixel_format(dataset: Dataset) -> PixelFormat:
    """Read and check the Image Pixel module of a data set. May raise CaseError UNDECODABLE_PIXELS."""
    with parsing(Reason.UNDECODABLE_PIXELS, "Image Pixel attributes are malformed"):
        stated = {name: _whole(_value(dataset, tag)) for name, tag in _TAGS.items()}
        photometric = str(_value(dataset, _PHOTOMETRIC) or "")
        real = _FLOAT in dataset or _DOUBLE in dataset
    return checked_format(stated, syntax=transfer_syntax(dataset), photometric=photometric, real=real)


def checked_format(
    stated: Mapping[str, int | None], *, syntax: str, photometric: str, real: bool = False
) -> PixelFormat:
    """Make a format from the numbers that a header states, keyed by their columns in INSTANCES.

    Raises
    ------
    CaseError
        UNDECODABLE_PIXELS when a number is missing or two contradict each other (PS3.5 8.1.1, PS3.3 C.7.6.3.1).
    """
    needed: tuple[str, ...] = ("rows", "columns", "bits_allocated")
    if not real and stated["samples_per_pixel"] in (None, 1):  # without these the same bits are other numbers
        needed = (*needed, "bits_stored", "pixel_representation")
    missing = [name for name in needed if stated[name] is None]
    if missing:
        raise CaseError(Reason.UNDECODABLE_PIXELS, f"found no value of {', '.join(missing)}, expected one of each")
    allocated = stated["bits_allocated"] or 0
    stored = _or(stated["bits_stored"], allocated)
    found = PixelFormat(
        syntax=syntax,
        rows=stated["rows"] or 0,
        columns=stated["columns"] or 0,
        frames=stated["number_of_frames"] or 1,
        samples=_or(stated["samples_per_pixel"], 1),
        photometric=photometric,
        planar=stated["planar_configuration"] or 0,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=_or(stated["high_bit"], stored - 1),
        signed=stated["pixel_representation"] == 1,
        real=real,
    )
    if stated["pixel_representation"] not in (None, 0, 1):
        detail = f"found PixelRepresentation {stated['pixel_representation']}, expected 0 or 1"
        raise CaseError(Reason.UNDECODABLE_PIXELS, detail)
    _check_bits(found)
    if min(found.rows, found.columns, found.frames) < 1 or found.samples not in (1, 3):
        detail = f"found {found.rows} x {found.columns} x {found.frames} frames x {found.samples} samples"
        raise CaseError(Reason.UNDECODABLE_PIXELS, f"{detail}, expected positive counts and 1 or 3 samples")
    return found


def _check_bits(form: PixelFormat) -> None:
    """Raise CaseError when allocated bits, stored bits and high bit contradict each other."""
    allocated, stored, high = form.bits_allocated, form.bits_stored, form.high_bit
    sizes = (32, 64) if form.real else (1, 8, 16, 32, 64)
    if allocated not in sizes or not 1 <= stored <= allocated:
        detail = f"found {stored} stored of {allocated} allocated bits, expected 1 to all of {sizes}"
        raise CaseError(Reason.UNDECODABLE_PIXELS, detail)
    if not stored - 1 <= high < allocated:
        detail = f"found HighBit {high} for {stored} stored of {allocated} bits"
        raise CaseError(Reason.UNDECODABLE_PIXELS, f"{detail}, expected {stored - 1} to {allocated - 1}")


_TAGS = {
    "rows": BaseTag(0x00280010),
    "columns": BaseTag(0x00280011),
    "number_of_frames": BaseTag(0x00280008),
    "samples_per_pixel": BaseTag(0x00280002),
    "planar_configuration": BaseTag(0x00280006),
    "bits_allocated": BaseTag(0x00280100),
    "bits_stored": BaseTag(0x00280101),
    "high_bit": BaseTag(0x00280102),
    "pixel_representation": BaseTag(0x00280103),
}
"""Tags rather than keywords, because pydicom finds an element by its tag in half the time."""
_PHOTOMETRIC, _FLOAT, _DOUBLE = BaseTag(0x00280004), BaseTag(0x7FE00008), BaseTag(0x7FE00009)
FORMAT_COLUMNS = (*_TAGS, "photometric_interpretation", "transfer_syntax_uid")
"""Columns of INSTANCES that say how pixels are stored."""


def _value(dataset: Dataset, tag: BaseTag) -> Any:
    """Return the value of an element, or None if there is none."""
    return dataset[tag].value if tag in dataset else None


def _whole(value: Any) -> int | None:
    return None if value is None or value == "" else int(value)


def _or(value: int | None, default: int) -> int:
    """Return the value, or ``default`` when it is None; unlike ``or``, this keeps 0."""
    return default if value is None else value


def transfer_syntax(dataset: Dataset) -> str:
    """Return TransferSyntaxUID (0002,0010), or the encoding that pydicom found when the file states none."""
    meta = getattr(dataset, "file_meta", None)
    stated = meta.get("TransferSyntaxUID") if meta is not None else None
    if stated:
        return str(stated)
    implicit, little = dataset.original_encoding
    return BIG_ENDIAN if little is False else "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"
