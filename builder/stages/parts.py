"""Parts of a source's listing: what one task indexes, how it is named, and what it reports when it is done."""

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from json.encoder import encode_basestring_ascii as quoted
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from builder.model.parquet import parquet_bytes, read_parquet
from builder.protocols import Entry, Source
from builder.sources import Folder, layout_in
from builder.sources.deferring import is_deferred
from builder.stages.boundary import InternalError
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
        return f"{self.name}.entries.parquet"

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
    least, most = PART_FILES
    part: list[Entry] = []
    for entry in entries:
        if len(part) >= least and (len(part) >= most or _marked(entry, least)):
            yield tuple(part)
            part = []
        part.append(entry)
    if part:
        yield tuple(part)


def _marked(entry: Entry, one_of: int) -> bool:
    return zlib.crc32(f"{entry.path}\0{entry.member}".encode()) % one_of == 0


def plan_index(source: Source, position: int, *, store: Store) -> Iterator[PartPlan]:
    """List a source, name its parts, and write the entries of unfinished parts for the tasks to read.

    Holds one part at a time in memory. Raises SourceError when the source cannot be listed completely.
    """
    listed = f"listed-{part_name(source, position, ())}.json"
    before = _named(store, listed)
    names = []
    found = source.list(_instances(store, before)) if isinstance(source, Folder) else source.list()
    for entries in partition(found):
        name = part_name(source, position, entries)
        files = sum(int(entry.stamp) for entry in entries) if is_deferred(source) else len(entries)
        plan = PartPlan(source, position, name, files, sum(entry.size for entry in entries))
        if not store.exists(plan.receipt):
            store.put(plan.listing, parquet_bytes(_entry_table(entries), compression="lz4"))
        names.append(name)
        yield plan
    if names != before:
        store.put(listed, json.dumps(names).encode())


def _named(store: Store, listed: str) -> list[str]:
    """Return the names of the parts that a source was cut into when it was last listed to the end; [] if unknown."""
    try:
        names: list[str] = json.loads(store.read(listed))
    except (FileNotFoundError, ValueError):  # without them, or if they are damaged, every file is opened
        return []
    return names


def _instances(store: Store, names: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    """Yield path, size and stamp of the files of parts, in order, that the index read as DICOM instances."""
    columns = ["path", "size", "stamp", "member", "status"]
    for name in names:
        try:
            table = read_parquet(store.read(f"{name}.parquet"), columns=columns)
        except FileNotFoundError:  # not finished, or removed with somebody's data
            continue
        plain = table.filter(pc.and_(pc.equal(table["status"], "instance"), pc.equal(table["member"], "")))
        yield from zip(*(plain[c].to_pylist() for c in columns[:3]), strict=True)


_OF_NO_ROW = {"origin", "layout", "missing", "missing_at_most", "polite"}
"""Options of a source that change no row of what came whole."""


def part_name(source: Source, position: int, entries: Sequence[Entry]) -> str:
    """Fingerprint what determines a part's rows: the source's options, this code's version, and the listing."""
    options = source.model_dump_json(exclude=_OF_NO_ROW) if isinstance(source, BaseModel) else repr(source)
    if layout_in(source) is not None:
        options += " layout"  # which one does not matter here: it is applied to the finished rows
    digest = hashlib.sha256(f"{VERSION}\0{source.VERSION}\0{position}\0{options}".encode())
    for entry in entries:  # as JSON, put together here because that takes a quarter of the time
        digest.update(f"[{quoted(entry.path)}, {quoted(entry.member)}, {entry.size}, {quoted(entry.stamp)}]".encode())
    return digest.hexdigest()[:32]


def _entry_table(entries: Sequence[Entry]) -> pa.Table:
    return pa.Table.from_pylist([entry.__dict__ for entry in entries], schema=_ENTRIES)
