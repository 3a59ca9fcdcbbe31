"""Block means: shrink a volume of any size to a small cube, sharing voxels that straddle a cell edge between cells."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.model.compiled import compiled

Reals = NDArray[np.float64]


def block_means(volume: NDArray[Any], edges: tuple[int, int, int]) -> Reals:
    """Average (slice, row, column) voxels over ``edges`` equal parts of each axis.

    An axis with fewer voxels than parts repeats its voxels. Sums run in a fixed order, so the result has the same bits
    on every machine.
    """
    array = np.ascontiguousarray(volume, dtype=volume.dtype.newbyteorder("="))
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        array = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)
    sums = np.zeros((*edges[:2], array.shape[2]))
    _fold(array, *_overlaps(array.shape[0], edges[0]), *_overlaps(array.shape[1], edges[1]), sums)
    first, last, weight = _overlaps(array.shape[2], edges[2])
    means = np.zeros(edges)
    for column in range(array.shape[2]):
        for cell in range(first[column], last[column] + 1):
            means[:, :, cell] += sums[:, :, column] * weight[column, cell - first[column]]
    return means


def _overlaps(size: int, edge: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Reals]:
    """Return the first and last cell that each voxel of an axis lies in, and its share of each of those cells."""
    voxels = np.arange(size, dtype=np.int64)
    first = voxels * edge // size
    last = np.minimum(-(-(voxels + 1) * edge // size) - 1, edge - 1)
    weight = np.zeros((size, int((last - first).max()) + 1))
    for offset in range(weight.shape[1]):
        cell = first + offset
        inside = np.minimum((voxels + 1) * edge, (cell + 1) * size) - np.maximum(voxels * edge, cell * size)
        weight[:, offset] = np.where(cell <= last, inside, 0) / size
    return first, last, weight


@compiled
def _fold(
    volume: Any, first_z: Any, last_z: Any, weight_z: Any, first_y: Any, last_y: Any, weight_y: Any, sums: Any
) -> None:
    plane = np.zeros((sums.shape[1], sums.shape[2]))
    for z in range(volume.shape[0]):
        plane[:] = 0.0
        for y in range(volume.shape[1]):
            row = volume[z, y]
            for cell in range(first_y[y], last_y[y] + 1):
                share, target = weight_y[y, cell - first_y[y]], plane[cell]
                for x in range(row.shape[0]):
                    target[x] += share * row[x]
        for cell in range(first_z[z], last_z[z] + 1):
            share = weight_z[z, cell - first_z[z]]
            for y in range(plane.shape[0]):
                target, source = sums[cell, y], plane[y]
                for x in range(source.shape[0]):
                    target[x] += share * source[x]
