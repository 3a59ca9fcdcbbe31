"""The next step's input is got ready by a thread while this one is worked on."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Pending(Generic[Result]):
    """What a thread is making: ``take`` waits for it and hands it over, and keeps nothing."""

    def __init__(self, thread: ThreadPoolExecutor, step: Callable[[], Result]) -> None:
        self._box: list[Result] = []
        self._done = thread.submit(lambda: self._box.append(step()))

    def take(self) -> Result:
        """The result, once. Raises what the step raised."""
        self._done.result()
        return self._box.pop()


@contextmanager
def one_ahead(
    steps: Sequence[Callable[[], Result]], *, sizes: Sequence[int], most: int
) -> Iterator[Iterator[Pending[Result]]]:
    """Results of ``steps`` in order; while one is used, the next is made, unless its size is above ``most``.

    One thread runs all steps, one after the other, so steps need not be safe beside each other.
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
