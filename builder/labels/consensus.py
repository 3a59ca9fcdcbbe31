"""Fuses several readers' labels into one: masks by majority or STAPLE, classes by Dawid-Skene, lines by slice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-10


@dataclass(frozen=True, eq=False)
class Staple:
    """Result of STAPLE: probability of the structure a voxel, and each reader's performance."""

    probability: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]
    prior: float
    iterations: int


def majority(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Voxels that more than half of the readers hold to be inside; an even split is outside."""
    votes = np.sum(np.stack(masks), axis=0, dtype=np.int64)
    return np.asarray(2 * votes > len(masks))


def majority_labels(maps: Sequence[NDArray[np.integer[Any]]]) -> NDArray[np.int64]:
    """The label that more than half of the readers give a voxel; 0 where no label has that many."""
    stacked = np.stack([np.asarray(m) for m in maps])
    out = np.zeros(stacked.shape[1:], dtype=np.int64)
    for label in np.unique(stacked):
        out[2 * np.count_nonzero(stacked == label, axis=0) > len(maps)] = int(label)
    return out


def staple(
    masks: Sequence[NDArray[np.bool_]], *, iterations: int = 100, tolerance: float = 1e-7, prior: float | None = None
) -> Staple:
    """Simultaneous truth and performance level estimation of a binary structure.

    Voxels are counted by pattern of votes, so the sums are over at most 2**readers patterns in float64 and neither
    volume nor order matters.

    Parameters
    ----------
    prior
        Share of the structure in the volume; the mean of the votes when None, as in SimpleITK.

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
    """True classes and readers' confusion out of votes, by expectation maximisation from the majority.

    Parameters
    ----------
    votes
        (item, reader) class numbers, -1 where a reader did not judge.
    weights
        How often each row of votes occurred; 1 when None.
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
    """One label map of several readers', and (reader, true label, said label) confusions over the labels in order.

    Multi-label STAPLE is Dawid-Skene on voxels. They are counted by pattern of votes in float64, so a volume of any
    size loses no voxel (SimpleITK's filter counts in float32, which stops at 2**24). Ties go to the lower label.

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
    """One line of several: the slice first, then the ends.

    The slice is the median of the lines' slices (of two middle ones the one with more lines, then the lower). Lines
    within two slices of it are turned to run the same way and their ends combined by the median of each coordinate.

    Parameters
    ----------
    lines
        (n, 2, 3) voxel coordinates (slice, row, column) of two ends, both on one slice.

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
    """The line, its ends swapped when it then lies closer to ``model``."""
    return line if np.abs(line - model).sum() <= np.abs(line[::-1] - model).sum() else line[::-1]
