"""Work on several things at once, because a server's answers take their time, and take the results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item], *, width: int) -> Iterator[Result]:
    """Yield ``function(item)`` for each item in turn, with up to ``width`` calls at once.

    At most twice as many results wait to be taken. What a call raises is raised in its turn, and ends the others.
    """
    if width < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(width, thread_name_prefix="together") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * width:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()
