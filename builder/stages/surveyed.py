"""What an earlier survey found of series that are still the same, so that an archive that grew is not surveyed anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builder.model.parquet import read_parquet
from builder.stages.stack_rows import STACKS
from builder.storage import open_store


@dataclass(frozen=True)
class Earlier:
    """A surveyed chunk of an earlier inventory: where its tables are."""

    store: str
    chunk: str
    stacks: str
    identities: str
    membership: str
    unfinished: str


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
        instances, membership, own = (
            read_parquet(store.read(p)) for p in (before.chunk, before.membership, before.stacks)
        )
        if instances.column_names != chunk.column_names:
            continue  # an earlier release read other attributes
        held, rows = _by_name(instances), _by_name(own)
        pairs = [(now, held[names[now.start]]) for now in series if names[now.start] in held]
        numbers = membership["stack"].to_pylist()
        for now, then in _unchanged(chunk, instances, [(n, t) for n, t in pairs if len(n) == len(t)]):
            place = rows.get(names[now.start], range(0))
            moved = range(stacks.num_rows + place.start, stacks.num_rows + place.stop)
            found[now.start] = (moved, numbers[then.start : then.stop])
        stacks = pa.concat_tables([stacks, own])
    return Kept(stacks, found)


def series_of(names: Sequence[str | None]) -> list[range]:
    """Return the rows of each series, given the series of each row. A row without one is a series of its own."""
    starts = [row for row, name in enumerate(names) if row == 0 or name is None or name != names[row - 1]]
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(names)], strict=True)]


def _by_name(table: pa.Table) -> dict[str, range]:
    """Map the series of a table to their rows."""
    names = table["series_uid"].to_pylist()
    return {name: rows for rows in series_of(names) if (name := names[rows.start]) is not None}


def _unchanged(now: pa.Table, before: pa.Table, pairs: Sequence[tuple[range, range]]) -> list[tuple[range, range]]:
    """Return the pairs of as many rows each that are equal, cell by cell."""
    if not pairs:
        return []
    rows, earlier = (
        pa.array(np.concatenate([np.arange(r.start, r.stop) for r in side])) for side in zip(*pairs, strict=True)
    )
    same = equal_rows(now.take(rows), before.take(earlier))
    starts = np.cumsum([0, *(len(rows) for rows, _ in pairs[:-1])])
    return [pair for pair, equal in zip(pairs, np.logical_and.reduceat(same, starts).tolist(), strict=True) if equal]


def equal_rows(one: pa.Table, other: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows of two tables are equal. Columns are compared whole, and cells only where these differ."""
    same = np.ones(one.num_rows, np.bool_)
    for name in one.column_names:
        if not one[name].equals(other[name]):
            same &= [a == b for a, b in zip(one[name].to_pylist(), other[name].to_pylist(), strict=True)]
    return same
