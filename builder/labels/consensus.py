"""Fusion of several readers' labels: masks by majority or STAPLE, classes by Dawid-Skene, lines by medians."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-10


@dataclass(frozen=True, eq=False)
class Staple:
    """Result of STAPLE: the probability of the structure at each voxel and the performance of each reader."""

    probability: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]
    prior: float
    iterations: int


def majority(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Return the voxels that more than half of the readers marked. An even split counts as outside."""
    votes = np.sum(np.stack(masks), axis=0, dtype=np.int64)
    return np.asarray(2 * votes > len(masks))


def majority_labels(maps: Sequence[NDArray[np.integer[Any]]]) -> NDArray[np.int64]:
    """Return the label that more than half of the readers gave to each voxel, or 0 where no label has that many."""
    stacked = np.stack([np.asarray(m) for m in maps])
    out = np.zeros(stacked.shape[1:], dtype=np.int64)
    for label in np.unique(stacked):
        out[2 * np.count_nonzero(stacked == label, axis=0) > len(maps)] = int(label)
    return out


def staple(
    masks: Sequence[NDArray[np.bool_]], *, iterations: int = 100, tolerance: float = 1e-7, prior: float | None = None
) -> Staple:
    """Run STAPLE, simultaneous truth and performance level estimation, on a binary structure.

    Voxels are grouped by their pattern of votes. The sums therefore run over at most 2**readers patterns in float64,
    and the result depends neither on the size of the volume nor on the order of its voxels.

    Parameters
    ----------
    prior
        Fraction of the volume that the structure fills. None takes the mean of the votes, as SimpleITK does.

    References
    ----------
    Warfield, Zou, Wells 2004, doi:10.1109/TMI.2004.828354.
    """
    votes = np.stack([np.asarray(mask, dtype=np.bool_).ravel() for mask in masks])
    weights = 2 ** np.arange(len(votes), dtype=np.int64)
    codes = (votes * weights[:, None]).sum(axis=0)
    patterns, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    decisions = ((patterns[:, None] & weights) > 0).astype(np.float64)  # (pattern, reader)
    amount = counts.astype(np.float64)
    share = float((decisions.mean(axis=1) * amount).sum() / amount.sum()) if prior is None else prior
    sensitivity = np.full(len(votes), 0.99999)
    specificity = np.full(len(votes), 0.99999)
    belief = np.zeros(len(patterns))
    rounds = 0
    while rounds < iterations:
        rounds += 1
        inside = share * np.prod(np.where(decisions > 0, sensitivity, 1 - sensitivity), axis=1)
        outside = (1 - share) * np.prod(np.where(decisions > 0, 1 - specificity, specificity), axis=1)
        belief = inside / np.maximum(inside + outside, EPSILON**20)
        positive, negative = (belief * amount).sum(), ((1 - belief) * amount).sum()
        before = np.concatenate([sensitivity, specificity])
        sensitivity = (decisions * (belief * amount)[:, None]).sum(axis=0) / max(positive, EPSILON)
        specificity = ((1 - decisions) * ((1 - belief) * amount)[:, None]).sum(axis=0) / max(negative, EPSILON)
        if np.abs(np.concatenate([sensitivity, specificity]) - before).max() < tolerance:
            break
    return Staple(belief[inverse].reshape(np.shape(masks[0])), sensitivity, specificity, share, rounds)


@dataclass(frozen=True, eq=False)
class DawidSkene:
    """Result of Dawid-Skene: (item, class) probabilities, class priors, (reader, true class, said class) confusions."""

    probability: NDArray[np.float64]
    prior: NDArray[np.float64]
    confusion: NDArray[np.float64]


