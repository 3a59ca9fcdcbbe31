"""Reading the Modality LUT of an instance (PS3.3 C.11.1) and its padding values (PS3.3 C.7.5.1.1.2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from builder.decode.format import PixelFormat
from builder.errors import CaseError, Reason
from builder.headers.boundary import elements_as


@dataclass(frozen=True, eq=False)
class Rescale:
    """The map from stored values to output units: ``slope * stored + intercept``, or a table.

    Parameters
    ----------
    kind
        RescaleType (0028,1054) or ModalityLUTType, "" when absent.
    stated
        Whether the file states a rescale.
    table, first
        Modality LUT entries, None for a linear rescale, and the stored value of entry 0.
    """

    slope: float = 1.0
    intercept: float = 0.0
    kind: str = ""
    stated: bool = False
    table: NDArray[Any] | None = None
    first: int = 0

    @property
    def whole(self) -> bool:
        """Whether every stored integer maps to an integer at the same scale."""
        return self.slope == 1.0 and float(self.intercept).is_integer() and self.table is None

    def same(self, other: "Rescale") -> bool:
        """Return whether both give the same numbers, whatever their kinds are called."""
        mine, theirs = ((r.slope, r.intercept, r.stated, r.first, r.table is None) for r in (self, other))
        return mine == theirs and np.array_equal(_or_empty(self.table), _or_empty(other.table))

    def looked_up(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Look stored values up in the table; values beyond either end take the entry at that end."""
        assert self.table is not None
        index = np.clip(stored.astype(np.int64) - self.first, 0, len(self.table) - 1)
        return np.asarray(self.table[index])


def rescale_of(item: Dataset) -> Rescale:
    """Read the Modality LUT of a data set or Pixel Value Transformation item. May raise CaseError."""
    with elements_as(Reason.INCONSISTENT_PIXELS):
        sequence = item.get("ModalityLUTSequence")
        if sequence:
            return _table(sequence[0])
        return linear_rescale(item.get("RescaleSlope"), item.get("RescaleIntercept"), item.get("RescaleType"))


def linear_rescale(slope: Any, intercept: Any, kind: Any) -> Rescale:
    """Make a linear rescale from three header values; None and "" count as absent.

    Raises
    ------
    CaseError
        INCONSISTENT_PIXELS when only one of slope and intercept is present (PS3.3 C.11.1.1 requires both), when either
        is not a finite number, or when the slope is 0. Such a file says that its values are rescaled, but not how.
    """
    name = str(kind or "").strip()
    absent = [value is None or value == "" for value in (slope, intercept)]
    if all(absent):
        return Rescale(kind=name)
    if any(absent):
        found = "RescaleIntercept" if absent[0] else "RescaleSlope"
        raise CaseError(Reason.INCONSISTENT_PIXELS, f"found {found} alone, expected RescaleSlope and RescaleIntercept")
    numbers = _real(slope), _real(intercept)
    if numbers[0] is None or numbers[1] is None or numbers[0] == 0:
        detail = "found a RescaleSlope or RescaleIntercept that is zero or no number, expected two finite numbers"
        raise CaseError(Reason.INCONSISTENT_PIXELS, detail)
    return Rescale(numbers[0], numbers[1], name, stated=True)


def check_alike(rescales: Sequence[Rescale]) -> None:
    """Refuse instances when only some are rescaled, because their numbers do not share one meaning.

    An instance without a rescale may be combined with ones that state slope 1 and intercept 0.

    Raises
    ------
    CaseError
        INCONSISTENT_PIXELS.
    """
    silent = sum(not rescale.stated for rescale in rescales)
    if not 0 < silent < len(rescales):
        return
    if any(r.stated and (r.table is not None or r.slope != 1.0 or r.intercept != 0.0) for r in rescales):
        detail = f"found {silent} of {len(rescales)} images without a rescale, expected all of them or none"
        raise CaseError(Reason.INCONSISTENT_PIXELS, detail)


def padding_of(item: Dataset, form: PixelFormat) -> tuple[int, int] | None:
    """Return the smallest and largest stored value that means "no data", or None. May raise CaseError."""
    with elements_as(Reason.INCONSISTENT_PIXELS):
        return padding_range(item.get("PixelPaddingValue"), item.get("PixelPaddingRangeLimit"), form)


def padding_range(value: Any, limit: Any, form: PixelFormat) -> tuple[int, int] | None:
    """Do what ``padding_of`` does from PixelPaddingValue (0028,0120) and PixelPaddingRangeLimit (0028,0121)."""
    value, limit = _whole(value, form), _whole(limit, form)
    if value is None or form.samples != 1:
        return None
    return (value, value) if limit is None else (min(value, limit), max(value, limit))


def _table(item: Dataset) -> Rescale:
    """Read a Modality LUT item (PS3.3 C.11.1.1.1). May raise CaseError INCONSISTENT_PIXELS."""
    entries, first, _ = read_lut(item, "Modality LUT")
    kind = str(item.get("ModalityLUTType", "") or "").strip()
    return Rescale(kind=kind, stated=True, table=entries.astype(np.float32), first=first)


def read_lut(item: Dataset, name: str) -> tuple[NDArray[Any], int, int]:
    """Return the entries of a look-up table, the value of the first one, and the bits of each.

    ``name`` is what messages call the table. May raise CaseError INCONSISTENT_PIXELS.
    """
    try:
        count, first, bits = (int(v) for v in item.LUTDescriptor)
        entries = _entries(item.LUTData, count or 2**16, bits)
    except (AttributeError, TypeError, ValueError):
        detail = f"found a {name} without three descriptor values and as many entries as they state"
        raise CaseError(Reason.INCONSISTENT_PIXELS, detail) from None
    if not 8 <= bits <= 16:
        detail = f"found a {name} with entries of {bits} bits, expected 8 to 16"
        raise CaseError(Reason.INCONSISTENT_PIXELS, detail)
    return entries, first, bits


def _entries(data: Any, count: int, bits: int) -> NDArray[Any]:
    """Return the first ``count`` entries of LUT Data. Raise ValueError when there are fewer, TypeError when absent."""
    if not isinstance(data, bytes):
        found = np.atleast_1d(np.asarray(data, dtype=np.int64))
    elif bits <= 8 and len(data) in (count, count + count % 2):
        found = np.frombuffer(data, dtype=np.uint8)
    else:
        found = np.frombuffer(data, dtype="<u2")
    if len(found) < count:
        raise ValueError
    return found[:count]


def _or_empty(table: NDArray[Any] | None) -> NDArray[Any]:
    return np.empty(0) if table is None else table


def _real(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any, form: PixelFormat) -> int | None:
    """Convert a padding value, read with VR US or SS, to the sign of the pixels. May raise CaseError."""
    if value is None or value == "":
        return None
    try:
        number = int(value)
    except (TypeError, ValueError):
        detail = "found a Pixel Padding Value or Range Limit that is no whole number, expected one"
        raise CaseError(Reason.INCONSISTENT_PIXELS, detail) from None
    width = 1 << form.bits_allocated
    if form.signed and number >= width // 2:
        return number - width
    if not form.signed and number < 0:
        return number + width
    return number
