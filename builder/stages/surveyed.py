"""What an earlier survey found of series that are still the same, so that an archive that grew is not surveyed anew."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from builder.model.parquet import read_parquet
from builder.storage import open_store

Found = tuple[list[dict[str, Any]], list[int]]
"""The rows of a series' stacks, and the number in MEMBERSHIP of each of its instances."""


@dataclass(frozen=True)
class Earlier:
    """A surveyed chunk of an earlier inventory: where its tables are."""

    store: str
    chunk: str
    stacks: str
    membership: str
    unfinished: str


@dataclass(frozen=True, eq=False)
class _Series:
    instances: pa.Table
    numbers: list[int]
    stacks: list[dict[str, Any]] = field(default_factory=list)


class Surveyed:
    """The series of earlier chunks, by UID. A chunk in which a series met an internal error is left out."""

    def __init__(self, chunks: Sequence[Earlier]) -> None:
        self._series: dict[str, _Series] = {}
        for chunk in chunks:
            store = open_store(chunk.store, directory_mode=0o700)
            if store.exists(chunk.membership) and not store.exists(chunk.unfinished):
                self._add(*(read_parquet(store.read(p)) for p in (chunk.chunk, chunk.membership, chunk.stacks)))

    def _add(self, instances: pa.Table, membership: pa.Table, stacks: pa.Table) -> None:
        names, numbers = instances["series_uid"].to_pylist(), membership["stack"].to_pylist()
        starts = [row for row in range(len(names)) if row == 0 or names[row] != names[row - 1]]
        for start, end in zip(starts, [*starts[1:], len(names)], strict=True):
            if names[start] is not None:
                self._series[names[start]] = _Series(instances.slice(start, end - start), numbers[start:end])
        for row in stacks.to_pylist():
            if row["series_uid"] in self._series:
                self._series[row["series_uid"]].stacks.append(row)

    def of(self, instances: pa.Table) -> Found | None:
        """Return what was found of a series, or None where any cell of its instances is new."""
        known = self._series.get(instances["series_uid"][0].as_py() or "")
        if known is None or not known.instances.equals(instances):
            return None
        return known.stacks, known.numbers
