"""Publish a dataset without the labels of its test splits, or without their persons; a store keeps the whole dataset.

An allow list says what may remain of a sequestered sample. All other values of its rows become null, and every voxel of
its fields except the image becomes zero. Whatever is computed from all samples (report, catalog, leak certificate,
cohort and ledger) stays with the whole dataset.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from builder.deid.documents import clear_document
from builder.deid.leaks import Canaries
from builder.errors import LayoutError, SpecError
from builder.model.canonical import canonical_json, fingerprint
from builder.model.layout import (
    CURRENT,
    INDEX,
    LEDGER,
    MANIFEST,
    RECEIPT,
    REGISTRY,
    SAMPLES,
    SPLITS,
    WITHDRAWN,
    Manifest,
    Receipt,
    ShardEntry,
    StoredObject,
    parse_current,
    parse_manifest,
    parse_receipt,
    shard_path,
    stored_object,
    version_path,
)
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.samples import PLACE_COLUMNS
from builder.model.tables import SERIES
from builder.model.zarr_format import Codec, decode_index, encode_index, index_bytes
from builder.publishing.exports import export_files
from builder.publishing.finish import publish_files
from builder.publishing.held_back import Stored, comparison, without_persons
from builder.publishing.report import REPORT_JSON
from builder.reader.views import split_views
from builder.report.shift import INTENSITIES
from builder.shards.streams import encode_chunk
from builder.spec import DatasetSpec
from builder.split.options import Sequester
from builder.stages.shard import found_receipt
from builder.storage import Store

VERSION = 1
"""Raised when the same whole dataset would give different bytes."""

SEQUESTERED = "sequestered"
"""``label_status`` of a sample whose labels are only in the separate store."""

OF_IMAGES = (
    "sample_key", "case_key", "slices", "rows", "columns", "spacing_slice_mm", "spacing_row_mm", "spacing_column_mm",
    "affine", "domain", "start_slice", "start_row", "start_column", "pad_voxels",
)  # fmt: skip
"""Columns of a sample that describe only its image."""

OF_GRIDS = "grid."
"""Prefix of the columns that say where fields with a grid of their own lie."""

OF_LABELS = ("annotations", "label_status")
"""Columns of a series that reveal something about its labels."""

NOTES = "notes"
OPEN_NOTES = ("intensity/", "intensity_clipped/", "intensity_table/")
"""Prefixes of notes about a volume that describe only its image."""

OF_PERSONS = ("person_key", "split", "members", "folds")
"""Columns of ``splits.parquet`` that reveal nothing about a person's labels, unlike strata."""


def publish_open(whole: Store, target: Store, spec: DatasetSpec, *, guard: Callable[[], None]) -> str:
    """Publish the open part of the version at ``whole``, and return the name of the open version.

    The same whole version gives the same bytes, so a shard that was finished before is not written again.

    Raises
    ------
    LayoutError
        If the whole dataset is damaged.
    """
    options = spec.splits.sequester
    if options is None:
        raise ValueError("splits.sequester: found nothing, expected where the labels go")
    version = parse_current(whole.read(CURRENT))
    manifest = parse_manifest(whole.read(version_path(version, MANIFEST)))
    tables = {name: _table(whole, version, manifest, name) for name in (INDEX, SPLITS, REGISTRY)}
    kept = open_columns(spec, options)
    if options.what == "samples":
        shards, index = without_persons(
            whole, target, manifest.shards, tables[INDEX], Stored(options.splits, spec.samples, spec.shards)
        )
        splits = tables[SPLITS].filter(pa.array([not hide for hide in _hidden(tables[SPLITS], options)]))
        totals = {"samples": index.num_rows, "cases": len(index["case_key"].unique())}
    else:
        shards, index = _without_labels(whole, target, manifest, tables[INDEX], spec)
        splits = blanked(tables[SPLITS], _hidden(tables[SPLITS], options), OF_PERSONS)
        totals = {name: manifest.totals[name] for name in ("samples", "cases")}
    draft = Manifest(
        name=manifest.name,
        version="",
        spec=manifest.spec,
        lock=manifest.lock,
        fields=manifest.fields,
        shards=tuple(shards),
        files=(),
        totals=totals,
    )
    files = {INDEX: parquet_bytes(index), SPLITS: parquet_bytes(splits), REGISTRY: parquet_bytes(tables[REGISTRY])}
    if any(stored.path == WITHDRAWN for stored in manifest.files):
        files[WITHDRAWN] = parquet_bytes(_table(whole, version, manifest, WITHDRAWN))
    files |= split_views(target, draft, index)
    files |= export_files(spec, splits, index)
    if options.what == "samples":
        told = whole.read(version_path(version, REPORT_JSON))
        files |= comparison(json.loads(told), options.splits, kept)
    # No search is needed: all of this was searched when the whole dataset was published.
    cleared = {name: clear_document(name, data, Canaries({})) for name, data in files.items()}
    return publish_files(draft, cleared, target, guard).version


