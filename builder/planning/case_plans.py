"""From the cohort to the plan of each case: its images, their number types, and what it takes in bytes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import pyarrow as pa

from builder.defacers.found import FoundFaces
from builder.errors import SpecError
from builder.imaging.pixels.types import common_type
from builder.model.tables import used_rows
from builder.patches import estimate
from builder.plan import CasePlan, ImagePlan
from builder.planning.memory import Stored, project_memory
from builder.planning.rows import IncludedStack, Placed, rows_of
from builder.spec import DatasetSpec
from builder.transforms import Intensity, steps_for
from builder.transforms.intensity import sets_type

MASK_BYTES = 1


@dataclass(frozen=True, slots=True)
class Chosen:
    """The stack of each image of a case by name, the reference first, and where its instances are.

    "" names the only image. ``labels_on`` pairs labels with images where cases have several.
    """

    stacks: Mapping[str, IncludedStack]
    places: Mapping[str, Placed]
    labels_on: tuple[tuple[str, str], ...] = ()
    matrices: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Maps each image that a registration places to the matrix from its frame of reference to the reference's."""

    @property
    def reference(self) -> IncludedStack:
        """The stack that gives the case its name and its grid."""
        return next(iter(self.stacks.values()))


def choose_images(spec: DatasetSpec, cohort: pa.Table) -> list[Chosen]:
    """Return the images of every case."""
    rows = used_rows(cohort)
    stacks, places = rows_of(rows, IncludedStack), rows_of(rows, Placed)
    if not spec.cohort.images:
        return [Chosen({"": stack}, {"": place}) for stack, place in zip(stacks, places, strict=True)]
    found = {stack.stack_key: (stack, place) for stack, place in zip(stacks, places, strict=True)}
    names = ("included", "stack_key", "partners", "label_images")
    cases = []
    for included, stack_key, partners, labels in zip(*(rows[name].to_pylist() for name in names), strict=True):
        if included:
            keys = {spec.cohort.reference: stack_key, **{p["image"]: p["stack_key"] for p in partners}}
            images = {name: found[key] for name, key in keys.items()}
            cases.append(
                Chosen(
                    {name: stack for name, (stack, _) in images.items()},
                    {name: place for name, (_, place) in images.items()},
                    tuple((pair["label"], pair["image"]) for pair in labels),
                    {p["image"]: tuple(p["matrix"]) for p in partners if p["matrix"]},
                )
            )
    return cases


def number_types(spec: DatasetSpec, chosen: Sequence[Chosen], *, before: Mapping[str, str]) -> dict[str, str]:
    """Return the number type that every image is read with, by name; "" if nothing must be decided.

    Otherwise the first case of a shard would decide, and every case that differs would be lost. ``before`` are types
    that were decided when somebody withdrew: images keep them, so that nobody else's shards change.

    Raises
    ------
    SpecError
        When the images of a case would have several types in the one array that holds them.
    """
    rule = spec.shards.fields.get("image")
    names = [*spec.cohort.members] or [""]
    decided = dict.fromkeys(names, "")
    if rule is not None and rule.dtype is not None and not spec.cohort.images:
        return decided
    stored = {name: _type_set(spec, name) for name in names}
    for name in names:
        if not stored[name]:
            rows = [case.stacks[name] for case in chosen if name in case.stacks]
            decided[name], stored[name] = _common(spec, name, rows, before.get(name, ""))
    for lead, images in spec.cohort.grids.items():
        told = {name: stored[name] for name in images if stored[name]}
        if len(set(told.values())) > 1:
            found = ", ".join(f"{name} {kind}" for name, kind in told.items())
            raise SpecError(
                f"cohort.images: found the number types {found} on the grid of {lead}, expected one, because the "
                "images are channels of one array: add {kind: intensity, dtype: float32} to transforms"
            )
    return decided


def _type_set(spec: DatasetSpec, name: str) -> str:
    """Return the type that the transforms give an image; "" if none sets it."""
    found = ""
    for step in steps_for(spec.transforms, name):
        if isinstance(step, Intensity) and sets_type(step):
            found = step.dtype or "float32"
    return found


def _common(spec: DatasetSpec, name: str, rows: Sequence[IncludedStack], before: str) -> tuple[str, str]:
    """Return the type to read an image with in all cases, "" where all have one already, and the type it then has."""
    precise = spec.volumes.for_image(name).philips == "precise"
    types = {"float32" if precise and _is_philips_mr(row) else row.number_type for row in rows}
    if not types:
        return "", ""
    alike = not before and len(types) == 1 and all(row.number_type_sure for row in rows)
    types |= {before} if before else set()
    return ("", next(iter(types))) if alike else (common_type(types), common_type(types))


