"""The instances that stacks are made of, out of a chunk of the inventory."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builder.planning.inventory import Inventory, Survey
from builder.planning.rows import Placed

Rows = npt.NDArray[np.int64]
"""Numbers of rows of a chunk."""


def members(
    inventory: Inventory, survey: Survey, *, chunk: int, wanted: Sequence[tuple[int, Placed]]
) -> list[tuple[int, pa.Table]]:
    """Return the instances of the wanted stacks of a chunk, with the number each is wanted under.

    ``wanted`` pairs that number with the place of the stack's instances.
    """
    places = rows_within(survey, chunk=chunk, wanted=wanted)
    instances = inventory.chunk(chunk) if places else None
    return [] if instances is None else [(row, _rows_at(instances, p)) for row, p in places.items()]


def rows_within(survey: Survey, *, chunk: int, wanted: Sequence[tuple[int, Placed]]) -> dict[int, Rows]:
    """Map the numbers that stacks of a chunk are wanted under, in order, to the rows of the chunk that they are in.

    Stacks without any row are left out. ``wanted`` as for ``members``.
    """
    membership = survey.membership(chunk)
    series, stacks = membership["series"].combine_chunks().dictionary_encode(), membership["stack"].to_numpy()
    codes = series.indices.to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1))  # the rows of a series follow each other
    ends = np.append(starts[1:], len(codes))
    names = series.dictionary.take(pa.array(codes[starts])).to_pylist()
    held = dict(zip(names, zip(starts.tolist(), ends.tolist(), strict=True), strict=True))
    found: dict[int, list[Rows]] = {}
    for number, stack in wanted:
        start, end = held.get(stack.series_uid, (0, 0))
        rows = start + np.flatnonzero(np.isin(stacks[start:end], stack.holders))
        if len(rows):
            found.setdefault(number, []).append(rows)
    return {number: np.sort(np.concatenate(rows)) for number, rows in sorted(found.items())}


def _rows_at(table: pa.Table, places: Rows) -> pa.Table:
    """Return some rows of a table, given in order; without a copy of every column where they are neighbours."""
    if places[-1] - places[0] + 1 == len(places):
        return table.slice(int(places[0]), len(places))
    return table.take(pa.array(places))
