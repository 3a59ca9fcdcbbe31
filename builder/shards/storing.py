"""Options for storing a field: its compressor, its number type, and an invertible map from values to integers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from builder.errors import CaseError, Reason
from builder.model.fields import Packing
from builder.model.zarr_format import Codec

CODECS: Mapping[str, Codec] = {
    "fast": Codec("lz4", 5, "shuffle"),
    "small": Codec("zstd", 1, "shuffle"),
    "archive": Codec("zstd", 7, "bitshuffle"),
    "crops": Codec("lz4hc", 9, "shuffle"),
    "training": Codec("lz4hc", 9, "shuffle", by_plane=True),
}
"""``benchmarks/codecs.py`` measures these presets. Masks are stored as bytes under Blosc. Packing them to bits first
would make them a third as large and almost twice as fast to decode, but masks are only about a tenth of the stored
bytes of a sample, and no Zarr library could read them (zarr-python 3.1 and tensorstore have no such codec)."""

CodecName = Literal["fast", "small", "archive", "crops", "training"]
MOST_OFFSET = 2.0**20
"""Largest offset, in factors. With a larger one, a float32 value would not convert back to its stored number."""
PACKED = ("int8", "uint8", "int16", "uint16")


class FieldStorage(BaseModel):
    """How one field of a dataset is stored.

    With ``factor``, values are stored as integers: stored = round((value - offset) / factor), value = stored * factor +
    offset. The map is stored with the field. Readers return float32 values, or the stored numbers on request. A case
    with a value outside the range of the type is excluded. Without ``factor``, ``dtype`` only converts the values, and
    a case with values that the type cannot hold exactly is excluded (float16 and float32 round instead).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: CodecName | None = None
    """Preset to use instead of the dataset's."""
    dtype: Literal["int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32"] | None = None
    """Number type of the stored values; the field's own when absent."""
    factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Distance between neighbouring stored values, in the field's unit. The error is at most half of it."""
    offset: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Value that is stored as 0."""

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
        """Convert an array to the form in which it is stored. Raises CaseError if a value does not fit."""
        if self.dtype is None or (self.factor is None and array.dtype == self.dtype):
            return array
        target = np.dtype(self.dtype)
        if self.factor is None and target.kind == "f":
            return _rounded(name, array, target)
        # float64, so that dividing a float32 by the factor is exact enough for the integers of every packed type
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
