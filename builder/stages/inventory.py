"""What an archive holds, on disk in the private workspace: instances, annotations, leftovers, and their stacks."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from builder.model.parquet import read_parquet
from builder.stages.merge import ANNOTATIONS, LEFTOVERS
from builder.stages.survey import IDENTITIES, STACKS, SurveyArgument
from builder.storage import Store


@dataclass(frozen=True)
class Inventory:
    """Where the inventory lies in the private workspace, and how many files it accounts for.

    Parameters
    ----------
    store
        Store of the inventory.
    chunks
        Chunks of image instances, in order; whole series each.
    files
        Files listed by the sources, and files a DICOMDIR names that are not there: every one of them is in a chunk,
        an annotation or a leftover.
    """

    store: Store
    chunks: tuple[str, ...]
    files: int

    def annotations(self, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Annotation objects and files, by schema INSTANCES."""
        return self._read(ANNOTATIONS, columns)

    def leftovers(self, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Duplicates and quarantined files, by schema INSTANCES."""
        return self._read(LEFTOVERS, columns)

    def chunk(self, number: int, *, columns: Sequence[str] | None = None) -> pa.Table:
        """The instances of a chunk."""
        return self._read(self.chunks[number], columns)

    def _read(self, path: str, columns: Sequence[str] | None) -> pa.Table:
        return read_parquet(self.store.read(path), columns=None if columns is None else list(columns))


@dataclass(frozen=True)
class Survey:
    """The stacks of an inventory under one geometry policy."""

    store: Store
    parts: tuple[SurveyArgument, ...]

    def stacks(self) -> pa.Table:
        """One row a stack, by schema STACKS, in the order of the chunks."""
        return pa.concat_tables([STACKS.empty_table(), *(self._read(p.stacks) for p in self.parts)])

    def identities(self) -> pa.Table:
        """Identities of all chunks, by schema IDENTITIES; repeated where chunks share them."""
        return pa.concat_tables([IDENTITIES.empty_table(), *(self._read(p.identities) for p in self.parts)])

    def membership(self, number: int) -> pa.Table:
        """Which stack each instance of a chunk is in."""
        return self._read(self.parts[number].membership)

    def _read(self, path: str) -> pa.Table:
        return read_parquet(self.store.read(path))
