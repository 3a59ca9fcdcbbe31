"""What an earlier survey found of series that are still the same, so that an archive that grew is not surveyed anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builder.model.parquet import read_parquet
from builder.stages.row_digests import row_digests
from builder.stages.stack_rows import STACKS
from builder.storage import Store, open_store

Pair = tuple[range, range]
"""Rows of a series in a chunk and in an earlier one."""


@dataclass(frozen=True)
class Earlier:
    """A surveyed chunk of an earlier inventory: where its tables are.

    Parameters
    ----------
    changed
        Series of which some row came or went since; None if that is not known, so that the rows are compared.
    """

    store: str
    chunk: str
    stacks: str
    identities: str
    membership: str
    unfinished: str
    changed: frozenset[str] | None = field(default=None, repr=False)  # workers log the argument of what failed


@dataclass(frozen=True, eq=False)
class Kept:
    """What earlier surveys found of the series of a chunk that have not changed.

    Parameters
    ----------
    stacks
        Rows of STACKS, some of them of other series.
    series
        Maps the first row of each series in the chunk to the rows of its stacks, and to the number in MEMBERSHIP of
        each of its instances.
    """

    stacks: pa.Table
    series: Mapping[int, tuple[range, list[int]]]


def find_kept(earlier: Sequence[Earlier], chunk: pa.Table, series: Sequence[range]) -> Kept:
    """Find the series of a chunk, given by their rows, of which no cell differs from what was surveyed earlier.

    An earlier chunk in which a series met an internal error is left out, and one with other columns.
    """
    names = chunk["series_uid"].to_pylist()
    stacks = STACKS.empty_table()
    found: dict[int, tuple[range, list[int]]] = {}
    for before in earlier:
        store = open_store(before.store, directory_mode=0o700)
        if not store.exists(before.membership) or store.exists(before.unfinished):
            continue
        membership, own = (read_parquet(store.read(path)) for path in (before.membership, before.stacks))
        held, rows = _by_name(membership["series"].to_pylist()), _by_name(own["series_uid"].to_pylist())
        pairs = [(now, held[name]) for now in series if (name := names[now.start]) in held]
        pairs = [(now, then) for now, then in pairs if len(now) == len(then)]
        numbers = membership["stack"].to_pylist()
        for now, then in _unchanged(before, chunk, store, pairs):
            place = rows.get(names[now.start], range(0))
            moved = range(stacks.num_rows + place.start, stacks.num_rows + place.stop)
            found[now.start] = (moved, numbers[then.start : then.stop])
        stacks = pa.concat_tables([stacks, own])
    return Kept(stacks, found)


def series_of(names: Sequence[str | None]) -> list[range]:
    """Return the rows of each series, given the series of each row. A row without one is a series of its own."""
    starts = [row for row, name in enumerate(names) if row == 0 or name is None or name != names[row - 1]]
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(names)], strict=True)]


def _by_name(names: Sequence[str | None]) -> dict[str | None, range]:
    """Map the series of a table to their rows."""
    return {names[rows.start]: rows for rows in series_of(names) if names[rows.start] is not None}


def _unchanged(before: Earlier, chunk: pa.Table, store: Store, pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs of as many rows each, of a chunk and an earlier one, of which no cell differs."""
    if before.changed is not None:
        names = chunk["series_uid"]
        return [pair for pair in pairs if names[pair[0].start].as_py() not in before.changed]
    instances = read_parquet(store.read(before.chunk)) if pairs else chunk
    if not pairs or instances.column_names != chunk.column_names:
        return []  # an earlier release read other attributes
    rows, earlier = (
        pa.array(np.concatenate([np.arange(r.start, r.stop) for r in side])) for side in zip(*pairs, strict=True)
    )
    same = equal_rows(chunk.take(rows), instances.take(earlier))
    starts = np.cumsum([0, *(len(rows) for rows, _ in pairs[:-1])])
    return [pair for pair, equal in zip(pairs, np.logical_and.reduceat(same, starts).tolist(), strict=True) if equal]


def equal_rows(one: pa.Table, other: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows of two tables are equal; numbers are compared by their bytes, so that 0.0 is not -0.0."""
    rows = [[row] for row in range(one.num_rows)]
    pairs = zip(row_digests(one, rows), row_digests(other, rows), strict=True)
    return np.array([first == second for first, second in pairs], np.bool_)
