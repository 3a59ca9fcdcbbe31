"""The rows of all objects that cases are made of, in the order of the shards.

They are sorted on disk, in runs that are merged, because an archive has more of them than fit into memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builder.model.tables import INSTANCES
from builder.plan import image_role
from builder.planning.inventory import Inventory, Survey, rows_within
from builder.planning.rows import LinkRow, Placed

RUN_ROWS: Final = 100_000
"""Rows from which a run is cut, and which are merged at once; some hundred MB in memory."""

BATCH_ROWS: Final = 1_024
"""Rows of a run that are read and decompressed together."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Parts:
    """What the cases are made of, in order: images, then labels. A number counts them through all cases.

    Parameters
    ----------
    roles
        Role of each part.
    firsts
        Number of the first part of each case, and of all parts.
    images
        Maps each chunk of the inventory to the numbers and places of the images in it.
    labels
        Numbers of the labels, and their rows in the annotations.
    """

    roles: list[str] = field(default_factory=list)
    firsts: list[int] = field(default_factory=lambda: [0])
    images: dict[int, list[tuple[int, Placed]]] = field(default_factory=dict)
    labels: list[tuple[int, int]] = field(default_factory=list)

    def add(self, places: Mapping[str, Placed], links: Sequence[LinkRow]) -> None:
        """Add a case, with its images by name and its labels."""
        for name, place in places.items():
            self.images.setdefault(place.chunk, []).append((len(self.roles), place))
            self.roles.append(image_role(name))
        for link in links:
            self.labels.append((len(self.roles), link.annotation))
            self.roles.append(link.label)
        self.firsts.append(len(self.roles))


class SortedRows:
    """INSTANCES rows of every case, first its images, then its labels. The runs lie in ``folder``."""

    def __init__(self, parts: Parts, inventory: Inventory, survey: Survey, annotations: pa.Table, folder: Path) -> None:
        self._parts, self._folder = parts, folder
        count = len(parts.roles)
        self._run, self._start = np.full(count, -1), np.zeros(count, np.int64)
        self._counts = np.zeros(count, np.int64)
        for number, (owners, rows) in enumerate(_runs(_found(parts, inventory, survey, annotations))):
            order = np.argsort(owners, kind="stable")
            _write(rows.take(pa.array(order)), self._path(number))
            held, counts = np.unique(owners, return_counts=True)
            self._run[held], self._counts[held], self._start[held] = number, counts, np.cumsum(counts) - counts

    def of_cases(self) -> list[int]:
        """Return the number of rows of each case."""
        ends = np.concatenate([[0], np.cumsum(self._counts)])[self._parts.firsts]
        return [int(count) for count in np.diff(ends)]

    def read(self, cases: range) -> pa.Table:
        """Return the rows of cases that follow each other, with the role in front."""
        first, last = (self._parts.firsts[number] for number in (cases.start, cases.stop))
        runs, counts = self._run[first:last], self._counts[first:last]
        found, owners = [INSTANCES.empty_table()], [np.zeros(0, np.int64)]
        for number in np.unique(runs[counts > 0]).tolist():
            held = np.flatnonzero(runs == number)
            start, end = self._start[first + held[0]], self._start[first + held[-1]] + counts[held[-1]]
            found.append(_read(self._path(number), int(start), int(end)))
            owners.append(np.repeat(held, counts[held]))
        rows = pa.concat_tables(found).take(pa.array(np.argsort(np.concatenate(owners), kind="stable")))
        roles = [role for role, count in zip(self._parts.roles[first:last], counts, strict=True) for _ in range(count)]
        return rows.combine_chunks().add_column(0, "role", pa.array(roles, pa.string()))

    def _path(self, number: int) -> Path:
        return self._folder / f"run-{number:06d}.arrow"


def _found(
    parts: Parts, inventory: Inventory, survey: Survey, annotations: pa.Table
) -> Iterator[tuple[Numbers, pa.Table]]:
    """Yield the rows of images chunk by chunk, then those of labels, with the number of the part of each row."""
    for chunk, wanted in sorted(parts.images.items()):
        found = rows_within(survey, chunk=chunk, wanted=wanted)
        if found:
            owners = np.repeat(np.array(list(found)), [len(rows) for rows in found.values()])
            taken = pa.array(np.concatenate(list(found.values())))
            yield owners, inventory.chunk(chunk).select(INSTANCES.names).take(taken)
    if parts.labels:
        owners, taken = np.array(parts.labels).T
        yield owners, annotations.select(INSTANCES.names).take(pa.array(taken))


def _runs(found: Iterator[tuple[Numbers, pa.Table]]) -> Iterator[tuple[Numbers, pa.Table]]:
    """Put tables together until they have RUN_ROWS rows."""
    held: list[tuple[Numbers, pa.Table]] = []
    for owners, table in found:
        held.append((owners, table))
        if sum(len(numbers) for numbers, _ in held) >= RUN_ROWS:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(held: Sequence[tuple[Numbers, pa.Table]]) -> tuple[Numbers, pa.Table]:
    return np.concatenate([owners for owners, _ in held]), pa.concat_tables([table for _, table in held])


def _write(table: pa.Table, path: Path) -> None:
    path.touch(mode=0o600)  # a kill may leave it behind
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=BATCH_ROWS)


def _read(path: Path, start: int, end: int) -> pa.Table:
    """Return the rows of a run from ``start`` to before ``end``."""
    first = start // BATCH_ROWS
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        batches = [reader.get_batch(number) for number in range(first, -(-end // BATCH_ROWS))]
        return pa.Table.from_batches(batches).slice(start - first * BATCH_ROWS, end - start)
