"""Take over the plans of shards in which nothing changed since the plan before, and keep what tells a later one so."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, Final, NamedTuple

import pyarrow as pa

from builder.errors import LayoutError
from builder.model.canonical import Fingerprint, Keyless
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.tables import INSTANCES
from builder.plan import CasePlan, ImagePlan, ShardSummary
from builder.planning.case_plans import Chosen
from builder.planning.latest import read_latest
from builder.planning.lock import package_version
from builder.planning.rows import IncludedStack, LinkRow, Placed
from builder.stages.checked import read_checked, with_checksum
from builder.stages.planned import LineReader, Place
from builder.stages.row_digests import row_digests
from builder.storage import Store

KNOWN: Final = "shards/known"
"""Of the shards in their order: key, name, and what a plan says of them without their rows."""

VERSION: Final = 1
"""Raised whenever the line of a shard would come out differently of what its key is made of."""

_PACKAGES = ("medical-dataset-builder", "pyarrow")

_SCHEMA = pa.schema(
    [
        ("key", pa.binary(16)),
        ("fingerprint", pa.binary(16)),
        ("encoded", pa.bool_()),
        ("touched", pa.int32()),
        ("bytes", pa.list_(pa.int64())),  # of each case those of _FROM_ROWS
        ("file", pa.int64()),
        ("start", pa.int64()),
        ("length", pa.int64()),
        ("checksum", pa.binary(4)),
    ]
)

_FROM_ROWS = ("input_bytes", "peak_bytes", "load_bytes")
_of_case = attrgetter(*(f.name for f in fields(CasePlan) if f.name not in (*_FROM_ROWS, "partners")))
_of_image = attrgetter(*(f.name for f in fields(ImagePlan)))
_of_stack = attrgetter(*(f.name for f in fields(IncludedStack)))


class _Known(NamedTuple):
    """A row of ``_SCHEMA``."""

    key: bytes | None
    fingerprint: bytes
    encoded: bool
    touched: int
    sizes: Sequence[int]
    file: int
    start: int
    length: int
    checksum: bytes

    @property
    def place(self) -> Place:
        return Place(self.file, self.start, self.length, self.checksum)


@dataclass(frozen=True, slots=True)
class Draft:
    """A shard to plan: its cases, without what only their rows tell, and a key of everything that its line is made of.

    The cases of two shards differ, so no line with a case can be taken over for a shard without it.
    """

    bucket: str
    cases: tuple[CasePlan, ...]
    key: bytes | None


class Keys:
    """Makes the keys of shards.

    Parameters
    ----------
    stacks
        As ``Survey.row_digests`` reads them.
    annotations
        INSTANCES rows of the annotations, to which links refer.
    links
        By schema LINKS.
    shared
        What the lines of all shards are made of.
    """

    def __init__(self, stacks: pa.Table, annotations: pa.Table, links: pa.Table, *shared: Any) -> None:
        self._begun = Fingerprint(VERSION, [package_version(name) for name in _PACKAGES], *shared)
        names = list(zip(*(stacks[name].to_pylist() for name in ("chunk", "series_uid", "stack")), strict=True))
        self._images = dict(zip(names, stacks["rows_digest"].to_pylist(), strict=True))
        if len(self._images) < len(names):  # series without a UID: nothing tells their stacks apart
            self._images |= {name: None for name, count in Counter(names).items() if count > 1}
        linked = links["annotation"].unique()
        digests = row_digests(annotations.select(INSTANCES.names).take(linked), [[n] for n in range(len(linked))])
        self._labels = dict(zip(linked.to_pylist(), digests, strict=True))

    def of(self, cases: Sequence[tuple[CasePlan, Chosen, Sequence[LinkRow]]]) -> bytes | None:
        """Return the key of a shard, of whose cases the stacks and the labels are given.

        It is None where the rows of a stack have no digest: they may be other ones at any time.
        """
        told: list[Any] = []
        for case, chosen, links in cases:
            rows = [self._rows_of(chosen.places[name], stack) for name, stack in chosen.stacks.items()]
            if None in rows:
                return None
            images = [_of_image(image) for image in case.partners]
            stacks = [[name, *_of_stack(stack)] for name, stack in chosen.stacks.items()]
            labels = [[link.label, self._labels[link.annotation]] for link in links]
            told.append([_of_case(case), images, stacks, rows, labels])
        return bytes.fromhex(self._begun.also(Keyless(told)))

    def _rows_of(self, place: Placed, stack: IncludedStack) -> str | None:
        return self._images.get((place.chunk, place.series_uid, stack.stack))


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A shard that is planned, the key of its line, and where that is.

    ``touched`` counts files that were written again since the shard was built, with the same headers and lengths.
    """

    key: bytes | None
    summary: ShardSummary
    place: Place
    reader: LineReader
    touched: int = 0

    @property
    def line(self) -> bytes:
        """The line. Raises LayoutError if it was damaged where it lies."""
        return self.reader.line(self.place)