def _without_labels(
    whole: Store, target: Store, manifest: Manifest, index: pa.Table, spec: DatasetSpec
) -> tuple[list[ShardEntry], pa.Table]:
    """Write the open form of every shard, and return them with the open index."""
    options = spec.splits.sequester
    assert options is not None
    kept, hidden = open_columns(spec, options), _hidden(index, options)
    by_shard: dict[str, set[int]] = {}
    for shard, row, hide in zip(*(index[c].to_pylist() for c in ("shard", "row")), hidden, strict=True):
        if hide:
            by_shard.setdefault(shard, set()).add(row)
    shards = [_open_shard(whole, target, s, by_shard.get(s.fingerprint, set()), kept) for s in manifest.shards]
    names = {old.fingerprint: new.fingerprint for old, new in zip(manifest.shards, shards, strict=True)}
    return shards, _open_index(index, hidden, kept, names)


def check_places(whole: Store, target: Store) -> None:
    """Check, before anything is written, that the whole dataset and the open one do not take each other's place.

    Raises
    ------
    SpecError
        If both have the same location.
    LayoutError
        If a dataset with all its labels is published at ``target``, where it would stay readable, or an open one at
        ``whole``.
    """
    if whole.url.rstrip("/") == target.url.rstrip("/"):
        raise SpecError("splits.sequester.url: found the place of the dataset itself, expected another one")
    for store, wrong, expected in ((target, True, "without labels to sequester"), (whole, False, "with all labels")):
        if _is_labelled(store) is wrong:
            found = "with all its labels" if wrong else "whose labels are sequestered"
            raise LayoutError(
                f"splits.sequester: found a dataset published {found}, expected none or one {expected}; "
                "choose another place"
            )


def open_columns(spec: DatasetSpec, options: Sequester) -> frozenset[str]:
    """Return the names of the columns that a sequestered sample keeps."""
    clinical = {name for table in spec.clinical for name in table.names} - {*options.keep}
    if "age_years" in clinical:
        clinical.add("age_band")  # derived from the clinical age
    own = {*OF_IMAGES, *INTENSITIES, *(c.name for c in PLACE_COLUMNS), *SERIES.names} - {*OF_LABELS, *clinical}
    return frozenset((own | {*options.keep}) - {*spec.report.outcomes})


def blanked(table: pa.Table, hidden: Sequence[bool], kept: Collection[str]) -> pa.Table:
    """Return the table with null in the hidden rows of every column that is not kept."""
    order = pa.array([None if hide else row for row, hide in enumerate(hidden)], pa.int64())
    for place, field in enumerate(table.schema):
        if field.name == NOTES:
            table = table.set_column(place, field, _open_notes(table[NOTES], hidden, field.type))
        elif field.name not in kept and not field.name.startswith(OF_GRIDS):
            table = table.set_column(place, field, table.column(place).take(order))
    return table


