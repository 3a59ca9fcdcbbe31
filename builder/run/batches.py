"""Group tasks into batches, because many short tasks cost the scheduler as much as one long task each."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from builder.stages.graph import Task

LANE_WIDTH = 4
BATCH_SECONDS = 0.25
"""Target seconds of a batch: long against the scheduler's few milliseconds, short against what a death may undo."""
MOST = 256
"""Most tasks in one batch."""
HELD = 1024
"""Most tasks that may wait for their lane before the runner stops taking new ones."""
Batch = tuple[Task, ...]


def run_batch(calls: Sequence[tuple[Callable[[Any], Any], Any]]) -> tuple[list[Any], float]:
    """Run the calls in order on a worker; return their values and the seconds they took.

    It stops when calls take longer than earlier ones, so that other workers can take the rest; then values are missing.
    """
    values: list[Any] = []
    start = time.perf_counter()
    for function, argument in calls:
        values.append(function(argument))
        if time.perf_counter() - start > 2 * BATCH_SECONDS:
            break
    return values, time.perf_counter() - start


class Batches:
    """Hands out tasks in order, in batches of ``BATCH_SECONDS``, with at most ``LANE_WIDTH`` at once from one lane, or
    as many as the lane's name states (``net:tcia:host*8``).

    The first tasks go one by one, and their duration decides how many go together. Tasks of a lane always go one by
    one. So do the tasks of a batch whose worker died, to find out which of them was deadly.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._total = len(tasks) if isinstance(tasks, Sequence) else None
        self._tasks = iter(tasks)
        self._left: deque[Task] = deque()
        self._held: deque[Task] = deque()
        self._again: deque[Task] = deque()
        self._busy: Counter[str] = Counter()
        self._handed = 0
        self._mean: float | None = None

    def next(self, width: int) -> Batch:
        """Return the next batch for a cluster of ``width`` threads; empty when there is none now."""
        if self._again:
            return self._handed_out([self._again.popleft()])
        first = self._free()
        if first is None:
            return ()
        batch = [first]
        most = self._size(width)
        while not first.lane and len(batch) < most and (task := self._following()) is not None:
            if task.lane:
                self._held.append(task)
                break
            batch.append(task)
        return self._handed_out(batch)

    def ended(self, batch: Batch, done: int, seconds: float) -> None:
        """Record that ``done`` tasks of a batch finished in so many worker seconds; the others wait again."""
        self._busy[batch[0].lane] -= 1
        self._left.extend(batch[done:])
        self._handed -= len(batch) - done
        each = seconds / done
        # a slower task counts at once, a faster one gradually, so that batches do not become too long
        self._mean = each if self._mean is None else max(each, 0.75 * self._mean + 0.25 * each)

    def died(self, batch: Batch) -> list[Task]:
        """Handle a batch whose worker died repeatedly: return a single task as suspect, otherwise requeue all tasks."""
        self._busy[batch[0].lane] -= 1
        self._handed -= len(batch)
        if len(batch) == 1:
            return [batch[0]]
        self._again.extend(batch)
        return []

    def _size(self, width: int) -> int:
        """Return how many tasks go together; fewer towards the end, so that all threads finish together."""
        if self._mean is None:
            return 1
        most = min(MOST, int(BATCH_SECONDS / max(self._mean, 1e-9)))
        if self._total is not None:
            most = min(most, (self._total - self._handed) // (4 * width))
        return max(1, most)

    def _handed_out(self, batch: list[Task]) -> Batch:
        self._handed += len(batch)
        self._busy[batch[0].lane] += 1
        return tuple(batch)

    def _free(self) -> Task | None:
        """Return the next task whose lane is free."""
        for _ in range(len(self._held)):
            task = self._held.popleft()
            if self._is_free(task):
                return task
            self._held.append(task)
        while len(self._held) < HELD:
            following = self._following()
            if following is None or self._is_free(following):
                return following
            self._held.append(following)
        return None

    def _following(self) -> Task | None:
        return self._left.popleft() if self._left else next(self._tasks, None)

    def _is_free(self, task: Task) -> bool:
        return not task.lane or self._busy[task.lane] < _width(task.lane)


def _width(lane: str) -> int:
    """Return how many tasks of a lane run at once, which its name may state."""
    stated = lane.rpartition("*")[2]
    return int(stated) if stated.isdigit() and "*" in lane else LANE_WIDTH
