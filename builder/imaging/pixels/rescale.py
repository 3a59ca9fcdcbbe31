"""The Modality LUT of an instance (PS3.3 C.11.1) and its padding values (PS3.3 C.7.5.1.1.2)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.imaging.pixels.format import PixelFormat


@dataclass(frozen=True, eq=False)
class Rescale:
    """From stored values to output units: ``slope * stored + intercept``, or a table.

    Parameters
    ----------
    kind
        RescaleType (0028,1054) or ModalityLUTType, "" when absent.
    stated
        Whether the file says anything at all.
    table, first
        Modality LUT entries, and the stored value of entry 0; None for a linear rescale.
    """

    slope: float = 1.0
    intercept: float = 0.0
    kind: str = ""
    stated: bool = False
    table: NDArray[Any] | None = None
    first: int = 0

    @property
    def whole(self) -> bool:
        """Whether the output is an integer for every stored integer, at the same scale."""
        return self.slope == 1.0 and float(self.intercept).is_integer() and self.table is None

    def looked_up(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Stored values through the table; values beyond its ends take the end's entry."""
        assert self.table is not None
        index = np.clip(stored.astype(np.int64) - self.first, 0, len(self.table) - 1)
        return np.asarray(self.table[index])


def rescale_of(item: Dataset) -> Rescale:
    """The Modality LUT of a data set, or of a Pixel Value Transformation item. Raises CaseError INCONSISTENT_PIXELS."""
    kind = str(item.get("RescaleType", "") or "").strip()
    sequence = item.get("ModalityLUTSequence")
    if sequence:
        return _table(sequence[0])
    if item.get("RescaleSlope") is None and item.get("RescaleIntercept") is None:
        return Rescale(kind=kind)
    slope, intercept = _real(item.get("RescaleSlope"), 1.0), _real(item.get("RescaleIntercept"), 0.0)
    if slope is None or intercept is None or slope == 0:
        raise CaseError(Reason.INCONSISTENT_PIXELS, "RescaleSlope or RescaleIntercept is zero or no number")
    return Rescale(slope, intercept, kind, stated=True)


def padding_of(item: Dataset, form: PixelFormat) -> tuple[int, int] | None:
    """Smallest and largest stored value that means "no data"; None when the file names none."""
    return padding_range(item.get("PixelPaddingValue"), item.get("PixelPaddingRangeLimit"), form)


def padding_range(value: Any, limit: Any, form: PixelFormat) -> tuple[int, int] | None:
    """``padding_of`` from PixelPaddingValue (0028,0120) and PixelPaddingRangeLimit (0028,0121) as any VR gave them."""
    value, limit = _whole(value, form), _whole(limit, form)
    if value is None or form.samples != 1:
        return None
    return (value, value) if limit is None else (min(value, limit), max(value, limit))


def _table(item: Dataset) -> Rescale:
    """A Modality LUT item (PS3.3 C.11.1.1.1)."""
    try:
        count, first, bits = (int(v) for v in item.LUTDescriptor)
        data = item.LUTData
    except (AttributeError, TypeError, ValueError):
        raise CaseError(Reason.INCONSISTENT_PIXELS, "Modality LUT without three descriptor values and data") from None
    count = count or 2**16
    entries = np.frombuffer(data, dtype="<u2") if isinstance(data, bytes) else np.asarray(data, dtype=np.int64)
    if len(entries) < count or not 8 <= bits <= 16:
        raise CaseError(Reason.INCONSISTENT_PIXELS, f"Modality LUT of {len(entries)} entries, expected {count}")
    kind = str(item.get("ModalityLUTType", "") or "").strip()
    return Rescale(kind=kind, stated=True, table=entries[:count].astype(np.float32), first=first)


def _real(value: Any, default: float) -> float | None:
    if value is None or value == "":
        return default
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any, form: PixelFormat) -> int | None:
    """A padding value in the sign of the pixels, whatever the file's VR (US or SS) made of it."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    width = 1 << form.bits_allocated
    if form.signed and number >= width // 2:
        return number - width
    if not form.signed and number < 0:
        return number + width
    return number
