"""Put the images of a case onto the grid of its reference, one at a time, as channels of one array."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builder.cohort import bare_image
from builder.errors import CaseError, Reason
from builder.imaging.alignment import better_when_shifted, coarse_levels
from builder.model.case import Annotation, Boxes, Case, Landmarks, Mask, Reading, Slabs, ValueDomain, Volume
from builder.model.geometry import Geometry
from builder.patches import held_by, pad_value
from builder.plan import CasePlan, ImagePlan
from builder.protocols import Registered
from builder.registrars import AnyRegistrar
from builder.spec import DatasetSpec
from builder.stages.late import side_by_side
from builder.transforms import AnyTransform, Crop, Intensity, Resample, steps_for

MISALIGNED = "misaligned"
"""The finding on an image that matches the reference better when it is shifted."""


REGISTERED = "registered"
"""The note on an image that a registration placed."""


@dataclass(frozen=True, eq=False)
class _Home:
    """Where the reference of a visit lies: the grid that its scanner gave it, and how a registrar moved that.

    ``masks`` are those on this grid that steps on other images look at.
    """

    native: Geometry
    move: NDArray[np.float64] | None = None
    masks: tuple[Mask, ...] = ()


@dataclass(frozen=True, eq=False)
class Reference:
    """The reference of a case after all transforms, its grid before them, and its image if that is still to be made.

    The grid of the case becomes that of every image, and its padding, which decides where patches may lie, stays.
    ``masks`` lie on the grid before the transforms (``masks_to_keep``), and ``late`` names what is made while it is
    written where the reference is.
    """

    case: Case
    native: Geometry
    image: Slabs | None = None
    masks: tuple[Mask, ...] = ()
    late: Collection[str] = ()


Voxels: TypeAlias = NDArray[Any] | Slabs


@dataclass(eq=False)
class _Room:
    """Where the channels of all images go: one array, or None where they are joined only while they are written."""

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    array: NDArray[Any] | None
    _taken: int = 0

    def put(self, voxels: Voxels, channels: int, name: str) -> Voxels:
        """Return the channels of the next image where they stay. Raises CaseError if they do not fit the others."""
        shape = (channels, *self.shape[1:])
        if voxels.shape != shape or voxels.dtype != self.dtype:
            raise CaseError(
                Reason.INCONSISTENT_PIXELS,
                f"image {name}: found {voxels.dtype} {voxels.shape}, expected {self.dtype} {shape} as the reference: "
                "add {kind: intensity, dtype: float32} to transforms",
            )
        if self.array is None or isinstance(voxels, Slabs):
            return voxels
        place = self.array[self._taken : self._taken + channels]
        self._taken += channels
        place[...] = voxels
        return place


@dataclass(frozen=True, eq=False)
class _Channels:
    """What one image gives to a case."""

    voxels: Voxels
    names: tuple[str, ...]
    domain: ValueDomain
    notes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


def join_images(
    make: Callable[[], Reference], plan: CasePlan, spec: DatasetSpec, load: Callable[[ImagePlan], Case]
) -> tuple[Case, Slabs | None]:
    """Return the case with its other images as further channels, and with the labels that are drawn on them.

    If the reference is still to be made, so are the channels: they are given apart, and the case holds a placeholder.

    Parameters
    ----------
    make
        Makes the reference, to which nobody else may keep a reference, so that its voxels are freed.
    load
        Reads one of the other images with its labels, on its own grid. Each is released before the next is read, or
        held as it is if that is to be sampled while it is written (``late_images``).

    Raises
    ------
    CaseError
        IMAGE_NOT_ALIGNED if an image does not lie as the spec says, INCONSISTENT_PIXELS if it does not fit the array,
        or what ``load`` raises.
    """
    found = make()
    case, image, native, masks, late = found.case, found.image, found.native, found.masks, found.late
    volume = case.volume
    shape = (len(volume.channels) + sum(p.channels for p in plan.partners), *volume.geometry.shape)
    room = _Room(shape, volume.voxels.dtype, np.empty(shape, volume.voxels.dtype) if image is None else None)
    own = room.put(volume.voxels if image is None else image, len(volume.channels), plan.image)
    parts = {plan.image: _Channels(own, volume.channels, volume.domain, volume.notes, volume.findings)}
    case = case if isinstance(own, Slabs) else replace(case, volume=replace(volume, voxels=own))
    del found, volume
    levels = coarse_levels(own)
    annotations, readings = list(case.annotations), dict(case.readings)
    homes = {_visit_of(plan.image): _Home(native, masks=masks)}
    for partner in plan.partners:
        if not partner.stack_key:
            parts[partner.name] = _absent(partner, room, spec)
            continue
        other, made = _placed(load(partner), case, homes, partner, spec, late if image is not None else ())
        voxels = room.put(made or other.volume.voxels, partner.channels, partner.name)
        parts[partner.name] = _taken(other.volume, voxels, partner.name, reference=levels)
        annotations += other.annotations
        readings |= other.readings
        del other, made, voxels
    return _joined(case, room, parts, spec, annotations, readings)


def _placed(
    case: Case,
    reference: Case,
    homes: dict[str, _Home],
    partner: ImagePlan,
    spec: DatasetSpec,
    late: Collection[str],
) -> tuple[Case, Slabs | None]:
    """Return an image on the reference's final grid: sampled once, with steps before that on its own grid.

    ``homes`` holds the reference of each visit. That of a later visit, which comes before its other images, is added.
    The voxels of an image in ``late`` are given apart, still to be made, and the case holds a placeholder.
    """
    visit, given, grid = _visit_of(partner.name), case.volume.geometry, reference.volume.geometry
    frame = next(iter(homes.values())).native.frame_of_reference
    registrar = spec.cohort.members[partner.name].registrar
    move = None
    if registrar is not None:
        found = _found(registrar, reference.volume, case.volume, partner.name)
        move = np.reshape(found.matrix, (4, 4))
        case = _moved(case, move, frame, notes=_notes_of(registrar, found))
    elif partner.matrix or (visit in homes and homes[visit].move is not None):
        own = np.reshape(partner.matrix, (4, 4)) if partner.matrix else np.eye(4)
        first = homes[visit].move if visit in homes else None
        case = _moved(case, own if first is None else first @ own, frame, notes=(REGISTERED,))
    _check_aligned(given, case.volume.geometry, homes, partner.name, spec)
    homes.setdefault(visit, _Home(given, move))
    before, sampler, after = part_steps(spec.transforms, partner.name)
    for step in before:
        case = _valued(case, step, next(iter(homes.values())).masks)
    if partner.name in late and (made := sampler.in_slabs(case, grid)) is not None:
        return made
    fill = held_by(case.volume.voxels.dtype, pad_value(case.volume.domain))
    case = sampler.onto(case, grid, fill=fill)
    for step in after:
        case = _valued(case, step, reference.masks)
    return case, None


def _valued(case: Case, step: AnyTransform, masks: Sequence[Mask]) -> Case:
    """Apply an intensity step to an image; its statistics may be taken inside the reference's masks on this grid."""
    done = step(replace(case, annotations=(*case.annotations, *masks)))
    return replace(done, annotations=case.annotations)


