"""Prepare the next step's input in a thread while the current one is processed."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Pending(Generic[Result]):
    """A result that a thread is computing. ``take`` waits for it, hands it over and keeps no reference to it."""

    def __init__(self, thread: ThreadPoolExecutor, step: Callable[[], Result]) -> None:
        self._box: list[Result] = []
        self._done = thread.submit(lambda: self._box.append(step()))

    def take(self) -> Result:
        """Return the result, which can be taken once. Raises what the step raised."""
        self._done.result()
        return self._box.pop()


@contextmanager
def one_ahead(
    steps: Sequence[Callable[[], Result]], *, sizes: Sequence[int], most: int
) -> Iterator[Iterator[Pending[Result]]]:
    """Yield results of ``steps`` in order, making the next while one is used, unless its size is above ``most``.

    One thread runs all steps in sequence, so steps need not be thread-safe with respect to each other.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="builder-loader") as thread:
        try:
            yield _in_order(steps, sizes, most, thread)
        finally:
            thread.shutdown(wait=True, cancel_futures=True)


def _in_order(
    steps: Sequence[Callable[[], Result]], sizes: Sequence[int], most: int, thread: ThreadPoolExecutor
) -> Iterator[Pending[Result]]:
    early: Pending[Result] | None = None
    for number, step in enumerate(steps):
        current = early or Pending(thread, step)
        after = number + 1
        early = Pending(thread, steps[after]) if after < len(steps) and sizes[after] <= most else None
        yield current
