"""Gather the rows of all objects that shards are made of, and write the plans of the shards: the tasks of a plan.

A shard takes its cases from anywhere in an archive, which has more rows than fit into memory. So ``sort_rows`` puts
the rows of some chunks in the order of the shards and stores them in pieces, and ``write_lines`` joins one piece of
each. What many objects of a series share, most of a hundred columns, is read, sorted and kept once for all of them.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from builder.decode.format import NATIVE
from builder.model.parquet import read_parquet
from builder.model.sorting import Flags, changes
from builder.model.tables import FROM_TABLES, INSTANCES
from builder.model.zarr_format import checksum
from builder.plan import NAMED, STATED, CasePlan, Namer
from builder.stages.checked import read_checked, with_checksum
from builder.stages.planned import OWN, SHARED, Place, Rows, plan_line, plans_path
from builder.storage import Store, open_store

Numbers = npt.NDArray[np.int64]

LINES_ROWS: Final = 4_096
"""From about so many rows on, no more shards are turned into lines together: they take about a kB each meanwhile."""


@dataclass(frozen=True)
class ChunkParts:
    """A chunk of the inventory, its membership, and the parts of cases in it.

    ``parts`` are numbered in the order of the shards, and each comes with its series and its holders in the membership.
    """

    chunk: str
    membership: str
    parts: tuple[tuple[int, str, tuple[int, ...]], ...] = field(repr=False)  # workers log the argument of what failed


@dataclass(frozen=True)
class SortArgument:
    """Which chunks to sort into one run.

    Parameters
    ----------
    inventory, survey, store
        Locations of chunks, of memberships, and of the runs.
    cuts
        The number of the first part of each piece, and of all parts.
    """

    inventory: str
    survey: str
    store: str
    number: int
    chunks: tuple[ChunkParts, ...]
    cuts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Run:
    """Where each piece of a run lies in its file, as start and length, and what its parts have, in arrays of one order.

    Parameters
    ----------
    rows
        Number of objects.
    fetched
        Bytes of files that are held whole until the case is decoded.
    direct, largest
        Bytes of files whose pixels are read in place, and of the largest of them.
    """

    path: str
    pieces: Mapping[int, tuple[int, int]]
    parts: Numbers
    rows: Numbers
    fetched: Numbers
    direct: Numbers
    largest: Numbers


def sort_rows(argument: SortArgument) -> Run:
    """Store the rows of the images in some chunks in the order of the shards."""
    inventory, survey, store = (
        open_store(url, directory_mode=0o700) for url in (argument.inventory, argument.survey, argument.store)
    )
    found = [_of_chunk(inventory, survey, held) for held in argument.chunks]
    return write_run(store, argument.number, found, cuts=argument.cuts)


def _of_chunk(inventory: Store, survey: Store, wanted: ChunkParts) -> tuple[Numbers, pa.Table]:
    """Return the rows of the parts in a chunk, and the part that each row is of."""
    owners, places = _places(read_parquet(survey.read(wanted.membership)), wanted.parts)
    texts = [name for name in SHARED if INSTANCES.field(name).type == pa.string()]
    rows = read_parquet(inventory.read(wanted.chunk), columns=INSTANCES.names, dictionaries=texts)
    # a slice would keep all rows of the chunk in memory until those of the last chunk are read
    if len(places) > rows.num_rows // 2 and (np.diff(places) == 1).all():
        return owners, rows.slice(places[0], len(places))
    return owners, rows.take(pa.array(places))


def _places(membership: pa.Table, parts: Sequence[tuple[int, str, tuple[int, ...]]]) -> tuple[Numbers, Numbers]:
    """Return the part and the place of each row of a chunk that a part wants; parts one after the other."""
    starts = np.flatnonzero(changes(membership))
    held: dict[tuple[str, int], list[Numbers]] = {}
    names = membership.take(pa.array(starts))
    ranges = pairwise([*starts.tolist(), membership.num_rows])
    for series, stack, (start, end) in zip(*(c.to_pylist() for c in names.columns), ranges, strict=True):
        held.setdefault((series, stack), []).append(np.arange(start, end))
    found = [(part, [rows for holder in own for rows in held.get((series, holder), ())]) for part, series, own in parts]
    # in the order of the chunk, so that no row has to be moved where all of them are wanted
    wanted = sorted(((np.sort(np.concatenate(rows)), part) for part, rows in found if rows), key=lambda own: own[0][0])
    none = np.zeros(0, np.int64)
    places = np.concatenate([none, *(rows for rows, _ in wanted)])
    return np.concatenate([none, *(np.full(len(rows), part) for rows, part in wanted)]), places


def write_run(
    store: Store,
    number: int,
    found: Sequence[tuple[Numbers, pa.Table]],
    *,
    cuts: Sequence[int],
    images: bool = True,
) -> Run:
    """Store rows in the order of their parts. ``found`` pairs them with the part that each is of, all rows of one in a
    row; ``images`` says whether they are of images, whose pixels may be read in place.
    """
    folded = [_folded(owners, rows) for owners, rows in found]
    own = pa.concat_tables([table for table, _ in folded])
    shared = pa.concat_tables([table for _, table in folded])
    own, shared = (table.take(pa.array(_order(table))).combine_chunks() for table in (own, shared))
    sink, path = io.BytesIO(), f"run-{number:06d}"
    pieces = {}
    ends = [np.searchsorted(table["part"].to_numpy(), np.array(cuts)).tolist() for table in (own, shared)]
    for piece, (rows, alike) in enumerate(zip(pairwise(ends[0]), pairwise(ends[1]), strict=True)):
        if rows[0] < rows[1]:
            both = ((own, rows), (shared, alike))
            data = b"".join(_stream(table.slice(first, last - first)) for table, (first, last) in both)
            pieces[piece] = (sink.tell(), sink.write(with_checksum(data)))
    store.put(path, sink.getvalue())
    return _counted(path, pieces, own, images=images)


def _folded(owners: Numbers, rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Divide rows into what is their own, and what they share with the row before in the same part.

    The first has a column ``shared`` that counts the rows of the second from the first one of the same part.
    """
    shared = rows.select(SHARED)
    begins = _begins(owners)
    first = changes(shared) | begins
    numbers = np.cumsum(first) - 1
    within = numbers - numbers[begins][np.cumsum(begins) - 1]
    own = rows.select(OWN).cast(pa.schema([INSTANCES.field(name) for name in OWN]))
    own = own.append_column("part", pa.array(owners)).append_column("shared", pa.array(within))
    kept = shared.filter(pa.array(first)).cast(pa.schema([INSTANCES.field(name) for name in SHARED]))
    return own, kept.append_column("part", pa.array(owners[first]))


