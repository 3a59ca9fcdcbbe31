"""The array fields of samples: what a document of a dataset says about each, such as its type, unit and channels."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import LayoutError
from builder.model.entries import Entries

FIELD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_SEGMENT = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_DTYPES = frozenset(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)) | {"float32", "float64"}
"""Types of stored numbers. A manifest may come from anybody: NumPy's own parser also knows types that hold pointers."""


@dataclass(frozen=True)
class Packing:
    """How stored whole numbers become values: value = stored * factor + offset, in the field's unit."""

    factor: float
    offset: float = 0.0

    def unpack(self, stored: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Write values to ``out``. Rounding ``(value - offset) / factor`` gives the stored numbers back."""
        np.multiply(stored, np.float32(self.factor), out=out)
        if self.offset:
            np.add(out, np.float32(self.offset), out=out)


@dataclass(frozen=True)
class FieldLayout:
    """One array field of every sample.

    Parameters
    ----------
    name
        ``image`` or a mask's name.
    channels
        Length of the first axis of a sample's array.
    shape
        (slice, row, column) when every sample has the same (one Zarr array a shard, one inner chunk a sample); None
        when samples are whole volumes (one Zarr array a sample).
    chunk
        (slice, row, column) of an inner chunk; equal to ``shape`` where that is stated.
    dtype
        NumPy name without byte order (``int16``); bytes on disk are little endian.
    unit
        Unit or domain of the numbers (``HU``); "" for masks.
    segments
        For masks: name to ``[channel, value]``.
    packing
        How stored numbers become values; None where they are the values.
    channel_names, channel_units
        Name and unit of each channel where they are of several images of a case; empty otherwise.
    grid
        Name of the field on whose grid it lies, itself if that is its own; "" for the grid in the sample's row.
    """

    name: str
    channels: int
    shape: tuple[int, int, int] | None
    chunk: tuple[int, int, int]
    dtype: str
    unit: str = ""
    segments: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    packing: Packing | None = None
    channel_names: tuple[str, ...] = ()
    channel_units: tuple[str, ...] = ()
    grid: str = ""

    @property
    def is_image(self) -> bool:
        """Whether it holds images rather than a mask."""
        return self.name == "image" or bool(self.channel_names)


def merged_units(some: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """Return the units of channels, ``mixed`` where they differ; of no channels, those of the others."""
    if not some or not others:
        return some or others
    return tuple(one if one == other else "mixed" for one, other in zip(some, others, strict=True))


def parse_field(at: Entries) -> FieldLayout:
    """Parse an array field of a document. Raises LayoutError with the entry, what was found and what was expected."""
    shape = None if at.document.get("shape") is None else at.three("shape")
    segments = {}
    for name, pair in at.mapping("segments").items():
        if not isinstance(pair, list) or len(pair) != 2 or not all(type(n) is int for n in pair):
            raise LayoutError(f"{at.where}: found {pair!r} for segment {name!r}, expected [channel, value]")
        if _SEGMENT.fullmatch(name) is None:
            raise LayoutError(f"{at.where}: found a segment's name that cannot be one, expected printable text")
        segments[name] = (int(pair[0]), int(pair[1]))
    dtype = at.text("dtype")
    if dtype not in _DTYPES:
        raise LayoutError(f"{at.where}: found the type {dtype[:40]!r}, expected one of {', '.join(sorted(_DTYPES))}")
    return FieldLayout(
        name=at.named("name", FIELD_NAME),
        channels=at.count("channels"),
        shape=shape,
        chunk=at.three("chunk"),
        dtype=dtype,
        unit=at.text("unit"),
        segments=segments,
        packing=_packing(at),
        channel_names=_channels(at, "channel_names"),
        channel_units=_channels(at, "channel_units"),
        grid=at.named("grid", FIELD_NAME) if "grid" in at.document else "",
    )


def _channels(at: Entries, key: str) -> tuple[str, ...]:
    """Return a text for each channel, or none at all."""
    if key not in at.document:
        return ()
    found = at.numbers(key)
    if len(found) != at.count("channels") or not all(isinstance(n, str) and _SEGMENT.fullmatch(n) for n in found):
        raise LayoutError(f"{at.where}: found {key} = {found!r}, expected a printable text for each channel")
    return tuple(found)


def _packing(at: Entries) -> Packing | None:
    if at.document.get("packing") is None:
        return None
    found = at.mapping("packing")
    try:
        packing = Packing(float(found["factor"]), float(found["offset"]))
    except (KeyError, TypeError, ValueError) as error:
        raise LayoutError(f"{at.where}: found the packing {dict(found)!r}, expected factor and offset") from error
    if not packing.factor > 0:
        raise LayoutError(f"{at.where}: found the factor {packing.factor}, expected one above 0")
    return packing
