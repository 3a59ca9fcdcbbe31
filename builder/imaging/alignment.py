"""Check that two images of a case match best where they lie: a shared frame of reference does not prove it."""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.model.geometry import Geometry

SHIFT_MM = 10.0
"""How far one image is shifted: more than the slices of most scans are apart, and less than an organ is wide."""

MOST_VOXELS = 64
"""Largest number of voxels along an axis that are compared."""

LEVELS = 24
"""Number of equally frequent grey levels of each image."""


def better_when_shifted(one: NDArray[Any], other: NDArray[Any], grid: Geometry) -> float | None:
    """Return by how much two images on one grid match better when one is shifted; None when no shift is better.

    The match is the mutual information of grey levels, which needs no common unit. The second image is shifted by about
    ``SHIFT_MM`` along each axis in both directions. An axis that is too short to be shifted is left out.

    Returns
    -------
    float
        The largest match after a shift divided by the match in place, at least 1.
    """
    stride = [max(1, -(-n // MOST_VOXELS)) for n in grid.shape]
    coarse = tuple(slice(None, None, n) for n in stride)
    first, second = (_levels(image[coarse]) for image in (one, other))
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


def _levels(image: NDArray[Any]) -> NDArray[np.int64]:
    """Return the grey level of each voxel; voxels of one value have one level."""
    edges = np.unique(np.quantile(image, np.linspace(0, 1, LEVELS + 1)[1:-1], method="inverted_cdf"))
    return np.searchsorted(edges, image, side="left").astype(np.int64)


def _information(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return the mutual information of two images of levels, in nats."""
    counts = np.bincount((one * LEVELS + other).ravel(), minlength=LEVELS * LEVELS).reshape(LEVELS, LEVELS)
    joint = counts / counts.sum()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / apart[some])).sum())
