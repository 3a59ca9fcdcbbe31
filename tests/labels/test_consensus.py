"""Consensus: SimpleITK's STAPLE as oracle, known truths recovered, and independence of order."""

from typing import Any

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from builder.labels.consensus import dawid_skene, fuse_lines, majority, staple


def readers(seed: int = 5, shape: tuple[int, ...] = (12, 20, 20)) -> tuple[NDArray[np.bool_], list[NDArray[np.bool_]]]:
    """A block and four readers that miss and add voxels at known rates."""
    random = np.random.default_rng(seed)
    truth = np.zeros(shape, bool)
    truth[3:9, 5:15, 4:16] = True
    rates = [(0.95, 0.99), (0.9, 0.98), (0.8, 0.97), (0.6, 0.9)]
    return truth, [np.where(truth, random.random(shape) < p, random.random(shape) > q) for p, q in rates]


def test_staple_equals_simpleitk() -> None:
    _, masks = readers()
    ours = staple(masks)
    algorithm = SimpleITK.STAPLEImageFilter()
    algorithm.SetForegroundValue(1.0)
    images = [SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in masks]
    theirs = SimpleITK.GetArrayFromImage(algorithm.Execute(images))
    assert np.abs(ours.probability - theirs).max() < 1e-3
    assert np.allclose(ours.sensitivity, algorithm.GetSensitivity(), atol=1e-3)
    assert np.allclose(ours.specificity, algorithm.GetSpecificity(), atol=1e-3)


def test_staple_beats_the_majority_when_most_readers_are_poor() -> None:
    truth, masks = readers()
    found = staple(masks)
    assert (found.probability > 0.5)[truth].mean() > 0.95
    errors = np.count_nonzero((found.probability > 0.5) != truth)
    assert errors < np.count_nonzero(majority(masks) != truth)
    assert np.allclose(found.sensitivity, [0.95, 0.9, 0.8, 0.6], atol=0.03)


def test_majority_is_strict() -> None:
    votes = [np.array([True, True, False, False]), np.array([True, False, True, False])]
    assert majority(votes).tolist() == [True, False, False, False]


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(4)))
def test_the_order_of_readers_does_not_matter(order: list[int]) -> None:
    _, masks = readers()
    a, b = staple(masks), staple([masks[i] for i in order])
    assert np.allclose(a.probability, b.probability, atol=1e-6)
    assert np.allclose(a.sensitivity[order], b.sensitivity, atol=1e-6)


def test_dawid_skene_recovers_truth_and_confusions() -> None:
    random = np.random.default_rng(1)
    truth = random.integers(0, 3, 600)
    accuracy = [0.95, 0.85, 0.75, 0.4, 0.4]
    votes = np.stack(
        [np.where(random.random(600) < p, truth, (truth + random.integers(1, 3, 600)) % 3) for p in accuracy], axis=1
    )
    votes[random.random(votes.shape) < 0.2] = -1
    found = dawid_skene(votes, 3)
    right = np.mean(found.probability.argmax(axis=1) == truth)
    counts = np.stack([(votes == k).sum(axis=1) for k in range(3)], axis=1)
    assert right > np.mean(counts.argmax(axis=1) == truth)
    assert right > 0.9
    diagonal = found.confusion[:, range(3), range(3)].mean(axis=1)
    assert np.allclose(diagonal, accuracy, atol=0.06)
    assert np.allclose(found.probability.sum(axis=1), 1)


def test_fused_line_is_the_line_all_drew_whichever_way_they_drew_it() -> None:
    line = np.array([[5.0, 10, 10], [5, 30, 40]])
    jitter = np.random.default_rng(2).normal(0, 0.5, (9, 2, 3)) * [0, 1, 1]
    lines = np.where(np.arange(9)[:, None, None] % 2 == 0, line, line[::-1]) + jitter
    outlier = np.array([[[50.0, 1, 1], [50, 2, 2]]])
    fused = fuse_lines(np.concatenate([lines, outlier]), spacing_mm=(5, 0.7, 0.7))
    reference: Any = line if np.abs(fused - line).sum() < np.abs(fused - line[::-1]).sum() else line[::-1]
    assert np.abs(fused - reference).max() < 0.6


@given(st.lists(st.tuples(*[st.floats(0, 50)] * 5), min_size=1, max_size=8))
def test_a_fused_line_lies_among_its_lines(values: list[tuple[float, ...]]) -> None:
    lines = np.array([[[round(s), a, b], [round(s), c, d]] for s, a, b, c, d in values])
    fused = fuse_lines(lines, spacing_mm=(1, 1, 1))
    assert fused[0, 0] in lines[:, 0, 0]
    assert fused.min() >= lines.min()
    assert fused.max() <= lines.max()
    assert fuse_lines(np.stack([fused]), spacing_mm=(1, 1, 1)) == pytest.approx(fused)
