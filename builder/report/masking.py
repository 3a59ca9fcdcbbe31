"""Small cells hidden, and enough others with them that no margin gives them away."""

import numpy as np
from numpy.typing import NDArray


def masked_cells(counts: NDArray[np.int64], below: int) -> NDArray[np.bool_]:
    """Which cells of a table of counts to hide: 1 to ``below - 1``, and partners of cells that stand alone.

    Parameters
    ----------
    counts
        (row, column) with the row sums as an extra last column wherever those are published too; column sums are
        taken as published.
    below
        The smallest count that may be shown; 0 or 1 hides nothing. Zeros stay visible: an empty cell is a finding.

    Notes
    -----
    A single hidden cell of a row or column follows from the sums, so its smallest neighbour above zero is hidden with
    it (complementary suppression), until every line hides none or at least two; a line whose other cells are all zero
    hides a zero.
    """
    hidden = (counts > 0) & (counts < below)
    while True:
        alone = _line_with_one(hidden)
        if alone is None:
            return hidden
        row, column = alone
        line = hidden[row, :] if column is None else hidden[:, column]
        values = counts[row, :] if column is None else counts[:, column]
        rank = np.where(values > 0, values, np.iinfo(np.int64).max - 1)
        rank[line] = np.iinfo(np.int64).max
        if line.all():
            return hidden
        line[int(rank.argmin())] = True


def _line_with_one(hidden: NDArray[np.bool_]) -> tuple[int, None] | tuple[None, int] | None:
    """The first row or column with exactly one hidden cell among several."""
    for row in np.flatnonzero(hidden.sum(axis=1) == 1).tolist():
        if hidden.shape[1] > 1:
            return row, None
    for column in np.flatnonzero(hidden.sum(axis=0) == 1).tolist():
        if hidden.shape[0] > 1:
            return None, column
    return None
