"""Batches of tasks: many short ones cost the scheduler as much as one long one."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from builder.stages.graph import Task

LANE_WIDTH = 4
BATCH_SECONDS = 0.25
"""What a batch should take: long against the scheduler's few milliseconds, short against what a death may undo."""
MOST = 256
"""Tasks in one batch."""
HELD = 1024
"""Tasks that wait for their lane before no more are looked at."""
Batch = tuple[Task, ...]


def run_batch(calls: Sequence[tuple[Callable[[Any], Any], Any]]) -> tuple[list[Any], float]:
    """On a worker: the values of the calls, one after the other, and the seconds they took.

    Calls that take longer than those before them are left to others: there are fewer values than calls then.
    """
    values: list[Any] = []
    start = time.perf_counter()
    for function, argument in calls:
        values.append(function(argument))
        if time.perf_counter() - start > 2 * BATCH_SECONDS:
            break
    return values, time.perf_counter() - start


class Batches:
    """Hands out tasks in order, in batches as long as ``BATCH_SECONDS``, at most ``LANE_WIDTH`` at once from one lane.

    The first tasks go one by one; how long they take decides how many go together. Tasks of a lane always go one by
    one, and so do those of a batch whose worker died: which of them was deadly must be told.
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
        """The next batch for a cluster of ``width`` threads; empty when there is none now."""
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
        """The first ``done`` tasks of a batch are done, in so many seconds of its worker; the others wait again."""
        self._busy[batch[0].lane] -= 1
        self._left.extend(batch[done:])
        self._handed -= len(batch) - done
        each = seconds / done
        # a slower task counts at once, a faster one little by little
        self._mean = each if self._mean is None else max(each, 0.75 * self._mean + 0.25 * each)

    def died(self, batch: Batch) -> list[Task]:
        """A batch's worker died again and again: its suspect if it was a single task, else all its tasks go again."""
        self._busy[batch[0].lane] -= 1
        self._handed -= len(batch)
        if len(batch) == 1:
            return [batch[0]]
        self._again.extend(batch)
        return []

    def _size(self, width: int) -> int:
        """How many tasks go together; towards the end fewer, so that all threads end at about the same time."""
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
        """The next task whose lane is free."""
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
        return not task.lane or self._busy[task.lane] < LANE_WIDTH
