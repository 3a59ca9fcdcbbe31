"""The interface of a store of objects, whether in a folder or in a bucket."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

SWEPT = (
    "{}: found this build's unfinished file gone, expected it to be there; another build took this dataset over, "
    "published, and cleared what was left: run the same command again"
)


class Store(Protocol):
    """Objects under one root, named by relative POSIX paths."""

    @property
    def url(self) -> str:
        """The root of the store. ``open_store(store.url)`` opens it again in any process."""
        ...

    def join(self, *parts: str) -> "Store":
        """Return the store one or more folders down."""
        ...

    def read(self, path: str) -> bytes:
        """Read the whole object. Raises FileNotFoundError."""
        ...

    def read_range(self, path: str, start: int, *, length: int) -> bytes:
        """Read bytes ``start`` to ``start + length``, fewer only where the object ends. Raises FileNotFoundError."""
        ...

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read several ``(start, length)`` ranges of one object. Ranges close together are fetched together."""
        ...

    def open(self, path: str) -> "ObjectReader":
        """Open an object to read many ranges of it, from many threads. Raises FileNotFoundError."""
        ...

    def size(self, path: str) -> int:
        """Return the size of an object in bytes. Raises FileNotFoundError."""
        ...

    def exists(self, path: str) -> bool:
        """Return whether the complete object exists."""
        ...

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths under a folder, sorted, including unfinished writes.

        This is for clean-up and verification. Readers must not use it.
        """
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write or replace an object atomically and durably."""
        ...

    def swap(self, path: str, data: bytes, *, guard: Callable[[], None]) -> None:
        """Replace the object that readers follow, unless another writer has done so since ``guard`` was called.

        ``guard`` raises if this writer is no longer allowed to write. The writer may be suspended for any time between
        that check and the replacement, so LayoutError is raised if another writer called ``fence`` or ``swap`` in
        between.
        """
        ...

    def fence(self) -> None:
        """Make every earlier, unfinished ``swap`` at the root of the store fail, if the store supports this."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write an object only if it does not exist. Of several writers one wins; the others get FileExistsError."""
        ...

    def settle(self, path: str) -> None:
        """Make an existing object durable, because its writer may have died before it did so."""
        ...

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """Return a local folder for unfinished objects. The folder and its contents are deleted at the end."""
        ...

    def commit(self, path: str, scratch: Path) -> None:
        """Move a finished scratch file into place atomically and durably, replacing any existing object."""
        ...

    def delete(self, path: str) -> None:
        """Remove an object. Nothing happens if it does not exist."""
        ...

    def destroy(self, path: str) -> bool:
        """Overwrite an object, if it is a file with one name, and remove it. Return whether it was overwritten.

        A bucket cannot overwrite: it may keep earlier versions. So may a disk that writes elsewhere than before.
        """
        ...

    def sweep(self) -> int:
        """Remove unfinished files of dead writers and return their number. Call it when no writer is at work."""
        ...


class ObjectReader(Protocol):
    """An open object."""

    def read(self, start: int, length: int) -> bytes | memoryview:
        """Read bytes ``start`` to ``start + length``, fewer only where the object ends."""
        ...

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> Iterable[bytes | memoryview]:
        """Read several ``(start, length)`` ranges, in order. Ranges close together are fetched together."""
        ...

    def memory(self) -> memoryview | None:
        """Return the whole object where it lies in memory or is mapped into it; None where ranges are fetched."""
        ...


def checked(path: str) -> str:
    """Return ``path`` after checking that it is relative and stays inside the store."""
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError(f"found the object path {path!r}, expected a relative path without '..'")
    return "/".join(parts)
