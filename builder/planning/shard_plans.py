"""Assign the included cases to shards, and write the plan of each with the rows of every object it reads."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from builder.decode.format import NATIVE
from builder.defacers.found import FoundFaces
from builder.errors import counted
from builder.model.canonical import fingerprint
from builder.model.layout import RECEIPT, shard_path
from builder.model.parquet import parquet_bytes
from builder.model.tables import FROM_TABLES
from builder.plan import NAMED, PLANNED, STATED, CasePlan, Namer, ShardPlan, ShardSummary, assign_buckets
from builder.planning import sorted_rows
from builder.planning.case_plans import SIZED, Chosen, case_plans, choose_images, number_types, with_bytes
from builder.planning.inputs import PlanInputs
from builder.planning.link import Annotations
from builder.planning.rows import LinkRow, rows_of
from builder.planning.sorted_rows import Parts, SortedRows
from builder.spec import DatasetSpec
from builder.stages.planned import is_planned, pack_path, packs, read_pack, shard_plans, write_index, write_pack
from builder.stages.shard import SPEC
from builder.storage import Store, open_store

PLAN = "plan"


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
    chosen = choose_images(spec, cohort)
    types = number_types(spec, chosen, before=inputs.withdrawn.number_types)
    cases = case_plans(spec, chosen, types, faces)
    most_bytes = int(spec.shards.target_mib * 2**20)
    buckets = assign_buckets(cases, key=key, most_cases=spec.shards.cases, most_bytes=most_bytes)
    # in the order of the spec, which sorting the keys would lose
    text = spec.model_dump_json(by_alias=True).encode()
    with inputs.private.scratch() as folder:  # not in the system's temporary folder, where it would stay after a kill
        images = {case.reference.case_key: case for case in chosen}
        rows = _sorted(inputs, buckets, images, rows_of(links, LinkRow), annotations, folder)
        made = open_store(folder, directory_mode=0o700)
        writer = _Writer(spec, Namer(document), images, types, faces.removals, made)
        files = list(inputs.progress.track(writer.write(buckets, rows), stage="plan", total=None))
        shards = tuple(shard for held in files for shard in held)
        store = inputs.private.join(PLAN, fingerprint([s.fingerprint for s in shards], text))
        store.put(SPEC, text)
        touched = _keep(inputs.dataset, store, files, folder)
    if touched:
        inputs.progress.say(
            f"plan: {counted(touched, 'file was', 'files were')} written again after the shards were planned, with the "
            "same headers and lengths; the pixels may not have been read again. State identity: content on the source "
            "to have that noticed"
        )
    store.put("shards.json", json.dumps([[s.fingerprint, s.bucket, len(s.cases)] for s in shards]).encode())
    store.put("cohort.parquet", parquet_bytes(cohort))
    return store, shards


def _sorted(
    inputs: PlanInputs,
    buckets: Mapping[str, Sequence[CasePlan]],
    images: Mapping[str, Chosen],
    links: Sequence[LinkRow],
    annotations: Annotations,
    folder: Path,
) -> SortedRows:
    """Sort the rows of all objects by shard and case."""
    labels: dict[str, list[LinkRow]] = {}
    for link in links:
        labels.setdefault(link.case_key, []).append(link)
    parts = Parts()
    for case in (case for held in buckets.values() for case in held):
        parts.add(images[case.case_key].places, labels.get(case.case_key, ()))
    return SortedRows(parts, inputs.inventory, inputs.survey, annotations.table, folder)


@dataclass(frozen=True, eq=False)
class _Writer:
    """Writes the files of plans into ``store``, where they wait until all shards have names."""

    spec: DatasetSpec
    namer: Namer
    images: Mapping[str, Chosen]
    types: Mapping[str, str]
    removals: Mapping[str, bytes]
    store: Store

    def write(self, buckets: Mapping[str, Sequence[CasePlan]], rows: SortedRows) -> Iterator[tuple[ShardSummary, ...]]:
        """Yield the shards of each file."""
        shards, counts = list(buckets.items()), rows.of_cases()
        firsts = [0, *accumulate(len(cases) for _, cases in shards)]
        sizes = [sum(counts[first:last]) for first, last in pairwise(firsts)]
        for group in _together(list(enumerate(packs(sizes))), sizes):
            held = rows.read(range(firsts[group[0][1].start], firsts[group[-1][1].stop]))
            start = 0
            for number, file in group:
                of = counts[firsts[file.start] : firsts[file.stop]]
                yield self._file(number, shards[file.start : file.stop], of, held.slice(start, sum(of)))
                start += sum(of)

    def _file(
        self,
        number: int,
        shards: Sequence[tuple[str, Sequence[CasePlan]]],
        counts: Sequence[int],
        rows: pa.Table,
    ) -> tuple[ShardSummary, ...]:
        """Write a file with the plans of shards, given how many of ``rows`` each of their cases has."""
        places = np.concatenate([np.arange(len(cases), dtype=np.int32) for _, cases in shards])
        table = rows.add_column(0, PLANNED.field("case"), pa.array(np.repeat(places, counts))).cast(PLANNED)
        sized, named = table.select(SIZED), table.select(_named(table))
        summaries, sizes, case, row = [], [], 0, 0
        for bucket, drafts in shards:
            cases, start = [], row
            for draft in drafts:
                objects = sized.slice(row, counts[case])
                cases.append(with_bytes(self.spec, draft, self.images[draft.case_key], self.types, objects))
                row, case = row + counts[case], case + 1
            own = named.slice(start, row - start)
            summaries.append(ShardSummary(self.namer.name(cases, own), bucket, tuple(cases), _encoded(own)))
            sizes.append(row - start)
        write_pack(self.store, number, list(shard_plans(summaries, sizes, table, self.removals)), table)
        return tuple(summaries)


def _together(files: Sequence[tuple[int, range]], sizes: Sequence[int]) -> Iterator[list[tuple[int, range]]]:
    """Yield as many files as are read at once, because it takes long to read a few rows of many runs."""
    group: list[tuple[int, range]] = []
    rows = 0
    for number, file in files:
        own = sum(sizes[file.start : file.stop])
        if group and rows + own > sorted_rows.RUN_ROWS:
            yield group
            group, rows = [], 0
        group.append((number, file))
        rows += own
    if group:
        yield group


def _named(objects: pa.Table) -> list[str]:
    """Return the columns of PLANNED that tell a shard's name, and whether its pixels are compressed."""
    laid = objects["layout"].null_count < objects.num_rows
    return list(dict.fromkeys(("case", *NAMED, *(STATED if laid else ()), "format", "transfer_syntax_uid")))


