"""Decide whether a list that a server sent is whole."""

from collections.abc import Callable, Mapping, Sized
from typing import Final, TypeVar

from builder.errors import IncompleteError
from builder.sources.patience import Fault

Listing = TypeVar("Listing", bound=Mapping[str, object])
Members = TypeVar("Members", bound=Sized)

UNLISTED: Final = "incomplete"
"""Stamp of the entry that stands for a study which could not be listed whole."""

_TIMES = 6


def enough(found: Members, expected: int | None) -> Members:
    """Return a list that has at least as many members as the server counts. Raises Fault."""
    if expected is not None and len(found) < expected:
        raise Fault(f"found a list of {len(found)}, expected {expected} as the server counts")
    return found


def confirmed(ask: Callable[[], Listing], *, source: str, host: str) -> Listing:
    """Return a list of which nobody states the length, once it came twice in a row.

    One answer that is short by chance, or empty, would remove persons without a trace. Raises IncompleteError when no
    two answers in a row agree.
    """
    before = ask()
    for _ in range(_TIMES):
        found = ask()
        if list(found) == list(before):
            return found
        before = found
    raise IncompleteError(
        f"{source} at {host}: found a list that differs each time (tried {_TIMES + 1} times); wait until nothing is "
        "being stored on the server, and run the same command again",
        host=host,
    )
