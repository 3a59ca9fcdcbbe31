"""Consensus: SimpleITK's STAPLE as oracle, known truths recovered, and independence of order."""

from typing import Any

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from builder.errors import CaseError, Reason
from builder.labels.agreement import dice, hausdorff_mm
from builder.labels.consensus import dawid_skene, fuse_lines, majority, staple, staple_labels
from builder.labels.fusion import Consensus, _line_agreement
from builder.labels.rows import parse_table
from builder.labels.votes import Vote, settle_votes
from builder.model.case import Mask, Segment
from builder.model.geometry import Geometry
from builder.report.reliability import bootstrap, cohen_kappa, icc_one_way, icc_two_way


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


def test_lines_are_turned_along_the_one_of_median_length() -> None:
    """In mm: 9 down; 5 to the left, which is the median; and 3 up and 1 to the right, which is turned."""
    lines = np.array([[[2.0, 0, 0], [2, 9, 0]], [[2, 0, 0], [2, 0, -5]], [[2, 0, 0], [2, -2, 1]]])
    centred = lines - lines.mean(axis=1, keepdims=True) * [0, 1, 1]
    assert fuse_lines(centred, spacing_mm=(1, 1, 1)).tolist() == [[2, -1, 0.5], [2, 1, -0.5]]


def test_lines_near_the_fused_one_and_their_lengths_are_figures() -> None:
    lines = np.array([[[s, 30.0, 40.0], [s, 50.0, 60.0]] for s in (2, 4, 6, 7)])
    figures = _line_agreement(lines, lines[1], np.array([10.0, 12.0, 12.5, 20.0]), 12.0)
    assert figures == {
        "lines": 4, "lines_within_two_slices_fraction": 0.75, "shortest_line_mm": 10, "longest_line_mm": 20,
        "median_difference_mm": 1.25,
    }  # fmt: skip


@given(st.lists(st.tuples(*[st.floats(0, 50)] * 5), min_size=1, max_size=8))
def test_a_fused_line_lies_among_its_lines(values: list[tuple[float, ...]]) -> None:
    lines = np.array([[[round(s), a, b], [round(s), c, d]] for s, a, b, c, d in values])
    fused = fuse_lines(lines, spacing_mm=(1, 1, 1))
    assert fused[0, 0] in lines[:, 0, 0]
    assert fused.min() >= lines.min()
    assert fused.max() <= lines.max()
    assert fuse_lines(np.stack([fused]), spacing_mm=(1, 1, 1)) == pytest.approx(fused)


def test_staple_of_labels_equals_simpleitk_where_that_is_sure() -> None:
    random = np.random.default_rng(4)
    truth = np.zeros((6, 20, 20), np.uint8)
    truth[:, 2:10, 2:18], truth[:, 10:18, 4:16] = 1, 2
    maps = [
        np.where(random.random(truth.shape) < p, truth, random.integers(0, 3, truth.shape)) for p in (0.9, 0.8, 0.5)
    ]
    ours, confusion = staple_labels(maps)
    assert (ours == truth).mean() > max((m == truth).mean() for m in maps)
    assert np.allclose(confusion[0].diagonal(), 0.93, atol=0.04)
    algorithm = SimpleITK.MultiLabelSTAPLEImageFilter()
    theirs = SimpleITK.GetArrayFromImage(
        algorithm.Execute([SimpleITK.GetImageFromArray(m.astype(np.uint8)) for m in maps])
    )
    assert (ours == theirs).mean() > 0.98  # it keeps the first priors, ours are estimated


def test_weights_are_repetitions() -> None:
    votes = np.array([[0, 0, 1], [1, 1, 1], [0, 1, 1], [0, 0, 0]])
    weights = np.array([3, 5, 2, 7])
    once = dawid_skene(votes, 2, weights=weights.astype(float))
    often = dawid_skene(np.repeat(votes, weights, axis=0), 2)
    assert np.allclose(np.repeat(once.probability, weights, axis=0), often.probability)
    assert np.allclose(once.confusion, often.confusion)


