"""The parts of controlled rounding, each by itself: a mistake in one would only make splits a little worse."""

import numpy as np
import pytest

from builder.split import rounding
from builder.split.problem import Problem
from builder.split.rounding import (
    STRATUM_WEIGHT,
    TOTAL_WEIGHT,
    _best_move,
    _best_trade,
    _bounds,
    _cost,
    _edges,
    _lanes,
    _largest_remainders,
    _path,
    _repair_strata,
    _Rules,
    _search,
    _swap,
    _within_one,
    round_shares,
)
from tests.split.test_exact import COUNTEREXAMPLE, DEFAULT, off, problem, roundings


def test_the_largest_remainders_go_up_and_equal_ones_in_order():
    remainders = np.array([[14, 3, 3], [10, 5, 5], [0, 0, 0], [18, 11, 11], [0, 0, 20]])
    assert _largest_remainders(remainders, 20).tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_a_stratum_is_between_floor_and_ceiling_of_its_cells():
    shares = np.array([[14, 3, 3], [28, 6, 6], [20, 0, 20]])
    low, high = _bounds(shares, np.array([0, 0, 1]), 2, 20)
    assert low.tolist() == [[2, 0, 0], [1, 0, 1]]
    assert high.tolist() == [[3, 1, 1], [1, 0, 1]]


def test_a_deviation_costs_its_square_and_much_more_beyond_one_person():
    scale = 20
    cost = _cost(np.arange(-100, 101), scale)
    assert cost.tolist() == cost[::-1].tolist(), "both directions"
    half = cost[100:]
    assert half[:21].tolist() == [x * x for x in range(21)], "within one person"
    assert half[21] == 21 * 21 + rounding.HINGE
    assert (np.diff(half) > 0).all()
    assert (np.diff(half, 2) > 0).all(), "two small deviations are better than one large"
    far = _cost(np.array([16 * scale, 16 * scale + 1, 16 * scale + 2, 10**9, 2**60]), scale)
    assert far[1] - far[0] == far[2] - far[1] == 2 * (1 + rounding.HINGE) * rounding.TAIL * scale
    assert (far > 0).all(), "no overflow"


@pytest.mark.parametrize(("values", "within"), [([0, 19, -19], True), ([20], False), ([-20], False), ([], True)])
def test_one_person_off_is_not_within_one_person(values: list[int], within: bool):
    assert _within_one(np.array(values, dtype=np.int64), 20) is within


def test_persons_move_where_a_cell_can_give_and_another_split_can_take():
    ups, open_ = np.array([[1, 0, 0], [0, 1, 0]]), np.array([[True, True, False], [False, True, True]])
    assert _edges(ups, open_, np.array([0, 1])).tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert _edges(ups, open_, np.array([1])).tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_the_shortest_path_is_taken():
    edges = np.array([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=bool)
    assert _path(edges, [0], {3}) == [0, 1, 3]
    assert _path(edges, [0, 2], {3}) == [2, 3]
    assert _path(edges, [3], {0}) is None
    assert _path(edges, [1], {1, 3}) == [1]


def test_repairs_alone_give_a_rounding(monkeypatch: pytest.MonkeyPatch):
    """Whatever the search returns, cells, strata and the total end at floor or ceiling."""
    cells = {**COUNTEREXAMPLE, ("c", "x"): 1, ("c", "y"): 1, ("c", "z"): 1}
    given = problem(cells, DEFAULT, strata={cell: 7 for cell in cells if cell[0] == "c"} | {("a", "y"): 7})
    everything = {found.tobytes() for found in roundings(given)}
    monkeypatch.setattr(rounding, "round_exactly", lambda _, found: found)
    for turn in range(6):
        rng = np.random.default_rng(turn)

        def anything(ups: np.ndarray, open_: np.ndarray, *rest: object, rng: np.random.Generator = rng) -> np.ndarray:
            made = np.zeros_like(ups)
            for cell in range(len(ups)):
                places = rng.permutation(np.flatnonzero(open_[cell]))[: ups[cell].sum()]
                made[cell, places] = 1
            return made

        monkeypatch.setattr(rounding, "_search", anything)
        assert round_shares(given).tobytes() in everything


def test_the_search_gets_near_without_the_exact_solution(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rounding, "round_exactly", lambda _, found: found)
    given = problem(COUNTEREXAMPLE, DEFAULT)
    best = min(off(given, found) for found in roundings(given))
    assert off(given, round_shares(given)) <= best + 4


def table(*shape: int) -> Problem:
    """Return a problem of drawn counts, for tables that are too large to try all roundings."""
    sizes = np.random.default_rng(5).integers(0, 4, size=shape)
    return problem({tuple(map(str, at)): int(sizes[at]) for at in np.ndindex(shape) if sizes[at]}, DEFAULT)


def test_the_search_leaves_minima_that_are_not_the_best(monkeypatch: pytest.MonkeyPatch):
    """A cell that moved may move again before all others have: with longer waits the worst level stays further off."""
    monkeypatch.setattr(rounding, "round_exactly", lambda _, found: found)
    given = table(4, 4, 2)
    assert off(given, round_shares(given)) <= 16


@pytest.mark.parametrize(
    ("shape", "validation"), [((3, 3), "01100001"), ((4, 5), "0100100000011"), ((3, 3, 2), "001100100000")]
)
def test_a_rounding_is_the_same_in_every_release(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], validation: str
):
    """Who grows a dataset with a newer release must find everybody where the older one would have put them."""
    monkeypatch.setattr(rounding, "round_exactly", lambda _, found: found)
    assert "".join(map(str, round_shares(table(*shape))[:, 1].tolist())) == validation


