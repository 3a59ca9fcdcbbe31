"""Batches: the right samples in the right order, whatever the threads; buffers are used again and never too early."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.reader import State, open_dataset
from builder.reader.batches import Work


def numbers(batches: Any) -> list[int]:
    """Samples by the number written into their first voxel."""
    return [int(n) for batch in batches for n in batch["image"][:, 0, 0, 0, 0]]


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 20),
    threads=st.integers(0, 4),
    prefetch=st.integers(0, 3),
    order=st.sampled_from(["sequential", "shuffled", "shard_shuffled"]),
    epoch=st.integers(0, 3),
)
def test_every_sample_once_in_order(
    patches: Any, size: int, threads: int, prefetch: int, order: str, epoch: int
) -> None:
    dataset = open_dataset(patches.root)
    batches = dataset.batches(size, order=order, seed=3, epoch=epoch, threads=threads, prefetch=prefetch)
    found = numbers(batches)
    assert found == batches.order.tolist()
    assert sorted(found) == list(range(17))
    assert len(list(batches)) == len(batches) == -(-17 // size)
    for batch in batches:
        for name in ("image", "tumor"):
            np.testing.assert_array_equal(batch[name], patches.stack(name, batch.indices))


def test_kept_batches_are_never_overwritten(patches: Any) -> None:
    dataset = open_dataset(patches.root)
    batches = list(dataset.batches(3, order="shuffled", threads=3, prefetch=4))
    views = [batch["image"][1:, :, 2:].transpose(0, 2, 1, 3, 4) for batch in dataset.batches(3, order="shuffled")]
    for batch, view in zip(batches, views, strict=True):
        expected = patches.stack("image", batch.indices)
        np.testing.assert_array_equal(batch["image"], expected)
        np.testing.assert_array_equal(view, expected[1:, :, 2:].transpose(0, 2, 1, 3, 4))


def test_dropped_batches_give_their_buffers_back(patches: Any) -> None:
    made = []

    def allocate(size: int) -> Any:
        made.append(size)
        return np.empty(size, np.uint8)

    dataset = open_dataset(patches.root, fields=["image"])
    for batch in dataset.batches(1, threads=2, prefetch=2, allocate=allocate):
        assert batch["image"].shape == (1, 1, 6, 7, 8)
        del batch
    assert len(made) <= 4  # two ahead, one in use, one starting


@settings(max_examples=40, deadline=None)
@given(
    first=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    second=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    steps=st.integers(0, 6),
    ends=st.sampled_from(["drop", "pad"]),
)
def test_a_run_goes_on_where_it_stopped(
    patches: Any, first: tuple[int, int], second: tuple[int, int], steps: int, ends: Any
) -> None:
    dataset = open_dataset(patches.root, fields=["image"])

    def run(state: State, batch: int, world: int, most: int) -> tuple[list[int], State]:
        """All ranks in lockstep."""
        ranks = [
            iter(dataset.batches(batch, order="shuffled", state=state, world=world, rank=r, ends=ends, threads=0))
            for r in range(world)
        ]
        taken = []
        for _ in range(most):
            parts = [next(rank, None) for rank in ranks]
            if parts[0] is None:
                break
            assert len({part.state for part in parts if part}) == 1
            taken += numbers(parts)
            state = State.from_dict(parts[0].state.to_dict())
        return taken, state

    order = dataset.batches(1, order="shuffled", seed=9).order.tolist()
    taken, state = run(State(9, 0, 0), *first, steps)
    if state.epoch == 0:
        more, state = run(state, *second, 100)
        taken += more
        assert state == State(9, 1, 0) or not more
    assert taken == (order * 6)[: len(taken)]


@settings(max_examples=20, deadline=None)
@given(workers=st.integers(1, 8), size=st.integers(1, 6))
def test_workers_taking_turns_give_the_same_batches(patches: Any, workers: int, size: int) -> None:
    batches = open_dataset(patches.root).batches(size, order="shuffled", threads=1)
    parts = [[b.indices.tolist() for b in batches.part(w, workers)] for w in range(workers)]
    whole = [b.indices.tolist() for b in batches]
    assert [parts[i % workers][i // workers] for i in range(len(whole))] == whole


def test_random_crops_of_volumes(volumes: Any) -> None:
    dataset = open_dataset(volumes.root)
    seen: dict[int, set[tuple[int, ...]]] = {}
    for epoch in range(20):
        found = []
        for batch in dataset.batches(2, crop=(4, 6, 5), order="shuffled", seed=1, epoch=epoch):
            for number, index in enumerate(batch.indices.tolist()):
                sample = volumes.samples[index]
                start = tuple(batch.starts[number].tolist())
                seen.setdefault(index, set()).add(start)
                found.append((index, start))
                box = (slice(None), *(slice(a, a + n) for a, n in zip(start, (4, 6, 5), strict=True)))
                inside = tuple(slice(0, n) for n in sample.arrays["image"][box].shape)
                for name, fill in (("image", 0), ("tumor", 0)):
                    np.testing.assert_array_equal(batch[name][number][inside], sample.arrays[name][box])
                    outside = np.ones(batch[name][number].shape, bool)
                    outside[inside] = False
                    assert (batch[name][number][outside] == fill).all()
        other = dataset.batches(2, crop=(4, 6, 5), order="shuffled", seed=1, epoch=epoch, world=1, threads=0)
        again = [(i, tuple(s)) for b in other for i, s in zip(b.indices.tolist(), b.starts.tolist(), strict=True)]
        assert again == found
    assert len(seen[0]) > 10
    assert all(s == 0 for start in seen[1] for s in start[:2])


def test_balanced_by_a_column(patches: Any) -> None:
    dataset = open_dataset(patches.root).where("age_years > 3")
    rows = [batch.table.column("sex").to_pylist() for batch in dataset.batches(4, order="balanced", weights="sex")]
    flat = [value for row in rows for value in row]
    assert abs(flat.count("F") - flat.count("M")) <= 1 + len(flat) % 2
    with pytest.raises(ValueError, match="no column 'sexx'"):
        dataset.batches(4, order="balanced", weights="sexx")
    with pytest.raises(ValueError, match="shape"):
        dataset.batches(4, order="balanced", weights=[1.0])
    with pytest.raises(ValueError, match="'random'"):
        dataset.batches(4, order="random")


def test_no_thread_before_the_first_nor_after_the_last(patches: Any) -> None:
    def threads() -> int:
        return sum(t.name.startswith("builder-reader") for t in threading.enumerate())

    batches = open_dataset(patches.root).batches(2, threads=3)
    assert threads() == 0
    iterator = iter(batches)
    next(iterator)
    assert threads() > 0
    iterator.close()  # type: ignore[attr-defined]
    assert threads() == 0
    list(batches)
    assert threads() == 0


def test_errors_in_threads_reach_the_caller(patches: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from builder.errors import LayoutError
    from builder.reader.shard import ChunkObject

    def fail(*_: Any, **__: Any) -> None:
        raise LayoutError("damaged")

    monkeypatch.setattr(ChunkObject, "decompress", fail)
    with pytest.raises(LayoutError, match="damaged"):
        list(open_dataset(patches.root).batches(4, threads=2))


def test_an_empty_selection_gives_no_batch(patches: Any) -> None:
    assert list(open_dataset(patches.root).where("false").batches(4, order="shuffled")) == []


def test_numbers_of_threads_requests_and_batches_ahead_may_be_0_and_no_less() -> None:
    assert Work(0, 0, 0).requests == 0
    for wrong in ((-1, 0, 0), (0, -1, 0), (0, 0, -1)):
        with pytest.raises(ValueError, match="-1"):
            Work(*wrong)


@pytest.mark.parametrize("weights", [None, [1.0] * 17])
def test_persons_are_balanced_by_a_column_only(patches: Any, weights: list[float] | None) -> None:
    with pytest.raises(ValueError, match="by_person"):
        open_dataset(patches.root).batches(4, order="balanced", weights=weights, by_person=True)
