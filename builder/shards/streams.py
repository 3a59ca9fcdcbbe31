"""Write the objects of a shard: a thread compresses and writes chunks while the next samples are prepared."""

import contextlib
import hashlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numcodecs.blosc as blosc
import numpy as np
from numpy.typing import NDArray

from builder.model.case import Slabs
from builder.model.zarr_format import Codec, checksum, encode_index
from builder.shards.planes import encode_planes

# With two or more threads Blosc divides a buffer depending on timing, so its bytes would differ from run to run
blosc.use_threads = False

MOST_WAITING_BYTES = 32 << 20
"""Largest number of uncompressed bytes in the queue of the thread. The caller waits until a larger array is written."""
MOST_WAITING = 8
"""Largest number of arrays of one size in the queue, if that is fewer bytes. More would not keep the thread busier."""
FEW_BYTES = 1 << 20
"""Bytes that may always be queued, so that more than ``MOST_WAITING`` small arrays can wait."""
SLAB_BYTES = 2 << 20
"""Bytes of voxels that are made at once while they are written. This fits a common second-level cache."""
EARLY_BYTES = 4 << 20
"""Number of written bytes after which the disk is asked to start writing them."""

Chunk: TypeAlias = tuple[int, int, int] | None


@dataclass
class Streams:
    """The streams of a shard. One thread does all work in the order of the calls, so the bytes do not depend on timing.

    The caller must not change an array after adding it. An error in the thread is raised by a later call.
    """

    scratch: Path
    stack: contextlib.ExitStack
    streams: "dict[str, Stream]" = field(default_factory=dict)
    _waiting: "deque[tuple[int, Future[None]]]" = field(default_factory=deque)
    _executor: ThreadPoolExecutor | None = None
    _files: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def append(self, path: str, array: NDArray[Any] | Slabs, codec: Codec, *, chunk: Chunk) -> None:
        """Add an array to an object as one chunk. With ``chunk``, write it in chunks of that shape as the whole object.

        ``Slabs`` are always written in chunks, and are made by the thread that writes them.
        """
        held = sum(size for size, _ in self._waiting)
        most = min(MOST_WAITING_BYTES, max(MOST_WAITING * array.nbytes, FEW_BYTES))
        while self._waiting and held + array.nbytes > most:
            size, future = self._waiting.popleft()
            future.result()
            held -= size
        self._ask(lambda: self._write(path, array, codec, chunk), array.nbytes)
        if array.nbytes > MOST_WAITING_BYTES:
            self.drain()

    def copy(self, path: str, chunks: Sequence[bytes], *, whole: bool) -> None:
        """Add inner chunks that are encoded already. ``whole``: they are the whole object."""
        self._ask(lambda: self._copy(path, chunks, whole), sum(map(len, chunks)))
        self.drain()

    def mark(self) -> "Callable[[], None]":
        """Return a function that undoes everything added after this call."""
        marks: dict[str, _Mark] = {}
        self._ask(lambda: marks.update({path: stream.mark() for path, stream in self.streams.items()}), 0)
        return lambda: self._ask(lambda: self._rewind(marks), 0)

    def drain(self) -> None:
        """Wait until everything is written. Raises the error of the thread, if any."""
        while self._waiting:
            self._waiting.popleft()[1].result()

    def _ask(self, call: Callable[[], None], size: int) -> None:
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()[1].result()
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="builder-encoder")
            self.stack.enter_context(self._files)  # the files are closed after the thread has ended
            self.stack.callback(self._executor.shutdown, wait=True, cancel_futures=True)
        self._waiting.append((size, self._executor.submit(call)))

    def _stream(self, path: str) -> "Stream":
        if path not in self.streams:
            scratch = self.scratch / path.replace("/", "@")
            self.streams[path] = Stream(scratch, self._files.enter_context(scratch.open("w+b")))
        return self.streams[path]

    def _copy(self, path: str, chunks: Sequence[bytes], whole: bool) -> None:
        stream = self._stream(path)
        for data in chunks:
            stream.put(data)
        if whole:
            stream.close()

    def _write(self, path: str, array: NDArray[Any] | Slabs, codec: Codec, chunk: Chunk) -> None:
        stream = self._stream(path)
        if chunk is not None:
            for slab in array.make(chunk[0], _rows(array, chunk)) if isinstance(array, Slabs) else (array,):
                for piece in _pieces(slab, chunk):
                    stream.append(piece, codec)
            stream.close()
        elif isinstance(array, Slabs):
            raise ValueError(f"{path}: found slabs for a field of one chunk a sample, expected chunks to cut them into")
        else:
            stream.append(array, codec)

    def _rewind(self, marks: "Mapping[str, _Mark]") -> None:
        """Reset every stream to its mark, and delete those that have none."""
        for path in [p for p in self.streams if p not in marks]:
            stream = self.streams.pop(path)
            stream.file.close()
            stream.path.unlink()
        for path, mark in marks.items():
            if not self.streams[path].file.closed:
                self.streams[path].rewind(mark)


