"""The kernels that look for copies against plain numpy and scipy, and their invariants."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from builder.kernels.blocks import block_means
from builder.kernels.boxes import OUTSIDE, SMALLEST, best_box, nearest_box
from builder.kernels.flips import best_views, parts
from builder.kernels.levels import on_curve
from builder.kernels.structure import correlation, fine_structure, roughness, sampled

BOUNDED = settings(max_examples=20, deadline=None, derandomize=True)
WHOLE = (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
LOWS, WIDTHS = st.floats(0.0, 0.3), st.floats(0.55, 0.7)
BOXES = st.tuples(*[LOWS] * 3, *[WIDTHS] * 3).map(lambda b: (*b[:3], *(b[a] + b[a + 3] for a in range(3))))


def organs(seed: int, size: int = 32) -> np.ndarray:
    """Ranks between -0.5 and 0.5 that change over a few voxels."""
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(size,) * 3), 1.5)
    return (rough.ravel().argsort().argsort().reshape(rough.shape) / rough.size - 0.5).astype(np.float32)


def asked_of_scipy(cube: np.ndarray, box, edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Values, and fine structure of length 1, of a box."""
    places = [
        (low + (np.arange(edge) + 0.5) / edge * (high - low)) * size - 0.5
        for low, high, size in zip(box[:3], box[3:], cube.shape, strict=True)
    ]
    grid = np.meshgrid(*places, indexing="ij")
    values = ndimage.map_coordinates(cube.astype(np.float64), grid, order=1, mode="nearest")
    fine = values - ndimage.gaussian_filter(values, edge / 5, mode="nearest", truncate=2.0)
    fine -= fine.mean()
    return values, fine.ravel() / np.linalg.norm(fine)


@BOUNDED
@given(seed=st.integers(0, 99), box=BOXES, shift=st.floats(-0.05, 0.05), edge=st.sampled_from([8, 16]))
def test_fine_structure_is_what_scipy_takes_it_for(seed, box, shift, edge):
    box = tuple(b + shift for b in box)
    values, fine = asked_of_scipy(organs(seed), box, edge)
    assert np.allclose(sampled(organs(seed), box, edge), values, atol=1e-6)
    assert np.allclose(fine_structure(organs(seed), box, edge), fine, atol=1e-5)
    assert np.array_equal(roughness(sampled(organs(seed), box, edge)), fine_structure(organs(seed), box, edge))
    other = fine_structure(organs(seed + 1), WHOLE, edge)
    assert correlation(other, fine_structure(organs(seed), box, edge)) == pytest.approx(float(other @ fine), abs=1e-5)


def test_what_is_flat_has_no_structure_and_agrees_with_nothing():
    flat = np.full((32, 32, 32), 0.3, np.float32)
    assert not fine_structure(flat, WHOLE, 16).any()
    target = fine_structure(organs(0), WHOLE, 16)
    assert best_box(flat, target, WHOLE, first=0.06, least=0.005)[0] == 0.0
    assert nearest_box(flat, target, WHOLE, shifts=(0.0, 0.04))[0] == 0.0


@BOUNDED
@given(seed=st.integers(0, 99), box=BOXES, shifts=st.lists(st.floats(-0.05, 0.05), min_size=6, max_size=6))
def test_a_box_is_found_again_from_near_it(seed, box, shifts):
    cube = organs(seed)
    target = fine_structure(cube, box, 16)
    start = tuple(b + s for b, s in zip(box, shifts, strict=True))
    score, found = best_box(cube, target, start, first=0.03, least=0.005)
    assert score >= correlation(fine_structure(cube, start, 16), target) - 1e-5
    assert score == pytest.approx(float(asked_of_scipy(cube, found, 16)[1] @ target), abs=1e-5)
    assert score > 0.97
    assert np.abs(np.subtract(found, box)).max() < 0.03


