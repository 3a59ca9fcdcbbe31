"""Run tasks on a Dask cluster: submit a bounded number at a time through a Client, and survive deaths of workers."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from builder.errors import ResourceError, SourceError
from builder.run.batches import Batch, Batches, run_batch
from builder.stages.graph import WORKER_BYTES, Outcome, Task

RETRIES = 3
ISOLATIONS = 3
LOOK_SECONDS = 5.0
ALONE_SECONDS = 120.0
ALLOWED_FAILURES = 1
"""Deaths of workers near a task before it becomes a suspect. One is enough, because suspects are then run alone."""


@dataclass(frozen=True)
class DaskRunner:
    """Runs tasks on the workers of ``client``, with short tasks in batches.

    A task that raises is retried ``RETRIES`` times. A task whose worker died too often is retried alone, with nothing
    else in flight, because a deadly task also kills its neighbours. If it is deadly alone, its ``isolate`` finds the
    cases at fault, and it is run a last time without them.

    Parameters
    ----------
    client
        A connected ``distributed.Client``; the caller closes it.
    window
        Batches in flight per worker thread: enough to hide the scheduler's round trip, few enough to limit its memory.
    """

    client: Client
    window: int = 2
    _limits: list[int] = field(default_factory=list, repr=False, compare=False)

    @property
    def width(self) -> int:
        """Return the cluster's worker threads, at least 1. Raises SourceError when the scheduler is gone."""
        try:
            threads: int = sum(self.client.nthreads().values())
        except OSError as error:
            raise scheduler_gone() from error
        return max(1, threads)

    def dismiss(self) -> None:
        """Do nothing: the workers end with the cluster's context."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Yield outcomes as they complete.

        Raises
        ------
        ResourceError
            Before anything starts, when a task's projected memory exceeds what a worker has (``tasks`` is a sequence).
            Later, when a task's worker dies repeatedly and no case can be blamed.
        SourceError
            When the scheduler is gone.
        """
        available = self.memory()
        if isinstance(tasks, Sequence):
            check_memory(tasks, available)
        try:
            yield from self._run(tasks)
        except (CancelledError, CommClosedError) as error:
            raise scheduler_gone() from error

    def _run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        waiting = Batches(tasks)
        flight: dict[Any, Batch] = {}
        suspects: list[Task] = []
        arrivals: SimpleQueue[Any] = SimpleQueue()
        width, asked = self.width, time.monotonic()
        while True:
            if time.monotonic() - asked > LOOK_SECONDS:  # asking costs a round trip, and workers come and go slowly
                width, asked = self.width, time.monotonic()
            limit = 0 if suspects else self.window * width
            while len(flight) < limit and (batch := waiting.next(width)):
                future = self._submit(run_batch, [(t.function, t.argument) for t in batch], key=_key(batch))
                flight[future.key] = batch
                future.add_done_callback(arrivals.put)
            if not flight and not suspects:
                return
            if not flight:
                suspect = suspects.pop(0)
                yield Outcome(suspect, self._run_alone(suspect))
                continue
            future = self._next(arrivals)
            batch = flight.pop(future.key)
            try:
                values, seconds = future.result()
            except KilledWorker:
                suspects += waiting.died(batch)
                continue
            waiting.ended(batch, len(values), seconds)
            yield from map(Outcome, batch, values)  # there may be fewer values than tasks
            future.release()

    def _next(self, arrivals: "SimpleQueue[Any]") -> Any:
        """Return the next finished future. Raises SourceError when no worker is left to finish one."""
        alone_since: float | None = None
        while True:
            try:
                return arrivals.get(timeout=LOOK_SECONDS)
            except Empty:
                now = time.monotonic()
                alone_since = None if self._has_workers() else (alone_since or now)
                if alone_since is not None and now - alone_since > ALONE_SECONDS:
                    raise SourceError(
                        f"the cluster has had no worker for {ALONE_SECONDS:.0f} s, expected at least one; "
                        "look into the workers' logs, then run the same command again",
                        host="scheduler",
                    ) from None

    def _has_workers(self) -> bool:
        try:
            return bool(self.client.nthreads())
        except (OSError, TimeoutError):
            return False

    def _submit(self, function: Any, *arguments: Any, key: str) -> Any:
        return self.client.submit(function, *arguments, key=key, pure=False, retries=RETRIES)

    def _run_alone(self, task: Task) -> Any:
        """Run a suspect with nothing beside it. If it is deadly, isolate its cases and run it a last time."""
        try:
            return self._submit(task.function, task.argument, key=f"{task.key}-alone").result()
        except KilledWorker as error:
            if task.isolate is None:
                raise self._deadly(task) from error
        for attempt in range(ISOLATIONS):
            try:
                key = f"isolate-{attempt}-{task.key}"
                self._submit(task.isolate, task.argument, self.memory(), key=key).result()
                break
            except KilledWorker as error:
                if attempt + 1 == ISOLATIONS:
                    raise self._deadly(task) from error
        try:
            return self._submit(task.function, task.argument, key=f"{task.key}-isolated").result()
        except KilledWorker as error:
            raise self._deadly(task) from error

    def _deadly(self, task: Task) -> ResourceError:
        return ResourceError(
            f"task {task.key}: its worker died again and again, alone too, and no single case is at fault; "
            "give the workers more memory, or fewer threads each, and run the same command again",
            projected=task.memory,
            available=self.memory(),
        )

    def check_room(self) -> None:
        """Refuse workers without memory for themselves, which would die and be replaced for ever.

        Raises
        ------
        ResourceError
            When a worker thread has less than ``WORKER_BYTES``.
        """
        available = self.memory()
        if available and available < WORKER_BYTES:
            raise ResourceError(
                f"cluster: found {available >> 20} MiB of memory for each worker thread, expected at least "
                f"{WORKER_BYTES >> 20} MiB for the worker itself, and what its tasks need; give the workers more "
                "memory, or fewer threads each, and run the same command again",
                projected=WORKER_BYTES,
                available=available,
            )

    def memory(self) -> int:
        """Return the bytes per thread of the smallest worker; 0 when workers have no limit.

        While dead workers are being replaced there may be none; then it returns the last known value. Raises
        SourceError when the scheduler is gone.
        """
        try:
            known = self.client.scheduler_info(n_workers=-1)
        except OSError as error:
            raise scheduler_gone() from error
        if "workers" not in known:  # what a client reports after losing its scheduler
            raise scheduler_gone()
        workers = known["workers"].values()
        limits = [int(w["memory_limit"]) // max(1, w["nthreads"]) for w in workers if w["memory_limit"]]
        if limits:
            self._limits[:] = [min(limits)]
        return self._limits[0] if self._limits else 0


def scheduler_gone() -> SourceError:
    """Return the error to raise when the scheduler no longer answers."""
    return SourceError(
        "the cluster's scheduler is gone, and the tasks it held with it; "
        "what is finished is kept: run the same command again",
        host="scheduler",
    )


def fits(task: Task, available: int) -> bool:
    """Return whether a task's projected memory fits into a worker's memory per thread; 0 stands for no limit."""
    return not available or task.memory + WORKER_BYTES <= available


def check_memory(tasks: Sequence[Task], available: int) -> None:
    """Refuse tasks that cannot fit, before anything is submitted. Raises ResourceError."""
    too_large = [task for task in tasks if not fits(task, available)]
    if not too_large:
        return
    largest = max(too_large, key=lambda task: task.memory)
    raise ResourceError(
        f"memory: found {len(too_large)} of {len(tasks)} tasks that need more than a worker thread has: "
        f"{largest.memory} bytes projected for {largest.key} and {WORKER_BYTES} for the worker itself, "
        f"expected at most {available}; give the workers more memory, fewer threads each, or the profile a block "
        "'large' with workers for such tasks",
        projected=largest.memory + WORKER_BYTES,
        available=available,
    )


def _key(batch: Batch) -> str:
    """Return the key that dashboards show. Dask takes the word before the first number as the stage."""
    return batch[0].key if len(batch) == 1 else f"{batch[0].key}-{len(batch)}"
