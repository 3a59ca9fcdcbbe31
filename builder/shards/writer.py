"""Write samples to one shard: Zarr v3 arrays and Parquet rows, in one pass and reproducible byte for byte.

Each field of a shard is one object: the ``sharding_indexed`` codec with one inner chunk per sample, the inner codecs
bytes, Blosc and crc32c, and the index at the end. A whole volume is an array of its own, divided into inner chunks.
This module writes the bytes itself instead of using a Zarr library, because a sample must be on disk before the next
one is made, and because the number of samples is known only at the end. Any Zarr v3 reader can open the result.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import numcodecs.blosc as blosc
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.model.canonical import Json, canonical_json
from builder.model.case import ClearedSample, Slabs
from builder.model.cleared import Cleared, check_policies
from builder.model.fields import FieldLayout, Packing, merged_units
from builder.model.layout import (
    FORMAT_VERSION,
    RECEIPT,
    SAMPLES,
    ExcludedCase,
    Receipt,
    StoredObject,
    check_field_name,
    shard_path,
    stored_object,
)
from builder.model.parquet import parquet_bytes
from builder.model.samples import sample_schema
from builder.model.zarr_format import Codec, array_document, group_document
from builder.shards.storing import AS_THEY_COME, CODECS, FieldStorage
from builder.shards.streams import Streams
from builder.storage import Store, checkpoint

DTYPES = ("bool", "int8", "int16", "int32", "uint8", "uint16", "uint32", "float16", "float32", "float64")
_WRITERS = 8
Voxels = TypeVar("Voxels", NDArray[Any], Slabs)
_NO_FACTS = pa.schema([])


def write_shard(store: Store, fingerprint: str, *, cases: Iterable[Iterable[ClearedSample]], **options: Any) -> Receipt:
    """Write the samples of ``cases`` as one shard. The options are those of ``open_shard``."""
    with open_shard(store, fingerprint, **options) as writer:
        for samples in cases:
            writer.add_case(samples)
        return writer.finish()


@contextlib.contextmanager
def open_shard(
    store: Store,
    fingerprint: str,
    *,
    codec: Codec = CODECS["fast"],
    facts: pa.Schema = _NO_FACTS,
    fields: Sequence[FieldLayout] = (),
    chunk: tuple[int, int, int] | None = None,
    storage: Mapping[str, FieldStorage] = AS_THEY_COME,
) -> "Iterator[ShardWriter]":
    """Open a writer for the shard ``data/<fingerprint>`` of the dataset at ``store``.

    Parameters
    ----------
    facts
        Columns of the facts in the rows of the cases.
    fields
        Fields that every sample must have (name, channels and dtype are checked). If empty, those of the first sample.
    chunk
        (slice, row, column) of inner chunks, for whole volumes of different shapes with one array per sample. None if
        all samples have one shape and one inner chunk each.
    storage
        How to store some of the fields, by name. The others are stored unchanged, with ``codec``.

    Raises
    ------
    PrivacyError
        If a column holds text and the privacy gate has no policy for it.
    """
    schema = sample_schema(facts)
    check_policies(schema, where=f"shard {fingerprint}")
    folder = store.join(shard_path(fingerprint))
    with folder.scratch() as scratch, contextlib.ExitStack() as stack:
        streams = Streams(scratch, stack)
        yield ShardWriter(folder, fingerprint, codec, schema, tuple(fields), chunk, storage, streams)


class Described(Protocol):
    """The unit and the segments (name to channel and value) of an array field."""

    @property
    def unit(self) -> str:
        """The unit of the numbers; "" for masks."""
        ...

    @property
    def segments(self) -> Mapping[str, tuple[int, int]]:
        """The segments of a mask; empty for images."""
        ...

    @property
    def channels(self) -> tuple[tuple[str, str], ...]:
        """Name and unit of each channel where they are of several images; empty otherwise."""
        ...

    @property
    def grid(self) -> str:
        """The field on whose grid it lies; "" for the grid of the sample's row."""
        ...


