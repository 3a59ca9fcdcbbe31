"""Assign the included cases to shards, and have tasks write the plan of each with the rows of every object it reads."""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, count, islice
from typing import Any

import pyarrow as pa

from builder.defacers.found import FoundFaces
from builder.errors import LayoutError, counted
from builder.model.canonical import fingerprint
from builder.model.layout import RECEIPT, shard_path
from builder.model.parquet import parquet_bytes
from builder.plan import CasePlan, ShardPlan, ShardSummary, assign_buckets
from builder.planning.case_plans import case_plans, choose_images, number_types, with_bytes
from builder.planning.inputs import PlanInputs
from builder.planning.link import Annotations
from builder.planning.rows import LinkRow, rows_of
from builder.planning.sorted_rows import Parts, SortedRows, sort_objects
from builder.stages.gather import Pack, PackArgument, write_packs
from builder.stages.graph import Runner, Task
from builder.stages.planned import is_planned, pack_path, packs, read_pack, write_index
from builder.stages.shard import SPEC
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
    images = {case.reference.case_key: case for case in chosen}
    parts = Parts()
    parts.add_shards([[images[c.case_key] for c in held] for held in buckets.values()], _by_case(links))
    with _workplace(inputs.private) as made:
        rows = sort_objects(parts, inputs.inventory, inputs.survey, annotations.table, made=made, runner=runner)
        sized = (
            with_bytes(spec, case, images[case.case_key], types, stored)
            for case, stored in zip((c for held in buckets.values() for c in held), rows.stored(), strict=True)
        )
        planned = [(bucket, tuple(islice(sized, len(held)))) for bucket, held in buckets.items()]
        tasks = list(_tasks(planned, rows, document, faces.removals, made))
        done = inputs.progress.track(runner.run(tasks), stage="plan", total=len(tasks))
        outcomes = [_summaries(outcome.task.argument, outcome.value) for outcome in done]
        files = dict(sorted(pair for found in outcomes for pair in found))
        shards = tuple(shard for held in files.values() for shard in held)
        store = inputs.private.join(PLAN, fingerprint([s.fingerprint for s in shards], text))
        store.put(SPEC, text)
        touched = _keep(inputs.dataset, store, files, made)
    if touched:
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


def _tasks(
    shards: Sequence[tuple[str, tuple[CasePlan, ...]]],
    rows: SortedRows,
    document: Mapping[str, Any],
    removals: Mapping[str, bytes],
    made: Store,
) -> Iterator[Task]:
    """Yield the tasks that write the files of plans."""
    counts, number = rows.of_cases(), 0
    for place, group in enumerate(rows.parts.groups):
        own = shards[group.shards.start : group.shards.stop]
        of_cases = iter(counts[group.cases.start : group.cases.stop])
        sizes = [sum(islice(of_cases, len(cases))) for _, cases in own]
        held = [Pack(n, tuple(own[p.start : p.stop])) for n, p in enumerate(packs(sizes), start=number)]
        number += len(held)
        gone = {face for _, cases in own for case in cases for face in case.faces}
        argument = PackArgument(
            made.url,
            document,
            rows.pieces(place),
            group.parts.start,
            tuple(rows.parts.roles[group.cases.start : group.cases.stop]),
            tuple(held),
            {face: data for face, data in removals.items() if face in gone},
        )
        yield Task(f"plan-{place:05d}", write_packs, argument)


def _summaries(
    argument: PackArgument, named: Sequence[Sequence[tuple[str, bool]]]
) -> Iterator[tuple[int, tuple[ShardSummary, ...]]]:
    """Yield the number of each file that a task wrote, and its shards."""
    for pack, names in zip(argument.packs, named, strict=True):
        shards = (
            ShardSummary(name, bucket, cases, encoded)
            for (bucket, cases), (name, encoded) in zip(pack.shards, names, strict=True)
        )
        yield pack.number, tuple(shards)


def _keep(dataset: Store, store: Store, files: Mapping[int, Sequence[ShardSummary]], made: Store) -> int:
    """Put the files of plans and their index in place; if they are there already, count files written again."""
    if not is_planned(store):
        for path in map(pack_path, files):
            if isinstance(made, LocalStore):
                store.commit(path, made.root / path)
            else:
                store.put(path, made.read(path))
        write_index(store, ((shard.fingerprint, number) for number, shards in files.items() for shard in shards))
        return 0
    # the same shards in the same order, as the folder is named after them; an earlier release cut files elsewhere
    before = chain.from_iterable(read_pack(store, number) for number in count())
    now = chain.from_iterable(read_pack(made, number) for number in files)
    return sum(
        count_touched(earlier, plan)
        for plan, earlier in zip(now, before, strict=False)
        if dataset.exists(shard_path(plan.fingerprint, RECEIPT))
    )


def count_touched(before: ShardPlan, now: ShardPlan) -> int:
    """Count the objects of a shard whose stamp (modification time, ETag) changed since the shard was planned."""
    names = ("source", "path", "member", "stamp")
    found = [set(zip(*(p.objects.column(n).to_pylist() for n in names), strict=True)) for p in (before, now)]
    return len(found[1] - found[0])
