"""What a store of objects can do, whatever holds them."""

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
        """Root of the store; ``open_store(store.url)`` opens it again, in any process."""
        ...

    def join(self, *parts: str) -> "Store":
        """The store one or more folders down."""
        ...

    def read(self, path: str) -> bytes:
        """The whole object. Raises FileNotFoundError."""
        ...

    def read_range(self, path: str, start: int, *, length: int) -> bytes:
        """Bytes ``start`` to ``start + length``; shorter only where the object ends. Raises FileNotFoundError."""
        ...

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ``(start, length)`` ranges of one object, near ones fetched together."""
        ...

    def open(self, path: str) -> "ObjectReader":
        """A reader of one object that stays open: for many ranges, from many threads. Raises FileNotFoundError."""
        ...

    def size(self, path: str) -> int:
        """Bytes of an object. Raises FileNotFoundError."""
        ...

    def exists(self, path: str) -> bool:
        """Whether the object is there, completely."""
        ...

    def list(self, prefix: str = "") -> Iterator[str]:
        """Paths under a folder, sorted, unfinished writes too: for clean-up and verification, never for readers."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write or replace an object atomically and durably."""
        ...

    def swap(self, path: str, data: bytes, *, guard: Callable[[], None]) -> None:
        """Replace the object that readers follow, unless another writer was here since ``guard`` was asked.

        ``guard`` raises when this writer may not any more. Between its answer and the replacement a writer may stand
        still for any time: when another one called ``fence`` or ``swap`` meanwhile, LayoutError is raised.
        """
        ...

    def fence(self) -> None:
        """Let no ``swap`` at the root of the store succeed that began before, where a store can do that."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write an object only if there is none: of several writers one wins. Raises FileExistsError for the others."""
        ...

    def settle(self, path: str) -> None:
        """Make an object durable that is there: its writer may have died before it was."""
        ...

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """A local folder for objects still being written; it and all left in it go at the end."""
        ...

    def commit(self, path: str, scratch: Path) -> None:
        """Move a finished scratch file into place atomically and durably, replacing what was there."""
        ...

    def delete(self, path: str) -> None:
        """Remove an object; absent is fine."""
        ...

    def sweep(self) -> int:
        """Remove what writers that died left unfinished; returns how many. Call it when no writer is at work."""
        ...


class ObjectReader(Protocol):
    """An open object."""

    def read(self, start: int, length: int) -> bytes | memoryview:
        """Bytes ``start`` to ``start + length``; shorter only where the object ends."""
        ...

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> Iterable[bytes | memoryview]:
        """Several ``(start, length)`` ranges in their order, near ones fetched together."""
        ...


def checked(path: str) -> str:
    """``path`` if it is relative and stays inside the store."""
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError(f"found the object path {path!r}, expected a relative path without '..'")
    return "/".join(parts)
