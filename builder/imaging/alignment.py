"""Check that two images of a case match best where they lie: a shared frame of reference does not prove it."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.model.case import Slabs
from builder.model.geometry import Geometry

SHIFT_MM = 10.0
"""How far one image is shifted: more than the slices of most scans are apart, and less than an organ is wide."""

MOST_VOXELS = 64
"""Largest number of voxels along an axis that are compared."""

LEVELS = 24
"""Number of equally frequent grey levels of each image."""

AT_ONCE_BYTES = 2 << 20
"""Bytes of voxels that are made at once where an image is made in slabs."""


def coarse_levels(image: NDArray[Any] | Slabs) -> NDArray[np.int64]:
    """Return the grey levels of at most ``MOST_VOXELS`` voxels along each axis of an image's first channel.

    Levels are equally frequent; voxels of one value have one level. ``image`` is (channel, slice, row, column).
    """
    coarse = _coarse(image)
    ordered = np.sort(coarse, axis=None)
    shares = np.linspace(0, 1, LEVELS + 1)[1:-1]
    edges = np.unique(ordered[np.maximum(np.ceil(ordered.size * shares - 1), 0).astype(np.int64)])
    return np.searchsorted(edges, coarse, side="left").astype(np.int64)


def better_when_shifted(first: NDArray[np.int64], second: NDArray[np.int64], grid: Geometry) -> float | None:
    """Return by how much two images on one grid match better when one is shifted; None when no shift is better.

    ``first`` and ``second`` are the images' ``coarse_levels``.

    The match is the mutual information of grey levels, which needs no common unit. The second image is shifted by about
    ``SHIFT_MM`` along each axis in both directions. An axis that is too short to be shifted is left out.

    Returns
    -------
    float
        The largest match after a shift divided by the match in place, at least 1.
    """
    stride = _stride(grid.shape)
    here = _information(first, second)
    best = 0.0
    for axis, sign in itertools.product(range(3), (1, -1)):
        step = max(1, round(SHIFT_MM / (grid.spacing_mm[axis] * stride[axis])))
        if 2 * step < first.shape[axis]:
            ahead, behind = [slice(None)] * 3, [slice(None)] * 3
            ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
            pair = (ahead, behind) if sign > 0 else (behind, ahead)
            best = max(best, _information(first[tuple(pair[0])], second[tuple(pair[1])]))
    return best / here if here > 0 and best >= here else None


def _coarse(image: NDArray[Any] | Slabs) -> NDArray[Any]:
    """Return the compared voxels of the first channel."""
    slices, rows, columns = stride = _stride(image.shape[1:])
    if not isinstance(image, Slabs):
        return image[0, ::slices, ::rows, ::columns]
    coarse = np.empty([-(-n // step) for n, step in zip(image.shape[1:], stride, strict=True)], image.dtype)
    start = 0
    for slab in image.make(max(1, AT_ONCE_BYTES * image.shape[1] // image.nbytes), image.shape[2]):
        picked = slab[0, -start % slices :: slices, ::rows, ::columns]
        first = -(-start // slices)
        coarse[first : first + len(picked)] = picked
        start += slab.shape[1]
    return coarse


def _stride(shape: Sequence[int]) -> list[int]:
    """Return the distance between compared voxels along each axis."""
    return [max(1, -(-n // MOST_VOXELS)) for n in shape]


def _information(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return the mutual information of two images of levels, in nats."""
    counts = np.bincount((one * LEVELS + other).ravel(), minlength=LEVELS * LEVELS).reshape(LEVELS, LEVELS)
    joint = counts / counts.sum()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / apart[some])).sum())
