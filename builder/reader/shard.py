"""Reading one field of one shard: find its chunks and decode them to voxels."""

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

import google_crc32c
import numcodecs.blosc as blosc
import numpy as np
from numpy.typing import NDArray

from builder.errors import LayoutError
from builder.model.fields import FieldLayout
from builder.model.layout import StoredObject
from builder.model.zarr_format import CHECKSUM_BYTES, decode_index, index_bytes
from builder.reader.cache import ObjectCache
from builder.storage import ObjectReader, Store

# Blosc decompresses in the calling thread, with the GIL released, because the reader brings its own threads
blosc.use_threads = False

_RESIDUE = 0x48674BC7
"""The crc32c of any bytes followed by their own crc32c (little endian).

It is the same for all bytes, so a checksum can be verified without splitting the buffer.
"""
_HEADER_BYTES = 16
MOST_OPEN_FILES = 256
AGAIN = 3
"""How often a range of a remote object is fetched again before the object itself is taken to be damaged."""
Found = TypeVar("Found")


@dataclass
class ChunkObject:
    """The chunks of one shard object. Each process opens the file and reads the index at its own first read.

    Parameters
    ----------
    store
        Store of the dataset.
    path
        Path of the object below the dataset's root.
    expected
        Size and SHA-256 of the object, as listed in the manifest.
    chunks
        Number of inner chunks.
    verify
        Whether the crc32c of each chunk is verified. That of the index always is.
    opened
        Objects of the dataset that hold an open file, oldest first; at most ``MOST_OPEN_FILES``.
    cache
        Cache of whole objects; None reads ranges from the store.
    packed
        Layout of packed numbers that are unpacked to values; None returns the numbers as they are stored.
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
    _compared: NDArray[np.bool_] | None = field(default=None, repr=False)
    _index: list[tuple[int, int]] | None = field(default=None, repr=False)
    _places: NDArray[np.int64] | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None, "_compared": None, "opened": deque()}

    def prepare(self) -> None:
        """Fetch what the first read needs: the index and, with a cache, the whole object."""
        _ = self.index

    def decode(self, chunk: int, out: NDArray[Any]) -> None:
        """Decompress a chunk into ``out``, a C-contiguous array of exactly the chunk's size.

        Raises
        ------
        LayoutError
            If the object is missing, truncated or damaged.
        """
        start, length = self.index[chunk]
        self.decompress(self._open().read(start, length), out, chunk=chunk)

    def decode_many(self, chunks: Sequence[int], outs: Sequence[NDArray[Any]]) -> None:
        """Decode several chunks as ``decode`` does, and fetch their ranges together."""
        for number, data, out in zip(chunks, self.fetch(chunks), outs, strict=True):
            self.decompress(data, out, chunk=number)

    def fetch(self, chunks: Sequence[int]) -> Iterable[bytes | memoryview]:
        """Fetch the stored bytes of several chunks, to be passed to ``decompress``."""
        index = self.index
        return self._open().read_many([index[chunk] for chunk in chunks])

    def held(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]] | None:
        """Return the object's bytes, the (chunk, 2) offsets and lengths of its chunks there without their checksums,
        and which chunks were compared with their checksums since it was opened; None where ranges are fetched.
        """
        memory = self._open().memory()
        if memory is None:
            return None
        if self._places is None:
            self._places = np.array(self.index, np.int64) - (0, CHECKSUM_BYTES)
        if self._compared is None:
            self._compared = np.full(self.chunks, not self.verify)
        return np.frombuffer(memory, np.uint8), self._places, self._compared

    def compare(self, chunks: Sequence[int]) -> None:
        """Compare those chunks of an object that is held with their checksums that were not yet. Raises LayoutError."""
        compared = self._compared
        if compared is None:  # another thread closed the object in the meantime
            return
        fresh = [number for number in chunks if not compared[number]]
        for number, data in zip(fresh, self.fetch(fresh), strict=True):
            self._compare(np.frombuffer(data, np.uint8), chunk=number)
            compared[number] = True

    def decompress(self, data: bytes | memoryview, out: NDArray[Any], *, chunk: int) -> None:
        """Verify a stored chunk and decompress it into ``out``, unpacked to values. Raises LayoutError."""
        layout = self.packed
        packing = None if layout is None else layout.packing
        stored = out if layout is None or packing is None else np.empty(out.shape, layout.dtype)
        self._checked(data, self.index[chunk], lambda found: self._decompress(found, stored, chunk=chunk))
        if packing is not None:
            packing.unpack(stored, out)

    def _checked(
        self, data: bytes | memoryview, place: tuple[int, int], check: Callable[[bytes | memoryview], Found]
    ) -> Found:
        """Return what ``check`` makes of the bytes at (start, length), which may be damaged on their way here."""
        try:
            return check(data)
        except LayoutError:
            if self._open().memory() is not None:
                raise
        for _ in range(AGAIN - 1):
            with contextlib.suppress(LayoutError):
                return check(self._open().read(*place))
        return check(self._open().read(*place))

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
        # The size is checked only after decompressing (which itself rejects a chunk that is too large): reading the
        # header first would wait for a page that is not in memory yet while this thread holds the GIL
        if int.from_bytes(data[4:8], "little") != out.nbytes:
            raise LayoutError(f"{self.path}: found a wrong size of chunk {chunk}, expected {out.nbytes}; damaged")

    def _compare(self, stored: NDArray[np.uint8], *, chunk: int) -> None:
        if google_crc32c.value(stored) != _RESIDUE:
            raise LayoutError(f"{self.path}: found a wrong checksum in chunk {chunk}, expected its crc32c; damaged")

    @property
    def index(self) -> list[tuple[int, int]]:
        """The (offset, length) of every chunk, read and verified once."""
        if self._index is None:
            size, length = self.expected.bytes, index_bytes(self.chunks)
            place = max(0, size - length), min(length, size)
            table = self._checked(
                self._open().read(*place),
                place,
                lambda found: decode_index(bytes(found), chunks=self.chunks, size=size, where=self.path),
            )
            self._index = [(offset, count) for offset, count in table.tolist()]
        return self._index

    def _check_whole(self, data: bytes) -> None:
        """Verify the checksums of all chunks and of the index. Together they cover every byte of the object."""
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
            self._compared = None
            self._reader = reader
            self.opened.append(self)
            while len(self.opened) > MOST_OPEN_FILES:
                self.opened.popleft()._reader = None  # the file closes when no thread uses it any more
        return reader


@dataclass(frozen=True)
class Crop:
    """Reads boxes of a volume that is stored in chunks.

    Parameters
    ----------
    layout
        Layout of the field.
    shape
        (slice, row, column) of the whole volume.
    """

    layout: FieldLayout
    shape: tuple[int, int, int]

    @property
    def grid(self) -> tuple[int, int, int]:
        """The number of chunks along (slice, row, column)."""
        s, r, c = (-(-n // p) for n, p in zip(self.shape, self.layout.chunk, strict=True))
        return (s, r, c)

    def read(self, source: ChunkObject, start: tuple[int, int, int], *, out: NDArray[Any]) -> None:
        """Fill ``out`` (channel, slice, row, column) with the box at ``start``, which must lie inside the volume.

        Where the object is in memory, Numba is installed, and numcodecs lets its Blosc be called, a compiled loop
        decodes all chunks, and a chunk is compared with its checksum when it is first read after the object was opened.
        """
        crops, held = _compiled(), source.held()
        if crops is None or held is None or not out.flags.c_contiguous:
            self._read_slowly(source, start, out=out)
            return
        packing = None if source.packed is None else source.packed.packing
        voxels = out if packing is None else np.empty(out.shape, self.layout.dtype)
        while (wrong := crops.decode_box(*held, self.grid, self.layout.chunk, start, voxels)) == crops.UNCHECKED:
            source.compare([number for number, _ in self._touched(start, out.shape)])
            held = source.held() or held
        if wrong >= 0:
            raise LayoutError(f"{source.path}: found chunk {wrong} undecodable, expected a chunk of Blosc; damaged")
        if packing is not None:
            packing.unpack(voxels, out)

    def _touched(self, start: tuple[int, int, int], shape: tuple[int, ...]) -> list[tuple[int, tuple[int, int, int]]]:
        """Return the number and the place in the grid of every chunk that a box touches."""
        spans = [range(a // p, -(-(a + n) // p)) for a, n, p in zip(start, shape[1:], self.layout.chunk, strict=True)]
        _, rows, columns = self.grid
        return [((s * rows + r) * columns + c, (s, r, c)) for s in spans[0] for r in spans[1] for c in spans[2]]

    def _read_slowly(self, source: ChunkObject, start: tuple[int, int, int], *, out: NDArray[Any]) -> None:
        touched = self._touched(start, out.shape)
        whole = np.empty((self.layout.channels, *self.layout.chunk), out.dtype)
        for (number, place), data in zip(touched, source.fetch([number for number, _ in touched]), strict=True):
            source.decompress(data, whole, chunk=number)
            here, there = [slice(None)], [slice(None)]
            for p, n, a, size in zip(place, self.layout.chunk, start, out.shape[1:], strict=True):
                low, high = max(p * n, a), min((p + 1) * n, a + size)
                here.append(slice(low - p * n, high - p * n))
                there.append(slice(low - a, high - a))
            out[tuple(there)] = whole[tuple(here)]


@cache
def _compiled() -> ModuleType | None:
    """Return the compiled loop, or None where Numba is not installed or Blosc's functions cannot be called."""
    try:
        from builder.kernels import crops
    except ImportError:
        return None
    return crops if crops.can_decode_boxes() else None


def chunk_count(layout: FieldLayout, shape: tuple[int, int, int]) -> int:
    """Return the number of inner chunks of one volume of ``shape``."""
    return math.prod(Crop(layout, shape).grid)
