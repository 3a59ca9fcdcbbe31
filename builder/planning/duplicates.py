"""Instances that were found more than once under one SOP Instance UID."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import CaseError, Reason
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.sorting import ordered
from builder.model.tables import INSTANCES
from builder.protocols import Entry, Source
from builder.stages.index import sha256_of

VERDICTS: Final = pa.schema(
    [INSTANCES.field(name) for name in ("source", "path", "member", "status", "reason", "detail")]
)
"""A row of INSTANCES that changes: the first three columns name it, the last three replace its own."""

MEMORY_LIMIT: Final = "512MB"
MEMORY_ROWS: Final = 100_000
"""Up to so many instances are compared in memory, in less than DuckDB's library alone takes."""
_PLACE = ("source", "path", "member")
_NEEDED = (*_PLACE, "size", "stamp", "sop_instance_uid", "header_sha256")
COMPARED: Final = (*_NEEDED, "status")
"""Columns of INSTANCES that ``find_duplicates`` looks at."""


def find_duplicates(parts: Iterable[pa.Table], sources: Sequence[Source]) -> pa.Table:
    """Verdicts on instances whose SOP Instance UID occurs more than once, over all sources.

    Copies with the same bytes: the first in the order of (source, path, member) stays, the others become ``duplicate``.
    Copies that differ: which of them the archive meant cannot be told, so every one of them is ``quarantined``
    (PS3.5 section 9: a UID identifies one object).

    Parameters
    ----------
    parts
        Tables of INSTANCES, with the columns ``COMPARED`` at least. They are read once, one at a time; what is kept of
        them lies on disk.
    sources
        By position. Objects are read in full only where the sizes and header hashes of all copies agree, or where a
        source does not tell sizes.
    """
    verdicts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="builder-") as folder:
        for copies in _copies(parts, Path(folder)):
            verdicts += _verdicts(copies, sources)
    verdicts.sort(key=itemgetter(*_PLACE))
    return pa.Table.from_pylist(verdicts, schema=VERDICTS)


def with_verdicts(part: pa.Table, verdicts: pa.Table) -> pa.Table:
    """``part`` with the status, reason and detail that ``verdicts`` gives to its rows; every other row as it was."""
    found = {(v["source"], v["path"], v["member"]): v for v in verdicts.to_pylist()}
    changes = {row: found[name] for row, name in enumerate(_places(part)) if name in found}
    for column in ("status", "reason", "detail"):
        values = part[column].to_pylist()
        for row, change in changes.items():
            values[row] = change[column]
        place = part.schema.get_field_index(column)
        part = part.set_column(place, part.schema.field(place), pa.array(values, pa.string()))
    return part


def part_with_verdicts(data: bytes, verdicts: pa.Table) -> bytes:
    """A stored part of the index after ``with_verdicts``: the same bytes where no verdict is on a row of it."""
    if verdicts.num_rows == 0:
        return data
    judged = set(_places(verdicts))
    if judged.isdisjoint(_places(read_parquet(data, columns=list(_PLACE)))):
        return data
    return parquet_bytes(with_verdicts(read_parquet(data), verdicts))


def _places(table: pa.Table) -> Iterator[tuple[int, str, str]]:
    return zip(*(table[name].to_pylist() for name in _PLACE), strict=True)


def _copies(parts: Iterable[pa.Table], folder: Path) -> Iterator[list[dict[str, Any]]]:
    """The rows of each UID that occurs more than once, in order."""
    rows = _repeated(parts, folder)
    for _, group in groupby(rows, key=itemgetter("sop_instance_uid")):
        yield list(group)


def _repeated(parts: Iterable[pa.Table], folder: Path) -> Iterator[dict[str, Any]]:
    """All rows whose UID occurs more than once: compared in memory as long as they are few, else on disk."""
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
    yield from ordered(found, ("sop_instance_uid", "source", "path", "member")).to_pylist()


def _repeated_on_disk(batches: Iterable[pa.Table], folder: Path) -> Iterator[dict[str, Any]]:
    import duckdb  # its library takes more memory than all of a small archive's rows

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
        yield from (dict(zip(_NEEDED, row, strict=True)) for row in iter(cursor.fetchone, None))


_SQL_TYPES = {"int32": "INTEGER", "int64": "BIGINT", "string": "VARCHAR"}


def _verdicts(copies: Sequence[dict[str, Any]], sources: Sequence[Source]) -> list[dict[str, Any]]:
    count = len(copies)
    if _are_same(copies, sources):
        detail = f"the same bytes as the first of {count} copies"
        return [_verdict(row, "duplicate", Reason.DUPLICATE_SAME, detail) for row in copies[1:]]
    detail = f"{count} objects of different content share one SOP Instance UID; none of them can be trusted"
    return [_verdict(row, "quarantined", Reason.DUPLICATE_CONFLICT, detail) for row in copies]


def _are_same(copies: Sequence[dict[str, Any]], sources: Sequence[Source]) -> bool:
    told = all(row["size"] for row in copies)  # a server's description of an object has another hash than the object
    if told and len({(row["size"], row["header_sha256"]) for row in copies}) > 1:
        return False
    try:
        return len({_whole_sha256(row, sources) for row in copies}) == 1
    except CaseError:  # a copy changed or went away since it was indexed
        return False


def _whole_sha256(row: dict[str, Any], sources: Sequence[Source]) -> str:
    entry = Entry(row["path"], row["size"], row["stamp"], row["member"])
    return sha256_of(sources[row["source"]], entry)


def _verdict(row: dict[str, Any], status: str, reason: Reason, detail: str) -> dict[str, Any]:
    place = {name: row[name] for name in _PLACE}
    return place | {"status": status, "reason": reason.value, "detail": detail}
