"""A model that needs numpy alone: the odds of a lesion from a voxel and its surroundings, by logistic regression."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.reader import Dataset

Reals = NDArray[np.float64]

REACHES = (1, 3, 6)
"""Voxels to each side of the cubes whose means describe a voxel's surroundings."""

INPUTS = 2 * (1 + len(REACHES)) + 1


def start() -> Reals:
    """Return the (INPUTS,) weights that training starts from."""
    return np.zeros(INPUTS)


def samples(data: Dataset, label: str) -> Iterator[tuple[Reals, NDArray[Any]]]:
    """Yield the (voxel, INPUTS) inputs of each sample, and which voxels are lesion."""
    for item in data:
        image, mask = item["image"][0] / 200.0, (item[label] > 0).any(axis=0)
        seen = [image, *(around(image, reach) for reach in REACHES)]
        seen += [np.square(each - seen[-1]) for each in seen[:-1]] + [np.square(image), np.ones_like(image)]
        yield np.stack(seen, axis=-1).reshape(-1, INPUTS), mask.reshape(-1)


def around(image: Reals, reach: int) -> Reals:
    """Return the mean of the cube around each voxel; values at the ends repeat."""
    size = 2 * reach + 1
    for axis in range(3):
        wide = np.pad(image, [(reach + 1, reach) if a == axis else (0, 0) for a in range(3)], mode="edge")
        total = wide.cumsum(axis=axis)
        behind, before = (np.take(total, range(at, at + image.shape[axis]), axis) for at in (0, size))
        image = (before - behind) / size
    return image


def train(weights: Reals, inputs: Reals, lesion: NDArray[Any], *, steps: int) -> Reals:
    """Return the weights after steps of Newton's method, with lesions counted as a tenth of all voxels."""
    share = np.where(lesion, 0.1 / max(lesion.sum(), 1), 0.9 / max((~lesion).sum(), 1))
    for _ in range(steps):
        odds = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        curvature = (inputs * (share * odds * (1 - odds))[:, None]).T @ inputs + 1e-4 * np.eye(INPUTS)
        weights = weights - np.linalg.solve(curvature, inputs.T @ (share * (odds - lesion)))
    return weights


def area(weights: Reals, inputs: Reals, lesion: NDArray[Any]) -> float:
    """Return the area under the ROC curve: how often a voxel of a lesion has higher odds than another one.

    With one kind of voxel alone there is nothing to tell apart, which counts as 0.5.
    """
    order = np.argsort(inputs @ weights, kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(1, len(order) + 1)
    count, others = lesion.sum(), (~lesion).sum()
    return float((ranks[lesion].sum() - count * (count + 1) / 2) / (count * others)) if count and others else 0.5