def _dawid_skene_of_voxels(maps: list[NDArray[Any]], rounds: int = 200) -> NDArray[np.int64]:
    """Multi-label STAPLE as its paper writes it, voxel by voxel, in float64: slow and plain."""
    votes = np.stack([m.ravel() for m in maps])
    labels = np.unique(votes)
    belief = np.stack([(votes == label).sum(axis=0) for label in labels]) + 0.01
    belief = belief / belief.sum(axis=0)
    for _ in range(rounds):
        prior = belief.mean(axis=1)
        found = np.repeat(np.log(prior)[:, None], votes.shape[1], axis=1)
        for said in votes:
            counts = np.stack([belief[:, said == label].sum(axis=1) for label in labels], axis=1) + 0.01
            confusion = counts / counts.sum(axis=1, keepdims=True)
            found += np.log(confusion)[:, np.searchsorted(labels, said)]
        after = np.exp(found - found.max(axis=0))
        after /= after.sum(axis=0)
        moved, belief = np.abs(after - belief).max(), after
        if moved < 1e-9:
            break
    return np.asarray(labels[belief.argmax(axis=0)].reshape(maps[0].shape))


def test_label_maps_beyond_2_to_the_24_voxels_are_fused_in_the_box_of_their_labels() -> None:
    """SimpleITK's multi-label filter counts in float32, which stops at 2**24; the background alone has more here."""
    random = np.random.default_rng(8)
    shape = (260, 260, 260)
    box = (slice(100, 116), slice(120, 150), slice(60, 90))
    truth = np.zeros((16, 30, 30), np.uint8)
    truth[2:14, 3:15, 3:27], truth[2:14, 15:27, 5:25] = 1, 2
    geometry = Geometry(shape, np.eye(4))
    segments = (Segment("a", 0, 1), Segment("b", 0, 2))
    members = []
    for number, rate in enumerate((0.95, 0.85, 0.6)):
        voxels = np.zeros((1, *shape), np.uint8)
        voxels[(0, *box)] = np.where(random.random(truth.shape) < rate, truth, random.integers(0, 3, truth.shape))
        members.append(Mask(f"r{number}", voxels, geometry, segments))
    assert members[0].voxels.size > 2**24
    fuse = Consensus(of=("r0", "r1", "r2"), method="staple", margin_voxels=0)
    (fused,) = fuse.fuse("truth", members, geometry)
    assert isinstance(fused, Mask)
    drawn = np.logical_or.reduce([m.voxels[0] > 0 for m in members])
    used = tuple(
        slice(int(n[0]), int(n[-1]) + 1) for n in (np.flatnonzero(drawn.any(axis=a)) for a in ((1, 2), (0, 2), (0, 1)))
    )
    reference = _dawid_skene_of_voxels([m.voxels[0][used] for m in members])
    np.testing.assert_array_equal(fused.voxels[0][used], reference)
    assert np.count_nonzero(fused.voxels) == np.count_nonzero(reference)
    assert np.mean(fused.voxels[(0, *box)] == truth) > 0.95
    assert fused.evidence.tier == "consensus"
    assert fused.measures["a/r0/sensitivity"] > fused.measures["a/r2/sensitivity"]


def test_settled_votes_do_not_depend_on_their_order_and_need_enough_readers() -> None:
    votes = [
        Vote(f"c{case}", reader, "sick", "no" if wrong else "yes")
        for case in range(12)
        for reader, wrong in (("a", False), ("b", False), ("c", case % 2 == 0))
    ]
    votes += [Vote("alone", "a", "sick", "yes"), Vote("c0", "a", "sick", "no"), Vote("c0", "a", "sick", "yes")]
    for method in ("majority", "dawid_skene"):
        found = settle_votes(votes, method=method, least=2)
        assert found == settle_votes(votes[::-1], method=method, least=2)
        assert {value.value for value in found.values()} == {"yes"}
        assert ("alone", "sick") not in found
        assert found["c0", "sick"].readers == 3


