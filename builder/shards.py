"""Samples to one shard: Zarr v3 arrays and Parquet rows, written in one pass, byte for byte reproducible.

Each field of a shard is one object: the ``sharding_indexed`` codec with one inner chunk a sample, inner codecs bytes,
Blosc and crc32c, the index at the end. For whole volumes each is an array of its own, in inner chunks. The bytes are
written here and not by a Zarr library because a sample must be on disk before the next one is made, and because the
number of samples is known only at the end. Any Zarr v3 reader opens the result.
"""

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Protocol

import numcodecs.blosc as blosc
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.model.case import Sample
from builder.model.layout import (
    FORMAT_VERSION,
    RECEIPT,
    SAMPLES,
    ExcludedCase,
    FieldLayout,
    Json,
    Receipt,
    StoredObject,
    canonical_json,
    check_field_name,
    shard_path,
    stored_object,
)
from builder.model.parquet import parquet_bytes
from builder.model.samples import sample_schema
from builder.model.zarr_format import CHECKSUM_BYTES, Codec, array_document, checksum, encode_index, group_document
from builder.storage import Store, checkpoint

# Blosc with two or more threads divides a buffer by timing, and its bytes differ from run to run
blosc.use_threads = False

DTYPES = ("bool", "int8", "int16", "int32", "uint8", "uint16", "uint32", "float16", "float32", "float64")
DEFAULT_CHUNK = (32, 32, 32)
_WRITERS = 8
_NO_FACTS = pa.schema([])


CODECS: Mapping[str, Codec] = {
    "fast": Codec("lz4", 5, "shuffle"),
    "small": Codec("zstd", 1, "shuffle"),
    "archive": Codec("zstd", 7, "bitshuffle"),
}
"""CT of 64^3 voxels, ratio and GB/s decoded on one core: fast 2.1 and 4.9; small 2.5 and 1.2; archive smallest. Masks
with ``fast``: 25 and 10; packed to bits they would be 8 and 16, and with bit shuffle 77 and 1.8."""


def write_shard(
    store: Store,
    fingerprint: str,
    *,
    cases: Iterable[Iterable[Sample]],
    codec: Codec = CODECS["fast"],
    facts: pa.Schema = _NO_FACTS,
    fields: Sequence[FieldLayout] = (),
    chunk: tuple[int, int, int] | None = None,
) -> Receipt:
    """Write the samples of ``cases`` as one shard; see ``open_shard`` for the parameters."""
    with open_shard(store, fingerprint, codec=codec, facts=facts, fields=fields, chunk=chunk) as writer:
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
) -> "Iterator[ShardWriter]":
    """A writer for the shard ``data/<fingerprint>`` of the dataset at ``store``.

    Parameters
    ----------
    facts
        Columns of the cases' own rows.
    fields
        Fields every sample must have (name, channels, dtype are checked); empty: as the first sample has them.
    chunk
        (slice, row, column) of inner chunks when samples are whole volumes of differing shape: one array a sample.
        None: samples of one shape, one inner chunk each.
    """
    folder = store.join(shard_path(fingerprint))
    with folder.scratch() as scratch, contextlib.ExitStack() as stack:
        yield ShardWriter(folder, fingerprint, scratch, stack, codec, sample_schema(facts), tuple(fields), chunk)


class Described(Protocol):
    """Unit and segments (name to channel and value) of an array field."""

    @property
    def unit(self) -> str:
        """Unit of the numbers; "" for masks."""
        ...

    @property
    def segments(self) -> Mapping[str, tuple[int, int]]:
        """Segments of a mask; empty for images."""
        ...


NOTHING: "Mapping[str, Described]" = MappingProxyType({})


