"""Use a cluster that starts while this process is already working, and ends while it finishes."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType

from builder.errors import SourceError
from builder.stages.graph import Outcome, Runner, Task


class Arriving:
    """Runs small tasks here until the cluster's workers have started. Use it as a context manager.

    Reading the headers of a small archive takes no longer than starting a worker, so it does not wait for one. Tasks
    that state a projected memory or may kill their process always go to the workers, as do tasks whose source did not
    answer.

    Parameters
    ----------
    cluster
        What ``Cluster.open`` returns. It is entered and left in its own thread.
    """

    def __init__(self, cluster: AbstractContextManager[Runner]) -> None:
        self._cluster = cluster
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cluster")
        self._opened: Future[Runner]
        self._closed: Future[bool | None] | None = None

    def __enter__(self) -> "Arriving":
        self._opened = self._thread.submit(self._cluster.__enter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dismiss()
        assert self._closed is not None
        self._thread.shutdown()
        if error is None:
            self._closed.result()

    @property
    def width(self) -> int:
        return self._opened.result().width

    def dismiss(self) -> None:
        """Let the workers end. Leaving the context waits until they have ended."""
        if self._closed is None:
            self._closed = self._thread.submit(self._close)

    def _close(self) -> bool | None:
        opened = self._opened.exception() is None
        return self._cluster.__exit__(None, None, None) if opened else None

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Yield outcomes as they complete.

        Raises what starting the cluster raised, and then what its runner raises.
        """
        if isinstance(tasks, Sequence) and not any(task.memory or task.deadly for task in tasks):
            tasks = yield from self._run_here(tasks)
            if not tasks and not self._failed():
                return
        yield from self._opened.result().run(tasks)

    def _run_here(self, tasks: Sequence[Task]) -> Generator[Outcome, None, list[Task]]:
        """Run tasks until the workers are ready; return the remaining tasks."""
        waiting = deque(tasks)
        refused: list[Task] = []
        while waiting and not self._opened.done():
            task = waiting.popleft()
            try:
                value = task.function(task.argument)
            except SourceError:
                refused.append(task)
            else:
                yield Outcome(task, value)
        return [*refused, *waiting]

    def _failed(self) -> bool:
        return self._opened.done() and self._opened.exception() is not None