def dawid_skene(
    votes: NDArray[np.int64],
    classes: int,
    *,
    weights: NDArray[np.float64] | None = None,
    iterations: int = 200,
    tolerance: float = 1e-9,
    smoothing: float = 0.01,
) -> DawidSkene:
    """Estimate true classes and readers' confusions from votes by expectation maximisation, starting from the majority.

    Parameters
    ----------
    votes
        (item, reader) class numbers, or -1 where a reader did not judge the item.
    weights
        How often each row of votes occurred. None counts each row once.
    smoothing
        Added to every count, so that no probability becomes 0.

    References
    ----------
    Dawid, Skene 1979, doi:10.2307/2346806.
    """
    said = (votes[..., None] == np.arange(classes)).astype(np.float64)  # (item, reader, class)
    amount = np.ones(len(votes)) if weights is None else np.asarray(weights, dtype=np.float64)
    belief = said.sum(axis=1) + smoothing
    belief = belief / belief.sum(axis=1, keepdims=True)
    prior, confusion = np.ones(classes) / classes, np.zeros((votes.shape[1], classes, classes))
    for _ in range(iterations):
        heavy = belief * amount[:, None]
        prior = heavy.sum(axis=0) / amount.sum()
        counts = np.einsum("it,irs->rts", heavy, said, optimize=False) + smoothing
        confusion = counts / counts.sum(axis=2, keepdims=True)
        logs = np.log(np.maximum(prior, EPSILON)) + np.einsum("irs,rts->it", said, np.log(confusion), optimize=False)
        after = np.exp(logs - logs.max(axis=1, keepdims=True))
        after /= after.sum(axis=1, keepdims=True)
        moved = float(np.abs(after - belief).max())
        belief = after
        if moved < tolerance:
            break
    return DawidSkene(belief, prior, confusion)


def staple_labels(maps: Sequence[NDArray[np.integer[Any]]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Fuse several label maps into one, and return it with (reader, true label, said label) confusions per label.

    Multi-label STAPLE is Dawid-Skene with voxels as items. Voxels are counted by pattern of votes in float64, so a
    volume of any size is counted in full; SimpleITK's filter counts in float32, which stops at 2**24. Ties go to the
    lower label.

    References
    ----------
    Rohlfing, Russakoff, Maurer 2004, doi:10.1109/TMI.2004.830803.
    """
    votes = np.stack([np.asarray(m).ravel() for m in maps], axis=1)
    labels = np.unique(votes)
    patterns, inverse, counts = np.unique(votes, axis=0, return_inverse=True, return_counts=True)
    found = dawid_skene(
        np.searchsorted(labels, patterns).astype(np.int64), len(labels), weights=counts.astype(np.float64)
    )
    winner = labels[found.probability.argmax(axis=1)].astype(np.int64)
    return winner[inverse.ravel()].reshape(np.shape(maps[0])), found.confusion


def fuse_lines(lines: NDArray[np.float64], *, spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Fuse several lines into one: first choose the slice, then combine the ends.

    The slice is the median of the lines' slices. Of two middle slices, the one with more lines wins, then the lower
    one. Lines within two slices of it are turned to point the same way, and their ends are combined by the median of
    each coordinate.

    Parameters
    ----------
    lines
        (n, 2, 3) voxel coordinates (slice, row, column) of the two ends, which lie on the same slice.

    Returns
    -------
    NDArray
        (2, 3) voxel coordinates.
    """
    slices = np.round(lines[:, 0, 0]).astype(np.int64)
    ordered = np.sort(slices)
    middle = {int(ordered[(len(ordered) - 1) // 2]), int(ordered[len(ordered) // 2])}
    chosen = min(middle, key=lambda s: (-int(np.count_nonzero(slices == s)), s))
    near = lines[np.abs(slices - chosen) <= 2]
    lengths = (((near[:, 1, 1:] - near[:, 0, 1:]) * np.asarray(spacing_mm[1:])) ** 2).sum(axis=1)
    model = near[int(np.argsort(lengths, kind="stable")[len(near) // 2])]
    turned = np.stack([_along(line, model) for line in near])
    ends = np.median(turned, axis=0)
    ends[:, 0] = chosen
    return np.asarray(ends)


def _along(line: NDArray[np.float64], model: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the line, with its ends swapped if that brings it closer to ``model``."""
    return line if np.abs(line - model).sum() <= np.abs(line[::-1] - model).sum() else line[::-1]