def _modalities(chosen: Sequence[Chosen], name: str) -> set[str | None]:
    return {case.stacks[name].modality for case in chosen if name in case.stacks}


def _is_philips_mr(row: IncludedStack) -> bool:
    return row.modality == "MR" and "philips" in (row.manufacturer or "").lower()


def case_plans(
    spec: DatasetSpec, chosen: Sequence[Chosen], types: Mapping[str, str], faces: FoundFaces
) -> list[CasePlan]:
    """Return the plans of all cases, without what only their objects tell (``with_bytes``)."""
    ct = {name for name in spec.cohort.members if _modalities(chosen, name) == {"CT"}}
    return [_case_plan(spec, case, types, ct, faces) for case in chosen]


def with_bytes(spec: DatasetSpec, case: CasePlan, chosen: Chosen, types: Mapping[str, str], stored: Stored) -> CasePlan:
    """Return a case with what it takes in bytes, given the bytes of its objects by role."""
    stacks = {name: _widened(row, types[name]) for name, row in chosen.stacks.items()}
    needed = project_memory(spec, stacks, stored, labels_on=dict(chosen.labels_on))
    size = sum(of.whole + of.direct for of in stored.values())
    return replace(case, input_bytes=size, peak_bytes=needed.peak, load_bytes=needed.load)


def _case_plan(
    spec: DatasetSpec, chosen: Chosen, types: Mapping[str, str], ct: Collection[str], faces: FoundFaces
) -> CasePlan:
    stacks = {name: _widened(row, types[name]) for name, row in chosen.stacks.items()}
    name = spec.cohort.reference
    row = stacks[name]
    sample_bytes = sum(
        _sample_bytes(spec, stacks, lead, images) for lead, images in (spec.cohort.grids or {"": ("",)}).items()
    )
    lead_of = {image: lead for lead, images in spec.cohort.grids.items() if lead != name for image in images}
    return CasePlan(
        case_key=row.case_key,
        person_key=row.person_key,
        series_key=row.series_key,
        stack=row.stack,
        input_bytes=0,
        sample_bytes=sample_bytes,
        peak_bytes=0,
        frames=tuple(tuple(frames) for frames in row.frame_lists or ()),
        number_type=types[name],
        image=name,
        partners=tuple(
            replace(
                image,
                grid=lead_of.get(image.name, ""),
                matrix=chosen.matrices.get(image.name, ()),
                face=faces.of(image.stack_key),
            )
            for image in (_image_plan(n, stacks.get(n), types[n], is_ct=n in ct) for n in spec.cohort.partners)
        ),
        labels_on=chosen.labels_on,
        face=faces.of(row.stack_key),
    )


def _sample_bytes(spec: DatasetSpec, stacks: Mapping[str, IncludedStack], lead: str, images: Sequence[str]) -> int:
    """Return the projected bytes of the samples of the images of one grid, and of masks on it."""
    shape, spacing = stacks[lead].shape, stacks[lead].spacing_mm
    for transform in spec.transforms:
        if spacing is not None:
            shape, spacing = transform.projected(shape, spacing)
    masks = 1 + sum(label.mask_channels for label in spec.labels.values()) + len(spec.consensus)
    channels = sum(max(1, stacks[n].channels or 1) if n in stacks else 1 for n in images)
    return estimate(spec.samples, shape, bytes_per_voxel=4 * channels + MASK_BYTES * masks).bytes


def _image_plan(name: str, row: IncludedStack | None, number_type: str, *, is_ct: bool) -> ImagePlan:
    if row is None:
        return ImagePlan(name, is_ct=is_ct)
    frames = tuple(tuple(numbers) for numbers in row.frame_lists or ())
    channels = max(1, row.channels or 1)
    return ImagePlan(name, row.stack_key, row.series_key, row.stack, frames, number_type, channels)


def _widened(row: IncludedStack, number_type: str) -> IncludedStack:
    """Return a stack with the bytes that its image takes in the number type that it is read with."""
    if not number_type:
        return row
    wider = np.dtype(number_type).itemsize - np.dtype(row.number_type).itemsize
    voxels = prod(row.shape) * max(1, row.channels or 1)
    return replace(row, voxel_bytes=row.voxel_bytes + wider, peak_bytes=row.peak_bytes + wider * voxels)
