"""Judge instances that occur more than once with the same SOP Instance UID."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import CaseError, Reason, SourceError
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.sorting import ordered
from builder.model.tables import INSTANCES
from builder.protocols import Entry, Source
from builder.stages.index_files import sha256_of

VERDICTS: Final = pa.schema(
    [INSTANCES.field(name) for name in ("source", "path", "member", "status", "reason", "detail")]
)
"""A change to a row of INSTANCES: the first three columns identify the row, the last three replace its values."""

MEMORY_LIMIT: Final = "512MB"
MEMORY_ROWS: Final = 100_000
"""Most instances that are compared in memory. They take less memory there than DuckDB's library alone."""
_PLACE = ("source", "path", "member")


class _Copy(NamedTuple):
    """One of several instances with one SOP Instance UID; columns as in INSTANCES."""

    source: int
    path: str
    member: str
    size: int
    stamp: str
    sop_instance_uid: str
    header_sha256: str | None


class _Verdict(NamedTuple):
    """A row of VERDICTS."""

    source: int
    path: str
    member: str
    status: str
    reason: str
    detail: str


_NEEDED = _Copy._fields
COMPARED: Final = (*_NEEDED, "status")
"""Columns of INSTANCES that ``find_duplicates`` reads."""


def find_duplicates(parts: Iterable[pa.Table], sources: Sequence[Source], *, folder: Path | None = None) -> pa.Table:
    """Return verdicts on instances whose SOP Instance UID occurs more than once across all sources.

    If all copies have the same bytes, the first in the order of (source, path, member) stays and the others become
    ``duplicate``. If copies differ, it is impossible to tell which one is meant, so all of them are ``quarantined``
    (PS3.5 section 9: a UID identifies one object).

    Parameters
    ----------
    parts
        Tables of INSTANCES, with the columns ``COMPARED`` at least. They are read once, one at a time; what is kept of
        them is on disk.
    sources
        By position. Objects are read in full only if the sizes and header hashes of all copies agree, or if a source
        reports no sizes.
    folder
        Where to keep what does not fit into memory; it holds identifiers. The default is the system's temporary folder.
    """
    verdicts: list[_Verdict] = []
    with tempfile.TemporaryDirectory(prefix="builder-", dir=folder) as scratch:
        for copies in _copies(parts, Path(scratch)):
            verdicts += _verdicts(copies, sources)
    verdicts.sort(key=lambda verdict: verdict[: len(_PLACE)])
    return pa.Table.from_pylist([verdict._asdict() for verdict in verdicts], schema=VERDICTS)


def with_verdicts(
    part: pa.Table, verdicts: pa.Table, *, columns: Sequence[str] = ("status", "reason", "detail")
) -> pa.Table:
    """Return ``part`` with the status, reason and detail that ``verdicts`` gives its rows; other rows do not change.

    ``columns`` are those of the three that ``part`` has.
    """
    if verdicts.num_rows == 0:
        return part
    found = {(v["source"], v["path"], v["member"]): v for v in verdicts.to_pylist()}
    changes = {row: found[name] for row, name in enumerate(_places(part)) if name in found}
    for column in columns:
        values = part[column].to_pylist()
        for row, change in changes.items():
            values[row] = change[column]
        place = part.schema.get_field_index(column)
        part = part.set_column(place, part.schema.field(place), pa.array(values, pa.string()))
    return part


def part_with_verdicts(data: bytes, verdicts: pa.Table) -> bytes:
    """Apply ``with_verdicts`` to a stored part of the index; the bytes do not change if no verdict concerns it."""
    if verdicts.num_rows == 0:
        return data
    judged = set(_places(verdicts))
    if judged.isdisjoint(_places(read_parquet(data, columns=list(_PLACE)))):
        return data
    return parquet_bytes(with_verdicts(read_parquet(data), verdicts))


def _places(table: pa.Table) -> Iterator[tuple[int, str, str]]:
    return zip(*(table[name].to_pylist() for name in _PLACE), strict=True)


