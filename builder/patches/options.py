"""The ``samples`` block of a spec: patches around a label, a grid of patches, whole volumes, or pictures."""

import itertools
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Three: TypeAlias = tuple[int, int, int]
Extent = Annotated[int, Field(ge=1, le=2048)]
Extents: TypeAlias = tuple[Extent, Extent, Extent]
FieldName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Fields: TypeAlias = Mapping[FieldName, tuple[str, ...]]

DEFAULT_CHUNK: Three = (32, 32, 32)
CHUNK_EXTENTS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
CHUNK_COST = 20_000
"""Voxels that a chunk is worth beside its decoding. A change moves stored bytes."""
CHUNK_COSTS: Mapping[str, int] = {"crops": 4_000, "training": 3_000}
"""The same for the codecs (of int16) whose chunks are meant for the compiled loop over them."""


class Patches(BaseModel):
    """Patches of one shape at random voxels of a label and of what lies around it.

    Of ``per_case`` patches the share ``background`` (rounded) is centred on voxels outside the label, the others on
    voxels inside; without ``centred_on`` on any voxel. A patch at the border reaches beyond the volume and is padded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    VERSION: ClassVar[int] = 2

    kind: Literal["patches"] = "patches"
    shape: Extents
    """(slice, row, column) in voxels."""
    centred_on: str | None = None
    """Name of a label."""
    per_case: Annotated[int, Field(ge=1, le=9999)] = 4
    """Number of patches of each case."""
    background: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of them centred outside the label."""
    fields: Fields = Field(default_factory=dict)
    """With ``cohort.images``: the order of the channels, e.g. ``{image: [t2, adc]}``; that of the spec when absent."""


class Grid(BaseModel):
    """Patches of one shape on a regular grid that covers the volume; the last of an axis is padded."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    VERSION: ClassVar[int] = 2

    kind: Literal["grid"] = "grid"
    shape: Extents
    """(slice, row, column) in voxels."""
    stride: Extents | None = None
    """Distance of neighbouring patches; their shape when absent."""
    foreground_at_least: Annotated[int, Field(ge=0)] = 0
    """Patches with fewer voxels inside any label are left out."""
    fields: Fields = Field(default_factory=dict)
    """With ``cohort.images``: the order of the channels, e.g. ``{image: [t2, adc]}``; that of the spec when absent."""


class Whole(BaseModel):
    """One sample a case: the whole volume, stored in chunks from which crops can be read."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    VERSION: ClassVar[int] = 2

    kind: Literal["volumes"] = "volumes"
    crop: Extents | None = None
    """(slice, row, column) of the crops that will be read: chunks are chosen so that these are read fastest."""
    chunk: Extents | None = None
    """(slice, row, column) of a chunk; chosen for ``crop`` when absent, 32 along each axis without either."""
    fields: Fields = Field(default_factory=dict)
    """With ``cohort.images``: the order of the channels, e.g. ``{image: [t2, adc]}``; that of the spec when absent."""


class Images(BaseModel):
    """One sample a picture: radiographs, mammograms, ultrasound and other stills, single slices, and films.

    These kinds are admitted as if ``volumes`` said ``keep``, unless ``volumes`` says otherwise. A sample
    is (channel, 1, row, column), and of a film (channel, frame, row, column).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    VERSION: ClassVar[int] = 1

    kind: Literal["images"] = "images"
    chunk: Extents = (1, 512, 512)
    """(frame, row, column) of a chunk."""
    fields: Fields = Field(default_factory=dict)
    """With ``cohort.images``: the order of the channels; that of the spec when absent."""

    @property
    def crop(self) -> None:
        """None: the chunk is stated."""
        return None


PICTURE_KINDS = ("projection", "still", "single_slice", "cine")
"""Verdicts that ``samples: {kind: images}`` admits."""

AnySamples: TypeAlias = Annotated[Patches | Grid | Whole | Images, Field(discriminator="kind")]


def shard_chunk(options: AnySamples, codec: str) -> Three | None:
    """Return the ``chunk`` with which a shard of these samples is written; None if all have one shape.

    ``codec`` is the name of the shards' preset.
    """
    if not isinstance(options, Whole | Images):
        return None
    if options.chunk is not None:
        return options.chunk
    if options.crop is None:
        return DEFAULT_CHUNK
    return choose_chunk(options.crop, chunk_cost=CHUNK_COSTS.get(codec, CHUNK_COST))


def choose_chunk(crop: Three, *, chunk_cost: int = CHUNK_COST) -> Three:
    """Return (slice, row, column) of the chunks from which a crop at any place is read fastest.

    Along an axis a crop of n voxels meets (n - 1) / c + 1 chunks of c voxels on average, each of which is decoded
    whole; beside that every chunk costs as much time as decoding ``chunk_cost`` voxels (``benchmarks/crops.py``).
    """
    axes = [sorted({*(c for c in CHUNK_EXTENTS if c < n), min(n, CHUNK_EXTENTS[-1])}) for n in crop]

    def cost(chunk: Three) -> tuple[Fraction, Three]:  # exact, so that the choice is the same everywhere
        met = math.prod((Fraction(n - 1, c) + 1 for n, c in zip(crop, chunk, strict=True)), start=Fraction(1))
        return met * (math.prod(chunk) + chunk_cost), chunk

    return min(itertools.product(axes[0], axes[1], axes[2]), key=cost)


def describe_storage(options: AnySamples, codec: str) -> str:
    """Describe in words how samples will be stored in a shard."""
    if isinstance(options, Whole | Images):
        kind = "pictures" if isinstance(options, Images) else "whole volumes"
        return f"{kind} in chunks of {_times(shard_chunk(options, codec) or DEFAULT_CHUNK)} voxels"
    return f"samples of {_times(options.shape)} voxels, one chunk each"


def _times(shape: Three) -> str:
    return " x ".join(map(str, shape))
