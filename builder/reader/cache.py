"""A local copy of remote objects: files named by their SHA-256, so any number of processes may share a folder.

There is nothing to clean up after a crash: no lock files, no shared memory. Two processes that fetch one object at the
same time write the same file, one after the other.
"""

import contextlib
import hashlib
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from builder.errors import LayoutError
from builder.model.layout import StoredObject
from builder.storage import LocalStore, ObjectReader, Store


@dataclass
class ObjectCache:
    """Keeps whole objects in ``folder``, those not used for longest dropped first.

    Parameters
    ----------
    folder
        A folder of its own on a local disk.
    most_bytes
        Size it may reach; an object in use stays readable when it is dropped.
    """

    folder: LocalStore
    most_bytes: int
    _states: "dict[int, _State]" = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_states": {}}

    def open(self, store: Store, path: str, *, expected: StoredObject) -> ObjectReader:
        """The object ``path`` of ``store``, fetched whole if it is not here yet.

        Raises
        ------
        LayoutError
            When what comes is not what the manifest says.
        FileNotFoundError
            When the store does not have it.
        """
        state, name = self._state(), f"{expected.sha256[:2]}/{expected.sha256}"
        with state.lock:
            mine = state.fetching.setdefault(name, threading.Lock())
        with mine:
            with contextlib.suppress(FileNotFoundError):
                reader = self.folder.open(name)
                self._note(state, name, expected.bytes)
                return reader
            data = store.read(path)
            found = hashlib.sha256(data).hexdigest()
            if found != expected.sha256:
                raise LayoutError(f"{path}: found the SHA-256 {found}, expected {expected.sha256}; it is damaged")
            self.folder.put_unflushed(name, data)
            reader = self.folder.open(name)
        self._note(state, name, len(data))
        return reader

    def _note(self, state: "_State", name: str, size: int) -> None:
        """Mark an object as just used, and drop the oldest of what is too much."""
        dropped = []
        with state.lock:
            state.used[name] = size
            state.used.move_to_end(name)
            while sum(state.used.values()) > self.most_bytes and len(state.used) > 1:
                dropped.append(state.used.popitem(last=False)[0])
        for old in dropped:
            self.folder.delete(old)

    def _state(self) -> "_State":
        """This process's book; a lock held by another thread at the time of a fork would never be released."""
        state = self._states.get(os.getpid())
        if state is None:
            known = {path: self.folder.size(path) for path in self.folder.list() if path.count("/") == 1}
            state = self._states.setdefault(os.getpid(), _State(used=OrderedDict(known)))
        return state


@dataclass
class _State:
    """Objects in the order of their last use, and who fetches which."""

    used: OrderedDict[str, int]
    lock: threading.Lock = field(default_factory=threading.Lock)
    fetching: dict[str, threading.Lock] = field(default_factory=dict)
