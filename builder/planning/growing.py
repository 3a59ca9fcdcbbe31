"""Go on from an earlier inventory: take out the rows that went, put in those that came, and keep every other chunk.

What is written is what ``merge_parts`` writes of all parts. Where that cannot be told from the rows that changed, as
when one of several copies of an object went, nothing is written, and everything is merged.
"""

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import Reason
from builder.model.parquet import read_parquet
from builder.model.sorting import ordered
from builder.model.tables import INSTANCES
from builder.planning.directories import folded, places
from builder.planning.merge import (
    ANNOTATIONS,
    IMAGES,
    LEFTOVERS,
    ORDER,
    Cutter,
    keep_chunk,
    keep_rows,
    kinds,
    read_chunk,
)
from builder.stages.surveyed import equal_rows
from builder.storage import Store

MOST_ROWS: Final = 100_000
"""Most rows of parts that came or went, and most of annotations or leftovers among which some did. They are held in
memory, at some 5 kB each. If there are more, everything is merged."""

_JUDGED: Final = ["source", "path", "member", "status", "reason", "format", "sop_instance_uid"]
"""Columns of annotations and leftovers that tell whether changes decide about other rows."""

_COPIES: Final = (Reason.DUPLICATE_SAME.value, Reason.DUPLICATE_CONFLICT.value)


@dataclass(frozen=True)
class Merged:
    """An inventory that can be gone on from.

    Parameters
    ----------
    parts
        Maps the parts of the index that it was merged from to the SHA-256 of their rows.
    """

    store: Store
    chunks: tuple[str, ...]
    parts: Mapping[str, str]


@dataclass(frozen=True)
class Grown:
    """The chunks of an inventory that went on from an earlier one, and the series in which rows came or went."""

    chunks: tuple[str, ...]
    changed: frozenset[str]


def merge_changes(before: Merged, parts: Mapping[str, str], index: Store, store: Store) -> Grown | None:
    """Write the inventory of an archive that changed; None if everything must be merged.

    Parameters
    ----------
    before
        Without layouts and without studies that were set aside, as these change rows that are not of the parts at hand.
    parts
        Maps the parts of the index to the SHA-256 of their rows. Files that are missing beside a DICOMDIR are those of
        ``before``.

    Raises
    ------
    FileNotFoundError, LayoutError
        When a file of ``before`` is gone or damaged.
    """
    if not before.chunks or any(before.parts.get(name, digest) != digest for name, digest in parts.items()):
        return None  # rows of a part with the same name were other ones
    changes = _changes(before, parts, index)
    if changes is None:
        return None
    went, came = changes
    held = {name: read_parquet(before.store.read(name), columns=_JUDGED) for name in (ANNOTATIONS, LEFTOVERS)}
    uids = pc.unique(_instances(went, came))
    old = [_Chunk.read(before.store, path, uids) for path in before.chunks]
    if not _is_plain(went, came, held, old):
        return None
    went_by, came_by = ({which: table.filter(mask) for which, mask in kinds(table).items()} for table in (went, came))
    changed = [name for name in held if went_by[name].num_rows or came_by[name].num_rows]
    if any(held[name].num_rows > MOST_ROWS for name in changed):
        return None
    for name in held:
        if name in changed:
            table = _edited(read_parquet(before.store.read(name)), went_by[name], came_by[name])
            keep_rows(store, name, ordered(table, ORDER))
        else:
            store.put(name, before.store.read(name))
    edits = _by_chunk(old, went_by[IMAGES], came_by[IMAGES])
    uids = {uid for tables in edits.values() for table in tables for uid in table["series_uid"].drop_null().to_pylist()}
    return Grown(tuple(_cut(before.store, old, edits, store)), frozenset(uids))


def _changes(before: Merged, parts: Mapping[str, str], index: Store) -> tuple[pa.Table, pa.Table] | None:
    """Return the rows that went and those that came; None if there are too many, or if they are no longer known."""
    tables = []
    rows = 0
    for these, others in ((before.parts, parts), (parts, before.parts)):
        read = [INSTANCES.empty_table()]
        for name in sorted(these.keys() - others.keys()):
            table = _part(index, name, these[name])
            if table is None or rows + table.num_rows > MOST_ROWS:
                return None
            rows += table.num_rows
            read.append(table)
        tables.append(pa.concat_tables(read))
    went, came = tables
    at = {place: row for row, place in enumerate(places(went))}
    pairs = [(at[place], row) for row, place in enumerate(places(came)) if place in at]
    if not pairs:
        return went, came
    one, other = np.array(pairs).T
    same = equal_rows(went.take(pa.array(one)), came.take(pa.array(other)))
    return _without(went, one[same]), _without(came, other[same])


def _part(index: Store, name: str, digest: str) -> pa.Table | None:
    """Return the rows of a part; None if it was removed, read again since with other rows, or has other columns."""
    try:
        data = index.read(f"{name}.parquet")
    except FileNotFoundError:
        return None
    if hashlib.sha256(data).hexdigest() != digest:
        return None
    rows = read_parquet(data)
    return rows.cast(INSTANCES) if rows.column_names == INSTANCES.names else None


def _without(table: pa.Table, rows: npt.NDArray[np.int64]) -> pa.Table:
    kept = np.ones(table.num_rows, np.bool_)
    kept[rows] = False
    return table.filter(pa.array(kept))


@dataclass(frozen=True)
class _Chunk:
    """A chunk of the earlier inventory: its rows, the series it begins with, and which of some UIDs it holds."""

    path: str
    rows: int
    first: str | None
    held: Sequence[str]

    @classmethod
    def read(cls, store: Store, path: str, uids: pa.Array) -> "_Chunk":
        table = read_parquet(read_chunk(store, path), columns=["series_uid", "sop_instance_uid"])
        return cls(path, table.num_rows, table["series_uid"][0].as_py(), _among(table, uids))


