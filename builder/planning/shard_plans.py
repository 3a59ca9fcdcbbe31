"""Assign the included cases to shards, and write the plan of each with the rows of every object it reads."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa

from builder.decode.format import NATIVE
from builder.defacers.found import FoundFaces
from builder.errors import SpecError, counted
from builder.imaging.pixels.types import common_type
from builder.model.canonical import fingerprint
from builder.model.layout import RECEIPT, shard_path
from builder.model.parquet import parquet_bytes
from builder.model.tables import FROM_TABLES, INSTANCES, used_rows
from builder.patches import estimate
from builder.plan import (
    NAMED,
    PLANNED,
    STATED,
    CasePlan,
    ImagePlan,
    Namer,
    ShardPlan,
    ShardSummary,
    assign_buckets,
    image_role,
)
from builder.planning.inputs import PlanInputs
from builder.planning.inventory import rows_within
from builder.planning.link import Annotations
from builder.planning.memory import project_memory
from builder.planning.rows import IncludedStack, LinkRow, Placed, rows_of
from builder.spec import DatasetSpec
from builder.stages.planned import is_planned, packs, read_pack, shard_plans, write_index, write_pack
from builder.stages.shard import SPEC
from builder.storage import Store
from builder.transforms import Intensity, steps_for
from builder.transforms.intensity import sets_type

PLAN = "plan"
MASK_BYTES = 1
SIZED = ("role", "pixel_offset", "size")
"""Columns of PLANNED that tell how much memory a case needs."""


@dataclass(frozen=True)
class _Chosen:
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


def write_shard_plans(
    inputs: PlanInputs,
    cohort: pa.Table,
    document: Mapping[str, Any],
    *,
    links: pa.Table,
    annotations: Annotations,
    faces: FoundFaces,
) -> tuple[Store, tuple[ShardSummary, ...]]:
    """Assign the included cases to shards and write their plans; return where they are, and summaries.

    Parameters
    ----------
    document
        What shards are named by beside their cases, from ``builder.plan.recipe``.
    faces
        What goes out of the images that show one.
    """
    spec, key = inputs.spec, inputs.key
    chosen = _chosen(spec, cohort)
    objects = _objects(inputs, chosen, links=rows_of(links, LinkRow), annotations=annotations)
    types = _number_types(spec, chosen, before=inputs.withdrawn.number_types)
    ct = {name for name in spec.cohort.members if _modalities(chosen, name) == {"CT"}}
    cases = [
        _with_faces(_case_plan(spec, case, objects.of(case.reference.case_key), types, ct), case, faces)
        for case in chosen
    ]
    most_bytes = int(spec.shards.target_mib * 2**20)
    buckets = assign_buckets(cases, key=key, most_cases=spec.shards.cases, most_bytes=most_bytes)
    files = list(packs([objects.count(held) for held in buckets.values()]))
    shards = tuple(_summaries(buckets, files, objects, Namer(document)))
    # in the order of the spec, which sorting the keys would lose
    text = spec.model_dump_json(by_alias=True).encode()
    store = inputs.private.join(PLAN, fingerprint([s.fingerprint for s in shards], text))
    store.put(SPEC, text)
    touched = _write(inputs, store, shards, objects, faces.removals)
    if touched:
        inputs.progress.say(
            f"plan: {counted(touched, 'file was', 'files were')} written again after the shards were planned, with the "
            "same headers and lengths; the pixels may not have been read again. State identity: content on the source "
            "to have that noticed"
        )
    store.put("shards.json", json.dumps([[s.fingerprint, s.bucket, len(s.cases)] for s in shards]).encode())
    store.put("cohort.parquet", parquet_bytes(cohort))
    return store, shards


def _summaries(
    buckets: Mapping[str, Sequence[CasePlan]], files: Sequence[range], objects: "_Objects", namer: Namer
) -> Iterator[ShardSummary]:
    """Name the shards; the objects of as many as share a file are looked up together, and forgotten."""
    several = list(buckets.items())
    laid = objects.table["layout"].null_count < objects.table.num_rows
    columns = list(dict.fromkeys((*NAMED, *(STATED if laid else ()), "format", "transfer_syntax_uid")))
    for held in files:
        group = several[held.start : held.stop]
        table = objects.numbered([cases for _, cases in group], columns=columns)
        start = 0
        for bucket, cases in group:
            own = table.slice(start, count := objects.count(cases))
            yield ShardSummary(namer.name(cases, own), bucket, tuple(cases), _encoded(own))
            start += count


def _write(
    inputs: PlanInputs,
    store: Store,
    shards: Sequence[ShardSummary],
    objects: "_Objects",
    removals: Mapping[str, bytes],
) -> int:
    """Write the files of plans and their index; where they are there already, count files that were written again."""
    again, touched = is_planned(store), 0
    files = list(packs([objects.count(shard.cases) for shard in shards]))
    for number, held in enumerate(inputs.progress.track(files, stage="plan", total=len(files))):
        group = shards[held.start : held.stop]
        table = objects.numbered([shard.cases for shard in group], columns=PLANNED.names[1:]).cast(PLANNED)
        plans = list(shard_plans(group, [objects.count(shard.cases) for shard in group], table, removals))
        if not again:
            write_pack(store, number, plans, table)
            continue
        before = {plan.fingerprint: plan for plan in read_pack(store, number)}
        for plan in plans:
            if plan.fingerprint in before and inputs.dataset.exists(shard_path(plan.fingerprint, RECEIPT)):
                touched += count_touched(before[plan.fingerprint], plan)
    if not again:
        write_index(store, ((shards[s].fingerprint, number) for number, held in enumerate(files) for s in held))
    return touched


def count_touched(before: ShardPlan, now: ShardPlan) -> int:
    """Count the objects of a shard whose stamp (modification time, ETag) changed since the shard was planned."""
    names = ("source", "path", "member", "stamp")
    found = [set(zip(*(p.objects.column(n).to_pylist() for n in names), strict=True)) for p in (before, now)]
    return len(found[1] - found[0])


def _encoded(objects: pa.Table) -> bool:
    """Return whether any object of a shard has compressed pixels, or does not say."""
    rows = zip(*(objects.column(c).to_pylist() for c in ("format", "transfer_syntax_uid")), strict=True)
    return any(form == FROM_TABLES or (form == "dicom" and syntax not in NATIVE) for form, syntax in rows)


def _chosen(spec: DatasetSpec, cohort: pa.Table) -> list[_Chosen]:
    """Return the images of every case."""
    rows = used_rows(cohort)
    stacks, places = rows_of(rows, IncludedStack), rows_of(rows, Placed)
    if not spec.cohort.images:
        return [_Chosen({"": stack}, {"": place}) for stack, place in zip(stacks, places, strict=True)]
    found = {stack.stack_key: (stack, place) for stack, place in zip(stacks, places, strict=True)}
    names = ("included", "stack_key", "partners", "label_images")
    cases = []
    for included, stack_key, partners, labels in zip(*(rows[name].to_pylist() for name in names), strict=True):
        if included:
            keys = {spec.cohort.reference: stack_key, **{p["image"]: p["stack_key"] for p in partners}}
            images = {name: found[key] for name, key in keys.items()}
            cases.append(
                _Chosen(
                    {name: stack for name, (stack, _) in images.items()},
                    {name: place for name, (_, place) in images.items()},
                    tuple((pair["label"], pair["image"]) for pair in labels),
                    {p["image"]: tuple(p["matrix"]) for p in partners if p["matrix"]},
                )
            )
    return cases


@dataclass(frozen=True, eq=False)
class _Objects:
    """The objects of all cases: one table, because a table of its own for each case takes 100 kB beside its rows.

    ``places`` has first row and number of rows by case.
    """

    table: pa.Table
    places: Mapping[str, tuple[int, int]]

    @cached_property
    def _sizes(self) -> pa.Table:
        return self.table.select(SIZED)

    def of(self, case: str) -> pa.Table:
        """Return the columns SIZED of a case's rows."""
        first, count = self.places[case]
        return self._sizes.slice(first, count)

    def count(self, cases: Sequence[CasePlan]) -> int:
        """Return the number of rows of some cases."""
        return sum(self.places[case.case_key][1] for case in cases)

    def numbered(self, shards: Sequence[Sequence[CasePlan]], *, columns: Sequence[str]) -> pa.Table:
        """Return columns of the rows of some shards' cases, one after the other, with the number of the case in front.

        Many shards together, because taking rows of a hundred columns takes a millisecond however few they are.
        """
        places = [[self.places[case.case_key] for case in cases] for cases in shards]
        rows = [np.arange(first, first + count) for held in places for first, count in held]
        numbers = [np.repeat(np.arange(len(held), dtype=np.int32), [count for _, count in held]) for held in places]
        table = self.table.select(columns).take(pa.array(np.concatenate(rows), pa.int64())).combine_chunks()
        return table.add_column(0, PLANNED.field("case"), pa.array(np.concatenate(numbers)))


