"""Cut a case into samples, and say beforehand how many there will be and what fields they have."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.model.case import Case, Mask, Sample, Scalar, ValueDomain
from builder.model.keyed import Key
from builder.patches.annotations import annotation_lists, code_text
from builder.patches.options import AnySamples, Grid, Images, Patches, Three, Whole

SHARES = "1/255"
"""Unit of a mask that holds shares: 255 is wholly inside."""

AIR_HU = -1024
"""What fills a sample beyond the scanned volume in HU: the lowest value of a 12-bit CT; 0 in every other domain."""


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
    """Yield the samples of a case, in an order that depends on nothing but the arguments.

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
    """Return an upper bound of a case's samples, from the shape of its volume after all transforms.

    ``bytes_per_voxel`` counts all fields and channels.
    """
    if isinstance(options, Whole | Images):
        return Estimate(1, shape[0] * shape[1] * shape[2] * bytes_per_voxel)
    samples = options.per_case if isinstance(options, Patches) else sum(1 for _ in _tile(shape, options))
    patch = options.shape[0] * options.shape[1] * options.shape[2]
    return Estimate(samples, samples * patch * bytes_per_voxel)


def describe_fields(case: Case, *, image: str = "image") -> dict[str, FieldFacts]:
    """Return unit, segments and grid of the fields that ``cut`` gives, by field name."""
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


def _check_grids(case: Case) -> None:
    names = ["image", *(field_name(mask) for mask in case.masks)]
    if len(set(names)) != len(names):
        raise ValueError(f"case: found the fields {names}, expected each name once")
    for mask in case.masks:
        if mask.voxels.shape[1:] != case.volume.voxels.shape[1:]:
            found, expected = mask.voxels.shape[1:], case.volume.voxels.shape[1:]
            raise ValueError(f"mask {mask.name}: found the shape {found}, expected the image's {expected}")


def _draw(case: Case, options: Patches, *, key: Key, seed: int) -> Iterator[tuple[Three, str]]:
    """Yield the starts of random patches, those in the label first."""
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
        """Return (slice, row, column) of the voxel ``number`` in C order."""
        s = int(np.searchsorted(self._ends, number, side="right"))
        before = int(self._ends[s - 1]) if s else 0
        flat = int(np.flatnonzero(self._inside[s])[number - before])
        row, column = divmod(flat, self._inside.shape[2])
        return (s, row, column)


def _lacks(case: Case, label: str) -> bool:
    """Return whether a case was planned without this label, so that nothing is known to be outside of it."""
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
            categories.append(code_text(segment.category))
            types.append(code_text(segment.type))
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
        **annotation_lists(case, geometry),
    }
    return Sample(arrays, geometry, row, ragged)


def _overlap(start: Three, shape: Three, *, whole: Three) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where a box meets the volume: slices into the box, slices into the volume."""
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