def _instances(*tables: pa.Table) -> pa.ChunkedArray:
    """Return the UIDs of the instances in some tables."""
    found = (table.filter(pc.equal(table["status"], "instance"))["sop_instance_uid"] for table in tables)
    return pa.chunked_array([chunk for column in found for chunk in column.chunks], pa.string())


def _among(table: pa.Table, uids: pa.Array) -> list[str]:
    """Return the UIDs of a table that are among these."""
    column = table["sop_instance_uid"]
    found: list[str] = column.filter(pc.is_in(column, uids)).to_pylist()
    return found


def _is_plain(went: pa.Table, came: pa.Table, held: Mapping[str, pa.Table], chunks: Sequence[_Chunk]) -> bool:
    """Return whether the changes decide nothing about rows that stay, nor these about them."""
    leftovers, changed = held[LEFTOVERS], pc.unique(_instances(went, came))
    if any(table.filter(kinds(table)[IMAGES])["series_uid"].null_count for table in (went, came)):
        return False  # such rows lie in no order of series
    copies = leftovers.filter(pc.is_in(leftovers["reason"], pa.array(_COPIES)))
    if _among(copies, changed):
        return False
    there = held[ANNOTATIONS].filter(pc.equal(held[ANNOTATIONS]["status"], "instance"))
    counted = Counter(chain(*(chunk.held for chunk in chunks), _among(there, changed)))
    counted.subtract(_instances(went).to_pylist())
    counted.update(_instances(came).to_pylist())
    if any(count > 1 for uid, count in counted.items() if uid is not None):
        return False
    return _same_missing(went, came, [held[ANNOTATIONS], leftovers])


def _same_missing(went: pa.Table, came: pa.Table, held: Sequence[pa.Table]) -> bool:
    """Return whether the files that lie beside a DICOMDIR, and those that it misses there, are the same as before."""
    if any(_directories(table) for table in (went, came)):
        return False
    before, now = set(places(went)), set(places(came))
    if before - now and any(_directories(table) for table in held):
        return False
    leftovers = held[-1]
    missing = leftovers.filter(pc.equal(leftovers["reason"], Reason.SOURCE_MISSING.value))
    return {folded(place) for place in now - before}.isdisjoint(folded(place) for place in places(missing))


def _directories(table: pa.Table) -> bool:
    return bool(pc.any(pc.equal(table["format"], "dicomdir")).as_py())


def _edited(table: pa.Table, went: pa.Table, came: pa.Table) -> pa.Table:
    """Return a table without some of its rows and with others at its end."""
    if went.num_rows:
        gone = set(places(went))
        near = pc.is_in(table["path"], pc.unique(went["path"])).to_numpy()
        rows = np.flatnonzero(near)
        own = places(table.take(pa.array(rows)))
        table = _without(table, rows[[place in gone for place in own]])
    return pa.concat_tables([table.cast(INSTANCES), came])


def _by_chunk(chunks: Sequence[_Chunk], went: pa.Table, came: pa.Table) -> dict[int, tuple[pa.Table, pa.Table]]:
    """Map the number of each chunk that changes to what goes and what comes: a series lies where its UID does."""
    firsts = [chunk.first for chunk in chunks if chunk.first is not None]
    numbers = [
        np.array([max(bisect_right(firsts, uid) - 1, 0) for uid in table["series_uid"].to_pylist()], np.int64)
        for table in (went, came)
    ]
    changed = np.unique(np.concatenate(numbers)).tolist()
    return {n: (went.filter(pa.array(numbers[0] == n)), came.filter(pa.array(numbers[1] == n))) for n in changed}


def _cut(
    before: Store, chunks: Sequence[_Chunk], edits: Mapping[int, tuple[pa.Table, pa.Table]], store: Store
) -> Iterator[str]:
    """Write the chunks and yield their paths. One that begins and ends where it did is copied as it is."""
    cutter = Cutter()
    whole: _Chunk | None = None  # the chunk that the rows since the last cut are, if they are not in the cutter
    for number, chunk in enumerate(chunks):
        edited = _read_edited(before, chunk, edits[number]) if number in edits else None
        if edited is not None and not edited.num_rows:
            continue
        first = chunk.first if edited is None else edited["series_uid"][0].as_py()
        rows = cutter.rows if whole is None else whole.rows
        begins = not rows or cutter.cuts(first, rows)
        if begins and whole is not None:
            yield _copied(whole, before, store)
        elif begins:
            yield from (keep_chunk(store, table) for table in cutter.rest())
        elif whole is not None:
            yield from (keep_chunk(store, table) for table in cutter.add(_read_edited(before, whole)))
        whole = chunk if begins and edited is None else None
        if whole is None:
            rest = _read_edited(before, chunk) if edited is None else edited
            yield from (keep_chunk(store, table) for table in cutter.add(rest))
    if whole is not None:
        yield _copied(whole, before, store)
    yield from (keep_chunk(store, table) for table in cutter.rest())


def _read_edited(store: Store, chunk: _Chunk, edit: tuple[pa.Table, pa.Table] | None = None) -> pa.Table:
    table = read_parquet(store.read(chunk.path))
    return table.cast(INSTANCES) if edit is None else ordered(_edited(table, *edit), ORDER)


def _copied(chunk: _Chunk, before: Store, store: Store) -> str:
    store.put(chunk.path, before.read(chunk.path))
    return chunk.path