def _objects(
    inputs: PlanInputs, chosen: Sequence[_Chosen], *, links: Sequence[LinkRow], annotations: Annotations
) -> _Objects:
    """Return INSTANCES rows of every case: first its images, then its labels, with the role in front."""
    wanted: dict[int, list[tuple[int, Placed]]] = {}
    owners: list[tuple[str, str]] = []
    for images in chosen:
        for name, place in images.places.items():
            wanted.setdefault(place.chunk, []).append((len(owners), place))
            owners.append((images.reference.case_key, image_role(name)))
    parts: list[pa.Table] = []
    rows: dict[str, list[tuple[int, range]]] = {}
    start = 0
    for chunk, names in sorted(wanted.items()):
        found = rows_within(inputs.survey, chunk=chunk, wanted=names)
        for position, inside in found.items():
            rows.setdefault(owners[position][0], []).append((position, range(start, start + len(inside))))
            start += len(inside)
        roles = [owners[position][1] for position, inside in found.items() for _ in inside]
        if found:
            taken = pa.array([row for inside in found.values() for row in inside], pa.int64())
            parts.append(_with_role(inputs.inventory.chunk(chunk).take(taken), roles))
    labels = _with_role(
        annotations.table.take(pa.array([row.annotation for row in links], pa.int64())), [row.label for row in links]
    )
    for number, row in enumerate(links):
        rows[row.case_key].append((len(owners), range(start + number, start + number + 1)))
    everything = pa.concat_tables([*parts, labels]).combine_chunks()
    places: dict[str, tuple[int, int]] = {}
    order: list[int] = []
    for case, held in rows.items():
        mine = [place for _, places_of in sorted(held, key=lambda pair: pair[0]) for place in places_of]
        places[case] = (len(order), len(mine))
        order += mine
    return _Objects(everything.take(pa.array(order, pa.int64())), places)


