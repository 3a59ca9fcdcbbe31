"""Sources whose tables tell enough of their series to plan with, so that headers are read when a shard needs them."""

from collections.abc import Sequence
from typing import Protocol, TypeGuard, runtime_checkable

import pyarrow as pa

from builder.protocols import Entry


@runtime_checkable
class Deferring(Protocol):
    """What a source offers beside ``Source`` when tables tell enough of its series to plan with.

    Where it is ``deferred``, ``list`` gives series in place of objects, and ``stamp`` is the number of their objects.
    """

    @property
    def deferred(self) -> bool:
        """Whether a plan takes what tables state, and objects are listed when a shard needs them."""
        ...

    def states(self) -> frozenset[str]:
        """Return the columns of INSTANCES that the tables state. Raises SpecError."""
        ...

    def stated(self, entries: Sequence[Entry]) -> pa.Table:
        """Return by columns of INSTANCES what the tables state of listed series. Raises SpecError."""
        ...

    def files_of(self, series: Entry) -> Sequence[Entry]:
        """List the objects of a listed series. Raises SourceError."""
        ...


def is_deferred(source: object) -> TypeGuard[Deferring]:
    """Return whether a source gives series in place of objects, because tables tell enough of them to plan with."""
    return isinstance(source, Deferring) and source.deferred
