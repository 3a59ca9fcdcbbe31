"""Hide small cells of a table of counts, and enough others that the sums do not reveal them."""

import numpy as np
from numpy.typing import NDArray


def masked_cells(counts: NDArray[np.int64], below: int) -> NDArray[np.bool_]:
    """Return which cells of a table of counts to hide: those from 1 to ``below - 1``, and partners that protect them.

    Parameters
    ----------
    counts
        (row, column) counts, with the row sums as an extra last column if those are published too. Column sums are
        assumed to be published.
    below
        The smallest count that may be shown; 0 or 1 hides nothing. Zeros stay visible, because an empty cell is itself
        a finding.

    Notes
    -----
    A single hidden cell in a row or column could be computed from the sums. Therefore the smallest other cell above
    zero is hidden too (complementary suppression), until every row and column hides none or at least two. If all the
    other cells are zero, a zero is hidden.
    """
    hidden = (counts > 0) & (counts < below)
    while True:
        alone = _line_with_one(hidden)
        if alone is None:
            return hidden
        row, column = alone
        line = hidden[row, :] if column is None else hidden[:, column]
        values = counts[row, :] if column is None else counts[:, column]
        # Zeros come after all other cells, and cells that are hidden already come last.
        rank = np.where(values > 0, values, np.iinfo(np.int64).max - 1)
        rank[line] = np.iinfo(np.int64).max
        if line.all():
            return hidden
        line[int(rank.argmin())] = True


def _line_with_one(hidden: NDArray[np.bool_]) -> tuple[int, None] | tuple[None, int] | None:
    """Return the first row or column that has several cells of which exactly one is hidden."""
    for row in np.flatnonzero(hidden.sum(axis=1) == 1).tolist():
        if hidden.shape[1] > 1:
            return row, None
    for column in np.flatnonzero(hidden.sum(axis=0) == 1).tolist():
        if hidden.shape[0] > 1:
            return None, column
    return None
