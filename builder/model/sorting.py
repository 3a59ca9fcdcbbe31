"""Sort rows of tables and remove duplicates with Arrow's kernels alone.

``Table.sort_by`` and ``group_by`` would load Arrow's query engine, which takes 6 MB of memory in every process.
"""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Flags: TypeAlias = npt.NDArray[np.bool_]
Numbers: TypeAlias = npt.NDArray[np.intp]


def ordered(table: pa.Table, columns: Iterable[str]) -> pa.Table:
    """Return the rows in ascending order of ``columns``, nulls last. Equal rows keep their order."""
    return table.take(pc.sort_indices(table, sort_keys=[(name, "ascending") for name in columns]))


def distinct(table: pa.Table) -> pa.Table:
    """Return each row once, in ascending order of all columns, nulls last."""
    rows = ordered(table, table.column_names)
    return rows.filter(pa.array(changes(rows))).combine_chunks()


def runs(table: pa.Table) -> tuple[pa.Table, Numbers]:
    """Return the first of rows that are equal and follow each other, and for each row which of the first it equals."""
    begins = changes(table)
    return table.filter(pa.array(begins)), np.cumsum(begins) - 1


def changes(table: pa.Table) -> Flags:
    """Return for each row whether it differs from the one before in any column; the first one does.

    Numbers are compared by their bytes, and nulls are equal.
    """
    found = np.ones(table.num_rows, bool)
    if table.num_rows:
        found[1:] = False
        for column in table.combine_chunks().columns:
            if column.null_count < table.num_rows:
                found[1:] |= _changes(column.chunk(0))
    return found


def _changes(column: pa.Array) -> Flags:
    count = len(column)
    if pa.types.is_dictionary(column.type):
        return _differ(column.indices.slice(0, count - 1), column.indices.slice(1))
    if not pa.types.is_list(column.type):
        return _differ(column.slice(0, count - 1), column.slice(1))
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
    found: Flags = lengths[1:] != lengths[:-1]
    # each value of a list is held against the one in its place in the row before
    rows = np.repeat(np.arange(count), np.maximum(lengths, 0))
    here = np.flatnonzero((rows > 0) & ~np.concatenate([[True], found])[rows])
    values = column.flatten()
    unequal = _differ(values.take(pa.array(here - lengths[rows[here]])), values.take(pa.array(here)))
    found[rows[here[unequal]] - 1] = True
    return found


def _differ(some: pa.Array, others: pa.Array) -> Flags:
    if pa.types.is_floating(some.type):
        some, others = some.view(pa.int64()), others.view(pa.int64())  # or 0.0 would equal -0.0
    differ = pc.not_equal(some, others)
    if some.null_count or others.null_count:
        differ = pc.or_(pc.fill_null(differ, False), pc.xor(some.is_null(), others.is_null()))
    found: Flags = differ.to_numpy(zero_copy_only=False)
    return found
