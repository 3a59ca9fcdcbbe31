"""``set_epoch`` reaches workers that live on, however a training loop goes about its epochs."""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from builder.reader import open_dataset
from builder.reader.dataset import Dataset

pytest.importorskip("torch")
from torch.utils.data import DataLoader

Epochs = Iterator[list[list[int]]]


def loader_of(batches: Any, workers: int, **options: Any) -> Any:
    """A loader whose worker processes live on; without workers, what they have to equal."""
    lasting = {"persistent_workers": True, "multiprocessing_context": multiprocessing.get_context("fork"), **options}
    return DataLoader(batches, batch_size=None, num_workers=workers, **(lasting if workers else {}))


def whole(loader: Any) -> list[list[int]]:
    return [batch["index"].tolist() for batch in loader]


def backwards(batches: Any, loader: Any) -> Epochs:
    for epoch in (7, 3, 0):
        batches.set_epoch(epoch)
        yield whole(loader)


def numbers_of_numpy(batches: Any, loader: Any) -> Epochs:
    for epoch in np.arange(3):
        batches.set_epoch(epoch)
        yield whole(loader)


def broken_off(batches: Any, loader: Any) -> Epochs:
    for epoch in range(3):
        batches.set_epoch(epoch)
        yield [next(iter(loader))["index"].tolist()]
    yield whole(loader)


def set_in_the_middle(batches: Any, loader: Any) -> Epochs:
    """The epoch under way stays as it was; the next one is the one that was set."""
    for epoch in (1, 2):
        found = []
        for batch in loader:
            batches.set_epoch(epoch)
            found.append(batch["index"].tolist())
        yield found
    yield whole(loader)


def set_twice(batches: Any, loader: Any) -> Epochs:
    for epoch in range(2):
        batches.set_epoch(9)
        batches.set_epoch(epoch)
        yield whole(loader)


def never_set(batches: Any, loader: Any) -> Epochs:
    yield whole(loader)
    yield whole(loader)


def after_a_state(batches: Any, loader: Any) -> Epochs:
    """A state goes on within its epoch; the epoch after it is whole."""
    batches.set_epoch(4)
    state = [batch["state"] for batch in loader][1]
    batches.load_state_dict(state)
    yield whole(loader)
    batches.set_epoch(5)
    yield whole(loader)


LOOPS: dict[str, Callable[[Any, Any], Epochs]] = {
    loop.__name__: loop
    for loop in (backwards, numbers_of_numpy, broken_off, set_in_the_middle, set_twice, never_set, after_a_state)
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_any_loop_sees_the_epochs_that_it_sets(loop: Callable[[Any, Any], Epochs], patches: Any) -> None:
    def run(workers: int) -> list[list[list[int]]]:
        batches = open_dataset(patches.root, uses="off").torch_batches(3, order="shuffled", seed=2)
        return list(loop(batches, loader_of(batches, workers)))

    expected = run(0)
    assert run(2) == expected
    assert sorted(index for batch in expected[-1] for index in batch) == list(range(17))
    if loop is not never_set:
        assert expected[-1] != expected[-2]


OPTIONS: dict[str, Mapping[str, Any]] = {
    "one of two ranks": {"rank": 1, "world": 2, "ends": "pad"},
    "classes in balance": {"weights": "sex"},
    "windows cut at random": {"crop": (1, 2, 2)},
    "threads in the workers": {"threads": 2, "prefetch": 4},
}


@pytest.mark.parametrize("more", OPTIONS.values(), ids=OPTIONS)
def test_any_options_see_the_epochs(more: Mapping[str, Any], patches: Any) -> None:
    dataset = open_dataset(patches.root, uses="off")
    options: dict[str, Any] = {"order": "shuffled", "seed": 2, **more}
    batches = dataset.torch_batches(3, **options)
    loader = loader_of(batches, 1)
    images = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        plain = list(dataset.batches(3, **{**options, "epoch": epoch}))
        found = list(loader)
        assert [b["index"].tolist() for b in found] == [b.indices.tolist() for b in plain]
        images.append(np.concatenate([b["image"].numpy() for b in found]))
        assert np.array_equal(images[-1], np.concatenate([b["image"] for b in plain]))
    assert not np.array_equal(images[0], images[1])


def test_a_subset_and_two_loaders_of_one_order(patches: Any) -> None:
    chosen: Dataset = open_dataset(patches.root, uses="off").where("sex == 'F'")
    batches = chosen.torch_batches(2, order="shuffled", seed=5)
    one, other = loader_of(batches, 1, prefetch_factor=8), loader_of(batches, 2)
    seen = []
    for epoch in (1, 0, 2):
        batches.set_epoch(epoch)
        seen.append([b.indices.tolist() for b in chosen.batches(2, order="shuffled", seed=5, epoch=epoch)])
        assert whole(one) == whole(other) == seen[-1]
    assert seen[0] != seen[1] != seen[2]
