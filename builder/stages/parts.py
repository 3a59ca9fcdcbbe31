"""Parts of a source's listing: what one task indexes, how it is named, and what it reports when it is done."""

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from json.encoder import encode_basestring_ascii as quoted
from typing import Final

import pyarrow as pa
from pydantic import BaseModel

from builder.model.parquet import parquet_bytes
from builder.protocols import Entry, Source
from builder.sources import Folder, layout_in
from builder.sources.deferring import is_deferred
from builder.stages.boundary import InternalError
from builder.stages.listings import Listing, Part, entries_of, keep_listing, read_listing
from builder.storage import Store

VERSION: Final = 10
"""Raised whenever a row would come out differently, so that parts written by an earlier version are read again."""

PART_FILES: Final = (256, 2048)
"""Least files in a part (except at the end of the source) and most files in a part."""

_ENTRIES = pa.schema([("path", pa.string()), ("member", pa.string()), ("size", pa.int64()), ("stamp", pa.string())])


@dataclass(frozen=True)
class PartPlan:
    """A part of a source's listing that one task reads. Its entries are stored under ``listing``."""

    source: Source
    position: int
    name: str
    files: int
    bytes: int

    @property
    def listing(self) -> str:
        """Path of the entries to read."""
        return entries_of(self.name)

    @property
    def table(self) -> str:
        """Path of the rows."""
        return f"{self.name}.parquet"

    @property
    def receipt(self) -> str:
        """Path of the receipt, which is written last: without it the part does not count as finished."""
        return f"{self.name}.json"


@dataclass(frozen=True)
class PartReceipt:
    """Totals of a finished part."""

    name: str
    rows: int
    instances: int
    files: int
    quarantined: int
    sha256: str
    internal_errors: tuple[InternalError, ...] = ()
    incomplete: int = 0
    """Objects that their source did not give whole. The part is read again in the next run."""
    denied: int = 0
    """Files that this process may not read. The part is read again in the next run, as no listing tells whether they
    may be read then."""
    changed: int = 0
    """Files that were not as they were listed, or gone. The next listing looks at every file."""

    def to_json(self) -> bytes:
        """Encode as JSON; ``parse_part_receipt`` is the inverse."""
        return json.dumps(asdict(self), sort_keys=True).encode()


def parse_part_receipt(data: bytes) -> PartReceipt:
    """Parse a receipt that ``PartReceipt.to_json`` encoded."""
    facts = json.loads(data)
    errors = tuple(InternalError(**error) for error in facts.pop("internal_errors", ()))
    return PartReceipt(**facts, internal_errors=errors)


def partition(entries: Iterable[Entry]) -> Iterator[tuple[Entry, ...]]:
    """Cut a listing into parts at places that depend only on nearby paths.

    A file that is added or removed then changes only its own part and at most the next one. Every other part keeps its
    name and is found finished.
    """
    part: list[Entry] = []
    yield from _cut(entries, part)
    if part:
        yield tuple(part)


def _cut(entries: Iterable[Entry], part: list[Entry]) -> Iterator[tuple[Entry, ...]]:
    """Add entries to a part, and yield what it holds wherever another part begins."""
    for entry in entries:
        if _begins(entry, part):
            yield tuple(part)
            part.clear()
        part.append(entry)


def _begins(entry: Entry, part: Sequence[Entry]) -> bool:
    """Return whether a part begins with an entry, after the part before it."""
    least, most = PART_FILES
    marked = len(part) >= least and zlib.crc32(f"{entry.path}\0{entry.member}".encode()) % least == 0
    return marked or len(part) >= most


