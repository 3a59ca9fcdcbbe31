"""Put the images of a case onto the grid of its reference, one at a time, as channels of one array."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.cohort import bare_image
from builder.errors import CaseError, Reason
from builder.imaging.alignment import better_when_shifted, coarse_levels
from builder.model.case import Annotation, Boxes, Case, Landmarks, Mask, Reading, ValueDomain, Volume
from builder.model.geometry import Geometry
from builder.patches import held_by, pad_value
from builder.plan import CasePlan, ImagePlan
from builder.protocols import Registered
from builder.registrars import AnyRegistrar
from builder.spec import DatasetSpec
from builder.transforms import AnyTransform, Crop, Intensity, Resample, steps_for

MISALIGNED = "misaligned"
"""The finding on an image that matches the reference better when it is shifted."""


REGISTERED = "registered"
"""The note on an image that a registration placed."""


@dataclass(frozen=True, eq=False)
class _Home:
    """Where the reference of a visit lies: the grid that its scanner gave it, and how a registrar moved that."""

    native: Geometry
    move: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class _Channels:
    """What one image gives to a case."""

    voxels: NDArray[Any]
    names: tuple[str, ...]
    domain: ValueDomain
    notes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


def join_images(
    case: Case, native: Geometry, plan: CasePlan, spec: DatasetSpec, load: Callable[[ImagePlan], Case]
) -> Case:
    """Return the case with its other images as further channels, and with the labels that are drawn on them.

    Parameters
    ----------
    case
        The case of the reference after all transforms. Its grid becomes that of every image, and its padding, which
        decides where patches may lie, stays as it is.
    native
        The grid of the reference before transforms.
    load
        Reads one of the other images with its labels, on its own grid. Each is released before the next is read.

    Raises
    ------
    CaseError
        IMAGE_NOT_ALIGNED if an image does not lie as the spec says, INCONSISTENT_PIXELS if it does not fit the array,
        or what ``load`` raises.
    """
    volume = case.volume
    own = len(volume.channels)
    voxels = np.empty((own + sum(p.channels for p in plan.partners), *volume.geometry.shape), volume.voxels.dtype)
    voxels[:own] = volume.voxels
    parts = {plan.image: _Channels(voxels[:own], volume.channels, volume.domain, volume.notes, volume.findings)}
    case = replace(case, volume=replace(volume, voxels=voxels[:own]))
    del volume
    levels = coarse_levels(voxels[0])
    annotations, readings, at = list(case.annotations), dict(case.readings), own
    homes = {_visit_of(plan.image): _Home(native)}
    for partner in plan.partners:
        place, at = voxels[at : at + partner.channels], at + partner.channels
        if not partner.stack_key:
            parts[partner.name] = _absent(partner, place, spec)
            continue
        found = _placed(load(partner), case.volume, homes, partner, spec)
        parts[partner.name] = _taken(found.volume, place, partner.name, reference=levels)
        annotations += found.annotations
        readings |= found.readings
        del found
    return _joined(case, voxels, parts, spec, annotations, readings)


def _placed(case: Case, reference: Volume, homes: dict[str, _Home], partner: ImagePlan, spec: DatasetSpec) -> Case:
    """Return an image on the reference's final grid: sampled once, with steps before that on its own grid.

    ``homes`` holds the reference of each visit. That of a later visit, which comes before its other images, is added.
    """
    visit, given = _visit_of(partner.name), case.volume.geometry
    frame = next(iter(homes.values())).native.frame_of_reference
    registrar = spec.cohort.members[partner.name].registrar
    move = None
    if registrar is not None:
        found = _found(registrar, reference, case.volume, partner.name)
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
        case = step(case)
    fill = held_by(case.volume.voxels.dtype, pad_value(case.volume.domain))
    case = sampler.onto(case, reference.geometry, fill=fill)
    for step in after:
        case = step(case)
    return case


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


def _absent(partner: ImagePlan, place: NDArray[Any], spec: DatasetSpec) -> _Channels:
    """Fill the channel of an image that the case lacks."""
    scaled = any(isinstance(s, Intensity) and s.scales for s in steps_for(spec.transforms, partner.name))
    domain = ValueDomain.HOUNSFIELD if partner.is_ct and not scaled else ValueDomain.ARBITRARY
    place[...] = held_by(place.dtype, pad_value(domain))
    return _Channels(place, (partner.name,), domain)


def _taken(volume: Volume, place: NDArray[Any], name: str, *, reference: NDArray[np.int64]) -> _Channels:
    """Copy an image into its channels, and check that it matches the reference best where it lies.

    ``reference`` are the reference's ``coarse_levels``.
    """
    if volume.voxels.shape != place.shape or volume.voxels.dtype != place.dtype:
        raise CaseError(
            Reason.INCONSISTENT_PIXELS,
            f"image {name}: found {volume.voxels.dtype} {volume.voxels.shape}, expected {place.dtype} {place.shape} as "
            "the reference: add {kind: intensity, dtype: float32} to transforms",
        )
    place[...] = volume.voxels
    better = better_when_shifted(reference, coarse_levels(place[0]), volume.geometry)
    findings = [f"{name}/{finding}" for finding in volume.findings]
    findings += [] if better is None else [f"{name}/{MISALIGNED}={better:.5g}"]
    notes = tuple(note if note.startswith("intensity") else f"{name}/{note}" for note in volume.notes)
    return _Channels(place, volume.channels, volume.domain, notes, tuple(findings))


def _joined(
    case: Case,
    voxels: NDArray[Any],
    parts: Mapping[str, _Channels],
    spec: DatasetSpec,
    annotations: Sequence[Annotation],
    readings: Mapping[str, tuple[Reading, ...]],
) -> Case:
    """Return the case with its channels in the order of the spec, and its annotations in that of its labels."""
    order = next(order for order in spec.image_fields.values() if next(iter(parts)) in order)
    if tuple(parts) != order:
        voxels = np.concatenate([parts[name].voxels for name in order])
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
    return replace(case, volume=volume, annotations=tuple(ordered), readings=readings)


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