def _begins(owners: Numbers) -> Flags:
    """Return where another part begins."""
    found = np.ones(len(owners), bool)
    found[1:] = owners[1:] != owners[:-1]
    return found


def _order(table: pa.Table) -> Numbers:
    """Return the order by parts, in which rows of one part stay as they are."""
    return np.argsort(table["part"].to_numpy(), kind="stable")


def _stream(table: pa.Table) -> bytes:
    sink, options = io.BytesIO(), pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _counted(path: str, pieces: Mapping[int, tuple[int, int]], own: pa.Table, *, images: bool) -> Run:
    starts = np.flatnonzero(_begins(own["part"].to_numpy()))
    sizes = own["size"].to_numpy()
    direct = np.where(pc.is_valid(own["pixel_offset"]).to_numpy() & images, sizes, 0)
    rows = np.diff(np.append(starts, own.num_rows))
    if not len(starts):
        return Run(path, pieces, starts, rows, starts, starts, starts)
    whole, read = np.add.reduceat(sizes, starts), np.add.reduceat(direct, starts)
    parts, largest = own["part"].to_numpy()[starts], np.maximum.reduceat(direct, starts)
    return Run(path, pieces, parts, rows, whole - read, read, largest)


@dataclass(frozen=True, eq=False)
class LinesArgument:
    """The plans of which shards to write, from one piece of each run.

    Parameters
    ----------
    store
        Location of the runs, and of the file of plans.
    number
        Of that file.
    recipe
        What shards are named by beside their cases.
    pieces
        Path, start and length of each piece.
    first
        Number of the first part.
    roles
        Role of each part of each case.
    shards
        Cases of each shard.
    removals
        By digest, what goes out of the heads of these cases.
    """

    store: str
    number: int
    recipe: Mapping[str, Any]
    pieces: tuple[tuple[str, int, int], ...]
    first: int
    roles: tuple[tuple[str, ...], ...]
    shards: tuple[tuple[CasePlan, ...], ...]
    removals: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Line:
    """The plan of a shard that was written: name, whether pixels of it are compressed, and where it is."""

    fingerprint: str
    encoded: bool
    place: Place


