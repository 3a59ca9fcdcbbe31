"""Orders are pure, complete and dealt fairly; a run resumed on any number of ranks goes on with the next sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.reader.order import ORDERS, SHARDS_MIXED, Deal, Ends, Population, State, class_weights, shuffle_quality

shard_lists = st.lists(st.integers(0, 40), max_size=200).map(sorted)
SHUFFLED = [4, 9, 0, 8, 2, 6, 1, 3, 5, 7]
SHARD_SHUFFLED = [0, 1, 7, 4, 9, 8, 2, 3, 6, 5]
BALANCED = [0, 5, 5, 1, 3, 5, 5, 4, 5, 2]
THREE_GROUPS = [
    1, 7, 8, 16, 31, 33, 13, 26, 22, 35, 27, 3, 6, 14, 32, 10, 25, 20, 24, 23, 29, 12, 28, 17, 11, 2, 21, 18, 19, 15,
    30, 5, 0, 4, 9, 34,
]  # fmt: skip
seeds = st.integers(0, 2**63 - 1)


def make_population(shards: list[int], weights: list[float] | None = None) -> Population:
    return Population(np.array(shards, np.int32), None if weights is None else np.array(weights))


@pytest.mark.parametrize("name", sorted(ORDERS))
@settings(max_examples=40, deadline=None)
@given(shards=shard_lists, seed=seeds, epoch=st.integers(0, 1000))
def test_every_sample_once(name: str, shards: list[int], seed: int, epoch: int) -> None:
    found = ORDERS[name](make_population(shards), seed, epoch)
    assert sorted(found.tolist()) == list(range(len(shards)))
    np.testing.assert_array_equal(found, ORDERS[name](make_population(shards), seed, epoch))


def test_orders_stay_what_they_are() -> None:
    """A checkpoint of an older release must go on with the same samples."""
    shards = [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    found = {name: ORDERS[name](make_population(shards), 7, 3).tolist() for name in ORDERS}
    assert found["sequential"] == list(range(10))
    assert found["shuffled"] == SHUFFLED
    assert found["shard_shuffled"] == SHARD_SHUFFLED
    weights = [1.0, 1, 1, 1, 1, 5, 0, 0, 0, 0]
    assert ORDERS["balanced"](make_population(shards, weights), 7, 3).tolist() == BALANCED
    assert ORDERS["shard_shuffled"](make_population(list(range(36))), 7, 3).tolist() == THREE_GROUPS


def test_seeds_and_epochs_give_other_orders() -> None:
    population = make_population(list(range(100)))
    for name in ("shuffled", "shard_shuffled", "balanced"):
        orders = {tuple(ORDERS[name](population, seed, epoch)) for seed in range(5) for epoch in range(5)}
        assert len(orders) == 25


def test_shuffled_is_uniform() -> None:
    """Where sample 0 comes, over many epochs: chi squared of 20 cells, 19 degrees of freedom, 1 in 10,000."""
    counts = np.zeros(20)
    for epoch in range(4000):
        order = ORDERS["shuffled"](make_population([0] * 20), 1, epoch)
        counts[int(np.flatnonzero(order == 0)[0])] += 1
    assert ((counts - 200) ** 2 / 200).sum() < 52


def test_shard_shuffled_touches_few_shards_at_a_time() -> None:
    shards = np.repeat(np.arange(100), 50)
    order = ORDERS["shard_shuffled"](make_population(shards.tolist()), 1, 0)
    groups = [set(shards[order][at : at + SHARDS_MIXED * 50]) for at in range(0, 5000, SHARDS_MIXED * 50)]
    assert [len(group) for group in groups] == [16] * 6 + [4]
    quality = shuffle_quality(make_population(shards.tolist()), 1, 0)
    assert quality == pytest.approx((6 * (16 / 100) ** 2) + (4 / 100) ** 2)
    assert shuffle_quality(make_population([0, 0, 1]), 1, 0) == 1.0


def test_balanced_follows_the_weights() -> None:
    classes = np.array(["a"] * 900 + ["b"] * 90 + ["c"] * 10)
    weights = class_weights(classes.tolist())
    total = np.zeros(1000)
    for epoch in range(10):
        order = ORDERS["balanced"](Population(np.zeros(1000, np.int32), weights), 3, epoch)
        assert len(order) == 1000
        drawn = np.bincount(order, minlength=1000)
        exact = weights / weights.sum() * 1000
        assert (np.abs(drawn - exact) < 1 + 1e-9).all()
        total += drawn
    for value in "abc":
        assert total[classes == value].sum() == pytest.approx(10_000 / 3, rel=0.01)
    assert total[classes == "a"].max() <= 10


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
def test_weights_that_mean_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        ORDERS["balanced"](make_population([0, 0], weights), 0, 0)


def consume(
    samples: int, state: State, *, world: int, batch: int, ends: Ends, most: int | None = None
) -> tuple[list[int], State]:
    """What all ranks together take, and the state after the last of their steps."""
    deals = [Deal(batch, world, rank, ends) for rank in range(world)]
    steps = {deal.steps(samples, seen=state.seen) for deal in deals}
    assert len(steps) == 1  # every rank takes as many steps as any other
    count = min(steps.pop(), most if most is not None else samples)
    taken, after = [], state
    for step in range(count):
        parts = [deal.numbers(samples, step=step, seen=state.seen) for deal in deals]
        assert ends == "keep" or {len(part) for part in parts} == {batch}
        taken += [int(n) for part in parts for n in part]
        states = {deal.after(state, samples=samples, step=step) for deal in deals}
        assert len(states) == 1
        after = states.pop()
    return taken, after


@settings(max_examples=300, deadline=None)
@given(
    samples=st.integers(1, 300),
    worlds=st.lists(st.tuples(st.integers(1, 16), st.integers(1, 9), st.integers(0, 12)), min_size=1, max_size=5),
    ends=st.sampled_from(["drop", "pad"]),
)
def test_resumed_on_any_world_the_next_sample_is_the_same(
    samples: int, worlds: list[tuple[int, int, int]], ends: Ends
) -> None:
    state, taken = State(5, 0, 0), []
    for world, batch, most in worlds:
        numbers, after = consume(samples, state, world=world, batch=batch, ends=ends, most=most)
        taken += numbers
        if after.epoch == 1:
            assert after == State(5, 1, 0)
            break
        assert after.seen == state.seen + len(numbers)
        state = after
    assert taken == list(range(len(taken)))
    if taken and ends == "drop":
        assert taken[-1] < samples


@given(samples=st.integers(1, 200), world=st.integers(1, 16), batch=st.integers(1, 9), seen=st.integers(0, 200))
def test_one_epoch_is_complete(samples: int, world: int, batch: int, seen: int) -> None:
    start = State(0, 0, min(seen, samples))
    dropped, _ = consume(samples, start, world=world, batch=batch, ends="drop")
    padded, _ = consume(samples, start, world=world, batch=batch, ends="pad")
    kept, _ = consume(samples, start, world=1, batch=batch, ends="keep")
    assert kept == list(range(start.seen, samples))
    assert padded[: len(kept)] == kept
    assert len(padded) - len(kept) < world * batch
    assert dropped == kept[: len(dropped)]
    assert len(kept) - len(dropped) < world * batch


@pytest.mark.parametrize(("samples", "dropped", "padded"), [(0, 0, 0), (5, 0, 1), (6, 1, 1), (17, 2, 3), (18, 3, 3)])
def test_only_whole_steps_are_taken_if_the_rest_is_dropped(samples: int, dropped: int, padded: int) -> None:
    assert Deal(3, 2, 1, "drop").steps(samples) == dropped
    assert Deal(3, 2, 1, "pad").steps(samples) == padded
    assert Deal(3, 2, 1, "drop").steps(samples + 6, seen=6) == dropped


def test_the_last_batch_leads_to_the_start_of_the_next_epoch() -> None:
    deal = Deal(4)
    assert deal.after(State(1, 2, 0), samples=9, step=1) == State(1, 2, 8)
    assert deal.after(State(1, 2, 0), samples=9, step=2) == State(1, 3, 0)
    assert deal.after(State(1, 2, 8), samples=9, step=0) == State(1, 3, 0)


def test_only_the_ratios_of_weights_count() -> None:
    shards = [0, 0, 1, 1]
    drawn = [ORDERS["balanced"](make_population(shards, [w / size for w in (1, 0, 2, 1)]), 3, 1) for size in (1, 8)]
    assert drawn[0].tolist() == drawn[1].tolist()
    assert sorted(drawn[0].tolist()) == [0, 2, 2, 3]


def test_nothing_is_drawn_of_no_samples() -> None:
    assert ORDERS["balanced"](make_population([], []), 1, 0).tolist() == []
    assert shuffle_quality(make_population([]), 1, 0) == 1.0


def test_states_survive_a_checkpoint() -> None:
    state = State(1, 2, 3)
    assert State.from_dict(state.to_dict()) == state
    for wrong in ({}, {"seed": 1, "epoch": 2}, {"seed": 1, "epoch": 2, "seen": -3}):
        with pytest.raises(ValueError, match="state"):
            State.from_dict(wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Deal(0),
        lambda: Deal(1, 2, 2, "pad"),
        lambda: Deal(1, 2, 0),
        lambda: Deal(1, 1, 0, "wrap"),  # type: ignore[arg-type]
    ],
)
def test_deals_that_cannot_be(make: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_value_is_no_class(missing: float | None) -> None:
    values = [*[1.0] * 6, *[2.0] * 3, missing, missing]
    weights = class_weights(values)
    assert weights.tolist() == [*[1 / 6] * 6, *[1 / 3] * 3, 0, 0]
    for epoch in range(50):
        drawn = ORDERS["balanced"](Population(np.zeros(11, np.int32), weights), 1, epoch)
        assert len(drawn) == 11
        assert drawn.max() < 9, "a sample without a value was drawn"
    with pytest.raises(ValueError, match="no value in any of 2 samples"):
        class_weights([missing, missing])
    assert class_weights([]).tolist() == []


def test_a_state_belongs_to_its_selection() -> None:
    state = State(1, 2, 3, selection=77)
    assert State.from_dict(state.to_dict()).selection == 77
    assert state.of(77, 3).selection == 77
    assert State(1, 2, 3).of(5, 3).selection == 5, "an older checkpoint does not say"
    for wrong, selection, samples in ((state, 78, 9), (state, 77, 2), (State(1, 2, 3), 5, 2)):
        with pytest.raises(ValueError, match="another selection"):
            wrong.of(selection, samples)
    deal = Deal(2)
    assert deal.after(state, samples=9, step=0).selection == 77
    assert deal.after(state, samples=4, step=0).selection == 77