def _with_role(instances: pa.Table, roles: Sequence[str]) -> pa.Table:
    return instances.select(INSTANCES.names).add_column(0, "role", pa.array(roles, pa.string()))


def _number_types(spec: DatasetSpec, chosen: Sequence[_Chosen], *, before: Mapping[str, str]) -> dict[str, str]:
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


def _modalities(chosen: Sequence[_Chosen], name: str) -> set[str | None]:
    return {case.stacks[name].modality for case in chosen if name in case.stacks}


def _is_philips_mr(row: IncludedStack) -> bool:
    return row.modality == "MR" and "philips" in (row.manufacturer or "").lower()


def _case_plan(
    spec: DatasetSpec, chosen: _Chosen, objects: pa.Table, types: Mapping[str, str], ct: Collection[str]
) -> CasePlan:
    stacks = {name: _widened(row, types[name]) for name, row in chosen.stacks.items()}
    name = spec.cohort.reference
    row = stacks[name]
    sample_bytes = sum(
        _sample_bytes(spec, stacks, lead, images) for lead, images in (spec.cohort.grids or {"": ("",)}).items()
    )
    lead_of = {image: lead for lead, images in spec.cohort.grids.items() if lead != name for image in images}
    needed = project_memory(spec, stacks, objects, labels_on=dict(chosen.labels_on))
    return CasePlan(
        case_key=row.case_key,
        person_key=row.person_key,
        series_key=row.series_key,
        stack=row.stack,
        input_bytes=sum(objects.column("size").to_pylist()),
        sample_bytes=sample_bytes,
        peak_bytes=needed.peak,
        load_bytes=needed.load,
        frames=tuple(tuple(frames) for frames in row.frame_lists or ()),
        number_type=types[name],
        image=name,
        partners=tuple(
            replace(_image_plan(n, stacks.get(n), types[n], is_ct=n in ct), grid=lead_of.get(n, ""), matrix=matrix)
            for n in spec.cohort.partners
            for matrix in (chosen.matrices.get(n, ()),)
        ),
        labels_on=chosen.labels_on,
    )


def _with_faces(case: CasePlan, chosen: _Chosen, faces: FoundFaces) -> CasePlan:
    """Return a case with what is said about the faces of its images."""
    partners = tuple(replace(p, face=faces.of(p.stack_key)) for p in case.partners)
    return replace(case, face=faces.of(chosen.reference.stack_key), partners=partners)


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
