"""Products of rows and of those columns only that ask for the list in which a row lies."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.model.compiled import compiled


def best_in_lists(
    views: NDArray[np.int16], labels: NDArray[np.int64], wholes: NDArray[np.float32], probed: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the (volume, whole) largest product of any view of a volume that lies in a list asked for; else -inf.

    Parameters
    ----------
    views, labels
        (volume, view, n) whole numbers, and the (volume, view) list of each.
    wholes, probed
        (whole, n) whole numbers, and the (whole, some) lists that each asks for. Products are below 2 ** 24.
    """
    number, each, size = views.shape
    out = np.full((number, len(wholes)), -np.inf, np.float32)
    asking = np.argsort(probed, axis=None, kind="stable")
    lists = int(max(labels.max(initial=0), probed.max(initial=0))) + 1
    starts = np.concatenate([[0], np.cumsum(np.bincount(probed.reshape(-1), minlength=lists))])
    members = asking // probed.shape[1]
    order = np.argsort(labels, axis=None, kind="stable")
    rows, names = np.ascontiguousarray(views).reshape(-1, size), np.ascontiguousarray(labels).reshape(-1)
    _best_in_lists(rows, order, names, np.ascontiguousarray(wholes), starts, members, each, out)
    return out


@compiled
def _best_in_lists(
    rows: Any, order: Any, names: Any, wholes: Any, starts: Any, members: Any, each: Any, out: Any
) -> None:
    size, last, many = rows.shape[1], -1, 0
    most = 0
    for name in range(starts.shape[0] - 1):
        most = max(most, starts[name + 1] - starts[name])
    block, sums = np.empty((size, max(most, 1)), np.float32), np.empty(max(most, 1), np.float32)
    for row in order:
        name = names[row]
        low = starts[name]
        if name != last:
            last, many = name, starts[name + 1] - low
            for i in range(many):
                for d in range(size):
                    block[d, i] = wholes[members[low + i], d]
        for i in range(many):
            sums[i] = 0.0
        for d in range(size):
            value, line = np.float32(rows[row, d]), block[d]
            for i in range(many):
                sums[i] += value * line[i]
        into = out[row // each]
        for i in range(many):
            whole = members[low + i]
            if sums[i] > into[whole]:
                into[whole] = sums[i]
