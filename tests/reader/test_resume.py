"""One long run, interrupted at every tenth step and continued each time on other ranks and workers: no sample is lost.

``BUILDER_RESUME=all`` (``make resume``) goes through every world of 1 to 16 ranks, every number of workers from 0 to 8,
under fork and under spawn; without it a few of each. Under spawn most workers are processes that were started once and
run what DataLoader runs in a worker, since starting thousands that import PyTorch takes hours; some are DataLoader's.
"""

import itertools
import multiprocessing
import os
import pickle
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import worker as torch_worker

from builder.reader import State, open_dataset

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than processors
STEPS = 10
BATCH = 2
ALL = os.environ.get("BUILDER_RESUME") == "all"
WORLDS, WORKERS = range(1, 17), range(9)


@dataclass(frozen=True)
class Setting:
    """How a part of the run is trained."""

    world: int
    workers: int
    method: str


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, patch_maker: Any) -> Any:
    """333 samples: not a multiple of what the ranks take together."""
    return patch_maker(tmp_path_factory.mktemp("many") / "set", sizes=[47] * 7 + [4], shape=(1, 1, 2))


def settings_of_a_run(method: str) -> list[Setting]:
    """Every world with every number of workers, in an order that changes both at each interruption."""
    worlds, workers = (WORLDS, WORKERS) if ALL else ((1, 3, 7), (0, 1, 3))
    pairs = list(itertools.product(worlds, workers))
    random.Random(5).shuffle(pairs)
    return [Setting(world, count, method) for world, count in pairs]


def follow(dataset: Any, settings: Sequence[Setting], part: Any) -> int:
    """Train through ``settings``; each part must go on exactly where the one before was interrupted.

    ``part`` gives, for a rank, its next batches as (indices, state) pairs. Returns the number of samples.
    """
    state, total = State(7, 0, 0), 0
    for setting in settings:
        ranks = [part(dataset, state, rank, setting) for rank in range(setting.world)]
        assert len({len(batches) for batches in ranks}) == 1, "ranks have unequal steps"
        assert len(ranks[0]) == STEPS or ranks[0][-1][1].epoch == state.epoch + 1
        order = dataset.batches(1, order="shuffled", seed=7, epoch=state.epoch).order
        for step in zip(*ranks, strict=True):
            found = np.concatenate([indices for indices, _ in step])
            numbers = state.seen + np.arange(BATCH * setting.world)
            np.testing.assert_array_equal(found, order[numbers % len(order)])
            after = {new for _, new in step}
            assert len(after) == 1, "ranks disagree where the run stands"
            ended = numbers[-1] + 1 >= len(order)
            expected = State(7, state.epoch + 1, 0) if ended else State(7, state.epoch, int(numbers[-1]) + 1)
            state = after.pop()
            assert state == expected
            total += len(found)
    return total


def batches_of(dataset: Any, state: State, rank: int, setting: Setting) -> Any:
    return dataset.torch_batches(
        BATCH, order="shuffled", state=state, rank=rank, world=setting.world, ends="pad", threads=0
    )


def plain(batch: Any) -> tuple[Any, State]:
    return batch["index"].numpy(), State.from_dict(batch["state"])


def with_loader(dataset: Any, state: State, rank: int, setting: Setting) -> list[tuple[Any, State]]:
    """Ten steps of a rank through PyTorch's DataLoader."""
    loader = DataLoader(
        batches_of(dataset, state, rank, setting),
        batch_size=None,
        num_workers=setting.workers,
        multiprocessing_context=setting.method if setting.workers else None,
    )
    iterator = iter(loader)
    found = [plain(batch) for batch in itertools.islice(iterator, STEPS)]
    if setting.workers:
        # PyTorch 2.13: a worker that is sent away may abort while it exits (one of 70 under spawn on a busy machine)
        try:
            iterator._shutdown_workers()
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
    return found


def work(pickled: bytes, number: int, workers: int) -> list[tuple[Any, State]]:
    """What DataLoader does in worker ``number``: the dataset arrives pickled, and is iterated."""
    dataset = pickle.loads(pickled)  # noqa: S301
    torch_worker._worker_info = torch_worker.WorkerInfo(id=number, num_workers=workers, seed=0, dataset=dataset)
    try:
        return [plain(batch) for batch in itertools.islice(dataset, -(-STEPS // workers))]
    finally:
        torch_worker._worker_info = None


@pytest.fixture(scope="module")
def spawned() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool


def test_interrupted_under_fork(many: Any) -> None:
    assert follow(open_dataset(many.root), settings_of_a_run("fork"), with_loader) > 300


def test_interrupted_under_spawn(many: Any, spawned: ProcessPoolExecutor) -> None:
    def part(dataset: Any, state: State, rank: int, setting: Setting) -> list[tuple[Any, State]]:
        if setting.workers == 0:
            return with_loader(dataset, state, rank, setting)
        pickled = pickle.dumps(batches_of(dataset, state, rank, setting))
        futures = [spawned.submit(work, pickled, n, setting.workers) for n in range(setting.workers)]
        parts = [future.result() for future in futures]
        # DataLoader takes from its workers in turn, and stops when each has ended
        turns = itertools.chain.from_iterable(itertools.zip_longest(*parts))
        return [one for one in turns if one is not None][:STEPS]

    assert follow(open_dataset(many.root), settings_of_a_run("spawn"), part) > 300


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_interrupted_under_loaders_that_start_anew(many: Any, method: str) -> None:
    pairs = [(1, 1)] if not ALL else [*((1, workers) for workers in range(1, 9)), (2, 1), (16, 1)]
    settings = [*(Setting(world, workers, method) for world, workers in pairs), Setting(3, 0, method)]
    assert follow(open_dataset(many.root), settings, with_loader) > 0
