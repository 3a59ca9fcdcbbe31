"""Assign the included cases to shards, and write one plan file per shard with the rows of every object it reads."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import pyarrow as pa

from builder.imaging.pixels.format import NATIVE
from builder.imaging.pixels.types import common_type
from builder.model.canonical import fingerprint
from builder.model.layout import RECEIPT, shard_path
from builder.model.parquet import parquet_bytes
from builder.model.tables import INSTANCES
from builder.patches import estimate
from builder.plan import (
    IMAGE_ROLE,
    PLANNED,
    CasePlan,
    ShardPlan,
    ShardSummary,
    assign_buckets,
    parse_shard_plan,
    recipe,
    shard_fingerprint,
)
from builder.planning.inputs import PlanInputs
from builder.planning.inventory import members
from builder.planning.link import Annotations
from builder.planning.memory import project_memory
from builder.planning.rows import IncludedStack, LinkRow, Placed, included, rows_of
from builder.spec import DatasetSpec
from builder.stages.shard import SPEC, plan_path
from builder.storage import Store
from builder.transforms.intensity import sets_type

PLAN = "plan"
MASK_BYTES = 1


def write_shard_plans(
    inputs: PlanInputs, cohort: pa.Table, *, links: pa.Table, annotations: Annotations
) -> tuple[Store, tuple[ShardSummary, ...]]:
    """Assign the included cases to shards and write one plan file per shard; return their store and summaries."""
    spec, key = inputs.spec, inputs.key
    chosen = included(cohort)
    stacks = rows_of(chosen, IncludedStack)
    places = dict(zip((row.case_key for row in stacks), rows_of(chosen, Placed), strict=True))
    objects = _objects(inputs, places, links=rows_of(links, LinkRow), annotations=annotations)
    number_type = _number_type(spec, stacks)
    cases = [_case_plan(spec, row, objects[row.case_key], number_type) for row in stacks]
    most_bytes = int(spec.shards.target_mib * 2**20)
    buckets = assign_buckets(cases, key=key, most_cases=spec.shards.cases, most_bytes=most_bytes)
    document = recipe(spec, key=key)
    plans = []
    for bucket, held in buckets.items():
        table = pa.concat_tables([_numbered(objects[c.case_key], i) for i, c in enumerate(held)])
        plans.append(ShardPlan(shard_fingerprint(document, held, table), bucket, tuple(held), table))
    # in the order of the spec, which sorting the keys would lose
    text = spec.model_dump_json(by_alias=True).encode()
    store = inputs.private.join(PLAN, fingerprint([p.fingerprint for p in plans], text))
    store.put(SPEC, text)
    touched = 0
    for plan in inputs.progress.track(plans, stage="plan", total=len(plans)):
        if not store.exists(plan_path(plan.fingerprint)):
            store.put(plan_path(plan.fingerprint), plan.to_parquet())
        elif inputs.dataset.exists(shard_path(plan.fingerprint, RECEIPT)):
            touched += count_touched(parse_shard_plan(store.read(plan_path(plan.fingerprint))), plan)
    if touched:
        inputs.progress.say(
            f"plan: {touched} files were written again after their shards were planned, with the same header and "
            "length; their pixels may not have been read again. State identity: content on the source to have that "
            "noticed"
        )
    store.put("shards.json", json.dumps([[p.fingerprint, p.bucket, len(p.cases)] for p in plans]).encode())
    store.put("cohort.parquet", parquet_bytes(cohort))
    return store, tuple(ShardSummary(p.fingerprint, p.bucket, p.cases, _encoded(p)) for p in plans)


def count_touched(before: ShardPlan, now: ShardPlan) -> int:
    """Count the objects of a shard whose stamp (modification time, ETag) changed since the shard was planned."""
    names = ("source", "path", "member", "stamp")
    found = [set(zip(*(p.objects.column(n).to_pylist() for n in names), strict=True)) for p in (before, now)]
    return len(found[1] - found[0])


def _encoded(plan: ShardPlan) -> bool:
    """Return whether any object of a shard has compressed pixels, or does not say."""
    rows = zip(*(plan.objects.column(c).to_pylist() for c in ("format", "transfer_syntax_uid")), strict=True)
    return any(form == "dicom" and syntax not in NATIVE for form, syntax in rows)


def _objects(
    inputs: PlanInputs, places: Mapping[str, Placed], *, links: Sequence[LinkRow], annotations: Annotations
) -> dict[str, pa.Table]:
    """Return INSTANCES rows of every case: first its images, then its labels, with the role in front."""
    cases = list(places)
    wanted: dict[int, list[tuple[int, Placed]]] = {}
    for position, place in enumerate(places.values()):
        wanted.setdefault(place.chunk, []).append((position, place))
    tables: dict[str, list[pa.Table]] = {case: [] for case in cases}
    for chunk, names in sorted(wanted.items()):
        for position, instances in members(inputs.inventory, inputs.survey, chunk=chunk, wanted=names):
            tables[cases[position]].append(_with_role(instances, [IMAGE_ROLE] * instances.num_rows))
    grouped: dict[str, list[LinkRow]] = {}
    for row in links:
        grouped.setdefault(row.case_key, []).append(row)
    for case, rows in grouped.items():
        taken = annotations.table.take(pa.array([row.annotation for row in rows], pa.int64()))
        tables[case].append(_with_role(taken, [row.label for row in rows]))
    return {case: pa.concat_tables(parts) for case, parts in tables.items()}


def _with_role(instances: pa.Table, roles: Sequence[str]) -> pa.Table:
    return instances.select(INSTANCES.names).add_column(0, "role", pa.array(roles, pa.string()))


def _numbered(objects: pa.Table, number: int) -> pa.Table:
    numbers = pa.array([number] * objects.num_rows, pa.int32())
    return objects.add_column(0, "case", numbers).cast(PLANNED)


def _number_type(spec: DatasetSpec, stacks: Sequence[IncludedStack]) -> str:
    """Return the number type for all images, from their headers; "" if they need not share one.

    Otherwise the first case of a shard would decide, and every case that differs would be lost.
    """
    rule = spec.shards.fields.get("image")
    if (rule is not None and rule.dtype is not None) or any(sets_type(transform) for transform in spec.transforms):
        return ""
    precise = spec.volumes.philips == "precise"
    types = {"float32" if precise and _is_philips_mr(row) else row.number_type for row in stacks}
    alike = len(types) == 1 and all(row.number_type_sure for row in stacks)
    return "" if alike or not types else common_type(types)


def _is_philips_mr(row: IncludedStack) -> bool:
    return row.modality == "MR" and "philips" in (row.manufacturer or "").lower()


def _case_plan(spec: DatasetSpec, row: IncludedStack, objects: pa.Table, number_type: str) -> CasePlan:
    if number_type:
        wider = np.dtype(number_type).itemsize - np.dtype(row.number_type).itemsize
        voxels = prod(row.shape) * max(1, row.channels or 1)
        row = replace(row, voxel_bytes=row.voxel_bytes + wider, peak_bytes=row.peak_bytes + wider * voxels)
    shape, spacing = row.shape, row.spacing_mm
    for transform in spec.transforms:
        if spacing is not None:
            shape, spacing = transform.projected(shape, spacing)
    masks = 1 + sum(label.mask_channels for label in spec.labels.values()) + len(spec.consensus)
    per_voxel = 4 * max(1, row.channels or 1) + MASK_BYTES * masks
    samples = estimate(spec.samples, shape, bytes_per_voxel=per_voxel)
    needed = project_memory(spec, row, objects)
    return CasePlan(
        case_key=row.case_key,
        person_key=row.person_key,
        series_key=row.series_key,
        stack=row.stack,
        input_bytes=sum(objects.column("size").to_pylist()),
        sample_bytes=samples.bytes,
        peak_bytes=needed.peak,
        load_bytes=needed.load,
        frames=tuple(tuple(frames) for frames in row.frame_lists or ()),
        number_type=number_type,
    )