@dataclass
class ShardWriter:
    """Adds samples as they come and holds one in memory; nothing can be read until ``finish``."""

    folder: Store
    fingerprint: str
    scratch: Path
    stack: contextlib.ExitStack
    codec: Codec
    schema: pa.Schema
    fields: tuple[FieldLayout, ...]
    chunk: tuple[int, int, int] | None
    _streams: "dict[str, _Stream]" = field(default_factory=dict)
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _excluded: list[ExcludedCase] = field(default_factory=list)
    _cases: int = 0

    def add_case(self, samples: Iterable[Sample], *, described: "Mapping[str, Described]" = NOTHING) -> int:
        """Add all samples of a case or, when one fails, none; returns their number.

        Parameters
        ----------
        described
            Unit and segments of its fields, by name (see ``describe``).

        Raises
        ------
        CaseError
            When a sample's fields are not those of the shard, as raised by ``describe``, or by ``samples``.
        """
        rows, marks = len(self._rows), {name: stream.mark() for name, stream in self._streams.items()}
        fields = self.fields
        try:
            for sample in samples:
                self._add(sample)
            for name, facts in described.items() if len(self._rows) > rows else ():
                self.describe(name, unit=facts.unit, segments=facts.segments)
        except BaseException:
            self._rewind(marks)
            del self._rows[rows:]
            self.fields = fields
            raise
        added = len(self._rows) - rows
        self._cases += bool(added)
        return added

    def exclude(self, case_key: str, error: CaseError) -> None:
        """Record that a case gave no sample, and why."""
        self._excluded.append(ExcludedCase(case_key, error.reason, error.detail))

    def describe(self, name: str, *, unit: str = "", segments: Mapping[str, tuple[int, int]] | None = None) -> None:
        """State a field's unit (``mixed`` when cases differ) and segments; before or after its samples.

        Raises
        ------
        CaseError
            When a segment's name already stands for another channel or value.
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
        self.fields = tuple(
            replace(f, unit=unit, segments=merged) if f.name == name else f for f in self.fields
        )

    def finish(self, *, tallies: Mapping[str, Json] | None = None) -> Receipt:
        """Move everything into place, the receipt last."""
        checkpoint("shard.finish")
        rows = pa.Table.from_pylist(self._rows, schema=self.schema)
        members = dict(self._members())
        about = {"fingerprint": self.fingerprint, "format_version": FORMAT_VERSION}
        documents = {"": group_document(about, members=members), **members}
        work: list[Callable[[], StoredObject]] = [partial(self._commit, path) for path in sorted(self._streams)]
        for path, document in documents.items():
            work.append(partial(self._put, f"{path}/zarr.json".lstrip("/"), canonical_json(document)))
        work.append(partial(self._put, SAMPLES, parquet_bytes(rows)))
        # each waits for the disk; together they wait about once
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

    def _add(self, sample: Sample) -> None:
        arrays = {check_field_name(name): _plain(sample.arrays[name], name) for name in sorted(sample.arrays)}
        row = self._row(sample)
        self._check(arrays)
        number = len(self._rows)
        for name, array in arrays.items():
            if self.chunk is None:
                self._stream(name).append(array, self.codec)
                continue
            stream = self._stream(f"{name}/{number}")
            for piece in _pieces(array, self.chunk):
                stream.append(piece, self.codec)
            stream.close()
            self._shapes[f"{name}/{number}"] = array.shape
        self._rows.append(row)

    def _rewind(self, marks: "Mapping[str, _Mark]") -> None:
        """Put every stream back to its mark, and drop those that had none."""
        for path in [p for p in self._streams if p not in marks]:
            stream = self._streams.pop(path)
            stream.file.close()
            stream.path.unlink()
        for path, mark in marks.items():
            if not self._streams[path].file.closed:
                self._streams[path].rewind(mark)

    def _row(self, sample: Sample) -> dict[str, Any]:
        """The sample's row, with what its geometry says; no key may be lost."""
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

    def _check(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Compare a sample's arrays with the fields of the shard, or make them the fields."""
        found = tuple(_layout(name, array, self.chunk) for name, array in arrays.items())
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

    def _stream(self, path: str) -> "_Stream":
        if path not in self._streams:
            scratch = self.scratch / path.replace("/", "@")
            self._streams[path] = _Stream(scratch, self.stack.enter_context(scratch.open("w+b")))
        return self._streams[path]

    def _commit(self, path: str) -> StoredObject:
        stream = self._streams[path]
        stream.close()
        target = f"{path}/c/" + "/".join("0" * (5 if self.chunk is None else 4))
        self.folder.commit(target, stream.path)
        return StoredObject(target, stream.position, stream.digest.hexdigest())

    def _put(self, path: str, data: bytes) -> StoredObject:
        self.folder.put(path, data)
        return stored_object(path, data)

    def _members(self) -> Iterator[tuple[str, Json]]:
        """Path and metadata of every array and group below the shard's own."""
        for layout in self.fields if self._rows else ():
            segments = {name: list(place) for name, place in layout.segments.items()}
            attributes = {"unit": layout.unit, "segments": segments}
            describe = partial(array_document, dtype=layout.dtype, codec=self.codec, attributes=attributes)
            inner = (layout.channels, *layout.chunk)
            if layout.shape is not None:
                yield layout.name, describe((len(self._rows), *inner), chunk=(1, *inner))
                continue
            yield layout.name, group_document(attributes)
            for number in range(len(self._rows)):
                path = f"{layout.name}/{number}"
                yield path, describe(self._shapes[path], chunk=inner)


@dataclass
class _Stream:
    """One object in the making: its scratch file, where its chunks lie, and the digest so far."""

    path: Path
    file: BinaryIO
    places: list[tuple[int, int]] = field(default_factory=list)
    position: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def append(self, array: NDArray[Any], codec: Codec) -> None:
        shuffle = {"shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}[codec.shuffle]
        data = blosc.compress(array, codec.compressor.encode(), codec.level, shuffle, 0)
        self.places.append((self.position, len(data) + CHECKSUM_BYTES))
        self._write(data)
        self._write(checksum(data))

    def mark(self) -> "_Mark":
        return _Mark(len(self.places), self.position, self.digest.copy())

    def rewind(self, mark: "_Mark") -> None:
        self.file.seek(mark.position)
        self.file.truncate()
        del self.places[mark.chunks :]
        self.position, self.digest = mark.position, mark.digest

    def close(self) -> None:
        """Append the index; further calls do nothing."""
        if not self.file.closed:
            self._write(encode_index(self.places))
            self.file.close()

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.position += len(data)


@dataclass(frozen=True)
class _Mark:
    """Where a stream stood."""

    chunks: int
    position: int
    digest: Any


def _plain(array: NDArray[Any], name: str) -> NDArray[Any]:
    """The array as it is stored: C order, little endian, a type Zarr knows."""
    if array.ndim != 4 or array.dtype.name not in DTYPES or not array.size:
        raise ValueError(
            f"field {name}: found {array.dtype.name} {array.shape}, "
            f"expected (channel, slice, row, column) of one of {', '.join(DTYPES)}"
        )
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _layout(name: str, array: NDArray[Any], chunk: tuple[int, int, int] | None) -> FieldLayout:
    channels, slices, rows, columns = array.shape
    shape = (slices, rows, columns) if chunk is None else None
    inner = chunk or (slices, rows, columns)
    if channels * inner[0] * inner[1] * inner[2] * array.dtype.itemsize > blosc.MAX_BUFFERSIZE:
        raise CaseError(
            Reason.TOO_LARGE,
            f"field {name}: found {array.nbytes} bytes a sample, expected at most {blosc.MAX_BUFFERSIZE} in one chunk; "
            "cut smaller patches or store whole volumes in chunks",
        )
    return FieldLayout(name, channels, shape, inner, array.dtype.name)


def _pieces(array: NDArray[Any], chunk: tuple[int, int, int]) -> Iterator[NDArray[Any]]:
    """Inner chunks of a volume in C order; the last of an axis is filled up with zeros, as Zarr does."""
    starts = [range(0, n, c) for n, c in zip(array.shape[1:], chunk, strict=True)]
    for s, r, c in itertools.product(*starts):
        piece = array[:, s : s + chunk[0], r : r + chunk[1], c : c + chunk[2]]
        if piece.shape[1:] != chunk:
            whole = np.zeros((array.shape[0], *chunk), array.dtype)
            whole[:, : piece.shape[1], : piece.shape[2], : piece.shape[3]] = piece
            piece = whole
        yield np.ascontiguousarray(piece)
