"""Assign the included cases to shards, and have tasks write the plan of each with the rows of every object it reads."""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pyarrow as pa

from builder.defacers.found import FoundFaces
from builder.errors import LayoutError, counted
from builder.model.canonical import fingerprint
from builder.model.layout import RECEIPT, shard_path
from builder.model.parquet import parquet_bytes
from builder.plan import CasePlan, ShardSummary, assign_buckets
from builder.planning.case_plans import Chosen, case_plans, choose_images, number_types, with_bytes
from builder.planning.inputs import PlanInputs
from builder.planning.kept_plans import Draft, Earlier, Keys, PlannedShard, earlier_plan, keep_known
from builder.planning.link import Annotations
from builder.planning.rows import LinkRow, rows_of
from builder.planning.sorted_rows import Parts, SortedRows, sort_objects
from builder.stages.gather import LinesArgument, write_lines
from builder.stages.graph import Runner, Task
from builder.stages.planned import (
    INDEX,
    SPEC,
    LineReader,
    Place,
    index_of,
    is_planned,
    laid_out,
    stamps_of,
    write_plans,
)
from builder.storage import LocalStore, Store, open_store
from builder.storage.contract import SWEPT

PLAN = "plan"
UNFINISHED = f"{PLAN}/unfinished-"
"""What the folders begin with in which plans are made in a bucket; ``builder gc`` empties those that a kill left."""


