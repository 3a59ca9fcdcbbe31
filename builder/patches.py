"""Cut a case into samples: patches around a label, a grid of patches, or the whole volume."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from builder.errors import CaseError, Reason
from builder.model.case import (
    Boxes,
    Case,
    Classes,
    Code,
    Landmarks,
    Mask,
    Measurement,
    Measurements,
    Sample,
    Scalar,
    Text,
    ValueDomain,
)
from builder.model.cleared import CODED
from builder.model.geometry import Geometry
from builder.model.keyed import Key

Three: TypeAlias = tuple[int, int, int]
Extent = Annotated[int, Field(ge=1, le=2048)]
Extents: TypeAlias = tuple[Extent, Extent, Extent]
FieldName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Fields: TypeAlias = Mapping[FieldName, tuple[str, ...]]

DIGITS = 9
"""Decimals of voxel coordinates: a millionth of a millimetre at any spacing; what lies beyond is one machine's."""

SHARES = "1/255"
"""Unit of a mask that holds shares: 255 is wholly inside."""

DEFAULT_CHUNK: Three = (32, 32, 32)
CHUNK_EXTENTS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
CHUNK_COST = 20_000
"""Voxels (int16, preset fast) that are decoded in the time a chunk costs beside its decoding: about 10 microseconds."""
AIR_HU = -1024
"""What fills a sample beyond the scanned volume in HU: the lowest value of a 12-bit CT; 0 in every other domain."""


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

    It lets these kinds in, as if ``volumes`` said ``keep`` of them; what ``volumes`` says itself goes first. A sample
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
"""Verdicts that ``samples: {kind: images}`` lets in."""

AnySamples: TypeAlias = Annotated[Patches | Grid | Whole | Images, Field(discriminator="kind")]


@dataclass(frozen=True)
class Estimate:
    """What a case will give at most: samples and their uncompressed bytes."""

    samples: int
    bytes: int


@dataclass(frozen=True)
class FieldFacts:
    """Unit and segments (name to channel and value) of an array field.

    ``channels`` holds the name and the unit of each channel where they are of several images.
    """

    unit: str
    segments: Mapping[str, tuple[int, int]]
    channels: tuple[tuple[str, str], ...] = ()
    grid: str = ""


def cut(case: Case, options: AnySamples, *, key: Key, seed: int, image: str = "image") -> Iterator[Sample]:
    """Samples of a case, in an order that depends on nothing but the arguments.

    Sample ``n`` of a case is drawn from the keyed hash of seed, case_key and n: the same in every build and whatever
    the other cases are. Masks are fields under their names, with ``.`` for ``/``; ``image`` names the field of the
    images. What lies on other grids (``Case.apart``) belongs to the sample of a whole volume.

    Raises
    ------
    CaseError
        LABEL_MISSING, LABEL_EMPTY or NO_SAMPLES where nothing can be cut.
    """
    _check_grids(case)
    shape = case.volume.geometry.shape
    if isinstance(options, Whole | Images):
        sample = _sample(case, 0, start=(0, 0, 0), shape=shape, centred_on="volume", image=image)
        yield _with_apart(sample, case) if case.apart else sample
        return
    places = _draw(case, options, key=key, seed=seed) if isinstance(options, Patches) else _tile(shape, options)
    least = options.foreground_at_least if isinstance(options, Grid) else 0
    number = 0
    for start, centred_on in places:
        sample = _sample(case, number, start=start, shape=options.shape, centred_on=centred_on, image=image)
        if int(sample.row["foreground_voxels"] or 0) >= least:
            yield sample
            number += 1
    if number == 0:
        raise CaseError(Reason.NO_SAMPLES, f"found no patch with {least} voxels inside a label, expected at least one")


def estimate(options: AnySamples, shape: Three, *, bytes_per_voxel: int) -> Estimate:
    """An upper bound of a case's samples, from the shape of its volume after all transforms.

    ``bytes_per_voxel`` counts all fields and channels.
    """
    if isinstance(options, Whole | Images):
        return Estimate(1, shape[0] * shape[1] * shape[2] * bytes_per_voxel)
    samples = options.per_case if isinstance(options, Patches) else sum(1 for _ in _tile(shape, options))
    patch = options.shape[0] * options.shape[1] * options.shape[2]
    return Estimate(samples, samples * patch * bytes_per_voxel)


def shard_chunk(options: AnySamples) -> Three | None:
    """The ``chunk`` a shard of these samples is written with: None where all have one shape."""
    if not isinstance(options, Whole | Images):
        return None
    if options.chunk is not None:
        return options.chunk
    return DEFAULT_CHUNK if options.crop is None else choose_chunk(options.crop)


