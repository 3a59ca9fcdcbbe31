"""Index every file of a source as one row: what it is, where it is, and what its header says."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa

from builder.errors import CaseError, Reason
from builder.files import PICTURES, VOLUMES, FileFacts, FileFault, read_facts
from builder.headers.attributes import Header, read_header
from builder.headers.sniff import ARCHIVES, DOCUMENTS, HEAD_BYTES, MASKS, TABLES, sniff
from builder.headers.walker import walk
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.tables import INSTANCES
from builder.protocols import Describing, Description, Entry, Source
from builder.sources import layout_in
from builder.sources.described import Described
from builder.sources.together import in_order
from builder.stages.boundary import InternalError, OnInternalError, describe, fault_of_case
from builder.stages.parts import PartPlan, PartReceipt, parse_part_receipt
from builder.storage import Store, open_store

FILE_LIMIT: Final = 16 * 2**30
"""Most bytes of a mask or table. A larger file is not hashed and therefore not used."""

_USED_FORMATS = MASKS | TABLES | DOCUMENTS
VOXEL_SUFFIXES = (".raw", ".zraw", ".raw.gz", ".img", ".img.gz")
"""Suffixes of the voxel files beside headers of MetaImage, NRRD and NIfTI, whose content does not say what they are."""
_REQUIRED = ("sop_class_uid", "sop_instance_uid", "study_uid", "series_uid")


def index_part(plan: PartPlan, *, store: Store, on_internal_error: OnInternalError = "exclude") -> PartReceipt:
    """Read the headers of one part and write its rows, then its receipt.

    A finished part is not read again, unless one of its files met an internal error or did not come whole.
    """
    if store.exists(plan.receipt):
        found = parse_part_receipt(store.read(plan.receipt))
        if not found.internal_errors and not found.incomplete:
            return found
    listed = read_parquet(store.read(plan.listing)).to_pylist()
    errors: list[InternalError] = []
    entries = [Entry(**row) for row in listed]
    table = index_partition(
        plan.source, plan.position, entries, on_internal_error=on_internal_error, tell=errors.append
    )
    data = parquet_bytes(table, compression="lz4")
    statuses = table["status"].to_pylist()
    receipt = PartReceipt(
        name=plan.name,
        rows=len(statuses),
        instances=statuses.count("instance"),
        files=statuses.count("file"),
        quarantined=statuses.count("quarantined"),
        sha256=hashlib.sha256(data).hexdigest(),
        internal_errors=tuple(errors),
        incomplete=table["reason"].to_pylist().count(Reason.SOURCE_INCOMPLETE.value),
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
        found = zip(entries, source.describe(entries), strict=True)
        return boundary.table((entry, partial(_described, description)) for entry, description in found)
    batches = [entries[at : at + _BATCH] for at in range(0, len(entries), _BATCH)]
    tables = [_identified(source, batch, _batch(source, batch, boundary)) for batch in batches]
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
        return _quarantined("unknown", fault)


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


def _batch(source: Source, entries: Sequence[Entry], boundary: _Boundary) -> pa.Table:
    """Return the rows of some entries: plain ones by the fast path, the others one by one."""
    tables = []
    places: list[int] = []
    width = source.at_once if isinstance(source, Described) else 1
    pending = list(range(len(entries)))
    for length in _HEADS:
        asked = in_order(partial(_head, source, length=length), [entries[place] for place in pending], width=width)
        heads = {place: head for place, head in zip(pending, asked, strict=True) if head}
        tried = list(heads)
        found = walk([heads[place] for place in tried], [entries[place].size for place in tried])
        done = [tried[i] for i in found.done.tolist()]
        tables.append(_instance_table(boundary.position, [entries[place] for place in done], found.columns))
        places += done
        pending = [tried[i] for i in found.short.tolist()]
        if not pending:
            break
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
            aside = _ledger(table["source"][row].as_py(), entry) | _quarantined("dicom", error)
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
        **dict.fromkeys(_EMPTY, empty),
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


def _described(description: Description | CaseError) -> dict[str, Any]:
    """Return what is known of an object that its source described, either whole or without its pixels."""
    if isinstance(description, CaseError):
        return _quarantined("dicom", description)
    data = description.data
    try:
        header = read_header(lambda start, length: data[start : start + length], len(data))
    except CaseError as error:
        return _quarantined("dicom", error)
    row = _instance_row(header)
    if description.whole:
        return row | {"size": len(data)}
    return row | {"transfer_syntax_uid": description.transfer_syntax_uid}  # not that of the description


def _ledger(position: int, entry: Entry) -> dict[str, Any]:
    return {"source": position, "path": entry.path, "member": entry.member, "size": entry.size, "stamp": entry.stamp}


def _contents(source: Source, entry: Entry) -> dict[str, Any]:
    form = sniff(source.read(entry, length=min(HEAD_BYTES, entry.size)))
    if form != "dicom":
        return _file_row(source, entry, form)
    try:
        header = read_header(lambda start, length: source.read(entry, start=start, length=length), entry.size)
        return _instance_row(header)
    except CaseError as error:
        return _quarantined("dicom", error)


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


def _file_row(source: Source, entry: Entry, form: str) -> dict[str, Any]:
    if form in ARCHIVES:
        why = "an archive inside an archive is not opened" if entry.member else _USELESS_ARCHIVE
        return _quarantined(form, CaseError(Reason.UNREADABLE, why))
    if form not in _USED_FORMATS and (entry.member or entry.path).lower().endswith(VOXEL_SUFFIXES):
        form = "raw"
    elif form not in _USED_FORMATS:
        why = f"found {REFUSED.get(form, f'{form} content')}, expected DICOM, an image file, a mask or a table"
        return _quarantined(form, CaseError(Reason.NOT_DICOM, why))
    if entry.size > FILE_LIMIT:
        why = f"found {entry.size:,} bytes, expected at most {FILE_LIMIT:,}"
        return _quarantined(form, CaseError(Reason.TOO_LARGE, why))
    row = {"status": "file", "format": form, "header_sha256": sha256_of(source, entry)} | _EMPTY
    if layout_in(source) is not None and form in VOLUMES | PICTURES:
        row |= _image_facts(source, entry, form)
    return row


def _image_facts(source: Source, entry: Entry, form: str) -> dict[str, Any]:
    """Return what the header of an image file says, or as ``detail`` why it cannot be read."""
    if form in PICTURES and entry.size > PICTURE_LIMIT:
        return {"detail": f"found a picture of {entry.size} bytes, expected at most {PICTURE_LIMIT}"}
    lengths = (entry.size,) if form in PICTURES else (min(n, entry.size) for n in HEADER_LENGTHS)
    fault = None
    for length in lengths:
        try:
            facts = read_facts(source.read(entry, length=length))
        except FileFault as error:
            fault = error
            continue
        if form in VOLUMES and (missing := voxels_missing(facts, entry.size)):
            return {"detail": missing}
        return {"file_facts": facts.to_json()}
    return {"detail": fault.detail if fault is not None else "found an empty file, expected an image"}


def voxels_missing(facts: FileFacts, size: int) -> str:
    """Return that a volume file of ``size`` bytes is too short for its voxels; "" where it may hold them all."""
    there = size - max(0, facts.offset)
    if facts.companion or facts.packing or facts.whole_gzip or there >= facts.stored_bytes:
        return ""
    return f"found {max(0, there)} bytes of voxels, expected {facts.stored_bytes}"


HEADER_LENGTHS = (64 * 2**10, 4 * 2**20)
"""Bytes to read from the start of a volume file. The second is tried if the header does not fit the first."""

PICTURE_LIMIT = 2**30
"""Most bytes of a picture, which is decoded whole to learn whether its colours are grey."""


REFUSED = {
    "empty": "no content (0 bytes)",
    "analyze": "an Analyze 7.5 header, which does not say where left is; convert it to NIfTI",
    "mgh": "a FreeSurfer MGH or MGZ volume; convert it to NIfTI (mri_convert)",
    "afni": "an AFNI header; convert it to NIfTI (3dAFNItoNIFTI)",
    "minc": "a MINC 1 volume; convert it to NIfTI (mnc2nii)",
    "hdf5": "HDF5 content, such as a MINC 2 volume; convert it to NIfTI (mnc2nii)",
    "par": "a Philips PAR header; convert it to NIfTI (dcm2niix)",
    "appledouble": "an AppleDouble file (._*), which macOS leaves beside each file",
    "ds_store": "a .DS_Store of macOS",
}
"""What messages say about formats that are recognised but not read."""

_USELESS_ARCHIVE = "the archive is empty, damaged or over the limits for members, sizes and compression"
_EMPTY: dict[str, Any] = {
    "referenced_series_uids": (),
    "referenced_sop_uids": (),
    "referenced_frame_of_reference_uids": (),
    "label_names": (),
}


def _quarantined(form: str, error: CaseError) -> dict[str, Any]:
    return {"status": "quarantined", "format": form, "reason": error.reason.value, "detail": error.detail} | _EMPTY


def sha256_of(source: Source, entry: Entry) -> str:
    """Return the SHA-256 of a whole object, read in pieces of 4 MiB if its size is known."""
    if entry.size == 0:
        return hashlib.sha256(source.read(entry)).hexdigest()
    digest = hashlib.sha256()
    for start in range(0, entry.size, _PIECE):
        piece = source.read(entry, start=start, length=min(_PIECE, entry.size - start))
        digest.update(piece)
        if len(piece) < min(_PIECE, entry.size - start):
            raise CaseError(Reason.SOURCE_CHANGED, "the file is shorter than its listing said")
    return digest.hexdigest()


_PIECE = 4 * 2**20