@dataclass(frozen=True)
class StoredSample:
    """A sample as a shard stores it: its row, and of each field its encoded inner chunks and the array's shape."""

    row: Mapping[str, Any]
    chunks: Mapping[str, Sequence[bytes]]
    shapes: Mapping[str, tuple[int, ...]]


NOTHING: "Mapping[str, Described]" = MappingProxyType({})


@dataclass
class ShardWriter:
    """Writes samples one by one and holds few in memory. Readers see nothing before ``finish``.

    The arrays of a sample must not change after it was added, because they are compressed while the next samples are
    prepared.
    """

    folder: Store
    fingerprint: str
    codec: Codec
    schema: pa.Schema
    fields: tuple[FieldLayout, ...]
    chunk: tuple[int, int, int] | None
    storage: Mapping[str, FieldStorage]
    streams: Streams
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _excluded: list[ExcludedCase] = field(default_factory=list)
    _attached: dict[str, bytes] = field(default_factory=dict)
    _cases: int = 0

    def add_case(self, samples: Iterable[ClearedSample], *, described: "Mapping[str, Described]" = NOTHING) -> int:
        """Add all samples of a case and return their number. If one of them fails, none is added.

        Parameters
        ----------
        described
            Unit and segments of the case's fields, by name (see ``describe``).

        Raises
        ------
        CaseError
            If the fields of a sample differ from those of the shard, or if ``describe`` or ``samples`` raises it.
        """
        rows, undo = len(self._rows), self.streams.mark()
        fields = self.fields
        try:
            for sample in samples:
                self._add(sample)
            for name, facts in described.items() if len(self._rows) > rows else ():
                self.describe(name, unit=facts.unit, segments=facts.segments, channels=facts.channels, grid=facts.grid)
        except BaseException:
            undo()
            del self._rows[rows:]
            self.fields = fields
            raise
        added = len(self._rows) - rows
        self._cases += bool(added)
        return added

    def copy_case(self, samples: "Iterable[StoredSample]", *, described: "Mapping[str, Described]" = NOTHING) -> None:
        """Add the samples of a case as another shard stores them, without decoding any voxel."""
        added = 0
        for sample in samples:
            number = len(self._rows)
            for layout in self.fields:
                path = layout.name if self.chunk is None else f"{layout.name}/{number}"
                self.streams.copy(path, sample.chunks[layout.name], whole=self.chunk is not None)
                self._shapes[path] = sample.shapes[layout.name]
            self._rows.append(dict(sample.row))
            added += 1
        for name, facts in described.items() if added else ():
            self.describe(name, unit=facts.unit, segments=facts.segments, channels=facts.channels, grid=facts.grid)
        self._cases += bool(added)

    def exclude(self, case_key: str, reason: Reason, detail: Cleared) -> None:
        """Record that a case has no samples, and why."""
        self._excluded.append(ExcludedCase(case_key, reason, detail))

    def attach(self, path: str, data: bytes) -> None:
        """Add a file that is not an array to the shard. It is listed and verified like the shard's own files."""
        self._attached[path] = data

    def describe(
        self,
        name: str,
        *,
        unit: str = "",
        segments: Mapping[str, tuple[int, int]] | None = None,
        channels: Sequence[tuple[str, str]] = (),
        grid: str = "",
    ) -> None:
        """Set the unit of a field (``mixed`` if cases differ), its segments, channels and grid.

        Raises
        ------
        CaseError
            If the name of a segment already belongs to another channel or value.
        """
        found = next((f for f in self.fields if f.name == name), None)
        if found is None:
            raise ValueError(f"field: found no field {name!r} in this shard, expected it in a sample added before")
        merged = dict(found.segments)
        for segment, place in sorted((segments or {}).items()):
            if merged.setdefault(segment, place) != place:
                detail = f"mask {name}: found a segment at {place}, expected {merged[segment]} as in the cases before"
                raise CaseError(Reason.LABEL_AMBIGUOUS, detail)
        unit = unit if found.unit in ("", unit) else "mixed"
        names, units = tuple(n for n, _ in channels), tuple(u for _, u in channels)
        if found.channel_names and found.channel_names != names:
            detail = f"field {name}: found the channels {names}, expected {found.channel_names} as in the cases before"
            raise CaseError(Reason.INCONSISTENT_PIXELS, detail)
        units = merged_units(found.channel_units, units)
        described = replace(found, unit=unit, segments=merged, channel_names=names, channel_units=units, grid=grid)
        self.fields = tuple(described if f.name == name else f for f in self.fields)

    def finish(self, *, tallies: Mapping[str, Json] | None = None) -> Receipt:
        """Move everything into place, with the receipt last, because a shard counts as complete once it has one."""
        self.streams.drain()
        checkpoint("shard.finish")
        rows = pa.Table.from_pylist(self._rows, schema=self.schema)
        members = dict(self._members())
        about = {"fingerprint": self.fingerprint, "format_version": FORMAT_VERSION}
        documents = {"": group_document(about, members=members), **members}
        work: list[Callable[[], StoredObject]] = [partial(self._commit, path) for path in sorted(self.streams.streams)]
        for path, document in documents.items():
            work.append(partial(self._put, f"{path}/zarr.json".lstrip("/"), canonical_json(document)))
        work.append(partial(self._put, SAMPLES, parquet_bytes(rows)))
        work += [partial(self._put, path, data) for path, data in sorted(self._attached.items())]
        # Each write waits for the disk; in parallel they wait about as long as one
        with ThreadPoolExecutor(_WRITERS) as executor:
            objects = [future.result() for future in [executor.submit(step) for step in work]]
        receipt = Receipt(
            fingerprint=self.fingerprint,
            objects=tuple(sorted(objects, key=lambda o: o.path)),
            rows=len(self._rows),
            cases=self._cases,
            excluded=tuple(sorted(self._excluded, key=lambda e: (e.case_key, e.reason, e.detail))),
            fields=tuple(sorted(self.fields, key=lambda f: f.name)) if self._rows else (),
            tallies=dict(tallies or {}),
        )
        checkpoint("shard.receipt")
        self.folder.put(RECEIPT, receipt.to_json())
        return receipt

    def _add(self, sample: ClearedSample) -> None:
        stored = {check_field_name(name): self._stored(name, sample.arrays[name]) for name in sorted(sample.arrays)}
        row = self._row(sample)
        self._check(stored)
        number = len(self._rows)
        for name, array in stored.items():
            path = name if self.chunk is None else f"{name}/{number}"
            self.streams.append(path, array, self._codec(name), chunk=self.chunk)
            self._shapes[path] = array.shape
        self._rows.append(row)

    def _stored(self, name: str, array: NDArray[Any] | Slabs) -> NDArray[Any] | Slabs:
        rule = self.storage.get(name)
        if isinstance(array, Slabs):
            if rule is not None and rule.dtype is not None:
                raise ValueError(f"field {name}: found slabs, expected an array to be stored as {rule.dtype}")
            return _checked(array, name)
        return _plain(array if rule is None else rule.convert(name, array), name)

    def _codec(self, name: str) -> Codec:
        rule = self.storage.get(name)
        return self.codec if rule is None or rule.codec is None else CODECS[rule.codec]

    def _packing(self, name: str) -> Packing | None:
        rule = self.storage.get(name)
        return None if rule is None else rule.packing

    def _row(self, sample: ClearedSample) -> dict[str, Any]:
        """Return the row of a sample with the columns of its geometry. A key that is not a column raises ValueError."""
        slices, rows, columns = sample.geometry.shape
        spacing = sample.geometry.spacing_mm
        row = {
            "slices": slices,
            "rows": rows,
            "columns": columns,
            "spacing_slice_mm": spacing[0],
            "spacing_row_mm": spacing[1],
            "spacing_column_mm": spacing[2],
            "affine": [float(x) for x in sample.geometry.affine.ravel()],
            **sample.row,
            **sample.ragged,
        }
        unknown = sorted(set(row) - set(self.schema.names))
        if unknown:
            raise ValueError(f"sample: found the columns {unknown}, expected only those of the shard's schema")
        return row

    def _check(self, arrays: Mapping[str, NDArray[Any] | Slabs]) -> None:
        """Compare the arrays of a sample with the fields of the shard. The first sample defines the fields."""
        found = tuple(
            replace(_layout(name, array, self.chunk), packing=self._packing(name)) for name, array in arrays.items()
        )
        if not self.fields:
            self.fields = found
        expected = {f.name: f for f in self.fields}
        missing = sorted(set(expected) - set(arrays))
        if missing or len(found) != len(expected):
            detail = f"found the fields {sorted(arrays)}, expected {sorted(expected)} as in every sample of the dataset"
            raise CaseError(Reason.LABEL_MISSING, detail)
        for here in found:
            there = expected[here.name]
            if (here.channels, here.shape, here.dtype) != (there.channels, there.shape, there.dtype):
                raise CaseError(
                    Reason.INCONSISTENT_PIXELS,
                    f"field {here.name}: found {here.dtype} {(here.channels, here.shape)}, "
                    f"expected {there.dtype} {(there.channels, there.shape)} as in every sample of the dataset",
                )

    def _commit(self, path: str) -> StoredObject:
        stream = self.streams.streams[path]
        stream.close()
        target = f"{path}/c/" + "/".join("0" * (5 if self.chunk is None else 4))
        self.folder.commit(target, stream.path)
        return StoredObject(target, stream.position, stream.digest.hexdigest())

    def _put(self, path: str, data: bytes) -> StoredObject:
        self.folder.put(path, data)
        return stored_object(path, data)

    def _members(self) -> Iterator[tuple[str, Json]]:
        """Yield the path and metadata of every array and group below the group of the shard."""
        for layout in self.fields if self._rows else ():
            segments = {name: list(place) for name, place in layout.segments.items()}
            attributes: dict[str, Json] = {"unit": layout.unit, "segments": segments}
            if layout.channel_names:
                attributes["channels"] = [list(c) for c in zip(layout.channel_names, layout.channel_units, strict=True)]
            if layout.packing is not None:  # names of the CF conventions, section 8.1, which xarray applies
                attributes |= {"scale_factor": layout.packing.factor, "add_offset": layout.packing.offset}
            codec = self._codec(layout.name)
            describe = partial(array_document, name=layout.name, dtype=layout.dtype, codec=codec, attributes=attributes)
            inner = (layout.channels, *layout.chunk)
            if layout.shape is not None:
                yield layout.name, describe((len(self._rows), *inner), chunk=(1, *inner))
                continue
            yield layout.name, group_document(attributes)
            for number in range(len(self._rows)):
                path = f"{layout.name}/{number}"
                yield path, describe(self._shapes[path], chunk=inner)