def _keep(dataset: Store, store: Store, files: Sequence[Sequence[ShardSummary]], folder: Path) -> int:
    """Put the files of plans and their index in place; if they are there already, count files written again."""
    if not is_planned(store):
        for number in range(len(files)):
            store.commit(pack_path(number), folder / pack_path(number))
        write_index(store, ((shard.fingerprint, number) for number, shards in enumerate(files) for shard in shards))
        return 0
    touched, made = 0, open_store(folder)
    for number in range(len(files)):
        before = {plan.fingerprint: plan for plan in read_pack(store, number)}
        for plan in read_pack(made, number):
            if plan.fingerprint in before and dataset.exists(shard_path(plan.fingerprint, RECEIPT)):
                touched += count_touched(before[plan.fingerprint], plan)
    return touched


def count_touched(before: ShardPlan, now: ShardPlan) -> int:
    """Count the objects of a shard whose stamp (modification time, ETag) changed since the shard was planned."""
    names = ("source", "path", "member", "stamp")
    found = [set(zip(*(p.objects.column(n).to_pylist() for n in names), strict=True)) for p in (before, now)]
    return len(found[1] - found[0])


def _encoded(objects: pa.Table) -> bool:
    """Return whether any object of a shard has compressed pixels, or does not say."""
    pairs = set(zip(*(objects.column(c).to_pylist() for c in ("format", "transfer_syntax_uid")), strict=True))
    return any(form == FROM_TABLES or (form == "dicom" and syntax not in NATIVE) for form, syntax in pairs)
