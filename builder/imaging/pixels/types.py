"""Choosing the number type of voxels, for one image from its headers and for all images of a dataset together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from builder.imaging.rows import Row

INTEGERS = {"uint8": (0, 2**8 - 1), "int16": (-(2**15), 2**15 - 1), "uint16": (0, 2**16 - 1)}
"""Integer types with their ranges, in order of preference."""


@dataclass(frozen=True)
class Projected:
    """The number type predicted from headers; ``sure`` when every value that can be stored fits it."""

    name: str
    sure: bool = True


def narrowest(low: int, high: int) -> Projected:
    """Return the narrowest integer for a range; int16 when none holds it, because values seldom use all stored bits."""
    name = next((name for name, (least, most) in INTEGERS.items() if least <= low and high <= most), None)
    return Projected("int16", sure=False) if name is None else Projected(name)


def slices_type(rows: Sequence[Row], filling: int) -> Projected:
    """Predict the type of a stack of slices, which ``pixels.values.dtype_of`` decides when they are read.

    Parameters
    ----------
    rows
        INSTANCES rows, or rows of frames.
    filling
        The value that replaces padding in rows that state a padding value.
    """
    if rows[0].modality == "PT":
        return Projected("float32")
    low = high = 0
    for number, row in enumerate(rows):
        slope, intercept = row.rescale_slope, float(row.rescale_intercept or 0.0)
        allocated = row.bits_allocated or 16
        if slope not in (None, 1.0) or not intercept.is_integer() or allocated > 16:
            return Projected("float32")
        bits, signed = row.bits_stored or allocated, row.pixel_representation == 1
        least = int(intercept) + (-(1 << (bits - 1)) if signed else 0)
        most = int(intercept) + ((1 << (bits - 1)) if signed else (1 << bits)) - 1
        if row.pixel_padding_value is not None:
            least, most = min(least, filling), max(most, filling)
        low, high = (least, most) if number == 0 else (min(low, least), max(high, most))
    return narrowest(low, high)


def picture_type(row: Row) -> Projected:
    """Predict the type of a picture: uint8 for colour, the stored type without a rescale, else float32."""
    if (row.samples_per_pixel or 1) == 3 or row.photometric_interpretation == "PALETTE COLOR":
        return Projected("uint8")
    changed = row.rescale_slope not in (None, 1.0) or row.rescale_intercept not in (None, 0.0)
    allocated = row.bits_allocated or 16
    if changed or allocated > 16:
        return Projected("float32")
    signed = row.pixel_representation == 1
    return Projected(("int" if signed else "uint") + ("16" if allocated > 8 else "8"))


def common_type(types: Iterable[str]) -> str:
    """Return the narrowest type that holds every value of all types; for int16 with uint16 this is float32."""
    found = sorted(set(types))
    if len(found) == 1:
        return found[0]
    joined = np.result_type(*(np.dtype(name) for name in found))
    return str(joined) if joined.itemsize <= 2 else "float32"
