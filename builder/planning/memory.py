"""Project how much memory a case needs, from headers and the spec, before any pixel is read.

The projection adds up what exists at the same time, step by step: first the decoded volume with its padding mask and
label masks, then for every transform its input, output and scratch, and finally the samples on their way to disk.
``benchmarks/memory.py`` compares it with measurements.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from builder.imaging.stacks.spacing import Verdict
from builder.patches import AnySamples, Images, Whole, shard_chunk
from builder.plan import image_role
from builder.planning.rows import IncludedStack
from builder.shards import MOST_WAITING, MOST_WAITING_BYTES, SLAB_BYTES
from builder.spec import DatasetSpec
from builder.stages.late import grows, late_images, late_resample
from builder.transforms import AnyTransform, Resample, steps_for

BESIDES = 2 << 20
"""Bytes of headers, tables and buffers, which do not grow with the volume."""

PADDING_SHARE = 0.4
"""Share of a byte per voxel to count when a padding value is stated. Headers do not say whether any voxel has that
value and needs a mask, so the projection may be off by up to a fifth in either direction."""

LABEL_SCRATCH = 2
"""Bytes per voxel of the image while one structure is drawn or moved."""

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Needed:
    """Bytes needed: ``peak`` from the first byte read to the last sample written, ``load`` until it is decoded."""

    peak: int
    load: int


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """Bytes of files: those that are held whole until a case is decoded, those whose pixels are read in place, and the
    largest of the latter.
    """

    whole: int
    direct: int
    largest: int

    def __add__(self, other: "StoredBytes") -> "StoredBytes":
        return StoredBytes(self.whole + other.whole, self.direct + other.direct, max(self.largest, other.largest))


Stored: TypeAlias = Mapping[str, StoredBytes]


def project_memory(
    spec: DatasetSpec, images: Mapping[str, IncludedStack], stored: Stored, *, labels_on: Mapping[str, str]
) -> Needed:
    """Project the memory of one case.

    Parameters
    ----------
    images
        The stack of each image by name, the reference first, with the bytes of its voxels and of its assembly. "" names
        the only image.
    stored
        By role, the bytes of what is fetched for the case.
    labels_on
        Maps each label with objects to its image, where cases have several images.
    """
    if spec.cohort.images:
        return _of_grids(spec, images, stored, labels_on)
    (row,) = images.values()
    shape, spacing = row.shape, row.spacing_mm
    masks = sum(label.mask_channels for label in spec.labels.values()) + len(spec.consensus)
    held = _Held(max(1, row.channels or 1), row.voxel_bytes, masks)
    unsure = int((1 - PADDING_SHARE) * held.padded * math.prod(shape))
    load = row.peak_bytes - unsure + _fetched(stored) + BESIDES
    if spec.labels:
        load = max(load, held.of(shape) + LABEL_SCRATCH * math.prod(shape) + _fetched(stored) + BESIDES)
    peak, slabs = load, _makes_slabs(spec, row)
    for number, transform in enumerate(spec.transforms, start=1):
        if spacing is None:
            break
        after, spacing = transform.projected(shape, spacing)
        if slabs and number == len(spec.transforms):
            return Needed(peak=max(peak, _late(spec, held, shape, after) + BESIDES), load=load)
        then = held.after(transform)
        alive = held.of(shape) + then.of(after) + transform.scratch_bytes(shape, after, item=held.item)
        peak = max(peak, alive + BESIDES)
        shape, held = after, then
    written = held.of(shape) + _waiting(spec.samples, held, shape)
    return Needed(peak=max(peak, written + BESIDES), load=load)


def _of_grids(
    spec: DatasetSpec, images: Mapping[str, IncludedStack], stored: Stored, labels: Mapping[str, str]
) -> Needed:
    """Project the memory of a case whose images lie on one or several grids, which are made one after the other."""
    peak = load = before = 0
    for number, names in enumerate(spec.cohort.grids.values()):
        own = {name: images[name] for name in names if name in images}
        needed, kept = _of_set(spec, own, stored, labels, absent=len(names) - len(own))
        peak, before = max(peak, before + needed.peak), before + kept
        load = load if number else needed.load
    return Needed(peak=peak, load=load)


def _of_set(
    spec: DatasetSpec,
    images: Mapping[str, IncludedStack],
    stored: Stored,
    labels: Mapping[str, str],
    *,
    absent: int,
) -> tuple[Needed, int]:
    """Project the memory of images on one grid, decoded and sampled one at a time, and the bytes that are then held."""
    (reference, row), *others = images.items()
    masks = sum(label.mask_channels for label in spec.labels.values()) + len(spec.consensus)
    own = _stored_of(stored, reference, labels)
    last = spec.transforms[-1] if _makes_slabs(spec, row) and late_images(spec.cohort, spec.transforms) else None
    if isinstance(last, Resample) and row.spacing_mm is not None and grows(last, row.shape, row.spacing_mm):
        return _of_late_set(spec, images, stored, labels, masks)
    load, peak, held, shape = _steps(spec.transforms, reference, row, own, masks)
    channels = sum(max(1, other.channels or 1) for other in images.values())
    channels += absent
    joined = _Held(channels, held.voxel_bytes, masks)
    peak = max(peak, held.of(shape) + joined.of(shape))
    for name, other in others:
        partner = _Held(max(1, other.channels or 1), other.voxel_bytes, masks)
        before = other.shape
        alone = other.peak_bytes + _fetched(_stored_of(stored, name, labels))
        floats = _Held(partner.channels, held.voxel_bytes, masks)
        sampled = max(partner.of(before), floats.of(before)) + 2 * floats.of(shape)
        registrar = spec.cohort.members[name].registrar
        if registrar is not None:
            sampled = max(sampled, partner.of(before) + registrar.scratch_bytes(shape, before))
        peak = max(peak, joined.of(shape) + max(alone, sampled) + BESIDES)
    written = joined.of(shape) + _waiting(spec.samples, joined, shape)
    return Needed(peak=max(peak, written + BESIDES), load=load), joined.of(shape)


def _of_late_set(
    spec: DatasetSpec, images: Mapping[str, IncludedStack], stored: Stored, labels: Mapping[str, str], masks: int
) -> tuple[Needed, int]:
    """Project the memory of images that are joined while they are written, and the bytes that are then held.

    An image that is still to be made stays on its own grid; the others are sampled first.
    """
    (reference, row), *others = images.items()
    late, samples = late_images(spec.cohort, spec.transforms), spec.samples
    load, peak, held, shape = _steps(spec.transforms[:-1], reference, row, _stored_of(stored, reference, labels), masks)
    grid, joined = _grid_of(spec, row), _Held(sum(max(1, i.channels or 1) for i in images.values()), held.item, masks)
    kept = held.values(shape) + masks * math.prod(grid)
    peak = max(peak, held.of(shape) + masks * math.prod(grid) + BESIDES)
    for name, other in others:
        decoded = _Held(max(1, other.channels or 1), other.voxel_bytes, masks)
        changed = _Held(decoded.channels, held.voxel_bytes, masks)
        alone = other.peak_bytes + _fetched(_stored_of(stored, name, labels))
        made = max(decoded.of(other.shape), changed.of(other.shape)) + masks * math.prod(grid)
        if name in late:
            stays = changed.values(other.shape)
        else:
            stays = changed.values(grid)
            made += stays
        peak = max(peak, kept + max(alone, made) + BESIDES)
        kept += stays
    chunk = shard_chunk(samples, spec.shards.codec) or grid
    slab = max(SLAB_BYTES, joined.channels * joined.item * chunk[0] * chunk[1] * grid[2])
    return Needed(peak=max(peak, kept + max(_counting(joined, grid), 2 * slab) + BESIDES), load=load), kept


def _grid_of(spec: DatasetSpec, row: IncludedStack) -> Shape:
    """Return the shape after all transforms."""
    shape, spacing = row.shape, row.spacing_mm
    for transform in spec.transforms:
        if spacing is not None:
            shape, spacing = transform.projected(shape, spacing)
    return shape


def _steps(
    transforms: Sequence[AnyTransform], name: str, row: IncludedStack, stored: Stored, masks: int
) -> "tuple[int, int, _Held, Shape]":
    """Return the bytes until the reference is decoded and until its last transform, and what is held on which grid."""
    shape, spacing = row.shape, row.spacing_mm
    held = _Held(max(1, row.channels or 1), row.voxel_bytes, masks)
    load = row.peak_bytes + _fetched(stored) + BESIDES
    peak = max(load, held.of(shape) + LABEL_SCRATCH * math.prod(shape) + _fetched(stored) + BESIDES)
    for transform in steps_for(transforms, name):
        if spacing is None:
            break
        after, spacing = transform.projected(shape, spacing)
        then = held.after(transform)
        alive = held.of(shape) + then.of(after) + transform.scratch_bytes(shape, after, item=held.item)
        peak = max(peak, alive + BESIDES)
        shape, held = after, then
    return load, peak, held, shape


def _stored_of(stored: Stored, name: str, labels: Mapping[str, str]) -> Stored:
    """Return the bytes of one image of a case and of the labels that are drawn on it."""
    return {role: of for role, of in stored.items() if role == image_role(name) or labels.get(role) == name}


def _makes_slabs(spec: DatasetSpec, row: IncludedStack) -> bool:
    """Return whether the resampled image of a case, or its reference, will be made while it is written."""
    last = late_resample(spec.transforms, spec.samples, spec.shards.fields.get("image"))
    return last is not None and last.axes == "image" and row.verdict != Verdict.SHEARED


def _late(spec: DatasetSpec, held: "_Held", before: Shape, after: Shape) -> int:
    """Return the bytes needed while masks are moved, counted and written beside an image made slab by slab."""
    chunk = shard_chunk(spec.samples, spec.shards.codec) or after
    a_voxel, masks = held.channels * held.item, held.masks * math.prod(after)
    image = a_voxel * math.prod(before)
    counted = _counting(held, after)
    written = max(SLAB_BYTES, a_voxel * chunk[0] * chunk[1] * after[2])
    return max(held.of(before) + masks, image + masks + max(counted, written))


@dataclass(frozen=True)
class _Held:
    """What a case holds: image channels, bytes per voxel of one channel with its padding mask, and mask channels."""

    channels: int
    voxel_bytes: int
    masks: int

    @property
    def padded(self) -> int:
        """1 if a padding mask is held: types take 1, 2 or 4 bytes, so an odd sum includes a mask."""
        return int(self.voxel_bytes in (3, 5))

    @property
    def item(self) -> int:
        """Bytes of one value."""
        return self.voxel_bytes - self.padded

    def of(self, shape: Shape) -> int:
        """Return the bytes held on a grid."""
        per_voxel = self.channels * self.item + PADDING_SHARE * self.padded + self.masks
        return int(math.prod(shape) * per_voxel)

    def values(self, shape: Shape) -> int:
        """Return the bytes of the image alone."""
        return self.channels * self.item * math.prod(shape)

    def after(self, transform: AnyTransform) -> "_Held":
        """Return what is held after a transform."""
        return _Held(self.channels, transform.item_bytes(self.item) + self.padded, self.masks)


def _waiting(samples: AnySamples, held: _Held, shape: Shape) -> int:
    """Return the bytes of samples that are cut and not yet written; a whole volume is written without a copy."""
    if isinstance(samples, Whole | Images):
        return _counting(held, shape)
    sample = held.of(samples.shape)
    return sample + min(MOST_WAITING_BYTES, sample * MOST_WAITING)


def _counting(held: _Held, shape: Shape) -> int:
    """Return the bytes of two masks of a byte per voxel: inside one segment, and inside any of several."""
    return min(2, held.masks) * math.prod(shape)


def _fetched(stored: Stored) -> int:
    """Return the bytes of files held until the case is decoded: all except native images, which are read in place."""
    return sum(of.whole for of in stored.values()) + max((of.largest for of in stored.values()), default=0)