def write_shard_plans(
    inputs: PlanInputs,
    cohort: pa.Table,
    document: Mapping[str, Any],
    runner: Runner,
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
    chosen = choose_images(spec, cohort)
    types = number_types(spec, chosen, before=inputs.withdrawn.number_types)
    cases = case_plans(spec, chosen, types, faces)
    most_bytes = int(spec.shards.target_mib * 2**20)
    buckets = assign_buckets(cases, key=key, most_cases=spec.shards.cases, most_bytes=most_bytes)
    # in the order of the spec, which sorting the keys would lose
    text = spec.model_dump_json(by_alias=True).encode()
    images, linked = {case.reference.case_key: case for case in chosen}, _by_case(links)
    keys = Keys(inputs.survey.row_digests(), annotations.table, links, text, document)
    drafts = []
    for bucket, held in buckets.items():
        told = [(case, images[case.case_key], linked.get(case.case_key, ())) for case in held]
        drafts.append(Draft(bucket, tuple(held), keys.of(told)))
    made_of = _MadeOf(images, linked, types, annotations.table, document, faces.removals)
    earlier = earlier_plan(inputs.private)
    kept = earlier.take(drafts)
    with _workplace(inputs.private) as made:
        new = [draft for draft, shard in zip(drafts, kept, strict=True) if shard is None]
        fresh = iter(_plan_new(inputs, new, made_of, made, runner))
        planned = [_noted(shard or _again(next(fresh), earlier), inputs.dataset) for shard in kept]
        shards = tuple(shard.summary for shard in planned)
        store = inputs.private.join(PLAN, fingerprint([s.fingerprint for s in shards], text))
        store.put(SPEC, text)
        places = [*laid_out(shard.place for shard in planned)]
        index = index_of(zip((shard.fingerprint for shard in shards), places, strict=True))
        # the same shards may have other lines, as when files moved before they were built
        taken = all(one is other for one, other in zip(planned, kept, strict=True))
        if not taken or not is_planned(store) or store.read(INDEX) != index:
            _put_plans(store, planned, places, index, made)
    if touched := sum(shard.touched for shard in planned):
        inputs.progress.say(
            f"plan: {counted(touched, 'file was', 'files were')} written again after the shards were planned, with the "
            "same headers and lengths; the pixels may not have been read again. State identity: content on the source "
            "to have that noticed"
        )
    store.put("shards.json", json.dumps([[s.fingerprint, s.bucket, len(s.cases)] for s in shards]).encode())
    store.put("cohort.parquet", parquet_bytes(cohort))
    return store, shards


@contextmanager
def _workplace(private: Store) -> Iterator[Store]:
    """Yield a store that every worker reaches, for rows and files until all shards have names; it is emptied then."""
    if isinstance(private, LocalStore):
        with private.scratch() as folder:  # not in the system's temporary folder, where it would stay after a kill
            yield open_store(folder, directory_mode=0o700)
        return
    store = private.join(UNFINISHED + secrets.token_hex(8))
    try:
        yield store
    except FileNotFoundError as error:
        if any(store.list()):
            raise
        raise LayoutError(SWEPT.format(PLAN)) from error
    finally:
        for path in list(store.list()):
            store.delete(path)


def clear_unfinished(private: Store) -> int:
    """Delete what plans that were killed left in a bucket, and return the number of objects."""
    found = [path for path in private.list(PLAN) if path.startswith(UNFINISHED)]
    for path in found:
        private.delete(path)
    return len(found)


def _by_case(links: pa.Table) -> dict[str, list[LinkRow]]:
    found: dict[str, list[LinkRow]] = {}
    for link in rows_of(links, LinkRow):
        found.setdefault(link.case_key, []).append(link)
    return found


@dataclass(frozen=True, eq=False)
class _MadeOf:
    """What the plans of shards are made of: by case its images and labels, and what is of all of them."""

    images: Mapping[str, Chosen]
    links: Mapping[str, Sequence[LinkRow]]
    types: Mapping[str, str]
    annotations: pa.Table
    recipe: Mapping[str, Any]
    removals: Mapping[str, bytes]


def _plan_new(
    inputs: PlanInputs, drafts: Sequence[Draft], of: _MadeOf, made: Store, runner: Runner
) -> list[PlannedShard]:
    """Have the plans of shards written that no earlier plan has, and return the shards in their order."""
    cases = [case for draft in drafts for case in draft.cases]
    parts = Parts()
    parts.add_shards([[of.images[case.case_key] for case in draft.cases] for draft in drafts], of.links)
    rows = sort_objects(parts, inputs.inventory, inputs.survey, of.annotations, made=made, runner=runner)
    sized = (
        with_bytes(inputs.spec, case, of.images[case.case_key], of.types, stored)
        for case, stored in zip(cases, rows.stored(), strict=True)
    )
    shards = [tuple(islice(sized, len(draft.cases))) for draft in drafts]
    tasks = list(_tasks(shards, rows, of, made))
    done = inputs.progress.track(runner.run(tasks), stage="plan", total=len(tasks))
    lines = sorted(
        (line for outcome in done for line in outcome.value), key=lambda line: (line.place.file, line.place.start)
    )
    reader = LineReader(made)
    return [
        PlannedShard(draft.key, ShardSummary(line.fingerprint, draft.bucket, own, line.encoded), line.place, reader)
        for draft, own, line in zip(drafts, shards, lines, strict=True)
    ]


def _tasks(shards: Sequence[tuple[CasePlan, ...]], rows: SortedRows, of: _MadeOf, made: Store) -> Iterator[Task]:
    """Yield the tasks that write the plans of shards."""
    for number, group in enumerate(rows.parts.groups):
        own = tuple(shards[group.shards.start : group.shards.stop])
        gone = {face for cases in own for case in cases for face in case.faces}
        argument = LinesArgument(
            made.url,
            number,
            of.recipe,
            rows.pieces(number),
            group.parts.start,
            tuple(rows.parts.roles[group.cases.start : group.cases.stop]),
            own,
            {face: data for face, data in of.removals.items() if face in gone},
        )
        yield Task(f"plan-{number:05d}", write_lines, argument)


def _put_plans(
    store: Store, planned: Sequence[PlannedShard], places: Sequence[Place], index: bytes, made: Store
) -> None:
    """Put plans in place of those that a folder holds. They are gathered first, as they may be taken from there."""
    whole = made.join("whole")
    write_plans(whole, places, (shard.line for shard in planned))
    store.delete(INDEX)
    paths = set(whole.list())
    for path in sorted(paths):
        if isinstance(whole, LocalStore):
            store.commit(path, whole.root / path)
        else:
            store.put(path, whole.read(path))
    for path in set(store.list("shards")) - paths:
        store.delete(path)
    keep_known(store, planned, places)
    store.put(INDEX, index)


def _again(shard: PlannedShard, earlier: Earlier) -> PlannedShard:
    """Return a shard that was planned anew, with the number of its files that were written again since it was built."""
    before = earlier.named(shard)
    if before is None:
        return shard
    return replace(shard, touched=max(before.touched, count_touched(before.line, shard.line)))


def _noted(shard: PlannedShard, dataset: Store) -> PlannedShard:
    """Return a shard for which files count as written again only if it is built."""
    if not shard.touched or dataset.exists(shard_path(shard.summary.fingerprint, RECEIPT)):
        return shard
    return replace(shard, touched=0)


def count_touched(before: bytes, now: bytes) -> int:
    """Count the objects in the line of a shard whose stamp changed since an earlier line was written."""
    return 0 if before == now else len(stamps_of(now) - stamps_of(before))
