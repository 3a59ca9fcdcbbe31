"""Make a shard of samples that the published version stores, so that no source is read and no voxel decoded."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from builder.errors import LayoutError
from builder.model.layout import CURRENT, MANIFEST, ExcludedCase, Receipt, parse_current, parse_manifest, picture_path
from builder.model.layout import version_path as of_version
from builder.model.parquet import parquet_bytes, read_parquet
from builder.patches import FieldFacts
from builder.plan import CasePlan, ShardPlan
from builder.shards.stored import StoredShard
from builder.stages.again import is_provisional, next_name
from builder.stages.gating import WITHHELD_TEXTS
from builder.stages.planned import load_plan
from builder.stages.shard import (
    ShardArgument,
    ShardOutcome,
    build_shard,
    found_receipt,
    planned_spec,
    prints_path,
    read_receipt,
    shard_writer,
)
from builder.storage import Store, checkpoint, open_store

SHARDS = "shards.json"


@dataclass(frozen=True)
class Kept:
    """A case of the published version: its plan, its shard, and what is kept of it in the private workspace."""

    plan: CasePlan
    shard: StoredShard
    described: Mapping[str, FieldFacts] | None
    withheld: Sequence[str] = ()

    @cached_property
    def excluded(self) -> ExcludedCase | None:
        """Why the case has no samples, if it has none."""
        return next((case for case in self.shard.receipt.excluded if case.case_key == self.plan.case_key), None)


def copy_shard(argument: ShardArgument) -> ShardOutcome:
    """Copy the samples of one shard unless it is finished; build it from the sources where a case is not stored.

    ``argument.before`` is the store of the plan that was published. It is safe to run this again, also concurrently.
    """
    dataset = open_store(argument.dataset)
    name, receipt = _finished(dataset, argument.shard)
    prints = open_store(argument.prints, directory_mode=0o700) if argument.prints else None
    if receipt is None:
        plan = load_plan(open_store(argument.plan, directory_mode=0o700), argument.shard)
        kept = _kept(argument, dataset, plan)
        if kept is None:
            return build_shard(argument)
        receipt = _copy(plan, kept, argument, dataset)
        if prints is not None:
            prints.put(prints_path(name), parquet_bytes(_prints(kept, prints)))
        return ShardOutcome(name, receipt.rows, receipt.cases, len(receipt.excluded), False)
    if prints is not None and not prints.exists(prints_path(name)):
        plan = load_plan(open_store(argument.plan, directory_mode=0o700), argument.shard)
        kept = _kept(argument, dataset, plan)
        if kept is None:
            return build_shard(argument)
        prints.put(prints_path(name), parquet_bytes(_prints(kept, prints)))
    return ShardOutcome(name, receipt.rows, receipt.cases, len(receipt.excluded), True)


def _finished(dataset: Store, planned: str) -> tuple[str, Receipt | None]:
    """Return the last shard that was made of a plan, and its receipt; a case may be tried again in a later build."""
    name, found = planned, found_receipt(dataset, planned)
    receipt = found
    while found is not None and is_provisional(found):
        following = next_name(name)
        found = found_receipt(dataset, following)
        if found is not None:
            name, receipt = following, found
    return name, receipt


def _kept(argument: ShardArgument, dataset: Store, plan: ShardPlan) -> list[Kept] | None:
    """Return every case of a plan as the published version has it; None if it lacks one, or has it made otherwise."""
    version = parse_current(dataset.read(CURRENT))
    published = {s.fingerprint for s in parse_manifest(dataset.read(of_version(version, MANIFEST))).shards}
    store, now = open_store(argument.before, directory_mode=0o700), open_store(argument.plan, directory_mode=0o700)
    today = {row[0] for row in json.loads(now.read(SHARDS))}
    cases = open_store(argument.cases, directory_mode=0o700)
    wanted = {case.case_key: case for case in plan.cases}
    found: dict[str, Kept] = {}
    for planned, *_ in json.loads(store.read(SHARDS)):
        if planned in today:
            continue
        held = [
            case for case in load_plan(store, planned).cases if _as_named(wanted.get(case.case_key)) == _as_named(case)
        ]
        name = _published_name(planned, published, dataset) if held else None
        if name is None:
            continue
        shard = StoredShard(dataset, _receipt(dataset, name))
        noted = _noted(cases, name)
        for case in held:
            described, withheld = noted.get(case.case_key, (None, ()))
            found[case.case_key] = Kept(case, shard, described, withheld)
    return [found[key] for key in wanted] if found.keys() == wanted.keys() else None


def _as_named(case: CasePlan | None) -> CasePlan | None:
    """Return a case without the projections, which say nothing about its bytes."""
    return case and replace(case, input_bytes=0, sample_bytes=0, peak_bytes=0, load_bytes=0)


def _published_name(planned: str, published: set[str], dataset: Store) -> str | None:
    name = planned
    while name not in published:
        if found_receipt(dataset, name) is None:
            return None
        name = next_name(name)
    return name


def _receipt(dataset: Store, name: str) -> Receipt:
    receipt = read_receipt(dataset, name)
    if receipt is None:
        raise LayoutError(f"shard {name}: found no receipt, expected that of a published shard; see builder verify")
    return receipt


def _noted(cases: Store, shard: str) -> dict[str, tuple[dict[str, FieldFacts], Sequence[str]]]:
    """Read what is kept of the cases of a shard; shards of earlier releases have nothing."""
    try:
        document = json.loads(cases.read(f"{shard}.json"))
    except FileNotFoundError:
        return {}
    return {
        case: ({n: _facts(f) for n, f in said["fields"].items()}, said["withheld"]) for case, said in document.items()
    }


def _facts(said: Mapping[str, Any]) -> FieldFacts:
    segments = {name: (place[0], place[1]) for name, place in said["segments"].items()}
    return FieldFacts(said["unit"], segments, tuple((name, unit) for name, unit in said["channels"]), said["grid"])


def _copy(plan: ShardPlan, kept: Sequence[Kept], argument: ShardArgument, dataset: Store) -> Receipt:
    spec = planned_spec(open_store(argument.plan, directory_mode=0o700), argument)
    with shard_writer(plan, spec, dataset) as writer:
        writer.fields = next((case.shard.fields() for case in kept if case.shard.receipt.rows), ())
        for case in kept:
            lost = case.excluded
            if lost is None:
                numbers = case.shard.places[case.plan.case_key]
                writer.copy_case(map(case.shard.sample, numbers), described=_described(case))
                checkpoint("copy.case")
                continue
            writer.exclude(lost.case_key, lost.reason, lost.detail)  # type: ignore[arg-type]  # cleared when it was stored
            picture = picture_path(lost.case_key)
            if any(stored.path == picture for stored in case.shard.receipt.objects):
                writer.attach(picture, case.shard.read(picture))
        withheld: dict[str, int] = {}
        for column in (column for case in kept for column in case.withheld):
            withheld[column] = withheld.get(column, 0) + 1
        _keep_notes(plan.fingerprint, kept, argument)
        return writer.finish(tallies={WITHHELD_TEXTS: dict(sorted(withheld.items()))} if withheld else None)


def _described(case: Kept) -> Mapping[str, FieldFacts]:
    """Return what a case says about its fields, or else what its shard says of all its cases together."""
    if case.described is not None:
        return case.described
    return {
        layout.name: FieldFacts(
            layout.unit,
            layout.segments,
            tuple(zip(layout.channel_names, layout.channel_units, strict=True)),
            layout.grid,
        )
        for layout in case.shard.receipt.fields
    }


def _keep_notes(shard: str, kept: Sequence[Kept], argument: ShardArgument) -> None:
    """Keep of the cases of a new shard what was kept of them before."""
    before = open_store(argument.cases, directory_mode=0o700)
    said: dict[str, Any] = {}
    for name in dict.fromkeys(case.shard.receipt.fingerprint for case in kept):
        try:
            said |= json.loads(before.read(f"{name}.json"))
        except FileNotFoundError:
            return
    mine = {case.plan.case_key: said[case.plan.case_key] for case in kept if case.plan.case_key in said}
    before.put(f"{shard}.json", json.dumps(mine, sort_keys=True).encode())


def _prints(kept: Sequence[Kept], prints: Store) -> pa.Table:
    """Return the prints of the cases, in their order."""
    tables: dict[str, list[dict[str, Any]]] = {}
    rows: list[dict[str, Any]] = []
    schema = None
    for case in kept:
        name = case.shard.receipt.fingerprint
        if name not in tables:
            table = read_parquet(prints.read(prints_path(name)))
            schema, tables[name] = table.schema, table.to_pylist()
        wanted = [case.plan.case_key, *(image.stack_key for image in case.plan.partners)]
        found = {row["case_key"]: row for row in tables[name]}
        rows += [found[key] for key in wanted if key in found]
    return pa.Table.from_pylist(rows, schema=schema)
