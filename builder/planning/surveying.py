"""Have the chunks of an inventory surveyed in tasks, and go on from what an earlier survey found of them."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Final

from builder.imaging.series_types import Rule, table_digest
from builder.imaging.stacks.options import VolumeOptions
from builder.model.canonical import fingerprint
from builder.model.parquet import read_parquet
from builder.planning.inventory import VERSION, Inventory, Survey
from builder.protocols import Progress
from builder.sources import AnySource
from builder.stages.boundary import Faults
from builder.stages.graph import Runner, Task
from builder.stages.stack_rows import STACKS
from builder.stages.survey import IDENTITIES, SurveyArgument, stated, survey_chunks
from builder.storage import open_store

KNOWN_CHUNKS: Final = 16
"""Chunks that one task surveys where an earlier survey found most of it, as what a series is takes long to begin."""


def take_survey(
    inventory: Inventory,
    sources: Sequence[AnySource],
    options: VolumeOptions,
    *,
    runner: Runner,
    progress: Progress,
    faults: Faults,
    rules: Sequence[Rule] = (),
) -> Survey:
    """Split every series into stacks and judge them by the geometry policy. No pixels are read.

    ``rules`` are a spec's own that say what a series is. What an earlier survey by the same options found of a series
    that has not changed since is taken from it.
    """
    places = [stated(source) for source in sources]
    decides = (
        options.VERSION, options.model_dump(mode="json", exclude={"of"}), places, STACKS.names, IDENTITIES.names,
        table_digest(), [asdict(rule) for rule in rules],
    )  # fmt: skip
    folder = "survey/" + fingerprint(VERSION, *decides)
    strict = tuple(source.strictly() for source in sources)  # a survey is kept, so nothing provisional may enter it
    parts = tuple(
        SurveyArgument(inventory.store.url, chunk, folder, strict, options, faults.action, tuple(rules))
        for chunk in inventory.chunks
    )
    if inventory.earlier is not None and parts:
        store, chunks = inventory.earlier.store.url, inventory.earlier.chunks
        before = [replace(parts[0], store=store, chunk=chunk) for chunk in chunks]
        parts = _with_earlier(parts, before, changed=inventory.changed)
    # headers of multi-frame objects are read again, so servers among the sources limit how many tasks run at once
    lane = min((source.lane for source in sources if source.lane), default="")
    tasks = [Task(f"survey-{n:05d}", survey_chunks, held, lane=lane) for n, held in enumerate(_together(parts))]
    for outcome in progress.track(runner.run(tasks), stage="survey", total=len(tasks)):
        faults.add(outcome.value)
    return Survey(inventory.store, parts)


def _with_earlier(
    parts: Sequence[SurveyArgument], before: Sequence[SurveyArgument], *, changed: frozenset[str] | None
) -> tuple[SurveyArgument, ...]:
    """Tell every chunk that is not surveyed yet which earlier chunks may hold its series: all are in their order.

    That is the same chunk, or those that are no chunks any more.
    """
    if all(_finished(part) for part in parts):
        return tuple(parts)
    held = {part.chunk for part in parts}
    same = {part.chunk: part.earlier_chunk for part in before if part.chunk in held and _finished(part)}
    gone = [part for part in before if part.chunk not in held and _finished(part)]
    ranges = [(*_ends(part), part.earlier_chunk) for part in gone]
    found = []
    for part in parts:
        if part.chunk in same:
            part = replace(part, earlier=(same[part.chunk],))
        elif ranges and not _finished(part):
            first, last = _ends(part)
            own = None if changed is None else frozenset(uid for uid in changed if first <= uid <= last)
            near = (e for start, end, e in ranges if start <= last and first <= end)
            part = replace(part, earlier=tuple(replace(e, changed=own) for e in near))
        found.append(part)
    return tuple(found)


def _together(parts: Sequence[SurveyArgument]) -> Iterator[tuple[SurveyArgument, ...]]:
    """Yield the chunks of each task: several of which most series are known, otherwise one."""
    known = [part for part in parts if part.earlier]
    yield from (tuple(known[n : n + KNOWN_CHUNKS]) for n in range(0, len(known), KNOWN_CHUNKS))
    yield from ((part,) for part in parts if not part.earlier)


def _finished(part: SurveyArgument) -> bool:
    return open_store(part.store, directory_mode=0o700).exists(part.membership)


def _ends(part: SurveyArgument) -> tuple[str, str]:
    """Return the first and the last UID of a series in a chunk."""
    store = open_store(part.store, directory_mode=0o700)
    uids = read_parquet(store.read(part.chunk), columns=["series_uid"])["series_uid"].drop_null()
    return (uids[0].as_py(), uids[-1].as_py()) if len(uids) else ("\uffff", "")
