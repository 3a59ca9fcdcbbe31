"""The Dask runner: the same tasks, submitted to a Client with a bounded number in flight."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from distributed import Client, as_completed
from distributed.scheduler import KilledWorker

from builder.errors import ResourceError
from builder.stages.graph import Outcome, Task

LANE_WIDTH = 4
RETRIES = 3


@dataclass(frozen=True)
class DaskRunner:
    """Runs tasks on the workers of ``client``.

    Parameters
    ----------
    client
        A connected ``distributed.Client``; the caller closes it.
    window
        Tasks in flight per worker thread: enough to hide the scheduler's round trip, few enough to bound its memory.
    """

    client: Client
    window: int = 2

    @property
    def width(self) -> int:
        """Worker threads of the cluster, at least 1."""
        threads: int = sum(self.client.nthreads().values())
        return max(1, threads)

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Outcomes as they complete.

        Raises
        ------
        ResourceError
            When a task's worker died again and again (killed for memory, or by the case's own decoder).
        """
        waiting = _Lanes(tasks)
        flight: dict[Any, Task] = {}
        arrivals = as_completed([], loop=self.client.loop)
        while True:
            limit = self.window * self.width
            while len(flight) < limit and (task := waiting.next(flight.values())) is not None:
                future = self.client.submit(task.function, task.argument, key=task.key, pure=False, retries=RETRIES)
                flight[future.key] = task
                arrivals.add(future)
            if not flight:
                return
            future = next(arrivals)
            task = flight.pop(future.key)
            yield Outcome(task, _result(future, task))
            future.release()


def _result(future: Any, task: Task) -> Any:
    try:
        return future.result()
    except KilledWorker as error:
        raise ResourceError(
            f"task {task.key}: its worker died {RETRIES + 1} times (out of memory, or a decoder crashed); "
            "give the workers more memory, or fewer threads each, and run the same command again",
            projected=task.memory,
        ) from error


class _Lanes:
    """Hands out tasks in order, but at most ``LANE_WIDTH`` at once from one lane."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = iter(tasks)
        self._held: deque[Task] = deque()

    def next(self, running: Iterable[Task]) -> Task | None:
        busy: dict[str, int] = {}
        for task in running:
            busy[task.lane] = busy.get(task.lane, 0) + 1
        for _ in range(len(self._held)):
            task = self._held.popleft()
            if _free(task, busy):
                return task
            self._held.append(task)
        for task in self._tasks:
            if _free(task, busy):
                return task
            self._held.append(task)
            if len(self._held) >= 1024:
                return None
        return None


def _free(task: Task, busy: dict[str, int]) -> bool:
    return not task.lane or busy.get(task.lane, 0) < LANE_WIDTH
