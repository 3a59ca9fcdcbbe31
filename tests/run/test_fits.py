"""A task that cannot fit a worker's memory is refused before anything is submitted."""

from typing import Any

import pytest

from builder.errors import ResourceError
from builder.run.dask import DaskRunner
from builder.stages.graph import WORKER_BYTES, Task

GIB = 2**30


class Scheduler:
    """The part of a ``distributed.Client`` that is asked before a task is submitted; submitting is a failure."""

    def __init__(self, *workers: tuple[int, int]) -> None:
        self.workers = {str(n): {"memory_limit": m, "nthreads": t} for n, (m, t) in enumerate(workers)}

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": self.workers}

    def nthreads(self) -> dict[str, int]:
        return {name: worker["nthreads"] for name, worker in self.workers.items()}

    def submit(self, *arguments: Any, **options: Any) -> Any:
        raise Submitted


class Submitted(Exception):
    pass


def run(memory: int, *workers: tuple[int, int]) -> None:
    tasks = [Task("small-1", abs, 1), Task("large-1", abs, 2, memory=memory)]
    list(DaskRunner(Scheduler(*workers)).run(tasks))


def test_the_limit_is_the_smallest_share_of_a_thread_less_the_worker_itself() -> None:
    workers = ((8 * GIB, 2), (3 * GIB, 1), (0, 1))
    with pytest.raises(Submitted):
        run(3 * GIB - WORKER_BYTES, *workers)
    with pytest.raises(ResourceError, match=r"1 of 2 tasks .*large-1") as refused:
        run(3 * GIB - WORKER_BYTES + 1, *workers)
    assert (refused.value.projected, refused.value.available) == (3 * GIB + 1, 3 * GIB)


def test_workers_without_room_for_themselves_are_refused() -> None:
    runner = DaskRunner(Scheduler((60_000_000, 1)))
    with pytest.raises(ResourceError, match="found 57 MiB of memory for each worker thread, expected at least 256 MiB"):
        runner.check_room()
    DaskRunner(Scheduler((WORKER_BYTES, 1))).check_room()
    DaskRunner(Scheduler((0, 1))).check_room()


def test_workers_without_a_limit_take_everything() -> None:
    with pytest.raises(Submitted):
        run(10**15, (0, 4))