@dataclass(frozen=True)
class _Shard:
    """A whole shard, its hidden rows, and the name of its open counterpart."""

    store: Store
    receipt: Receipt
    hidden: frozenset[int]
    kept: frozenset[str]
    name: str

    def read(self, stored: StoredObject) -> bytes:
        path = shard_path(self.receipt.fingerprint, stored.path)
        data = self.store.read(path)
        if hashlib.sha256(data).hexdigest() != stored.sha256:
            raise LayoutError(f"{path}: found another content than its receipt states; verify the store of the labels")
        return data

    def opened(self, stored: StoredObject) -> bytes | None:
        """Return the open form of an object, or None if nothing of it may be seen."""
        field, _, rest = stored.path.partition("/")
        if stored.path == SAMPLES:
            table = read_parquet(self.read(stored))
            return parquet_bytes(blanked(table, [i in self.hidden for i in range(table.num_rows)], self.kept))
        if stored.path == "zarr.json":
            document = json.loads(self.read(stored))
            document["attributes"]["fingerprint"] = self.name
            return canonical_json(document)
        if field not in {f.name for f in self.receipt.fields}:
            return None
        data = self.read(stored)
        if field in {f.name for f in self.receipt.fields if f.is_image} or rest.endswith("zarr.json"):
            return data
        if rest.startswith("c/"):
            return self._zeroed(data, field, self.hidden)
        row, _, _ = rest.partition("/")
        return self._zeroed(data, f"{field}/{row}", None) if int(row) in self.hidden else data

    def _zeroed(self, data: bytes, array: str, chunks: Collection[int] | None) -> bytes:
        """Return an object with zeros in the given inner chunks, or in all of them if ``chunks`` is None."""
        if chunks is not None and not chunks:
            return data
        document = json.loads(self.store.read(shard_path(self.receipt.fingerprint, array, "zarr.json")))
        inner = document["codecs"][0]["configuration"]
        blosc = next(c["configuration"] for c in inner["codecs"] if c["name"] == "blosc")
        codec = Codec(blosc["cname"], blosc["clevel"], blosc["shuffle"])
        zeros = encode_chunk(np.zeros(inner["chunk_shape"], document["data_type"]), codec)
        grid = zip(document["shape"], inner["chunk_shape"], strict=True)
        count = int(np.prod([-(-n // c) for n, c in grid]))
        places = decode_index(data[-index_bytes(count) :], chunks=count, size=len(data), where=array)
        parts = [
            zeros if chunks is None or number in chunks else data[start : start + length]
            for number, (start, length) in enumerate(places.tolist())
        ]
        return _joined(parts)


def _open_shard(whole: Store, target: Store, entry: ShardEntry, hidden: set[int], kept: frozenset[str]) -> ShardEntry:
    receipt = parse_receipt(whole.read(shard_path(entry.fingerprint, RECEIPT)))
    name = fingerprint("open shard", VERSION, entry.fingerprint, sorted(hidden), sorted(kept))
    shard = _Shard(whole, receipt, frozenset(hidden), kept, name)
    found = found_receipt(target, name)
    if found is None:
        objects = []
        for stored in receipt.objects:
            data = shard.opened(stored)
            if data is not None:
                target.put(shard_path(name, stored.path), data)
                objects.append(stored_object(stored.path, data))
        found = Receipt(name, tuple(objects), receipt.rows, receipt.cases, fields=receipt.fields)
        target.put(shard_path(name, RECEIPT), found.to_json())
    return ShardEntry(name, found.rows, (*found.objects, stored_object(RECEIPT, found.to_json())))


def _open_index(index: pa.Table, hidden: Sequence[bool], kept: frozenset[str], names: Mapping[str, str]) -> pa.Table:
    index = blanked(index, hidden, kept)
    shards = pa.array([names[s] for s in index["shard"].to_pylist()], pa.string())
    index = index.set_column(index.schema.get_field_index("shard"), "shard", shards)
    known: list[Any] = [None] * index.num_rows
    place = index.schema.get_field_index("label_status")
    if place >= 0:
        known = index["label_status"].to_pylist()
        index = index.remove_column(place)
    said = [SEQUESTERED if hide else status for status, hide in zip(known, hidden, strict=True)]
    return index.add_column(place if place >= 0 else index.num_columns, "label_status", pa.array(said, pa.string()))


def _hidden(table: pa.Table, options: Sequester) -> list[bool]:
    return [split in options.splits for split in table["split"].to_pylist()]


def _open_notes(column: pa.ChunkedArray, hidden: Sequence[bool], kind: pa.DataType) -> pa.Array:
    rows = [
        [n for n in notes if n is not None and n.startswith(OPEN_NOTES)] if hide and notes is not None else notes
        for notes, hide in zip(column.to_pylist(), hidden, strict=True)
    ]
    return pa.array(rows, kind)


def _joined(parts: Iterable[bytes]) -> bytes:
    """Join inner chunks into one object with their index at the end."""
    places, data = [], bytearray()
    for part in parts:
        places.append((len(data), len(part)))
        data += part
    return bytes(data) + encode_index(places)


def _table(store: Store, version: str, manifest: Manifest, name: str) -> pa.Table:
    data = store.read(version_path(version, name))
    if stored_object(name, data) not in manifest.files:
        raise LayoutError(f"{name}: found another content than the manifest states; verify the store of the labels")
    return read_parquet(data)


def _is_labelled(store: Store) -> bool | None:
    """Return whether the published version has all its labels, as shown by a ledger; None if nothing is published."""
    try:
        version = parse_current(store.read(CURRENT))
    except FileNotFoundError:
        return None
    return LEDGER in {f.path for f in parse_manifest(store.read(version_path(version, MANIFEST))).files}
