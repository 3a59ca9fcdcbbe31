"""Run large tasks, which do not fit the usual workers, on a few others that have more memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from builder.run.dask import DaskRunner, check_memory, fits
from builder.stages.graph import Outcome, Runner, Task


@dataclass(frozen=True)
class LargeLane:
    """Runs tasks on ``usual``, and afterwards those that do not fit its workers on larger workers.

    Parameters
    ----------
    memory
        Bytes that a larger worker has.
    open_large
        Starts the larger workers. Called when there is a task for them, and closed after the last one.
    """

    usual: DaskRunner
    memory: int
    open_large: Callable[[], AbstractContextManager[Runner]]

    @property
    def width(self) -> int:
        return self.usual.width

    def dismiss(self) -> None:
        """Do nothing: the usual workers end with their cluster's context, and the larger ones have ended."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Yield outcomes as they complete. Raises as ``DaskRunner.run`` does.

        Raises
        ------
        ResourceError
            Before anything starts, when a task does not fit the larger workers either (``tasks`` is a sequence).
        """
        if not isinstance(tasks, Sequence):
            yield from self.usual.run(tasks)
            return
        check_memory(tasks, self.memory)
        available = self.usual.memory()
        yield from self.usual.run([task for task in tasks if fits(task, available)])
        large = [task for task in tasks if not fits(task, available)]
        if large:
            with self.open_large() as runner:
                yield from runner.run(large)
