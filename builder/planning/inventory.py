"""Take the inventory of an archive: index every file, judge duplicates, survey series, and keep it between runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import pyarrow as pa

from builder.errors import LayoutError, Reason, SourceError
from builder.model.canonical import fingerprint
from builder.model.parquet import parquet_bytes, read_parquet
from builder.planning.directories import LISTED, missing_files
from builder.planning.duplicates import COMPARED, find_duplicates, part_with_verdicts, with_verdicts
from builder.planning.growing import Grown, Merged, merge_changes
from builder.planning.incomplete import Study, aside_studies, setting_aside
from builder.planning.layouts import Laid, lay_out
from builder.planning.merge import ANNOTATIONS, LEFTOVERS, merge_parts
from builder.protocols import Progress
from builder.sources import AnySource, Folder, layout_in
from builder.stages.boundary import Faults
from builder.stages.graph import Runner, Task
from builder.stages.index import IndexArgument, run_index
from builder.stages.listings import forget_listings
from builder.stages.parts import PartPlan, part_name, plan_index
from builder.stages.stack_rows import STACKS
from builder.stages.survey import IDENTITIES, SurveyArgument
from builder.storage import Store, open_store

INDEX = "index"
INVENTORY = "inventory"
VERSION = 9
"""Raised whenever the tables of an inventory, or what a survey finds, would come out differently of the same parts."""
_RECEIPT = "inventory.json"


@dataclass(frozen=True)
class Gone:
    """What an archive holds of a person who withdrew: counted, and otherwise left out."""

    tombstone: str
    files: int
    instances: int
    """DICOM instances among the files."""


@dataclass(frozen=True)
class Inventory:
    """Where the inventory is in the private workspace, and how many files it accounts for.

    Parameters
    ----------
    store
        Store of the inventory.
    chunks
        Chunks of image instances, in order, each with whole series.
    files
        Number of files that the sources list, plus missing files that a DICOMDIR names. Each of them is in a chunk, an
        annotation or a leftover.
    incomplete
        Number of studies that are left out, until the next run, because their source did not give them whole.
    withdrawn
        Persons who withdrew and of whom the sources list files: these count in ``files`` and are in no table.
    later
        Addresses of tables of headers that the build read, of series that were planned from tables.
    earlier
        Of the same archive, for what its surveys found of series that have not changed.
    changed
        Series in which rows came or went since ``earlier``; None if that is not known.
    parts
        Maps the parts of the index that it was merged from to the SHA-256 of their rows, if a later inventory can go
        on from it. It cannot where layouts or studies that are left out decide about rows.
    missing
        Number of missing files that a DICOMDIR names.
    sources
        Fingerprints of the sources, in order. A later inventory goes on from this one only if they are still the same,
        though some may come or go at the end: copies are not compared again, and other places may hold other pixels.
    """

    store: Store
    chunks: tuple[str, ...]
    files: int
    incomplete: int = 0
    withdrawn: tuple[Gone, ...] = ()
    later: tuple[str, ...] = ()
    earlier: "Inventory | None" = None
    changed: frozenset[str] | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    missing: int = 0
    sources: tuple[str, ...] = ()

    def annotations(self, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the annotation objects and files, with schema INSTANCES."""
        return self._read(ANNOTATIONS, columns)

    def leftovers(self, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the duplicates and quarantined files, with schema INSTANCES."""
        return self._read(LEFTOVERS, columns)

    def chunk(self, number: int, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the instances of a chunk."""
        return self._read(self.chunks[number], columns)

    def headers_read_later(self, address: str, *, columns: Sequence[str]) -> pa.Table:
        """Read a table of ``later``."""
        folder, _, name = address.rpartition("/")
        return read_parquet(open_store(folder, directory_mode=0o700).read(name), columns=list(columns))

    def stamps(self) -> str:
        """Fingerprint when every file was written, as its source tells it."""
        places = ("source", "path", "member", "stamp")
        parts = (parquet_bytes(self._read(path, places)) for path in (*self.chunks, ANNOTATIONS, LEFTOVERS))
        return fingerprint(*parts)

    def _read(self, path: str, columns: Sequence[str] | None) -> pa.Table:
        return read_parquet(self.store.read(path), columns=None if columns is None else list(columns))


@dataclass(frozen=True)
class Survey:
    """The stacks of an inventory under one geometry policy."""

    store: Store
    parts: tuple[SurveyArgument, ...]
    twins: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """Stacks, by series and number, that are left out because the archive holds their image in another format too."""

    def stacks(self) -> pa.Table:
        """Read one row per stack, with schema STACKS, in the order of the chunks."""
        stacks = pa.concat_tables([STACKS.empty_table(), *(self.stacks_of(n) for n in range(len(self.parts)))])
        if not self.twins:
            return stacks
        rows = stacks.to_pylist()
        for row in rows:
            if detail := self.twins.get((row["series_uid"], row["stack"])):
                row |= {"usable_reason": Reason.DUPLICATE_FORMAT.value, "usable_detail": detail}
        return pa.Table.from_pylist(rows, schema=STACKS)

    def stacks_of(self, number: int) -> pa.Table:
        """Read the stacks of one chunk, with schema STACKS; twins are among them."""
        stacks = self._read(self.parts[number].stacks)
        place = STACKS.get_field_index("chunk")  # not stored, as the numbers of chunks change when an archive grows
        numbers = pa.repeat(pa.scalar(number, pa.int32()), stacks.num_rows)
        return stacks.set_column(place, STACKS.field(place), numbers)

    def row_digests(self) -> pa.Table:
        """Read ``series_uid``, ``stack`` and ``rows_digest`` of each stack, and its ``chunk``."""
        names = ["series_uid", "stack", "rows_digest"]
        found = [read_parquet(self.store.read(part.stacks), columns=names) for part in self.parts]
        numbers = np.repeat(np.arange(len(found), dtype=np.int32), [table.num_rows for table in found])
        empty = pa.schema([STACKS.field(name) for name in names]).empty_table()
        return pa.concat_tables([empty, *found]).append_column("chunk", pa.array(numbers, pa.int32()))

    def identities(self) -> pa.Table:
        """Read the identities of all chunks, with schema IDENTITIES; an identity in several chunks is repeated."""
        return pa.concat_tables([IDENTITIES.empty_table(), *(self._read(p.identities) for p in self.parts)])

    def membership(self, number: int) -> pa.Table:
        """Read which stack each instance of a chunk is in."""
        return self._read(self.parts[number].membership)

    def _read(self, path: str) -> pa.Table:
        return read_parquet(self.store.read(path))


def take_inventory(
    sources: Sequence[AnySource],
    private: Store,
    *,
    runner: Runner,
    progress: Progress,
    faults: Faults,
    earlier: Inventory | None = None,
) -> Inventory:
    """Index all sources, judge duplicates and sort. Files unchanged since the last run are not read again.

    ``earlier`` is an inventory of the same archive, from which this one goes on where it can.
    """
    index = private.join(INDEX)
    try:
        plans = list(progress.track(_plans(sources, index), stage="list", total=None))
    except (FileNotFoundError, LayoutError):  # something that an earlier listing stored is gone or damaged
        forget_listings(index)
        plans = list(progress.track(_plans(sources, index), stage="list", total=None))
    tasks = [
        Task(f"index-{plan.name}", run_index, IndexArgument(plan, index.url, faults.action), lane=plan.source.lane)
        for plan in plans
    ]
    left_out: list[str] = []
    partial, denied, parts = {}, {}, {}
    for outcome in progress.track(runner.run(tasks), stage="index", total=len(tasks)):
        faults.add(outcome.value.internal_errors)
        left_out += [error.trace for error in outcome.value.internal_errors]
        parts[outcome.value.name] = outcome.value.sha256
        if outcome.value.incomplete:
            partial[outcome.value.name] = outcome.value.sha256
        if outcome.value.changed:
            forget_listings(index)
        if outcome.value.denied:
            denied[outcome.value.name] = outcome.value.sha256
    layouts = [layout and layout.model_dump(mode="json") for layout in map(layout_in, sources)]
    names = [*(plan.name for plan in plans), *([layouts] if any(layouts) else [])]
    # Parts with internal errors keep their names once the errors are fixed, although their rows will differ. Adding
    # them to the fingerprint gives that later inventory another name. The same holds for parts that did not come whole,
    # or had files that might not be read.
    changing = [found for found in (sorted(left_out), sorted(partial.items()), sorted(denied.items())) if found]
    store = private.join(INVENTORY, fingerprint(VERSION, names, *changing))
    aside = aside_studies((plan for plan in plans if plan.name in partial), plans, sources, index)
    if store.exists(_RECEIPT):
        return replace(kept_inventory(store), incomplete=len(aside), earlier=earlier)
    known = {} if any(layouts) or partial else parts
    named = tuple(part_name(source, position, ()) for position, source in enumerate(sources))
    try:
        grown = _merge_changes(earlier, known, index, store, sources=named)
    except (FileNotFoundError, LayoutError):  # something of the earlier inventory is gone or damaged
        earlier = grown = None
    if earlier is not None and grown is not None:
        chunks, missing, changed = grown.chunks, earlier.missing, grown.changed
    else:
        (chunks, missing), changed = _merge(plans, sources, index, store, aside=aside), None
    files = sum(plan.files for plan in plans) + missing
    inventory = Inventory(store, chunks, files, len(aside), parts=known, missing=missing, sources=named)
    keep_inventory(inventory)
    return replace(inventory, earlier=earlier, changed=changed)


def _merge_changes(
    earlier: Inventory | None, parts: Mapping[str, str], index: Store, store: Store, *, sources: Sequence[str]
) -> Grown | None:
    """Do what ``_merge`` does by going on from an earlier inventory; None where that is not possible."""
    if earlier is None or not parts or not earlier.parts:
        return None
    if any(one != other for one, other in zip(earlier.sources, sources, strict=False)):
        return None
    return merge_changes(Merged(earlier.store, earlier.chunks, earlier.parts), parts, index, store)


def keep_inventory(inventory: Inventory) -> None:
    """Write the receipt of an inventory, after its tables."""
    found = {"version": VERSION, "chunks": inventory.chunks, "files": inventory.files, "missing": inventory.missing}
    found |= {"parts": dict(inventory.parts), "sources": inventory.sources} if inventory.parts else {}
    withdrawn = {"withdrawn": [asdict(gone) for gone in inventory.withdrawn]} if inventory.withdrawn else {}
    inventory.store.put(_RECEIPT, json.dumps({**found, **withdrawn}).encode())


def kept_inventory(store: Store) -> Inventory:
    """Read the receipt of an inventory, without asking any source. Raises FileNotFoundError."""
    found = json.loads(store.read(_RECEIPT))
    gone = tuple(Gone(**entry) for entry in found.get("withdrawn", ()))
    parts = found.get("parts", {}) if found.get("version") == VERSION else {}
    return Inventory(
        store, tuple(found["chunks"]), found["files"], withdrawn=gone, parts=parts, missing=found.get("missing", 0),
        sources=tuple(found.get("sources", ())),
    )  # fmt: skip


def _plans(sources: Sequence[AnySource], index: Store) -> Iterator[PartPlan]:
    for position, source in enumerate(sources):
        listed = False
        for plan in _named_plans(source, position, index):
            listed = True
            yield plan
        if not listed:
            raise SourceError(_lists_nothing(source, position), host=source.kind)


def _named_plans(source: AnySource, position: int, index: Store) -> Iterator[PartPlan]:
    """Plan the index of a source, and name the source in what is wrong with its folder."""
    try:
        yield from plan_index(source, position, store=index)
    except SourceError as error:
        if not isinstance(source, Folder):
            raise
        raise SourceError(f"sources.{position}: {error}", host=error.host) from error


def _lists_nothing(source: AnySource, position: int) -> str:
    """Return the message about an empty source. An unmounted archive or a wrong query would make an empty dataset."""
    if isinstance(source, Folder):
        found = f"found no file in {source.url}"
        chosen = " that its include and exclude let through" if source.include or source.exclude else ""
        return (
            f"sources.{position}: {found}{chosen}, expected at least one; check that the folder is mounted, "
            "or take the source out of the spec"
        )
    return (
        f"sources.{position}: the {source.kind} source lists no object, expected at least one; check what it asks "
        "the server for, or take the source out of the spec"
    )


def _merge(
    plans: Sequence[PartPlan], sources: Sequence[AnySource], index: Store, store: Store, *, aside: frozenset[Study]
) -> tuple[tuple[str, ...], int]:
    """Write the chunks of the inventory and return them with the number of missing files that a DICOMDIR names."""

    def read(columns: Sequence[str]) -> Iterator[pa.Table]:
        for plan in plans:
            yield read_parquet(index.read(plan.table), columns=list(columns))

    laid = lay_out(read, sources)

    def tables(columns: Sequence[str]) -> Iterator[pa.Table]:
        for plan in plans:
            yield read_parquet(_laid(index.read(plan.table), laid), columns=list(columns))

    set_aside = setting_aside(tables(COMPARED), sources, aside)
    missing = missing_files(lambda: tables(LISTED), sources)
    if laid is not None:
        missing = pa.concat_tables([missing, laid.missing])
    with store.scratch() as folder:  # not in the system's temporary folder, where it would stay after a kill
        strict = [source.strictly() for source in sources]
        compared = (with_verdicts(table, set_aside, columns=("status",)) for table in tables(COMPARED))
        verdicts = pa.concat_tables([set_aside, find_duplicates(compared, strict, folder=folder)])
        parts = []
        for number, plan in enumerate(plans):
            parts.append(folder / f"{number:06d}.parquet")
            parts[-1].touch(mode=0o600)  # a kill may leave it behind
            parts[-1].write_bytes(part_with_verdicts(_laid(index.read(plan.table), laid), verdicts))
        if missing.num_rows:
            parts.append(folder / "missing.parquet")
            parts[-1].touch(mode=0o600)
            parts[-1].write_bytes(parquet_bytes(missing))
        return tuple(merge_parts(parts, store) if parts else ()), missing.num_rows


def _laid(data: bytes, laid: Laid | None) -> bytes:
    """Return a stored part of the index in which the files that a layout knows are images."""
    if laid is None:
        return data
    part = read_parquet(data)
    changed = laid.part(part)
    return data if changed is part else parquet_bytes(changed, compression="lz4")
