"""Statistics of voxels, summed in a fixed order so that a mean has the same bits on every machine."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.model.compiled import compiled


@dataclass(frozen=True)
class Statistics:
    """Count, minimum, maximum, mean and population standard deviation of the chosen voxels."""

    count: int
    lowest: float
    highest: float
    mean: float
    deviation: float


def measure(volume: NDArray[Any], inside: NDArray[np.bool_] | None) -> Statistics:
    """Measure (slice, row, column) voxels where ``inside`` is True, or all of them when it is None.

    Sums are float64, first along each row and then over the rows. Voxels that are not finite are left out.
    """
    array = np.ascontiguousarray(volume)
    chosen = np.ones((0, 0, 0), np.bool_) if inside is None else np.ascontiguousarray(inside)
    count, total, lowest, highest = _total(array, chosen)
    if count == 0:
        return Statistics(0, 0.0, 0.0, 0.0, 0.0)
    mean = float(total / count)
    return Statistics(
        int(count), float(lowest), float(highest), mean, float(np.sqrt(_spread(array, chosen, mean) / count))
    )


def count_values(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Count the voxels of each value of (slice, row, column) uint8 or uint16 labels, as (256,) or (65536,)."""
    counts = np.zeros(int(np.iinfo(labels.dtype).max) + 1, dtype=np.int64)
    _count(np.ascontiguousarray(labels), counts)
    return counts


@compiled
def _count(labels: Any, counts: Any) -> None:
    for z in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            row = labels[z, y]
            value, run = row[0], 0  # neighbours are mostly equal, so count runs of voxels
            for x in range(row.shape[0]):
                if row[x] == value:
                    run += 1
                else:
                    counts[value] += run
                    value, run = row[x], 1
            counts[value] += run


@compiled
def _total(volume: Any, chosen: Any) -> Any:
    every = chosen.size == 0
    count, total, lowest, highest = 0, 0.0, np.inf, -np.inf
    for z in range(volume.shape[0]):
        for y in range(volume.shape[1]):
            part = 0.0
            for x in range(volume.shape[2]):
                value = float(volume[z, y, x])
                if (every or chosen[z, y, x]) and np.isfinite(value):
                    count += 1
                    part += value
                    lowest, highest = min(lowest, value), max(highest, value)
            total += part
    return count, total, lowest, highest


@compiled
def _spread(volume: Any, chosen: Any, mean: Any) -> Any:
    every = chosen.size == 0
    total = 0.0
    for z in range(volume.shape[0]):
        for y in range(volume.shape[1]):
            part = 0.0
            for x in range(volume.shape[2]):
                value = float(volume[z, y, x])
                if (every or chosen[z, y, x]) and np.isfinite(value):
                    part += (value - mean) ** 2
            total += part
    return total
