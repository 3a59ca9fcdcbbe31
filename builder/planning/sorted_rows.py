"""Have the rows of all objects that cases are made of sorted by shard, in tasks (``builder.stages.gather``)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builder.model.tables import INSTANCES
from builder.plan import image_role
from builder.planning.case_plans import Chosen
from builder.planning.inventory import Inventory, Survey
from builder.planning.memory import StoredBytes
from builder.planning.rows import LinkRow, Placed
from builder.stages.gather import ChunkParts, Run, SortArgument, sort_rows, write_run
from builder.stages.graph import Runner, Task
from builder.storage import Store

RUN_ROWS: Final = 100_000
"""About how many rows a task sorts into a run: some hundred MB in memory."""

PART_ROWS: Final = 20
"""Rows that a part counts for in a run beside its own, because of what its objects share."""

CHUNK_ROWS: Final = 2_000
"""Rows that a chunk counts for beside those that are wanted, because it is read whole."""

GROUP_ROWS: Final = 100_000
GROUP_CASES: Final = 2_048
"""From about so many rows or so many cases on, a task that writes plans of shards takes no more."""


@dataclass(frozen=True)
class Group:
    """Shards that follow each other, whose plans one task writes, and the numbers of their cases and parts."""

    shards: range
    cases: range
    parts: range


@dataclass(frozen=True)
class Parts:
    """What the cases are made of, in the order of the shards: images, then labels. A number counts them all.

    Parameters
    ----------
    roles
        Role of each part of each case.
    firsts
        Number of the first part of each case, and of all parts.
    groups
        Cases whose shards are written together.
    images
        Maps each chunk of the inventory to the numbers and places of the images in it.
    rows
        Maps each chunk to about how many rows they count for in a run.
    labels
        Numbers of the labels, and their rows in the annotations.
    """

    roles: list[tuple[str, ...]] = field(default_factory=list)
    firsts: list[int] = field(default_factory=lambda: [0])
    groups: list[Group] = field(default_factory=list)
    images: dict[int, list[tuple[int, Placed]]] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)
    labels: list[tuple[int, int]] = field(default_factory=list)

    def add(self, chosen: Chosen, links: Sequence[LinkRow]) -> int:
        """Add a case with its labels; return about how many rows it has."""
        number, rows = self.firsts[-1], 0
        for name, place in chosen.places.items():
            slices = chosen.stacks[name].slices
            self.images.setdefault(place.chunk, []).append((number, place))
            self.rows[place.chunk] = self.rows.get(place.chunk, 0) + slices + PART_ROWS
            number, rows = number + 1, rows + slices
        self.labels.extend((number + n, link.annotation) for n, link in enumerate(links))
        self.roles.append((*map(image_role, chosen.places), *(link.label for link in links)))
        self.firsts.append(number + len(links))
        return rows + len(links)

    def add_shards(self, shards: Sequence[Sequence[Chosen]], links: Mapping[str, Sequence[LinkRow]]) -> None:
        """Add all shards, and put those together whose plans one task writes."""
        first, cases, rows = 0, 0, 0
        for number, held in enumerate(shards):
            rows += sum(self.add(case, links.get(case.reference.case_key, ())) for case in held)
            if rows >= GROUP_ROWS or len(self.roles) - cases >= GROUP_CASES or number == len(shards) - 1:
                own = range(cases, len(self.roles))
                parts = range(self.firsts[own.start], self.firsts[own.stop])
                self.groups.append(Group(range(first, number + 1), own, parts))
                first, cases, rows = number + 1, len(self.roles), 0


@dataclass(frozen=True, eq=False)
class SortedRows:
    """Where the rows of each group lie, and how many rows and bytes each part has."""

    parts: Parts
    runs: tuple[Run, ...]

    def of_cases(self) -> list[int]:
        """Return the number of rows of each case."""
        ends = np.concatenate([[0], np.cumsum(self._of_parts([run.rows for run in self.runs]))])
        return [int(count) for count in np.diff(ends[self.parts.firsts])]

    def stored(self) -> Iterator[dict[str, StoredBytes]]:
        """Yield of each case the bytes of its objects by role."""
        whole, direct, largest = (
            self._of_parts([getattr(run, name) for run in self.runs]) for name in ("fetched", "direct", "largest")
        )
        for roles, first in zip(self.parts.roles, self.parts.firsts, strict=False):
            found: dict[str, StoredBytes] = {}
            for part, role in enumerate(roles, start=first):
                own = StoredBytes(int(whole[part]), int(direct[part]), int(largest[part]))
                found[role] = found[role] + own if role in found else own
            yield found

    def pieces(self, group: int) -> tuple[tuple[str, int, int], ...]:
        """Return path, start and length of what the runs hold of a group."""
        return tuple((run.path, *run.pieces[group]) for run in self.runs if group in run.pieces)

    def _of_parts(self, found: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
        values = np.zeros(self.parts.firsts[-1], np.int64)
        for run, own in zip(self.runs, found, strict=True):
            values[run.parts] = own
        return values


def sort_objects(
    parts: Parts, inventory: Inventory, survey: Survey, annotations: pa.Table, *, made: Store, runner: Runner
) -> SortedRows:
    """Have the rows of all parts sorted into runs, which lie in ``made``."""
    cuts = (*(group.parts.start for group in parts.groups), parts.firsts[-1])
    tasks = []
    for number, chunks in enumerate(_together(parts.rows)):
        held = tuple(_chunk_parts(parts, inventory, survey, chunk) for chunk in chunks)
        argument = SortArgument(inventory.store.url, survey.store.url, made.url, number, held, cuts)
        tasks.append(Task(f"sort-{number:05d}", sort_rows, argument))
    runs = [outcome.value for outcome in runner.run(tasks)]
    if parts.labels:
        owners, rows = np.array(parts.labels, np.int64).T
        found = annotations.select(INSTANCES.names).take(pa.array(rows))
        runs.append(write_run(made, len(tasks), [(owners, found)], cuts=cuts, images=False))
    return SortedRows(parts, tuple(sorted(runs, key=lambda run: str(run.path))))


def _together(rows: Mapping[int, int]) -> Iterator[list[int]]:
    """Yield the chunks of each run."""
    held: list[int] = []
    for chunk in sorted(rows):
        held.append(chunk)
        if sum(rows[n] + CHUNK_ROWS for n in held) >= RUN_ROWS:
            yield held
            held = []
    if held:
        yield held


def _chunk_parts(parts: Parts, inventory: Inventory, survey: Survey, chunk: int) -> ChunkParts:
    wanted = tuple((number, place.series_uid, tuple(place.holders)) for number, place in parts.images[chunk])
    return ChunkParts(inventory.chunks[chunk], survey.parts[chunk].membership, wanted)