@dataclass(frozen=True, eq=False)
class Earlier:
    """An earlier plan: its store, and what it knows of its shards."""

    store: Store
    known: Sequence[_Known] = ()

    def take(self, drafts: Sequence[Draft]) -> list[PlannedShard | None]:
        """Return what the plan has of shards; None for one whose line it lacks, or has not as it was written."""
        found: list[PlannedShard | None] = []
        reader = self._reader
        known = {row.key: row for row in self.known}
        for draft in drafts:
            row = None if draft.key is None else known.get(draft.key)
            if row is None or not reader.is_sound(place := row.place):
                found.append(None)
            else:
                found.append(PlannedShard(draft.key, _summary(draft, row), place, reader, row.touched))
        return found

    def named(self, shard: PlannedShard) -> PlannedShard | None:
        """Return a shard with the line that the plan has of one of its name; None if there is none that is sound."""
        row = self._by_name.get(bytes.fromhex(shard.summary.fingerprint))
        if row is None:
            return None
        place = row.place
        found = replace(shard, place=place, reader=self._reader, touched=row.touched)
        return found if self._reader.is_sound(place) else None

    @cached_property
    def _reader(self) -> LineReader:
        return LineReader(self.store)

    @cached_property
    def _by_name(self) -> Mapping[bytes, _Known]:
        return {row.fingerprint: row for row in self.known}


def earlier_plan(private: Store) -> Earlier:
    """Return the latest plan. It knows nothing if there is none, or what it tells of its shards is gone or damaged."""
    latest = read_latest(private)
    if latest is None:
        return Earlier(private)
    store = private.join(latest.plan)
    try:
        table = read_parquet(read_checked(store, KNOWN, 0, length=store.size(KNOWN)))
    except (FileNotFoundError, LayoutError):
        return Earlier(store)
    if table.schema != _SCHEMA:
        return Earlier(store)
    return Earlier(store, [_Known(*row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)])


def keep_known(store: Store, shards: Sequence[PlannedShard], places: Sequence[Place]) -> None:
    """Keep what a later plan takes over, before the plan's index is written."""
    columns = {
        "key": [shard.key for shard in shards],
        "fingerprint": [bytes.fromhex(shard.summary.fingerprint) for shard in shards],
        "encoded": [shard.summary.encoded for shard in shards],
        "touched": [shard.touched for shard in shards],
        "bytes": [[getattr(case, name) for case in shard.summary.cases for name in _FROM_ROWS] for shard in shards],
        **{name: [getattr(place, name) for place in places] for name in ("file", "start", "length", "checksum")},
    }
    store.put(KNOWN, with_checksum(parquet_bytes(pa.table(columns, schema=_SCHEMA))))


def _summary(draft: Draft, row: _Known) -> ShardSummary:
    cases = []
    for n, case in enumerate(draft.cases):
        told: dict[str, Any] = dict(zip(_FROM_ROWS, row.sizes[3 * n : 3 * n + 3], strict=True))
        cases.append(replace(case, **told))
    return ShardSummary(row.fingerprint.hex(), draft.bucket, tuple(cases), row.encoded)
