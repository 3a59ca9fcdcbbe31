"""Say what a remote folder asks of the place where it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from builder.sources.politeness import Gate, Turn


@dataclass(frozen=True)
class Object:
    """An object as a listing states it. ``stamp`` is its ETag, or else its time of change."""

    path: str
    size: int
    stamp: str


class Place(Protocol):
    """Where a remote folder is."""

    @property
    def host(self) -> str:
        """What to call it in messages."""
        ...

    def list(self, gate: Gate) -> Iterator[Object]:
        """List every object below the folder. Raises Fault, SourceError."""
        ...

    def get(self, turn: Turn, item: Object, start: int, stop: int | None) -> Iterator[bytes]:
        """Yield bytes of an object, to its end without ``stop``. Raises Fault, CaseError when it has changed."""
        ...