@dataclass
class Stream:
    """One object that is being written: its scratch file, the places of its chunks, and its digest so far."""

    path: Path
    file: BinaryIO
    places: list[tuple[int, int]] = field(default_factory=list)
    position: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    _handed: int = 0
    """Number of bytes that the disk was already asked to write."""

    def append(self, array: NDArray[Any], codec: Codec) -> None:
        self.put(encode_chunk(array, codec))

    def put(self, data: bytes) -> None:
        """Append an inner chunk that is encoded."""
        self.places.append((self.position, len(data)))
        self._write(data)

    def mark(self) -> "_Mark":
        return _Mark(len(self.places), self.position, self.digest.copy())

    def rewind(self, mark: "_Mark") -> None:
        self.file.seek(mark.position)
        self.file.truncate()
        del self.places[mark.chunks :]
        self.position, self.digest = mark.position, mark.digest
        self._handed = min(self._handed, mark.position)

    def close(self) -> None:
        """Append the index and close the file. Further calls do nothing."""
        if not self.file.closed:
            self._write(encode_index(self.places))
            self.file.close()

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.position += len(data)
        if self.position - self._handed >= EARLY_BYTES:
            self._hand_over()

    def _hand_over(self) -> None:
        """Let the disk start writing now, so that the flush at the end has less to wait for."""
        self.file.flush()
        length = self.position - self._handed
        if hasattr(os, "posix_fadvise"):  # on Linux this advice starts writing the pages
            with contextlib.suppress(OSError):  # not supported by the file system: the final flush writes everything
                os.posix_fadvise(self.file.fileno(), self._handed, length, os.POSIX_FADV_DONTNEED)
        self._handed = self.position


def encode_chunk(array: NDArray[Any], codec: Codec) -> bytes:
    """Encode an inner chunk: compressed, followed by its crc32c."""
    shuffle = {"shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}[codec.shuffle]
    data: bytes
    if codec.by_plane:
        data = encode_planes(array, codec.level)
    else:
        data = blosc.compress(array, codec.compressor.encode(), codec.level, shuffle, 0)
    return data + checksum(data)


@dataclass(frozen=True)
class _Mark:
    """A state of a stream to which it can be reset."""

    chunks: int
    position: int
    digest: Any


def _rows(slabs: Slabs, chunk: tuple[int, int, int]) -> int:
    """Return the rows of a slab: as many whole chunks as fit in ``SLAB_BYTES``, and at least one."""
    line = slabs.shape[0] * chunk[0] * chunk[1] * slabs.shape[3] * slabs.dtype.itemsize
    return chunk[1] * max(1, SLAB_BYTES // line)


def _pieces(array: NDArray[Any], chunk: tuple[int, int, int]) -> Iterator[NDArray[Any]]:
    """Yield the inner chunks of a volume in C order. The last one along an axis is padded with zeros, as in Zarr."""
    starts = [range(0, n, c) for n, c in zip(array.shape[1:], chunk, strict=True)]
    for s, r, c in itertools.product(*starts):
        piece = array[:, s : s + chunk[0], r : r + chunk[1], c : c + chunk[2]]
        if piece.shape[1:] != chunk:
            whole = np.zeros((array.shape[0], *chunk), array.dtype)
            whole[:, : piece.shape[1], : piece.shape[2], : piece.shape[3]] = piece
            piece = whole
        yield np.ascontiguousarray(piece)