def _copies(parts: Iterable[pa.Table], folder: Path) -> Iterator[list[_Copy]]:
    """Yield the rows of each UID that occurs more than once, in order."""
    rows = _repeated(parts, folder)
    for _, group in groupby(rows, key=attrgetter("sop_instance_uid")):
        yield list(group)


def _repeated(parts: Iterable[pa.Table], folder: Path) -> Iterator[_Copy]:
    """Yield all rows whose UID occurs more than once, compared in memory if they are few, otherwise on disk."""
    instances = (part.filter(pc.equal(part["status"], "instance")).select(list(_NEEDED)) for part in parts)
    held = [INSTANCES.empty_table().select(list(_NEEDED))]
    rows = 0
    for batch in instances:
        held.append(batch)
        rows += batch.num_rows
        if rows > MEMORY_ROWS:
            yield from _repeated_on_disk(chain(held, instances), folder)
            return
    table = pa.concat_tables(held)
    counts = pc.value_counts(table["sop_instance_uid"].drop_null())
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    found = table.filter(pc.is_in(table["sop_instance_uid"], repeated))
    inorder = ordered(found, ("sop_instance_uid", "source", "path", "member"))
    yield from map(_Copy._make, zip(*(inorder[name].to_pylist() for name in _NEEDED), strict=True))


def _repeated_on_disk(batches: Iterable[pa.Table], folder: Path) -> Iterator[_Copy]:
    import duckdb  # imported late, because its library takes more memory than all of a small archive's rows

    with duckdb.connect(str(folder / "copies.duckdb")) as db:
        db.execute(f"SET memory_limit='{MEMORY_LIMIT}'; SET threads=1; SET temp_directory='{folder}'")
        fields = ", ".join(f"{n} {_SQL_TYPES[str(INSTANCES.field(n).type)]}" for n in _NEEDED)
        db.execute(f"CREATE TABLE found ({fields})")
        for batch in batches:
            db.register("batch", batch)
            db.execute("INSERT INTO found SELECT * FROM batch")
            db.unregister("batch")
        cursor = db.execute(
            "SELECT * FROM found WHERE sop_instance_uid IN "
            "(SELECT sop_instance_uid FROM found GROUP BY sop_instance_uid HAVING count(*) > 1) "
            "ORDER BY sop_instance_uid, source, path, member"
        )
        yield from map(_Copy._make, iter(cursor.fetchone, None))


_SQL_TYPES = {"int32": "INTEGER", "int64": "BIGINT", "string": "VARCHAR"}


def _verdicts(copies: Sequence[_Copy], sources: Sequence[Source]) -> list[_Verdict]:
    count = len(copies)
    if _are_same(copies, sources):
        detail = f"the same bytes as the first of {count} copies"
        return [_verdict(copy, "duplicate", Reason.DUPLICATE_SAME, detail) for copy in copies[1:]]
    detail = f"{count} objects of different content share one SOP Instance UID; none of them can be trusted"
    return [_verdict(copy, "quarantined", Reason.DUPLICATE_CONFLICT, detail) for copy in copies]


def _are_same(copies: Sequence[_Copy], sources: Sequence[Source]) -> bool:
    told = all(copy.size for copy in copies)  # a server's description of an object hashes differently from the object
    if told and len({(copy.size, copy.header_sha256) for copy in copies}) > 1:
        return False
    try:
        return len({_whole_sha256(copy, sources) for copy in copies}) == 1
    except CaseError as error:  # a copy changed or disappeared since it was indexed
        if error.reason == Reason.SOURCE_INCOMPLETE:
            raise SourceError(f"a source did not give a copy of an object for comparison: {error.detail}") from error
        return False


def _whole_sha256(copy: _Copy, sources: Sequence[Source]) -> str:
    return sha256_of(sources[copy.source], Entry(copy.path, copy.size, copy.stamp, copy.member))


def _verdict(copy: _Copy, status: str, reason: Reason, detail: str) -> _Verdict:
    return _Verdict(copy.source, copy.path, copy.member, status, reason.value, detail)
