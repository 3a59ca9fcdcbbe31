"""Dense ranks: the position of each element among the distinct values of an array."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.model.compiled import compiled

SLOTS = 1 << 17
MOST_DISTINCT = 1 << 16


def dense_ranks(values: NDArray[Any]) -> NDArray[np.uint32]:
    """Return the (n,) position of each float32 among the sorted distinct values; NaN counts as one value, the last.

    Ranks do not change under any map that keeps the order of values and merges none, such as a rescale or a factor.
    """
    flat = np.ascontiguousarray(values, dtype=np.float32).ravel() + np.float32(0)  # no negative zero
    found, distinct, slots = _distinct(flat.view(np.int32), np.isnan(flat))
    if found > MOST_DISTINCT:
        return np.asarray(np.unique(flat, return_inverse=True)[1], dtype=np.uint32).ravel()
    known = distinct[:found].view(np.float32)
    order = np.argsort(known, kind="stable")
    rank = np.empty(found, dtype=np.uint32)
    rank[order] = np.arange(found, dtype=np.uint32)
    return np.asarray(rank[slots])


@compiled
def _distinct(bits: Any, missing: Any) -> Any:
    """Return the number of distinct bit patterns, the patterns in order of first sight, and each element's pattern."""
    table = np.full(SLOTS, -1, np.int32)
    distinct = np.empty(MOST_DISTINCT + 1, np.int32)
    numbers = np.empty(bits.shape[0], np.int32)
    found = 0
    for i in range(bits.shape[0]):
        value = np.int32(0x7FC00000) if missing[i] else bits[i]
        slot = ((np.int64(value) * 2654435761) >> 12) & (SLOTS - 1)
        while table[slot] >= 0 and distinct[table[slot]] != value:
            slot = (slot + 1) & (SLOTS - 1)
        if table[slot] < 0:
            if found > MOST_DISTINCT - 1:
                return MOST_DISTINCT + 1, distinct, numbers
            table[slot] = found
            distinct[found] = value
            found += 1
        numbers[i] = table[slot]
    return found, distinct, numbers
