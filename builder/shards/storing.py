"""How a field is stored: its compressor, its number type, and an invertible map from values to whole numbers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from builder.errors import CaseError, Reason
from builder.model.layout import Packing
from builder.model.zarr_format import Codec

CODECS: Mapping[str, Codec] = {
    "fast": Codec("lz4", 5, "shuffle"),
    "small": Codec("zstd", 1, "shuffle"),
    "archive": Codec("zstd", 7, "bitshuffle"),
}
"""``benchmarks/codecs.py`` measures them. Masks are bytes under Blosc. Packed to bits first they would be a third as
large and decode nearly twice as fast, but they are about a tenth of a sample's stored bytes, and no Zarr library would
read them as they are (zarr-python 3.1 and tensorstore have no such codec)."""

CodecName = Literal["fast", "small", "archive"]
MOST_OFFSET = 2.0**20
"""Factors an offset may be: a float32 value beyond would not give its stored number back."""
PACKED = ("int8", "uint8", "int16", "uint16")


class FieldStorage(BaseModel):
    """How one field of a dataset is stored.

    With ``factor``, values become whole numbers: stored = round((value - offset) / factor), value = stored * factor +
    offset. The map is kept with the field; readers give float32 values, or the stored numbers on request. A value
    beyond the type excludes its case. Without ``factor`` a ``dtype`` only converts, and values it cannot hold exactly
    exclude the case (float16 and float32 round).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: CodecName | None = None
    """Another preset than the dataset's."""
    dtype: Literal["int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32"] | None = None
    factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Distance of neighbouring values, in the field's unit: what is lost is at most half of it."""
    offset: Annotated[float, Field(allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _is_consistent(self) -> "FieldStorage":
        if self.factor is not None and self.dtype not in PACKED:
            raise ValueError(f"found factor with dtype {self.dtype}, expected one of {', '.join(PACKED)}")
        if self.factor is None and self.offset != 0:
            raise ValueError("found offset without factor, expected both")
        if self.factor is not None and abs(self.offset) / self.factor > MOST_OFFSET:
            raise ValueError(f"found offset {self.offset} with factor {self.factor}, expected at most 2^20 factors")
        return self

    @property
    def packing(self) -> Packing | None:
        """The map from stored numbers to values."""
        return None if self.factor is None else Packing(self.factor, self.offset)

    def convert(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """The array as it is stored. Raises CaseError when it does not fit."""
        if self.dtype is None or (self.factor is None and array.dtype == self.dtype):
            return array
        target = np.dtype(self.dtype)
        if self.factor is None and target.kind == "f":
            return _rounded(name, array, target)
        # float64: the quotient of a float32 and a factor keeps the whole numbers of every packed type
        values = array if self.factor is None else np.rint((array.astype(np.float64) - self.offset) / self.factor)
        limits = np.iinfo(target)
        if not np.isfinite(values).all() or values.min() < limits.min or values.max() > limits.max:
            raise CaseError(
                Reason.INCONSISTENT_PIXELS,
                f"field {name}: found values that {target} does not hold, expected them between {limits.min} and "
                f"{limits.max}; clip them, or choose another dtype or factor",
            )
        stored = values.astype(target)
        if self.factor is None and not np.array_equal(stored, values):
            raise CaseError(
                Reason.INCONSISTENT_PIXELS,
                f"field {name}: found values that are no whole numbers, expected whole numbers for {target}; "
                "give a factor",
            )
        return stored


def _rounded(name: str, array: NDArray[Any], target: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        found = array.astype(target)
    if np.isinf(found).any() and not np.isinf(array).any():
        raise CaseError(
            Reason.INCONSISTENT_PIXELS, f"field {name}: found values beyond {target}, expected smaller ones; clip them"
        )
    return found


AS_THEY_COME: Mapping[str, FieldStorage] = MappingProxyType({})
