"""Applying a window: replace each value by its level on a curve of a few hundred points."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.model.compiled import compiled

BUCKETS = 2048
"""Number of equal parts of the curve's range; each stores where the search for its values starts."""


def on_curve(values: NDArray[np.float32], at: NDArray[Any], levels: NDArray[Any]) -> NDArray[np.float32]:
    """Interpolate each value linearly between the points (at, levels), as ``numpy.interp`` does, in float32.

    Parameters
    ----------
    at
        In non-decreasing order. Values beyond either end get the level at that end.
    """
    known = np.ascontiguousarray(at, dtype=np.float64)
    found = _on_curve(np.ascontiguousarray(values).reshape(-1), known, np.ascontiguousarray(levels, dtype=np.float64))
    return np.asarray(found.reshape(values.shape))


@compiled
def _on_curve(values: Any, at: Any, levels: Any) -> Any:
    out = np.empty(values.shape[0], np.float32)
    last = at.shape[0] - 1
    scale = BUCKETS / max(at[last] - at[0], 1e-12)
    first = np.zeros(BUCKETS + 1, np.int64)  # the last point at or below the beginning of each bucket
    point = 0
    for bucket in range(BUCKETS + 1):
        while point < last and (at[point + 1] - at[0]) * scale <= bucket:
            point += 1
        first[bucket] = point
    for i in range(values.shape[0]):
        value = np.float64(values[i])
        if value < at[0] or value >= at[last]:
            out[i] = levels[0] if value < at[0] else levels[last]
            continue
        point = first[int((value - at[0]) * scale)]
        while at[point] > value:
            point -= 1
        while at[point + 1] <= value:
            point += 1
        out[i] = levels[point] + (levels[point + 1] - levels[point]) * (value - at[point]) / (at[point + 1] - at[point])
    return out
