"""From sources to an inventory: every file indexed, duplicates judged, series surveyed; kept between runs."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from builder.imaging.options import VolumeOptions
from builder.model.canonical import fingerprint
from builder.model.parquet import parquet_bytes, read_parquet
from builder.run.progress import Progress
from builder.sources import AnySource
from builder.stages.directories import LISTED, missing_files
from builder.stages.duplicates import COMPARED, find_duplicates, part_with_verdicts
from builder.stages.graph import Runner, Task
from builder.stages.index import PartPlan, PartReceipt, index_part, plan_index
from builder.stages.inventory import Inventory, Survey
from builder.stages.merge import merge_parts
from builder.stages.survey import STACKS, SurveyArgument, stated, survey_chunk
from builder.storage import Store, open_store

INDEX = "index"
INVENTORY = "inventory"
VERSION = 3
_RECEIPT = "inventory.json"


@dataclass(frozen=True)
class IndexArgument:
    """One part to index, and the store it is written to."""

    plan: PartPlan
    store: str


def run_index(argument: IndexArgument) -> PartReceipt:
    """The task: index one part."""
    return index_part(argument.plan, store=open_store(argument.store, directory_mode=0o700))


def take_inventory(sources: Sequence[AnySource], private: Store, *, runner: Runner, progress: Progress) -> Inventory:
    """Index all sources, judge duplicates and sort; what is unchanged since the last time is not read again."""
    index = private.join(INDEX)
    plans = list(progress.track(_plans(sources, index), stage="list", total=None))
    tasks = [
        Task(f"index-{plan.name}", run_index, IndexArgument(plan, index.url), lane=plan.source.lane) for plan in plans
    ]
    for _ in progress.track(runner.run(tasks), stage="index", total=len(tasks)):
        pass
    names = [plan.name for plan in plans]
    store = private.join(INVENTORY, fingerprint(VERSION, names))
    if store.exists(_RECEIPT):
        found = json.loads(store.read(_RECEIPT))
        return Inventory(store, tuple(found["chunks"]), found["files"])
    chunks, missing = _merge(plans, sources, index, store)
    inventory = Inventory(store, tuple(chunks), sum(plan.files for plan in plans) + missing)
    store.put(_RECEIPT, json.dumps({"chunks": chunks, "files": inventory.files}).encode())
    return inventory


def take_survey(
    inventory: Inventory,
    sources: Sequence[AnySource],
    options: VolumeOptions,
    *,
    runner: Runner,
    progress: Progress,
) -> Survey:
    """Split every series into stacks and judge them by the geometry policy; no pixels are read."""
    places = [stated(source) for source in sources]
    decides = (options.VERSION, options.model_dump(mode="json"), places, STACKS.names)
    folder = "survey/" + fingerprint(VERSION, *decides)
    parts = tuple(
        SurveyArgument(inventory.store.url, chunk, folder, number, tuple(sources), options)
        for number, chunk in enumerate(inventory.chunks)
    )
    # headers of multi-frame objects are read again: servers among the sources bound how many tasks run at once
    lane = min((source.lane for source in sources if source.lane), default="")
    tasks = [Task(f"survey-{number:05d}", survey_chunk, part, lane=lane) for number, part in enumerate(parts)]
    for _ in progress.track(runner.run(tasks), stage="survey", total=len(tasks)):
        pass
    return Survey(inventory.store, parts)


def _plans(sources: Sequence[AnySource], index: Store) -> Iterator[PartPlan]:
    for position, source in enumerate(sources):
        yield from plan_index(source, position, store=index)


def _merge(
    plans: Sequence[PartPlan], sources: Sequence[AnySource], index: Store, store: Store
) -> tuple[list[str], int]:
    """Chunks of the inventory, and how many files a DICOMDIR names that are not there: each gets a row of its own."""

    def tables(columns: Sequence[str]) -> Iterator[pa.Table]:
        for plan in plans:
            yield read_parquet(index.read(plan.table), columns=list(columns))

    verdicts = find_duplicates(tables(COMPARED), sources)
    missing = missing_files(lambda: tables(LISTED), sources)
    with tempfile.TemporaryDirectory(prefix="builder-") as folder:
        parts = []
        for number, plan in enumerate(plans):
            parts.append(Path(folder) / f"{number:06d}.parquet")
            parts[-1].write_bytes(part_with_verdicts(index.read(plan.table), verdicts))
        if missing.num_rows:
            parts.append(Path(folder) / "missing.parquet")
            parts[-1].write_bytes(parquet_bytes(missing))
        return (merge_parts(parts, store) if parts else []), missing.num_rows