@BOUNDED
@given(seed=st.integers(0, 99), box=BOXES, edge=st.sampled_from([8, 16]))
def test_the_nearest_box_is_the_best_of_all_pairs_of_shifts_axis_by_axis(seed, box, edge):
    cube, shifts = organs(seed), (0.0, 0.04, -0.04, 0.08, -0.08)
    target = fine_structure(organs(seed + 1), WHOLE, edge)
    expected = list(box)
    for axis in range(3):
        trials = []
        for low, high in itertools.product(shifts, repeat=2):
            trial = list(expected)
            trial[axis] += low
            trial[axis + 3] += high
            inside = trial[axis] >= -OUTSIDE and trial[axis + 3] <= 1 + OUTSIDE
            if inside and trial[axis + 3] - trial[axis] >= SMALLEST:
                trials.append((float(asked_of_scipy(cube, trial, edge)[1] @ target), trial))
        expected = max(trials, key=lambda t: t[0])[1]
    score, found = nearest_box(cube, target, box, shifts=shifts)
    assert score == pytest.approx(float(asked_of_scipy(cube, expected, edge)[1] @ target), abs=1e-5)
    assert np.allclose(found, expected)


@BOUNDED
@given(seed=st.integers(0, 99))
def test_boxes_neither_shrink_nor_leave_without_bound(seed):
    target = fine_structure(organs(seed + 1), WHOLE, 8)
    start = (0.3, 0.0, 0.5, 0.8, 0.5, 1.0)
    score, box = best_box(organs(seed), target, start, first=0.2, least=0.005)
    assert score > correlation(fine_structure(organs(seed), start, 8), target)
    assert min(box[:3]) >= -OUTSIDE
    assert max(box[3:]) <= 1 + OUTSIDE
    assert np.subtract(box[3:], box[:3]).min() >= SMALLEST


@BOUNDED
@given(
    seed=st.integers(0, 999),
    number=st.integers(2, 300),
    digits=st.integers(0, 4),
    scale=st.sampled_from([1e-3, 1, 1e4]),
)
def test_curves_are_those_of_numpy(seed, number, digits, scale):
    rng = np.random.default_rng(seed)
    at = np.sort(np.round(rng.normal(size=number), digits)) * scale  # few digits: many points in one place
    levels = rng.normal(size=number)
    values = np.concatenate([rng.normal(size=500) * 2 * scale, at]).astype(np.float32).reshape(-1, 1)
    # where two points of a curve lie in one place a rounded value may fall to either side
    at = at.astype(np.float32).astype(np.float64)
    assert np.allclose(on_curve(values, at, levels), np.interp(values, at, levels), atol=1e-5)
    assert on_curve(values, at, levels).shape == values.shape


@BOUNDED
@given(seed=st.integers(0, 999), views=st.integers(1, 5), volumes=st.integers(0, 4), edge=st.sampled_from([2, 4, 8]))
def test_eight_flips_are_those_of_numpy(seed, views, volumes, edge):
    rng = np.random.default_rng(seed)
    first = rng.integers(-50, 50, (views, edge, edge, edge)).astype(np.float32)
    second = rng.integers(-50, 50, (volumes, edge, edge, edge)).astype(np.float32)
    score, view = best_views(parts(first) @ parts(second).transpose(0, 2, 1))
    assert score.shape == view.shape == (volumes, 8)
    for volume, flip in itertools.product(range(volumes), range(8)):
        axes = tuple(axis for axis, bit in enumerate((4, 2, 1)) if flip & bit)
        products = [8 * abs(float((v * np.flip(second[volume], axes)).sum())) for v in first]
        assert score[volume, flip] == max(products), "whole numbers: to the bit"
        assert view[volume, flip] == products.index(max(products))


@BOUNDED
@given(shape=st.tuples(*[st.integers(1, 9)] * 3), edges=st.tuples(*[st.integers(1, 6)] * 3), seed=st.integers(0, 99))
def test_block_means_are_means_of_repeated_voxels(shape, edges, seed):
    volume = np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)
    repeated = volume.astype(np.float64)
    for axis, edge in enumerate(edges):
        repeated = np.repeat(repeated, edge, axis)
    blocks = repeated.reshape(edges[0], shape[0], edges[1], shape[1], edges[2], shape[2])
    assert np.allclose(block_means(volume, edges), blocks.mean(axis=(1, 3, 5)))