def plan_index(source: Source, position: int, *, store: Store) -> Iterator[PartPlan]:
    """List a source, name its parts, and write the entries of unfinished parts for the tasks to read.

    Holds one part at a time in memory, and of a folder also what its last listing saw of each folder in it.

    Raises
    ------
    SourceError
        When the source cannot be listed completely.
    FileNotFoundError, LayoutError
        When what the last listing of a folder stored is gone or damaged (``forget_listings``).
    """
    if not isinstance(source, Folder):
        for entries in partition(source.list()):
            yield _planned(source, position, entries, store)
        return
    name = part_name(source, position, ())
    earlier = read_listing(store, name, sizes=PART_FILES)
    walk = source.walk(earlier)
    parts = []
    for each in _goes_on(walk.entries(), earlier):
        if isinstance(each, Part):
            plan = PartPlan(source, position, each.name, each.files, each.bytes)
            missing = [path for path in (plan.receipt, plan.listing) if not store.exists(path)]
            if len(missing) == 2:
                raise FileNotFoundError(plan.listing)
        else:
            plan = _planned(source, position, each, store)
        parts.append(Part(plan.name, plan.files, plan.bytes))
        yield plan
    keep_listing(store, name, parts, walk.seen, sizes=PART_FILES, earlier=earlier.digest)


def _planned(source: Source, position: int, entries: Sequence[Entry], store: Store) -> PartPlan:
    """Name a part, and write its entries unless it is finished."""
    files = sum(int(entry.stamp) for entry in entries) if is_deferred(source) else len(entries)
    name = part_name(source, position, entries)
    plan = PartPlan(source, position, name, files, sum(entry.size for entry in entries))
    if not store.exists(plan.receipt) or not store.exists(plan.listing):
        store.put(plan.listing, parquet_bytes(_entry_table(entries), compression="lz4"))
    return plan


def _goes_on(found: Iterable[Entry | range], earlier: Listing) -> Iterator[tuple[Entry, ...] | Part]:
    """Cut a listing as ``partition`` does, and yield as they are the parts that the earlier listing had as well."""
    part: list[Entry] = []
    kept: int | None = None  # a part of the earlier listing that is one again if the next part follows it
    for item in _whole_parts(found, earlier):
        if kept is not None and item == kept + 1:
            yield earlier.parts[kept]
            kept = kept + 1
            continue
        if kept is not None:
            part, kept = earlier.entries(*earlier.ends(kept)), None
        if isinstance(item, Entry):
            yield from _cut((item,), part)
            continue
        start, stop = earlier.ends(item)
        if part and not _begins(earlier.entries(start, start + 1)[0], part):
            yield from _cut(earlier.entries(start, stop), part)
            continue
        if part:
            yield tuple(part)
        part, kept = [], item
    if kept is not None:
        yield earlier.parts[kept]
    elif part:
        yield tuple(part)


def _whole_parts(found: Iterable[Entry | range], earlier: Listing) -> Iterator[Entry | int]:
    """Yield the numbers of the parts of an earlier listing whose places adjoin, and the entries of all other places."""
    held = range(0)
    for item in found:
        if held and (isinstance(item, Entry) or item.start != held.stop):
            yield from earlier.entries(held.start, held.stop)
            held = range(0)
        if isinstance(item, Entry):
            yield item
            continue
        held = range(held.start if held else item.start, item.stop)
        while held:
            number = earlier.part_at(held.start)
            start, stop = earlier.ends(number)
            if held.stop < stop:
                break
            if held.start == start:
                yield number
            else:
                yield from earlier.entries(held.start, stop)
            held = range(stop, held.stop)
    yield from earlier.entries(held.start, held.stop)


_OF_NO_ROW = {"files", "origin", "layout", "missing", "missing_at_most", "polite"}
"""Options of a source that change no row of what came whole."""


def part_name(source: Source, position: int, entries: Sequence[Entry]) -> str:
    """Fingerprint what determines a part's rows: the source's options, this code's version, and the listing."""
    options = source.model_dump_json(exclude=_OF_NO_ROW) if isinstance(source, BaseModel) else repr(source)
    if layout_in(source) is not None:
        options += " layout"  # which one does not matter here: it is applied to the finished rows
    digest = hashlib.sha256(f"{VERSION}\0{source.VERSION}\0{position}\0{options}".encode())
    # as JSON, put together here because that takes a quarter of the time
    lines = (f"[{quoted(e.path)}, {quoted(e.member)}, {e.size}, {quoted(e.stamp)}]" for e in entries)
    digest.update("".join(lines).encode())
    return digest.hexdigest()[:32]


def _entry_table(entries: Sequence[Entry]) -> pa.Table:
    return pa.Table.from_pylist([entry.__dict__ for entry in entries], schema=_ENTRIES)
