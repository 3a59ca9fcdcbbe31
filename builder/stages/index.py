"""Index every file of a source as one row: what it is, where it is, and what its header says."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from builder.errors import CaseError, Reason
from builder.headers.attributes import Header, read_header
from builder.headers.sniff import HEAD_BYTES, sniff
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.tables import FROM_TABLES, INSTANCES
from builder.protocols import Describing, Description, Entry, Source
from builder.sources.deferring import Deferring, is_deferred
from builder.sources.described import Described
from builder.sources.folder import DENIED
from builder.sources.together import in_order
from builder.stages.boundary import InternalError, OnInternalError, describe, fault_of_case
from builder.stages.index_files import NO_REFERENCES, file_row, quarantined, sha256_of
from builder.stages.parts import PartPlan, PartReceipt, parse_part_receipt
from builder.storage import Store, open_store

_REQUIRED = ("sop_class_uid", "sop_instance_uid", "study_uid", "series_uid")


def index_part(plan: PartPlan, *, store: Store, on_internal_error: OnInternalError = "exclude") -> PartReceipt:
    """Read the headers of one part and write its rows, then its receipt.

    A finished part is not read again, unless one of its files met an internal error, did not come whole, or this
    process might not read it.
    """
    if store.exists(plan.receipt):
        found = parse_part_receipt(store.read(plan.receipt))
        if not found.internal_errors and not found.incomplete and not found.denied:
            return found
    listed = read_parquet(store.read(plan.listing)).to_pylist()
    errors: list[InternalError] = []
    entries = [Entry(**row) for row in listed]
    if is_deferred(plan.source):
        table = _stated_table(plan.source, plan.position, entries)
    else:
        table = index_partition(
            plan.source, plan.position, entries, on_internal_error=on_internal_error, tell=errors.append
        )
    data = parquet_bytes(table, compression="lz4")
    statuses, reasons = table["status"].to_pylist(), table["reason"].to_pylist()
    receipt = PartReceipt(
        name=plan.name,
        rows=len(statuses),
        instances=statuses.count("instance"),
        files=statuses.count("file"),
        quarantined=statuses.count("quarantined"),
        sha256=hashlib.sha256(data).hexdigest(),
        internal_errors=tuple(errors),
        incomplete=reasons.count(Reason.SOURCE_INCOMPLETE.value),
        denied=table["detail"].to_pylist().count(DENIED),
        changed=reasons.count(Reason.SOURCE_CHANGED.value) + reasons.count(Reason.SOURCE_MISSING.value),
    )
    store.put(plan.table, data)
    store.put(plan.receipt, receipt.to_json())
    return receipt


def index_partition(
    source: Source,
    position: int,
    entries: Sequence[Entry],
    *,
    on_internal_error: OnInternalError = "exclude",
    tell: Callable[[InternalError], None] = lambda _: None,
) -> pa.Table:
    """Return one row of ``builder.model.tables.INSTANCES`` per entry, in the given order.

    ``status`` is ``instance``, ``file`` (a mask, table or document by content) or ``quarantined`` with reason and
    detail. A file that cannot be parsed costs only its own row. ``tell`` is called for every file that is left out
    because of an unforeseen exception.

    Raises
    ------
    SourceError
        When the source does not answer; the runner then tries the part again.
    """
    boundary = _Boundary(position, on_internal_error, tell)
    if isinstance(source, Describing):
        tables = list(_described_tables(zip(entries, source.describe(entries), strict=True), boundary))
    else:
        width = source.at_once if isinstance(source, Described) else 1
        heads = in_order(partial(_head, source, length=_HEADS[0]), entries, width=width)
        batches = (entries[at : at + _BATCH] for at in range(0, len(entries), _BATCH))
        tables = [
            _identified(source, batch, _batch(source, batch, list(islice(heads, len(batch))), boundary))
            for batch in batches
        ]
    return pa.concat_tables(tables) if tables else INSTANCES.empty_table()


@dataclass(frozen=True)
class _Boundary:
    """Makes the rows of files. An exception costs its own file and no other."""

    position: int
    on_internal_error: OnInternalError
    tell: Callable[[InternalError], None]

    def table(self, files: Iterable[tuple[Entry, Callable[[], dict[str, Any]]]]) -> pa.Table:
        """Return the rows of files, each given with a function that reads its contents."""
        rows = [self._row(entry, contents) for entry, contents in files]
        try:
            return pa.Table.from_pylist(rows, schema=INSTANCES)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):  # a row does not fit the columns
            return pa.concat_tables([INSTANCES.empty_table(), *map(self._fitted, rows)])

    def _row(self, entry: Entry, contents: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        ledger = _ledger(self.position, entry)
        try:
            return ledger | contents()
        except Exception as error:  # noqa: BLE001 - the case boundary
            return ledger | self._fault(error)

    def _fitted(self, row: dict[str, Any]) -> pa.Table:
        """Return the table of one row, or of its ledger columns alone if a value does not fit its column."""
        try:
            return pa.Table.from_pylist([row], schema=INSTANCES)
        except Exception as error:  # noqa: BLE001 - the case boundary
            ledger = {name: row[name] for name in ("source", "path", "member", "size", "stamp")}
            return pa.Table.from_pylist([ledger | self._fault(error)], schema=INSTANCES)

    def _fault(self, error: Exception) -> dict[str, Any]:
        fault = fault_of_case(error, on_internal_error=self.on_internal_error)
        if fault.reason == Reason.INTERNAL_ERROR:
            self.tell(describe(error, "a file"))
        return quarantined("unknown", fault)


_BATCH = 256
_HEADS = (16 * 2**10, 128 * 2**10, 2 * 2**20)
"""Bytes to read from the start of a file. The fast path tries each in turn until the header fits."""


@dataclass(frozen=True)
class IndexArgument:
    """One part to index, and the store to write it to."""

    plan: PartPlan
    store: str
    on_internal_error: OnInternalError = "exclude"


def run_index(argument: IndexArgument) -> PartReceipt:
    """Index one part. This is the function that the task calls."""
    store = open_store(argument.store, directory_mode=0o700)
    return index_part(argument.plan, store=store, on_internal_error=argument.on_internal_error)


def _batch(source: Source, entries: Sequence[Entry], heads: Sequence[bytes], boundary: _Boundary) -> pa.Table:
    """Return the rows of some entries with the start of each: plain ones by the fast path, the others one by one."""
    from builder.headers.walker import walk  # loaded here, with the compiler, because a known archive needs neither

    tables = []
    places: list[int] = []
    width = source.at_once if isinstance(source, Described) else 1
    pending = list(range(len(entries)))
    for length in (*_HEADS[1:], 0):
        found_heads = {place: head for place, head in zip(pending, heads, strict=True) if head}
        tried = list(found_heads)
        found = walk([found_heads[place] for place in tried], [entries[place].size for place in tried])
        done = [tried[i] for i in found.done.tolist()]
        tables.append(_instance_table(boundary.position, [entries[place] for place in done], found.columns))
        places += done
        pending = [tried[i] for i in found.short.tolist()]
        if not pending or not length:
            break
        heads = list(in_order(partial(_head, source, length=length), [entries[p] for p in pending], width=width))
    if len(tables) == 1 and len(places) == len(entries):  # all plain and read at once, so they lie in order
        return tables[0]
    others = sorted(set(range(len(entries))) - set(places))
    tables.append(boundary.table((entries[i], partial(_contents, source, entries[i])) for i in others))
    order = np.argsort(np.array(places + others, np.int64))
    return pa.concat_tables(tables).take(order).combine_chunks()


def _identified(source: Source, entries: Sequence[Entry], table: pa.Table) -> pa.Table:
    """Add a hash of every byte of each instance, if the source asks for identity by content."""
    if not source.reads_whole:
        return table
    digests: list[str | None] = []
    for row, (entry, status) in enumerate(zip(entries, table["status"].to_pylist(), strict=True)):
        try:
            digests.append(sha256_of(source, entry) if status == "instance" else None)
        except CaseError as error:  # it changed since it was listed, so only this file is quarantined
            digests.append(None)
            aside = _ledger(table["source"][row].as_py(), entry) | quarantined("dicom", error)
            aside_table = pa.Table.from_pylist([aside], schema=INSTANCES)
            table = pa.concat_tables([table.slice(0, row), aside_table, table.slice(row + 1)])
    place = INSTANCES.get_field_index("content_sha256")
    return table.set_column(place, INSTANCES.field(place), pa.array(digests, pa.string()))


def _head(source: Source, entry: Entry, *, length: int) -> bytes:
    """Read the start of a file that may suit the fast path; return nothing for others."""
    try:
        head = source.read(entry, length=min(length, entry.size))
    except CaseError:
        return b""  # the slow path meets the same error and reports it
    return head if head[128:132] == b"DICM" else b""


def _instance_table(position: int, entries: Sequence[Entry], columns: Mapping[str, Any]) -> pa.Table:
    """Return rows of INSTANCES for plain images."""
    count = len(entries)
    empty = pa.ListArray.from_arrays(pa.array([0] * (count + 1), pa.int32()), pa.array([], pa.string()))
    filled = {
        **columns,
        **dict.fromkeys(NO_REFERENCES, empty),
        "source": pa.repeat(pa.scalar(position, pa.int32()), count),
        "path": pa.array([entry.path for entry in entries], pa.string()),
        "member": pa.array([entry.member for entry in entries], pa.string()),
        "size": pa.array([entry.size for entry in entries], pa.int64()),
        "stamp": pa.array([entry.stamp for entry in entries], pa.string()),
        "status": pa.repeat("instance", count),
        "format": pa.repeat("dicom", count),
    }
    absent = {kind: pa.nulls(count, kind) for kind in {f.type for f in INSTANCES if f.name not in filled}}
    arrays = [filled[f.name] if f.name in filled else absent[f.type] for f in INSTANCES]
    return pa.Table.from_arrays(arrays, schema=INSTANCES)


def _stated_table(source: Deferring, position: int, series: Sequence[Entry]) -> pa.Table:
    """Return a row of INSTANCES for each of some series, with what tables state of it."""
    stated = source.stated(series)
    table = _instance_table(position, series, dict(zip(stated.column_names, stated.columns, strict=True)))
    place = INSTANCES.get_field_index("format")
    return table.set_column(place, INSTANCES.field(place), pa.repeat(FROM_TABLES, len(series)))


def _described_tables(
    found: Iterable[tuple[Entry, Description | CaseError]], boundary: _Boundary
) -> Iterator[pa.Table]:
    """Yield the rows of described objects in order: headers many at once by the fast path, the others one by one."""
    waiting: list[tuple[Entry, Description]] = []
    for entry, description in found:
        if isinstance(description, Description) and not description.whole:
            waiting.append((entry, description))
            if len(waiting) < _BATCH:
                continue
            yield _header_table(waiting, boundary)
        else:
            if waiting:
                yield _header_table(waiting, boundary)
            yield boundary.table([(entry, partial(_described, description))])
        waiting = []
    if waiting:
        yield _header_table(waiting, boundary)


def _header_table(files: Sequence[tuple[Entry, Description]], boundary: _Boundary) -> pa.Table:
    """Return the rows of instances of which the source gave the headers."""
    from builder.headers.walker import walk  # as above

    heads = [description.data for _, description in files]
    found = walk(heads, [len(head) for head in heads])
    places = found.done.tolist()
    syntaxes = pa.array([files[place][1].transfer_syntax_uid for place in places], pa.string())
    columns = {**found.columns, "transfer_syntax_uid": syntaxes}
    plain = _instance_table(boundary.position, [files[place][0] for place in places], columns)
    if len(places) == len(files):
        return plain
    others = sorted(set(range(len(files))) - set(places))
    rest = boundary.table((files[i][0], partial(_described, files[i][1])) for i in others)
    return pa.concat_tables([plain, rest]).take(np.argsort(np.array(places + others, np.int64))).combine_chunks()


def _described(description: Description | CaseError) -> dict[str, Any]:
    """Return what is known of an object that its source described, either whole or without its pixels."""
    if isinstance(description, CaseError):
        return quarantined("dicom", description)
    data = description.data
    try:
        header = read_header(lambda start, length: data[start : start + length], len(data))
    except CaseError as error:
        return quarantined("dicom", error)
    row = _instance_row(header)
    if description.whole:
        return row | {"size": len(data)}
    return row | {"transfer_syntax_uid": description.transfer_syntax_uid}  # not that of the description


def _ledger(position: int, entry: Entry) -> dict[str, Any]:
    return {"source": position, "path": entry.path, "member": entry.member, "size": entry.size, "stamp": entry.stamp}


def _contents(source: Source, entry: Entry) -> dict[str, Any]:
    form = sniff(source.read(entry, length=min(HEAD_BYTES, entry.size)))
    if form != "dicom":
        return file_row(source, entry, form)
    try:
        header = read_header(lambda start, length: source.read(entry, start=start, length=length), entry.size)
        return _instance_row(header)
    except CaseError as error:
        return quarantined("dicom", error)


def _instance_row(header: Header) -> dict[str, Any]:
    notes = (*header.notes, *header.references.notes)
    row: dict[str, Any] = {
        **header.values,
        "format": "dicomdir" if header.directory else "dicom",
        "status": "file" if header.directory else "instance",
        "detail": "; ".join(notes) or None,
        "header_sha256": header.sha256,
        "pixel_offset": header.pixel_offset,
        "pixel_length": header.pixel_length,
        "transfer_syntax_uid": header.transfer_syntax_uid,
        "referenced_series_uids": header.references.series_uids,
        "referenced_sop_uids": header.references.sop_uids,
        "referenced_frame_of_reference_uids": header.references.frame_of_reference_uids,
        "label_names": header.references.label_names,
    }
    missing = [name for name in _REQUIRED if not header.values.get(name)]
    if missing and not header.directory:
        what = f"found no value for {', '.join(missing)}, expected one of each in a DICOM instance"
        row |= {"status": "quarantined", "reason": Reason.MISSING_UID.value, "detail": "; ".join((what, *notes))}
    return row