def choose_chunk(crop: Three) -> Three:
    """(slice, row, column) of the chunks from which a crop at any place is read fastest.

    Along an axis a crop of n voxels meets (n - 1) / c + 1 chunks of c voxels on average, each of which is decoded
    whole; beside that every chunk costs as much time as decoding ``CHUNK_COST`` voxels (``benchmarks/read.py``).
    """
    axes = [sorted({*(c for c in CHUNK_EXTENTS if c < n), min(n, CHUNK_EXTENTS[-1])}) for n in crop]

    def cost(chunk: Three) -> tuple[Fraction, Three]:  # exact, so that the choice is the same everywhere
        met = math.prod((Fraction(n - 1, c) + 1 for n, c in zip(crop, chunk, strict=True)), start=Fraction(1))
        return met * (math.prod(chunk) + CHUNK_COST), chunk

    return min(itertools.product(axes[0], axes[1], axes[2]), key=cost)


def describe_storage(options: AnySamples) -> str:
    """Describe in words how samples will be stored in a shard."""
    if isinstance(options, Whole | Images):
        kind = "pictures" if isinstance(options, Images) else "whole volumes"
        return f"{kind} in chunks of {_times(shard_chunk(options) or DEFAULT_CHUNK)} voxels"
    return f"samples of {_times(options.shape)} voxels, one chunk each"


def describe_fields(case: Case, *, image: str = "image") -> dict[str, FieldFacts]:
    """Unit and segments of the fields that ``cut`` gives, by field name, and the grid that they are on."""
    facts = _fields_on_one_grid(case, image)
    for name, other in case.apart.items():
        facts |= {field: replace(found, grid=name) for field, found in _fields_on_one_grid(other, name).items()}
    return facts


def _fields_on_one_grid(case: Case, image: str) -> dict[str, FieldFacts]:
    volume = case.volume
    channels = tuple(zip(volume.channels, (d.value for d in volume.domains), strict=True)) if volume.domains else ()
    facts = {image: FieldFacts(volume.domain.value, {}, channels)}
    for mask in case.masks:
        segments = {s.name: (s.channel, s.value) for s in mask.segments}
        facts[field_name(mask)] = FieldFacts(SHARES if mask.fractional else "", segments)
    return facts


def field_name(mask: Mask) -> str:
    """Return the name of the field that a mask becomes."""
    return mask.name.replace("/", ".")


def pad_value(domain: ValueDomain) -> int:
    """Return the value that fills voxels beyond the volume."""
    return AIR_HU if domain is ValueDomain.HOUNSFIELD else 0


def _times(shape: Three) -> str:
    return " x ".join(map(str, shape))


def _check_grids(case: Case) -> None:
    names = ["image", *(field_name(mask) for mask in case.masks)]
    if len(set(names)) != len(names):
        raise ValueError(f"case: found the fields {names}, expected each name once")
    for mask in case.masks:
        if mask.voxels.shape[1:] != case.volume.voxels.shape[1:]:
            found, expected = mask.voxels.shape[1:], case.volume.voxels.shape[1:]
            raise ValueError(f"mask {mask.name}: found the shape {found}, expected the image's {expected}")