def test_masks_of_unlike_layout_and_too_few_readers_are_refused() -> None:
    geometry = Geometry((2, 4, 4), np.eye(4))
    one = Mask("a", np.ones((1, 2, 4, 4), np.uint8), geometry, (Segment("x"),))
    two = Mask("b", np.ones((2, 2, 4, 4), np.uint8), geometry, (Segment("x"), Segment("y", 1)))
    other = Mask("b", np.ones((1, 2, 4, 4), np.uint8) * 2, geometry, (Segment("x", 0, 2),))
    fuse = Consensus(of=("a", "b"), method="majority")
    for wrong in (two, other):
        with pytest.raises(CaseError) as caught:
            fuse.fuse("t", [one, wrong], geometry)
        assert caught.value.reason is Reason.LABEL_AMBIGUOUS
    assert fuse.fuse("t", [one], geometry) == ()
    (blank,) = fuse.blank("t", [one])
    assert (blank.voxels.shape, blank.segments) == ((1, 2, 4, 4), ())
    parts = Consensus(of=("b/x", "b/y"), method="majority")
    (joined,) = parts.fuse("t", [two], geometry)
    assert [s.name for s in joined.segments] == ["t"]


class TestAgreement:
    def test_icc_of_the_table_of_shrout_and_fleiss(self) -> None:
        table = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
        assert icc_two_way(table) == pytest.approx(0.29, abs=0.005)
        subjects = [str(s) for s in range(6) for _ in range(4)]
        assert icc_one_way(table.ravel().tolist(), subjects) == pytest.approx(0.17, abs=0.005)

    def test_kappa_equals_scikit_learn(self) -> None:
        random = np.random.default_rng(3)
        a = random.integers(0, 4, 200)
        b = np.where(random.random(200) < 0.6, a, random.integers(0, 4, 200))
        assert cohen_kappa(a.tolist(), b.tolist()) == pytest.approx(cohen_kappa_score(a, b))
        assert np.isnan(cohen_kappa(["x"], ["x"]))

    def test_surface_distance_equals_simpleitk(self) -> None:
        spacing = (3.0, 0.7, 0.8)
        block = np.zeros((10, 10, 16), bool)
        block[2:6, 2:6, 2:6] = True
        other = np.roll(block, (1, 2, 7), axis=(0, 1, 2))
        other[4, 5, 14] = True
        images = [SimpleITK.GetImageFromArray(m.astype(np.uint8)) for m in (block, other)]
        for image in images:
            image.SetSpacing(spacing[::-1])
        algorithm = SimpleITK.HausdorffDistanceImageFilter()
        algorithm.Execute(*images)
        ours = hausdorff_mm(block, other, spacing, percentile=100)
        assert ours == pytest.approx(algorithm.GetHausdorffDistance(), rel=1e-5)
        assert hausdorff_mm(block, np.roll(block, 3, axis=0), spacing, percentile=100) == pytest.approx(9.0)
        assert hausdorff_mm(block, block, spacing) == 0
        assert dice(block, np.roll(block, 1, axis=2)) == 0.75

    def test_bootstrap_draws_persons_and_not_rows(self) -> None:
        random = np.random.default_rng(0)
        level = random.normal(0, 1, 40)
        persons = [f"p{k:02d}" for k in range(40) for _ in range(25)]
        values = np.repeat(level, 25) + random.normal(0, 0.01, 1000)
        found = bootstrap(persons, lambda rows: float(values[rows].mean()), seed=7)
        expected = 1.96 * level.std(ddof=1) / np.sqrt(40)
        assert found.persons == 40
        assert found.high - found.low == pytest.approx(2 * expected, rel=0.15)
        turned = bootstrap(persons[::-1], lambda rows: float(values[::-1][rows].mean()), seed=7)
        assert (turned.low, turned.high) == pytest.approx((found.low, found.high))

    def test_lengths_of_the_crowd_agree_fairly(self, corpus: Any) -> None:
        path = corpus("tables") / "tables" / "CrowdsCureCancer2017Annotations.csv"
        rows = parse_table(path.read_bytes())
        lengths = [float(str(row["length"])) for row in rows]
        series = [str(row["seriesUID"]) for row in rows]
        persons = [str(row["patientID"]) for row in rows]
        found = bootstrap(
            persons, lambda r: icc_one_way([lengths[i] for i in r], [series[i] for i in r]), seed=1, draws=50
        )
        # 2,345 lines of 181 people on 443 series: they often measured different lesions of one series
        assert found.persons == 352
        assert found.low < found.value < found.high
        assert 0.3 < found.value < 0.9