def test_the_search_goes_on_while_only_the_total_is_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rounding, "PATIENCE", 0)
    ups, anywhere = np.array([[1, 0]] * 4), np.ones((4, 2), dtype=bool)
    total = np.zeros((4, 1), dtype=np.int64)
    goals = np.array([[2, 2], [0, 0]])  # the second row is the bin for padding
    found = _search(ups, anywhere, total, goals, np.array([1, 0]), 1)
    assert found.sum(axis=0).tolist() == [2, 2]


def test_no_move_is_left_when_every_cell_is_blocked():
    rules = _Rules(np.ones((2, 2), dtype=bool), np.zeros((1, 2), dtype=np.int64), np.array([1, 0]), 1)
    state, off_by = np.array([[1, 1], [0, 0]]), np.zeros((2, 2), dtype=np.int64)
    assert _best_move(state, off_by, rules, np.array([True, True]), 0) == (-1, 0, 0, 0)


def test_two_cells_trade_splits_if_both_sums_gain_and_not_otherwise():
    state, anywhere = np.array([[1, 0], [0, 1]]), np.ones((2, 2), dtype=bool)
    apart, together = np.array([[0, 1]]), np.array([[0, 0]])
    wanted = -np.array([[0, 1, 0], [1, 0, 0]])
    assert _swap(state, anywhere, apart, wanted, np.array([1, 1, 0]), 1).tolist() == [[0, 1], [1, 0]]
    wanted = -np.array([[2, 0], [0, 0]])
    assert _swap(state, anywhere, together, wanted, np.array([1, 0]), 1).tolist() == state.tolist()


def test_levels_strata_and_the_total_are_watched_with_their_weights():
    given = problem({("a", "x"): 1, ("a", "y"): 2, ("b", "x"): 3}, DEFAULT)
    _, goals, weights = _lanes(given, np.arange(3), given.shares // given.scale)
    assert weights.tolist() == [1] * 4 + [STRATUM_WEIGHT] * 3 + [TOTAL_WEIGHT, 0]
    assert len(goals) == len(weights)


def test_a_cell_of_a_third_split_is_no_partner_of_a_trade():
    state, anywhere = np.array([[1, 0], [0, 0], [0, 1]]), np.ones((3, 2), dtype=bool)
    gain = np.full((3, 2), -1, dtype=np.int64)
    assert _best_trade(0, 1, state, anywhere, np.eye(2), gain, gain) == (0, 0, 0, 0, 0)


def test_a_stratum_of_two_cells_is_repaired():
    ups, stratum_of = np.array([[1, 0], [1, 0]]), np.zeros(2, dtype=np.int64)
    bounds = _bounds(np.ones((2, 2), dtype=np.int64), stratum_of, 1, 2)
    _repair_strata(ups, np.ones((2, 2), dtype=bool), np.zeros((2, 2), dtype=np.int64), stratum_of, bounds)
    assert ups.sum(axis=0).tolist() == [1, 1]