def _visit_of(name: str) -> str:
    """Return the visit of an image; "" where cases have no visits."""
    return name.rpartition(".")[0]


def _found(registrar: AnyRegistrar, fixed: Volume, moving: Volume, name: str) -> Registered:
    try:
        return registrar(fixed, moving)
    except CaseError as error:
        raise CaseError(error.reason, f"image {name}: {error.detail}") from error


def _notes_of(registrar: AnyRegistrar, found: Registered) -> tuple[str, ...]:
    """Return notes that say how far a registrar moved an image."""
    return (
        f"{REGISTERED}={registrar.kind}",
        f"{REGISTERED}_mm={found.shift_mm:.4g}",
        f"{REGISTERED}_degrees={found.degrees:.4g}",
        f"{REGISTERED}_gain={found.gain:.4g}",
    )


def _moved(case: Case, matrix: NDArray[np.float64], frame: str | None, *, notes: tuple[str, ...]) -> Case:
    """Return an image and the labels on it where a registration places them, in the reference's frame."""

    def placed(grid: Geometry) -> Geometry:
        return Geometry(grid.shape, matrix @ grid.affine, frame)

    def points(found: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(found @ matrix[:3, :3].T + matrix[:3, 3])

    annotations: list[Annotation] = []
    for note in case.annotations:
        if isinstance(note, Mask):
            note = replace(note, geometry=placed(note.geometry))
        elif isinstance(note, Boxes):
            note = replace(note, corners_mm=points(note.corners_mm))
        elif isinstance(note, Landmarks):
            note = replace(note, points_mm=points(note.points_mm))
        annotations.append(note)
    notes = tuple(sorted({*case.volume.notes, *notes}))
    volume = replace(case.volume, geometry=placed(case.volume.geometry), notes=notes)
    return replace(case, volume=volume, annotations=tuple(annotations))


def part_steps(
    transforms: Sequence[AnyTransform], image: str
) -> tuple[tuple[AnyTransform, ...], Resample, tuple[AnyTransform, ...]]:
    """Return the intensity steps of an image before it is sampled, how it is sampled, and the steps after that.

    It is sampled where the spec first crops or resamples, or after all steps where it does neither. The steps that
    change grids are those of the reference, whose last grid is given.
    """
    steps = steps_for(transforms, image)
    sampler = next((s for s in steps if isinstance(s, Resample)), Resample(kind="resample", spacing_mm=(None,) * 3))
    first = next((i for i, s in enumerate(steps) if isinstance(s, Crop | Resample)), len(steps))
    values = [(i, s) for i, s in enumerate(steps) if isinstance(s, Intensity)]
    return tuple(s for i, s in values if i < first), sampler, tuple(s for i, s in values if i > first)


def masks_to_keep(case: Case, spec: DatasetSpec) -> tuple[Mask, ...]:
    """Return the masks of a decoded reference that steps before the sampling of another image look at."""
    steps = [step for name in spec.cohort.partners for step in part_steps(spec.transforms, name)[0]]
    names = {step.inside_mask for step in steps if isinstance(step, Intensity)}
    return tuple(mask for mask in case.masks if mask.name in names)


def _check_aligned(given: Geometry, placed: Geometry, homes: Mapping[str, _Home], name: str, spec: DatasetSpec) -> None:
    """Check what the spec says about an image: of the reference of its visit, and of a later one of the first visit's.

    ``given`` is the image's grid as its scanner gave it, ``placed`` that grid after a registration.
    """
    visit = _visit_of(name)
    if visit in homes:
        aligned, home = spec.cohort.images[bare_image(name)].aligned, homes[visit].native
    else:
        aligned, home = spec.cohort.members[name].aligned, next(iter(homes.values())).native
    first = next(iter(homes.values())).native
    found, expected = (placed, first) if aligned == "registration" else (given, home)
    if aligned in ("frame", "registration") and found.frame_of_reference != expected.frame_of_reference:
        raise CaseError(
            Reason.IMAGE_NOT_ALIGNED, f"image {name}: found another frame of reference, expected the reference's"
        )
    if aligned == "grid" and not given.same_grid(home):
        raise CaseError(
            Reason.IMAGE_NOT_ALIGNED,
            f"image {name}: found a grid of {given.shape} voxels that is not the reference's {home.shape}, "
            "expected one affine and shape (aligned: grid)",
        )


def _absent(partner: ImagePlan, room: _Room, spec: DatasetSpec) -> _Channels:
    """Fill the channel of an image that the case lacks."""
    scaled = any(isinstance(s, Intensity) and s.scales for s in steps_for(spec.transforms, partner.name))
    domain = ValueDomain.HOUNSFIELD if partner.is_ct and not scaled else ValueDomain.ARBITRARY
    fill = np.asarray(held_by(room.dtype, pad_value(domain)), room.dtype)
    filled = np.broadcast_to(fill, (partner.channels, *room.shape[1:]))
    return _Channels(room.put(filled, partner.channels, partner.name), (partner.name,), domain)


def _taken(volume: Volume, voxels: Voxels, name: str, *, reference: NDArray[np.int64]) -> _Channels:
    """Check that an image matches the reference best where it lies, whose ``coarse_levels`` are given."""
    better = better_when_shifted(reference, coarse_levels(voxels), volume.geometry)
    findings = [f"{name}/{finding}" for finding in volume.findings]
    findings += [] if better is None else [f"{name}/{MISALIGNED}={better:.5g}"]
    notes = tuple(note if note.startswith("intensity") else f"{name}/{note}" for note in volume.notes)
    return _Channels(voxels, volume.channels, volume.domain, notes, tuple(findings))


def _joined(
    case: Case,
    room: _Room,
    parts: Mapping[str, _Channels],
    spec: DatasetSpec,
    annotations: Sequence[Annotation],
    readings: Mapping[str, tuple[Reading, ...]],
) -> tuple[Case, Slabs | None]:
    """Return the case with its channels in the order of the spec, and its annotations in that of its labels."""
    order = next(order for order in spec.image_fields.values() if next(iter(parts)) in order)
    held = [parts[name].voxels for name in order]
    image = side_by_side(held) if room.array is None else None
    voxels = room.array if image is None else image.stand_in
    if image is None and tuple(parts) != order:
        voxels = np.concatenate([part for part in held if not isinstance(part, Slabs)])
    assert voxels is not None
    domains = tuple(parts[name].domain for name in order for _ in parts[name].names)
    volume = replace(
        case.volume,
        voxels=voxels,
        channels=tuple(channel for name in order for channel in parts[name].names),
        domain=domains[0] if len(set(domains)) == 1 else ValueDomain.MIXED,
        domains=domains,
        notes=tuple(note for part in parts.values() for note in part.notes),
        findings=tuple(finding for part in parts.values() for finding in part.findings),
    )
    labels = [*spec.labels, *spec.consensus]
    ordered = sorted(annotations, key=lambda a: labels.index(a.name.partition("/")[0]))
    return replace(case, volume=volume, annotations=tuple(ordered), readings=readings), image


def with_apart(case: Case, plan: CasePlan, spec: DatasetSpec, make: Callable[[CasePlan], Case]) -> Case:
    """Return the case with its images that keep a grid of their own, as ``make`` gives them with their partners."""
    leads = {p.name: p for p in plan.partners if p.grid == p.name}
    apart = {}
    for field, images in spec.image_fields.items():
        lead = next((leads[name] for name in images if name in leads), None)
        if lead is not None:
            apart[field] = make(plan.of(lead))
    return replace(case, apart=apart)


def load_each(plan: CasePlan) -> Iterator[CasePlan]:
    """Yield the plan of every image that a case has, the reference first."""
    yield plan
    yield from (plan.of(partner) for partner in plan.partners if partner.stack_key)
