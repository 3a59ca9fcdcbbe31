"""Hold the objects of one answer in one file, one behind the other, because a file of its own costs more than a slice.

A pack grows while the answer arrives: for each object a head (mark, name, length), its bytes, and the SHA-256 of both.
A kill leaves the objects that came whole and perhaps a part of one more, which counts as absent. So does what was
damaged later.
"""

import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from builder.storage import LocalStore, ObjectReader

SUFFIX: Final = ".pack"

_MARK: Final = b"pck1"
_HEAD: Final = struct.Struct("<4s20sQ")
_DIGEST: Final = 32
_PIECE: Final = 2**20
"""Bytes that are written at a time, for many small writes take longer."""

_PIECES: Final = 1024
"""Most buffers that the system takes at a time."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where the bytes of an object are: the file, the first of them, and how many."""

    path: str
    begin: int
    size: int


class Pack:
    """A pack that one thread writes. Its file is made with the first object, so that an empty one never lies there."""

    def __init__(self, store: LocalStore, folder: str) -> None:
        self._store = store
        self._folder = folder
        self._path = ""
        self._handle = -1
        self._end = 0
        self._waiting: list[bytes] = []
        self._unwritten: dict[str, Spot] = {}

    def add(self, name: str, data: bytes) -> Mapping[str, Spot]:
        """Append an object under a name of 40 hexadecimal digits. Returns the objects that were written now."""
        if self._handle < 0:
            self._handle, self._path = self._store.create_unflushed(self._folder, suffix=SUFFIX)
        head = _HEAD.pack(_MARK, bytes.fromhex(name), len(data))
        digest = hashlib.sha256(head)
        digest.update(data)
        self._waiting += (head, data, digest.digest())
        self._unwritten[name] = Spot(self._path, self._end + len(head), len(data))
        self._end += len(head) + len(data) + _DIGEST
        return self.write() if sum(map(len, self._waiting)) >= _PIECE else {}

    def write(self) -> Mapping[str, Spot]:
        """Write what waits and return these objects. Where it fails, they are not here, and nothing may follow."""
        left = [memoryview(piece) for piece in self._waiting]
        written, self._waiting, self._unwritten = self._unwritten, [], {}
        while left:
            count = os.writev(self._handle, left[:_PIECES])
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if count:
                left[0] = left[0][count:]
        return written

    def close(self) -> None:
        """Add no more."""
        if self._handle >= 0:
            os.close(self._handle)


def whole_objects(path: str, pack: ObjectReader, size: int) -> Iterator[tuple[str, Spot]]:
    """Yield name and spot of each object of a pack that is there as it was written."""
    at = 0
    while at + _HEAD.size <= size:
        mark, name, length = _HEAD.unpack(pack.read(at, _HEAD.size))
        begin, end = at + _HEAD.size, at + _HEAD.size + length
        if mark != _MARK or end + _DIGEST > size:
            return
        if hashlib.sha256(pack.read(at, end - at)).digest() == pack.read(end, _DIGEST):
            yield name.hex(), Spot(path, begin, length)
        at = end + _DIGEST