def write_lines(argument: LinesArgument) -> tuple[Line, ...]:
    """Write the plans of shards into one file, a line each."""
    store, namer = open_store(argument.store, directory_mode=0o700), Namer(argument.recipe)
    gathered = _Gathered(store, argument.pieces, argument.first, sum(map(len, argument.roles)))
    sink, lines, roles = io.BytesIO(), [], iter(argument.roles)
    parts = [[(n, role) for n, _ in enumerate(cases) for role in next(roles)] for cases in argument.shards]
    for cases, rows in zip(argument.shards, gathered.shards(parts), strict=True):
        laid = any(rows.column("layout"))
        named = {name: rows.column(name) for name in ("case", *NAMED, *(STATED if laid else ()))}
        name = namer.name(cases, named)
        line = plan_line(name, cases, rows, argument.removals)
        place = Place(argument.number, sink.tell(), sink.write(line), checksum(line))
        lines.append(Line(name, _encoded(rows), place))
    store.put(plans_path(argument.number), sink.getvalue())
    return tuple(lines)


class _Gathered:
    """The rows of one piece of every run, in the order of their parts."""

    def __init__(self, store: Store, pieces: Sequence[tuple[str, int, int]], first: int, count: int) -> None:
        own, shared = [_EMPTY_OWN], [_EMPTY_SHARED]
        for path, start, length in pieces:
            stream = io.BytesIO(read_checked(store, path, start, length=length))
            own.append(pa.ipc.open_stream(stream).read_all())
            shared.append(pa.ipc.open_stream(stream).read_all())
        both = [pa.concat_tables(tables) for tables in (own, shared)]
        self._own, self._shared = (table.take(pa.array(_order(table))) for table in both)
        parts = np.arange(first, first + count + 1)
        self._rows, self._alike = (np.searchsorted(t["part"].to_numpy(), parts) for t in (self._own, self._shared))
        starts = self._alike[self._own["part"].to_numpy() - first] + self._own["shared"].to_numpy()
        self._counts = np.bincount(starts, minlength=self._shared.num_rows)

    def shards(self, parts: Sequence[Sequence[tuple[int, str]]]) -> Iterator[Rows]:
        """Yield the rows of each shard, of which the case and the role of each part are given."""
        ends = np.cumsum([0, *map(len, parts)])
        for held in _batches(self._rows[ends]):
            numbers = ends[held.start : held.stop + 1]
            rows, alike = self._rows[numbers[0] : numbers[-1] + 1], self._alike[numbers]
            own = self._own.slice(rows[0], rows[-1] - rows[0])
            columns = {name: own[name].to_pylist() for name in OWN}
            shared = self._shared.slice(alike[0], alike[-1] - alike[0])
            cells = list(zip(*(shared[name].to_pylist() for name in SHARED), strict=True))
            counts = self._counts[alike[0] : alike[-1]].tolist()
            places, of_parts = rows - rows[0], np.diff(rows).tolist()
            for shard, (first, last) in zip(held, pairwise(numbers - numbers[0]), strict=True):
                start, end = int(places[first]), int(places[last])
                begin, stop = (int(place - alike[0]) for place in alike[shard - held.start : shard - held.start + 2])
                yield Rows(
                    [(*part, count) for part, count in zip(parts[shard], of_parts[first:last], strict=True)],
                    {name: values[start:end] for name, values in columns.items()},
                    list(zip(counts[begin:stop], cells[begin:stop], strict=True)),
                )


def _batches(ends: Numbers) -> Iterator[range]:
    """Yield which shards to turn into lines together, given where the rows of each begin, and where the last end."""
    first = 0
    for shard in range(1, len(ends)):
        if ends[shard] - ends[first] >= LINES_ROWS or shard == len(ends) - 1:
            yield range(first, shard)
            first = shard


def _schema(names: Sequence[str], *more: str) -> pa.Schema:
    return pa.schema([*(INSTANCES.field(name) for name in names), *(pa.field(name, pa.int64()) for name in more)])


_EMPTY_OWN = _schema(OWN, "part", "shared").empty_table()
_EMPTY_SHARED = _schema(SHARED, "part").empty_table()


def _encoded(rows: Rows) -> bool:
    """Return whether any object of a shard has compressed pixels, or does not say."""
    pairs = set(zip(rows.column("format"), rows.column("transfer_syntax_uid"), strict=True))
    return any(form == FROM_TABLES or (form == "dicom" and syntax not in NATIVE) for form, syntax in pairs)
