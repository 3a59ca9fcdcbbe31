"""A local cache of remote objects. Files are named by their SHA-256, so any number of processes can share a folder.

There are no lock files and no shared memory, so nothing needs cleaning up after a crash. Two processes that fetch the
same object at the same time write the same file, one after the other.
"""

import contextlib
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from builder.errors import LayoutError
from builder.model.layout import StoredObject
from builder.storage import LocalStore, ObjectReader, Store


@dataclass
class ObjectCache:
    """Keeps whole objects in ``folder`` and drops the least recently used ones first.

    Parameters
    ----------
    folder
        Folder on a local disk that holds nothing else.
    most_bytes
        Largest size of the folder. An object that is dropped while in use stays readable.
    """

    folder: LocalStore
    most_bytes: int
    _states: "dict[int, _State]" = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_states": {}}

    def open(
        self, store: Store, path: str, *, expected: StoredObject, check: Callable[[bytes], None] | None = None
    ) -> ObjectReader:
        """Open the object ``path`` of ``store``, and fetch the whole object first if it is not cached.

        One thread of a process fetches the object while the others wait for it. It is checked and written to its file
        after it has arrived, one object at a time, which leaves processors free for decoding.

        Parameters
        ----------
        check
            Raises LayoutError if the fetched bytes are damaged. For readers that verify each chunk again and so need
            not wait for this check. With None the SHA-256 is compared before any thread gets the object.

        Raises
        ------
        LayoutError
            If the fetched bytes are not what the manifest says. They are not kept.
        FileNotFoundError
            If the store does not have the object.
        """
        state, name = self._state(), f"{expected.sha256[:2]}/{expected.sha256}"
        while True:
            with state.lock:
                coming = state.coming.get(name)
                mine = coming is None
                if coming is None:
                    coming = state.coming[name] = Future()
            if not mine:
                if coming.exception() is None:
                    return coming.result()
                continue  # the thread that fetched it raised the error; this one tries again itself
            try:
                return self._fetch(state, name, store, path, expected, coming, check)
            except BaseException as error:
                if not coming.done():
                    coming.set_exception(error)
                raise
            finally:
                with state.lock:
                    del state.coming[name]

    def _fetch(
        self,
        state: "_State",
        name: str,
        store: Store,
        path: str,
        expected: StoredObject,
        coming: "Future[ObjectReader]",
        check: Callable[[bytes], None] | None,
    ) -> ObjectReader:
        with contextlib.suppress(FileNotFoundError):
            kept = self.folder.open(name)
            coming.set_result(kept)
            self._note(state, name, expected.bytes)
            return kept
        data = store.read(path)
        reader = Arriving(memoryview(data))
        if check is not None:
            coming.set_result(reader)
        with state.keeping:
            if check is None:
                _compare(data, path, expected)
            else:
                check(data)
            self.folder.put_unflushed(name, data)
        reader.inner = self.folder.open(name)
        if not coming.done():
            coming.set_result(reader)
        self._note(state, name, len(data))
        return reader

    def _note(self, state: "_State", name: str, size: int) -> None:
        """Mark an object as just used, and drop the oldest objects while the cache is too large."""
        dropped = []
        with state.lock:
            state.used[name] = size
            state.used.move_to_end(name)
            while sum(state.used.values()) > self.most_bytes and len(state.used) > 1:
                dropped.append(state.used.popitem(last=False)[0])
        for old in dropped:
            self.folder.delete(old)

    def _state(self) -> "_State":
        """Return the state of this process.

        Each process has its own, because a lock that another thread held at the time of a fork is never released.
        """
        state = self._states.get(os.getpid())
        if state is None:
            known = {path: self.folder.size(path) for path in self.folder.list() if path.count("/") == 1}
            state = self._states.setdefault(os.getpid(), _State(used=OrderedDict(known)))
        return state


def _compare(data: bytes, path: str, expected: StoredObject) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != expected.sha256:
        raise LayoutError(f"{path}: found the SHA-256 {found}, expected {expected.sha256}; it is damaged")


@dataclass
class _State:
    """The objects in the order of their last use, and those that are being fetched."""

    used: OrderedDict[str, int]
    lock: threading.Lock = field(default_factory=threading.Lock)
    keeping: threading.Lock = field(default_factory=threading.Lock)
    coming: "dict[str, Future[ObjectReader]]" = field(default_factory=dict)


@dataclass
class Arriving:
    """An object that is read from memory until its file is written, and from the file afterwards.

    Its users need not notice the change.
    """

    inner: memoryview | ObjectReader

    def read(self, start: int, length: int) -> bytes | memoryview:
        inner = self.inner
        return inner[start : start + length] if isinstance(inner, memoryview) else inner.read(start, length)

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> Iterable[bytes | memoryview]:
        return [self.read(start, length) for start, length in ranges]

    def memory(self) -> memoryview | None:
        inner = self.inner
        return inner if isinstance(inner, memoryview) else inner.memory()
