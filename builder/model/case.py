"""The data model of a case: its volume, its annotations, and the samples that are cut from it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from builder.model.cleared import Cell
from builder.model.geometry import Geometry

Scalar: TypeAlias = str | int | float | bool | None
"""A cell of a sample's row; missing is None, never NaN."""


class ValueDomain(StrEnum):
    """What a voxel's number means, and in which unit."""

    HOUNSFIELD = "HU"
    SUV_BW = "SUVbw"
    ACTIVITY = "Bq/ml"
    ARBITRARY = "arbitrary"
    STORED = "stored"
    RGB = "rgb"
    MIXED = "mixed"


DAMAGED_TABLE = "voi_lut_damaged"
"""Note on a picture whose VOI LUT cannot be read."""

NO_SPACING = "pixel_spacing_unknown"
"""Note on a picture whose millimetres nobody states; its grid counts pixels, and it cannot be resampled."""


@dataclass(frozen=True, eq=False)
class DisplayTable:
    """The table by which a picture asks to be shown (VOI LUT, PS3.3 C.11.2.1.1).

    Parameters
    ----------
    entries
        (n,) float32, from 0 to ``highest``. Values before the first entry and beyond the last take the one at that end.
    first
        The value of entry 0, in the unit of the stored values after the Modality LUT.
    highest
        The largest number that an entry can hold: 2 to the power of its bits, minus 1.
    ends
        Sum of the lowest and the highest value of a picture that was mirrored (``MONOCHROME1``); None if it was not.
    """

    entries: NDArray[np.float32]
    first: int
    highest: float
    ends: float | None = None

    def shown(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return what the table shows for the volume's values, float32 from 0 to ``highest``; white is large."""
        asked = values if self.ends is None else self.ends - values
        index = np.clip(np.rint(asked) - self.first, 0, len(self.entries) - 1).astype(np.int64)
        found = self.entries[index]
        return found if self.ends is None else np.asarray(np.float32(self.highest) - found)


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels on one grid.

    Parameters
    ----------
    voxels
        (channel, slice, row, column); int16, uint16, uint8 or float32, in ``domain``'s unit.
    geometry
        The grid; its shape equals ``voxels.shape[1:]``.
    domain
        Meaning and unit of the numbers after rescale.
    channels
        One name a channel, e.g. ``("image",)``, ``("t0", "t1")``, ``("r", "g", "b")``.
    padding
        (slice, row, column) bool, True where the source says there is no data (PixelPaddingValue, 0028,0120); None
        when every voxel is data.
    notes
        Facts found on the way (what was tolerated, why a PET is not SUV), as short codes without identifiers.
    findings
        What is physically implausible (``builder.imaging.lint``): ``rule=number``.
    domains
        The domain of each channel where they are of several images; empty where ``domain`` is that of all.
    window
        Of a grey picture as the archive holds it: the lowest and highest value that its first window shows (PS3.3
        C.11.2.1.2); None where the object states none.
    display
        Of a grey picture as the archive holds it: its first VOI LUT; None where the object has none.
    """

    voxels: NDArray[Any]
    geometry: Geometry
    domain: ValueDomain = ValueDomain.STORED
    channels: tuple[str, ...] = ("image",)
    padding: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    domains: tuple[ValueDomain, ...] = ()
    window: tuple[float, float] | None = None
    display: DisplayTable | None = None

    def __post_init__(self) -> None:
        if self.voxels.ndim != 4 or self.voxels.shape[1:] != self.geometry.shape:
            raise ValueError(f"voxels: found shape {self.voxels.shape}, expected (channel, *{self.geometry.shape})")
        if self.voxels.shape[0] != len(self.channels):
            raise ValueError(f"channels: found {len(self.channels)} names for {self.voxels.shape[0]} channels")

    @property
    def channel_domains(self) -> tuple[ValueDomain, ...]:
        """The domain of every channel."""
        return self.domains or (self.domain,) * len(self.channels)


@dataclass(frozen=True, eq=False)
class Slabs:
    """Voxels that are made while they are written, so that they are never in memory all at once.

    Parameters
    ----------
    shape
        (channel, slice, row, column).
    dtype
        Of every voxel.
    make
        Given numbers of slices and rows: the voxels, so many slices and rows (or all rows) at a time and fewer at the
        ends, in C order. Each array is good until the next one is asked for.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    make: Callable[[int, int], Iterator[NDArray[Any]]]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        """4."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def stand_in(self) -> NDArray[Any]:
        """A single zero, broadcast to the shape of the voxels, for what only looks at their shape and type."""
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)


@dataclass(frozen=True)
class Code:
    """A coded concept (PS3.3 Table 8.8-1): Code Value, Coding Scheme Designator, Code Meaning."""

    value: str
    scheme: str
    meaning: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}:{self.value}"


Tier: TypeAlias = Literal[
    "pathology",
    "genomic",
    "outcome",
    "prospective",
    "consensus",
    "single_reader",
    "report_text",
    "crowd",
    "machine",
    "unstated",
]
"""How strong a label is. ``unstated`` is a label of a table of which nobody stated who judged."""

EVIDENCE_TIERS: tuple[Tier, ...] = get_args(Tier)
"""Strongest first."""


@dataclass(frozen=True)
class Evidence:
    """Who says so: the tier of the label, its readers, tool and time.

    Parameters
    ----------
    readers
        Keyed names where objects or tables state them, else as the spec states them.
    time
        As the spec states it.
    """

    tier: Tier = "single_reader"
    readers: tuple[str, ...] = ()
    tool: str | None = None
    note: str | None = None
    time: str | None = None


@dataclass(frozen=True)
class Segment:
    """One structure of a mask: voxels of channel ``channel`` that equal ``value`` are inside."""

    name: str
    channel: int = 0
    value: int = 1
    category: Code | None = None
    type: Code | None = None


@dataclass(frozen=True, eq=False)
class Mask:
    """Structures on a grid: a label map (one channel, several values) or overlapping channels (value 1 each).

    ``voxels`` is (channel, slice, row, column) uint8 or uint16; for ``fractional`` masks 0..255 means 0..1 and every
    segment has a channel of its own. A case without this label has no segment in it. ``measures`` holds facts of its
    making (volumes before and after, fraction of contour planes that found a slice, ...), name with unit suffix to
    number.
    """

    name: str
    voxels: NDArray[Any]
    geometry: Geometry
    segments: tuple[Segment, ...]
    fractional: bool = False
    evidence: Evidence = Evidence()
    measures: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.voxels.ndim != 4 or self.voxels.shape[1:] != self.geometry.shape:
            raise ValueError(f"voxels: found shape {self.voxels.shape}, expected (channel, *{self.geometry.shape})")

    def inside(self, segment: Segment) -> NDArray[np.bool_]:
        """Return (slice, row, column) bool, True inside ``segment`` (for fractional masks: at least one half)."""
        channel = self.voxels[segment.channel]
        return np.asarray(channel >= 128 if self.fractional else channel == segment.value)


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes along the axes of ``geometry``'s grid, held in patient space so that every transform can move them.

    ``corners_mm`` is (n, 8, 3) LPS mm: the eight corners, in the order of ``builder.model.geometry.corner_voxels``.
    """

    name: str
    corners_mm: NDArray[np.float64]
    classes: tuple[str, ...]
    evidence: Evidence = Evidence()
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Named points; ``points_mm`` is (n, 3) LPS mm. Lines (RECIST axes) are two landmarks that share a ``group``."""

    name: str
    points_mm: NDArray[np.float64]
    classes: tuple[str, ...]
    groups: tuple[str, ...] = ()
    evidence: Evidence = Evidence()
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """A number a reader measured: ``unit`` is UCUM; ``concept`` (of the quantity), ``finding`` and ``site`` are coded
    where the source codes them. ``tracking_id`` is shared by what was measured of one thing. ``derivation`` says
    how the quantity was derived (mean, maximum), where that is coded."""

    quantity: str
    value: float
    unit: str
    finding: Code | None = None
    site: Code | None = None
    tracking_id: str | None = None
    concept: Code | None = None
    derivation: Code | None = None


@dataclass(frozen=True)
class Reading:
    """What one reader said about one quantity or finding; readers have keyed names."""

    reader: str
    quantity: str
    value: Scalar


@dataclass(frozen=True)
class Measurements:
    """Measurements of one case under one label name; ``readings`` says which reader measured what."""

    name: str
    items: tuple[Measurement, ...]
    evidence: Evidence = Evidence()
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True)
class Classes:
    """Class values of one case: finding to value (a category, an ordinal, ``positive``/``negative``/``uncertain``)."""

    name: str
    values: Mapping[str, Scalar]
    evidence: Evidence = Evidence()
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True)
class Text:
    """Free text of a case that passed de-identification."""

    name: str
    text: str
    evidence: Evidence = Evidence()


Annotation: TypeAlias = Mask | Boxes | Landmarks | Measurements | Classes | Text


@dataclass(frozen=True, eq=False)
class Case:
    """One person's image series with its annotations and its row of facts.

    Parameters
    ----------
    case_key
        Keyed hash; the only name a case has.
    volume
        The image.
    annotations
        In the order of the spec's labels; names are unique.
    row
        Allow-listed facts of the case (clinical columns, vendor, age), ready for the sample table.
    readings
        Name of a consensus to what each reader said of it.
    apart
        Field name to the images of the case, with their annotations, that keep a grid of their own.
    """

    case_key: str
    volume: Volume
    annotations: tuple[Annotation, ...] = ()
    row: Mapping[str, Scalar] = field(default_factory=dict)
    readings: Mapping[str, tuple[Reading, ...]] = field(default_factory=dict)
    apart: "Mapping[str, Case]" = field(default_factory=dict)

    @property
    def masks(self) -> tuple[Mask, ...]:
        """The annotations that are masks."""
        return tuple(a for a in self.annotations if isinstance(a, Mask))


@dataclass(frozen=True, eq=False)
class Sample:
    """One training row.

    Parameters
    ----------
    arrays
        Field name to (channel, slice, row, column) array: ``image`` and one a mask name. A whole volume may be
        ``Slabs``.
    geometry
        Grid of the arrays (all fields of a sample share it).
    row
        Everything scalar about the sample: patch position, labels' volumes, the case's facts.
    ragged
        Field name to a list of numbers or strings (boxes, landmarks), stored in Parquet.
    """

    arrays: Mapping[str, NDArray[Any] | Slabs]
    geometry: Geometry
    row: Mapping[str, Scalar] = field(default_factory=dict)
    ragged: Mapping[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ClearedSample:
    """A sample whose texts have all passed the privacy gate; shards are written from these."""

    arrays: Mapping[str, NDArray[Any] | Slabs]
    geometry: Geometry
    row: Mapping[str, Cell] = field(default_factory=dict)
    ragged: Mapping[str, Sequence[Cell]] = field(default_factory=dict)