def _draw(case: Case, options: Patches, *, key: Key, seed: int) -> Iterator[tuple[Three, str]]:
    """Starts of random patches, label first."""
    usable = np.ones(case.volume.geometry.shape, bool) if case.volume.padding is None else ~case.volume.padding
    groups = [(options.per_case, "background", _Voxels(usable))]
    if options.centred_on is not None and not _lacks(case, options.centred_on):
        inside = _inside(case, options.centred_on)
        around = round(options.per_case * options.background)
        groups = [
            (options.per_case - around, options.centred_on, _Voxels(inside)),
            (around, "background", _Voxels(usable & ~inside)),
        ]
    number = 0
    for count, name, voxels in groups:
        if count and not voxels.total:
            reason = Reason.NO_SAMPLES if name == "background" else Reason.LABEL_EMPTY
            raise CaseError(reason, f"{name}: found no voxel to centre a patch on, expected at least one")
        for _ in range(count):
            centre = voxels.nth(key.number("patch", str(seed), case.case_key, str(number)) % voxels.total)
            s, r, c = (int(x) - n // 2 for x, n in zip(centre, options.shape, strict=True))
            yield (s, r, c), name
            number += 1


class _Voxels:
    """The True voxels of a mask, found by number without a list of them all."""

    def __init__(self, inside: NDArray[np.bool_]) -> None:
        self._inside = inside
        self._ends = np.cumsum(np.count_nonzero(inside, axis=(1, 2)))
        self.total = int(self._ends[-1])

    def nth(self, number: int) -> Three:
        """(slice, row, column) of the voxel ``number`` in C order."""
        s = int(np.searchsorted(self._ends, number, side="right"))
        before = int(self._ends[s - 1]) if s else 0
        flat = int(np.flatnonzero(self._inside[s])[number - before])
        row, column = divmod(flat, self._inside.shape[2])
        return (s, row, column)


def _lacks(case: Case, label: str) -> bool:
    """Whether a case was planned without this label: its masks have no segment, so nothing is known to be outside."""
    masks = [mask for mask in case.masks if mask.name == label or mask.name.startswith(f"{label}/")]
    return bool(masks) and not any(mask.segments for mask in masks)


def _inside(case: Case, label: str) -> NDArray[np.bool_]:
    masks = [mask for mask in case.masks if mask.name == label or mask.name.startswith(f"{label}/")]
    if not masks:
        raise CaseError(Reason.LABEL_MISSING, f"{label}: found no mask of this name, expected one to centre patches on")
    inside = np.zeros(case.volume.geometry.shape, bool)
    for mask in masks:
        for segment in mask.segments:
            inside |= mask.inside(segment)
    return inside


def _tile(shape: Three, options: Grid) -> Iterator[tuple[Three, str]]:
    stride = options.stride or options.shape
    axes = [range(0, max(n - p, 0) + d, d) for n, p, d in zip(shape, options.shape, stride, strict=True)]
    for s, r, c in itertools.product(*axes):
        if s < shape[0] and r < shape[1] and c < shape[2]:
            yield (s, r, c), "grid"


def _with_apart(sample: Sample, case: Case) -> Sample:
    """Return a sample of whole volumes with the images of the case that keep grids of their own."""
    arrays, row, ragged = dict(sample.arrays), dict(sample.row), dict(sample.ragged)
    for name, other in case.apart.items():
        _check_grids(other)
        shape = other.volume.geometry.shape
        found = _sample(other, 0, start=(0, 0, 0), shape=shape, centred_on="volume", image=name)
        arrays |= found.arrays
        for column, values in found.ragged.items():
            ragged[column] = [*ragged.get(column, []), *values]
        row["foreground_voxels"] = int(row["foreground_voxels"] or 0) + int(found.row["foreground_voxels"] or 0)
    return Sample(arrays, sample.geometry, row, ragged)


def _sample(case: Case, number: int, *, start: Three, shape: Three, centred_on: str, image: str) -> Sample:
    fills = [pad_value(domain) for domain in case.volume.channel_domains]
    arrays = {image: _crop(case.volume.voxels, start, shape=shape, fills=fills)}
    inside_any: NDArray[np.bool_] | None = None
    names, counts, categories, types = [], [], [], []
    for mask in case.masks:
        piece = _crop(mask.voxels, start, shape=shape, fills=[0] * mask.voxels.shape[0])
        arrays[field_name(mask)] = piece
        for segment in mask.segments:
            channel = piece[segment.channel]
            inside = np.asarray(channel >= 128 if mask.fractional else channel == segment.value)
            names.append(f"{mask.name}/{segment.name}")
            counts.append(int(np.count_nonzero(inside)))
            inside_any = inside if inside_any is None else np.logical_or(inside_any, inside, out=inside_any)
            categories.append(_code(segment.category))
            types.append(_code(segment.type))
    row: dict[str, Scalar] = {
        **case.row,
        "sample_key": f"{case.case_key}-{number:04d}",
        "case_key": case.case_key,
        "domain": case.volume.domain.value,
        "start_slice": start[0],
        "start_row": start[1],
        "start_column": start[2],
        "centred_on": centred_on,
        "pad_voxels": _outside(start, shape, whole=case.volume.geometry.shape),
        "foreground_voxels": 0 if inside_any is None else int(np.count_nonzero(inside_any)),
    }
    geometry = case.volume.geometry.box(start, shape)
    ragged: dict[str, list[Any]] = {
        "segment_names": names,
        "segment_voxels": counts,
        "segment_categories": categories,
        "segment_types": types,
        **_annotations(case, geometry),
    }
    return Sample(arrays, geometry, row, ragged)


def _overlap(start: Three, shape: Three, *, whole: Three) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a box meets the volume: slices into the box, slices into the volume."""
    bounds = [(max(-a, 0), max(min(n - a, p), 0)) for a, p, n in zip(start, shape, whole, strict=True)]
    here = tuple(slice(low, max(high, low)) for low, high in bounds)
    there = tuple(slice(a + h.start, a + h.stop) for a, h in zip(start, here, strict=True))
    return here, there


def _outside(start: Three, shape: Three, *, whole: Three) -> int:
    here, _ = _overlap(start, shape, whole=whole)
    return int(np.prod(shape)) - int(np.prod([h.stop - h.start for h in here]))


def _crop(voxels: NDArray[Any], start: Three, *, shape: Three, fills: Sequence[int]) -> NDArray[Any]:
    if start == (0, 0, 0) and voxels.shape[1:] == shape:
        return voxels
    here, there = _overlap(start, shape, whole=voxels.shape[1:])
    box = np.empty((voxels.shape[0], *shape), voxels.dtype)
    for channel, fill in zip(box, fills, strict=True):
        channel[...] = held_by(voxels.dtype, fill)
    box[(slice(None), *here)] = voxels[(slice(None), *there)]
    return box


def held_by(dtype: np.dtype[Any], value: int) -> int:
    """Return the number nearest to ``value`` that a type holds."""
    if dtype.kind not in "iu":
        return value
    limits = np.iinfo(dtype)
    return min(max(value, int(limits.min)), int(limits.max))


def _annotations(case: Case, geometry: Geometry) -> dict[str, list[Any]]:
    """Annotations that are no masks as lists, by the columns of ``builder.model.samples``."""
    found: dict[str, list[Any]] = {}

    def extend(**columns: list[Any]) -> None:
        for column, values in columns.items():
            found.setdefault(column, []).extend(values)

    for note in case.annotations:
        if isinstance(note, Boxes):
            kept, boxes = _boxes_in(note, geometry)
            classes = [note.classes[i] for i in kept]
            extend(box_names=[note.name] * len(kept), box_classes=classes, boxes=boxes)
        elif isinstance(note, Landmarks):
            kept, points = _points_in(note, geometry)
            groups = [note.groups[i] for i in kept] if note.groups else [""] * len(kept)
            classes = [note.classes[i] for i in kept]
            names = [note.name] * len(kept)
            extend(landmark_names=names, landmark_classes=classes, landmark_groups=groups, landmarks=points)
        elif isinstance(note, Measurements):
            extend(
                measurement_names=[note.name] * len(note.items),
                measurement_quantities=[_quantity(item) for item in note.items],
                measurement_values=[item.value for item in note.items],
                measurement_units=[item.unit for item in note.items],
                measurement_concepts=[_code(item.concept) for item in note.items],
                measurement_findings=[_code(item.finding) for item in note.items],
                measurement_sites=[_code(item.site) for item in note.items],
                measurement_tracking=[item.tracking_id for item in note.items],
            )
        elif isinstance(note, Classes):
            extend(
                class_names=[f"{note.name}/{finding}" for finding in sorted(note.values)],
                class_values=[_text(note.values[finding]) for finding in sorted(note.values)],
            )
        elif isinstance(note, Text):
            extend(text_names=[note.name], texts=[note.text])
    return found


def _boxes_in(note: Boxes, geometry: Geometry) -> tuple[list[int], list[float]]:
    """Numbers of the boxes that meet the sample, and their first and last voxel coordinates in it."""
    kept, flat = [], []
    end = np.asarray(geometry.shape) - 0.5
    for number, corners in enumerate(note.corners_mm):
        voxels = geometry.to_voxel(corners)
        first, last = voxels.min(axis=0), voxels.max(axis=0)
        if (first < end).all() and (last >= -0.5).all():
            kept.append(number)
            flat += [float(x) for x in np.round(np.concatenate([first, last]), DIGITS)]
    return kept, flat


def _points_in(note: Landmarks, geometry: Geometry) -> tuple[list[int], list[float]]:
    """Numbers of the landmarks inside the sample, and their voxel coordinates in it."""
    voxels = geometry.to_voxel(note.points_mm)
    inside = ((voxels >= -0.5) & (voxels < np.asarray(geometry.shape) - 0.5)).all(axis=1)
    kept = [int(i) for i in np.flatnonzero(inside)]
    return kept, [float(x) for x in np.round(voxels[kept], DIGITS).ravel()]


def _quantity(item: Measurement) -> str:
    """The codes of a quantity and of how it was derived, marked for the privacy gate, which puts our words for them."""
    if item.concept is None:
        return item.quantity
    return "".join(f"{CODED}{code}" for code in (item.concept, item.derivation) if code is not None)


def _code(code: Code | None) -> str | None:
    return None if code is None else str(code)


def _text(value: Scalar) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)
