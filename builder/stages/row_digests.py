"""Digests of rows of INSTANCES, by which a later plan tells that the objects of a stack are exactly as they were."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Lengths = npt.NDArray[np.int32]

_BATCH_ROWS: Final = 4_096
_MISSING: Final = pa.scalar(-1, pa.int32())


def row_digests(table: pa.Table, groups: Sequence[Sequence[int]]) -> list[str]:
    """Return a digest of each group of rows: 32 hex digits of the SHA-256 of every cell of them, in their order.

    Equal rows give equal digests however the table is chunked, and whatever lies beside them.

    Parameters
    ----------
    table
        Columns of text, numbers, and lists of these. Numbers are taken by their bytes.
    groups
        Numbers of rows.
    """
    lengths, cells = _as_bytes(table)
    return [
        hashlib.sha256(lengths[list(rows)].tobytes() + b"".join([cells[row] for row in rows])).hexdigest()[:32]
        for rows in groups
    ]


def _as_bytes(table: pa.Table) -> tuple[Lengths, list[bytes]]:
    """Return for each row the lengths of its cells, -1 for a missing one, and the bytes of all of them."""
    lengths: list[Lengths] = []
    cells: list[bytes] = []
    for batch in table.combine_chunks().to_batches(max_chunksize=_BATCH_ROWS):
        columns = [part for column in batch.columns for part in _parts(column)]
        stated = [number for number, column in enumerate(columns) if column.null_count < len(column)]
        found = np.full((batch.num_rows, len(columns)), -1, np.int32)
        for number in stated:
            found[:, number] = _lengths(columns[number]).to_numpy()
        lengths.append(found)
        cells += _joined([columns[number] for number in stated]).to_pylist() if stated else [b""] * batch.num_rows
    return np.concatenate(lengths) if lengths else np.empty((0, 0), np.int32), cells


def _parts(column: pa.Array) -> Iterator[pa.Array]:
    """Yield a column as bytes. One of lists is two: the bytes of all values of a list, and the lengths of each."""
    if not pa.types.is_list(column.type):
        yield _plain(column)
        return
    counts = pc.fill_null(pc.list_value_length(column), pa.scalar(0, pa.int32())).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    values = _plain(column.flatten())
    for held in (pc.fill_null(values, pa.scalar(b"", pa.binary())), _plain(_lengths(values))):
        yield pc.binary_join(pa.ListArray.from_arrays(offsets, held, mask=column.is_null()), b"")


def _plain(column: pa.Array) -> pa.Array:
    """Return text or numbers as bytes."""
    if pa.types.is_string(column.type):
        return column.cast(pa.binary())
    return column.view(pa.binary(column.type.bit_width // 8)).cast(pa.binary())


def _lengths(column: pa.Array) -> pa.Array:
    return pc.fill_null(pc.binary_length(column), _MISSING)


def _joined(columns: Sequence[pa.Array]) -> pa.Array:
    return pc.binary_join_element_wise(*columns, b"", null_handling="replace", null_replacement=b"")
