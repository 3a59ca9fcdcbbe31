"""One field of one shard: where its chunks lie, and how they become voxels."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numcodecs.blosc as blosc
import numpy as np
from numpy.typing import NDArray

from builder.errors import LayoutError
from builder.model.layout import FieldLayout, StoredObject
from builder.model.zarr_format import CHECKSUM_BYTES, decode_index, index_bytes
from builder.reader.cache import ObjectCache
from builder.storage import ObjectReader, Store

# The calling thread decompresses, outside the interpreter lock: threads are the reader's own affair
blosc.use_threads = False

_RESIDUE = 0x48674BC7
"""crc32c of any bytes followed by their own crc32c (little endian): compares without splitting the buffer."""
_HEADER_BYTES = 16
MOST_OPEN_FILES = 256


@dataclass
class ChunkObject:
    """The chunks of one shard object; index and file are opened with the first read, in whatever process that is.

    Parameters
    ----------
    store
        The dataset.
    path
        Of the object, below the dataset's root.
    expected
        Its size and SHA-256, as the manifest states them.
    chunks
        Number of inner chunks.
    verify
        Whether each chunk's crc32c is compared; the index is always.
    opened
        The objects of the dataset that hold an open file, oldest first; at most ``MOST_OPEN_FILES`` do.
    cache
        Where whole objects are kept; None to read ranges from the store.
    packed
        The layout of packed numbers that are to become values; None to give numbers as they are stored.
    """

    store: Store
    path: str
    expected: StoredObject
    chunks: int
    verify: bool
    opened: "deque[ChunkObject]" = field(repr=False)
    cache: ObjectCache | None = None
    packed: FieldLayout | None = None
    _reader: ObjectReader | None = field(default=None, repr=False)
    _index: list[tuple[int, int]] | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None, "opened": deque()}

    def prepare(self) -> None:
        """Fetch what is needed before the first chunk can be read: the index and, with a cache, the whole object."""
        _ = self.index

    def decode(self, chunk: int, out: NDArray[Any]) -> None:
        """Decompress a chunk into ``out``, a C-contiguous array of the chunk's exact size.

        Raises
        ------
        LayoutError
            When the object is missing, cut short or damaged.
        """
        start, length = self.index[chunk]
        self.decompress(self._open().read(start, length), out, chunk=chunk)

    def decode_many(self, chunks: Sequence[int], outs: Sequence[NDArray[Any]]) -> None:
        """``decode`` of several chunks, whose ranges are fetched together."""
        for number, data, out in zip(chunks, self.fetch(chunks), outs, strict=True):
            self.decompress(data, out, chunk=number)

    def fetch(self, chunks: Sequence[int]) -> Iterable[bytes | memoryview]:
        """The stored bytes of several chunks, for ``decompress``."""
        index = self.index
        return self._open().read_many([index[chunk] for chunk in chunks])

    def decompress(self, data: bytes | memoryview, out: NDArray[Any], *, chunk: int) -> None:
        """Check a stored chunk and decompress it into ``out``, as values. Raises LayoutError."""
        layout = self.packed
        if layout is None or layout.packing is None:
            self._decompress(data, out, chunk=chunk)
            return
        stored = np.empty(out.shape, layout.dtype)
        self._decompress(data, stored, chunk=chunk)
        layout.packing.unpack(stored, out)

    def _decompress(self, data: bytes | memoryview, out: NDArray[Any], *, chunk: int) -> None:
        expected = self.index[chunk][1]
        if len(data) != expected or expected < _HEADER_BYTES + CHECKSUM_BYTES:
            raise LayoutError(f"{self.path}: found {len(data)} bytes of chunk {chunk}, expected {expected}; cut short")
        stored = np.frombuffer(data, np.uint8)
        if self.verify:
            self._compare(stored, chunk=chunk)
        try:
            blosc.decompress(stored[:-CHECKSUM_BYTES], out)
        except (RuntimeError, ValueError) as error:
            raise LayoutError(f"{self.path}: found chunk {chunk} undecodable ({error}); damaged") from error
        # after decompressing, which rejects a larger chunk: a page not in memory yet is waited for outside the lock
        if int.from_bytes(data[4:8], "little") != out.nbytes:
            raise LayoutError(f"{self.path}: found a wrong size of chunk {chunk}, expected {out.nbytes}; damaged")

    def _compare(self, stored: NDArray[np.uint8], *, chunk: int) -> None:
        if google_crc32c.value(stored) != _RESIDUE:
            raise LayoutError(f"{self.path}: found a wrong checksum in chunk {chunk}, expected its crc32c; damaged")

    @property
    def index(self) -> list[tuple[int, int]]:
        """(offset, length) of every chunk, read and checked once."""
        if self._index is None:
            size, length = self.expected.bytes, index_bytes(self.chunks)
            data = bytes(self._open().read(size - length, length)) if size >= length else b""
            table = decode_index(data, chunks=self.chunks, size=size, where=self.path)
            self._index = [(offset, count) for offset, count in table.tolist()]
        return self._index

    def _check_whole(self, data: bytes) -> None:
        """Compare every checksum in the whole object: of its chunks and of its index, between which nothing lies."""
        if len(data) != self.expected.bytes:
            raise LayoutError(f"{self.path}: found {len(data)} bytes, expected {self.expected.bytes}; cut short")
        view, length = np.frombuffer(data, np.uint8), index_bytes(self.chunks)
        table = decode_index(data[-length:], chunks=self.chunks, size=len(data), where=self.path)
        for number, (offset, count) in enumerate(table.tolist()):
            self._compare(view[offset : offset + count], chunk=number)

    def _open(self) -> ObjectReader:
        reader = self._reader
        if reader is None:
            try:
                if self.cache is None:
                    reader = self.store.open(self.path)
                else:
                    check = self._check_whole if self.verify else None
                    reader = self.cache.open(self.store, self.path, expected=self.expected, check=check)
            except FileNotFoundError as error:
                raise LayoutError(f"{self.path}: found no object, expected {self.expected.bytes} bytes") from error
            self._reader = reader
            self.opened.append(self)
            while len(self.opened) > MOST_OPEN_FILES:
                self.opened.popleft()._reader = None  # closed when the last thread that reads is done with it
        return reader


@dataclass(frozen=True)
class Crop:
    """A box of a volume stored in chunks: which chunks it meets, and where each goes.

    Parameters
    ----------
    layout
        The field.
    shape
        (slice, row, column) of the whole volume.
    """

    layout: FieldLayout
    shape: tuple[int, int, int]

    @property
    def grid(self) -> tuple[int, int, int]:
        """Chunks along (slice, row, column)."""
        s, r, c = (-(-n // p) for n, p in zip(self.shape, self.layout.chunk, strict=True))
        return (s, r, c)

    def read(self, source: ChunkObject, start: tuple[int, int, int], *, out: NDArray[Any]) -> None:
        """Fill ``out`` (channel, slice, row, column) from ``start``; the box lies inside the volume."""
        chunk, grid = self.layout.chunk, self.grid
        ends = [a + n for a, n in zip(start, out.shape[1:], strict=True)]
        spans = [range(a // p, -(-e // p)) for a, e, p in zip(start, ends, chunk, strict=True)]
        places = [(s, r, c) for s in spans[0] for r in spans[1] for c in spans[2]]
        numbers = [(s * grid[1] + r) * grid[2] + c for s, r, c in places]
        whole = np.empty((self.layout.channels, *chunk), out.dtype)
        for place, number, data in zip(places, numbers, source.fetch(numbers), strict=True):
            source.decompress(data, whole, chunk=number)
            here, there = [slice(None)], [slice(None)]
            for p, n, a, e in zip(place, chunk, start, ends, strict=True):
                low, high = max(p * n, a), min((p + 1) * n, e)
                here.append(slice(low - p * n, high - p * n))
                there.append(slice(low - a, high - a))
            out[tuple(there)] = whole[tuple(here)]


def chunk_count(layout: FieldLayout, shape: tuple[int, int, int]) -> int:
    """Inner chunks of one volume of ``shape``."""
    return math.prod(Crop(layout, shape).grid)