def _plain(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return the array as it is stored: in C order, little endian, and of a type that Zarr has."""
    return np.ascontiguousarray(array, dtype=_checked(array, name).dtype.newbyteorder("<"))


def _checked(array: Voxels, name: str) -> Voxels:
    """Return the array itself. Raises ValueError if it cannot be a field."""
    if array.ndim != 4 or array.dtype.name not in DTYPES or not array.size:
        raise ValueError(
            f"field {name}: found {array.dtype.name} {array.shape}, "
            f"expected (channel, slice, row, column) of one of {', '.join(DTYPES)}"
        )
    return array


def _layout(name: str, array: NDArray[Any] | Slabs, chunk: tuple[int, int, int] | None) -> FieldLayout:
    channels, slices, rows, columns = array.shape
    shape = (slices, rows, columns) if chunk is None else None
    inner = chunk or (slices, rows, columns)
    if channels * inner[0] * inner[1] * inner[2] * array.dtype.itemsize > blosc.MAX_BUFFERSIZE:
        raise CaseError(
            Reason.TOO_LARGE,
            f"field {name}: found {array.nbytes:,} bytes a sample, expected at most {blosc.MAX_BUFFERSIZE:,} in one "
            "chunk; cut smaller patches or store whole volumes in chunks",
        )
    return FieldLayout(name, channels, shape, inner, array.dtype.name)
