"""Splitting a loop over slices or rows among threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise


def run_slabs(work: Callable[[int, int], None], count: int, *, threads: int) -> None:
    """Call ``work(start, stop)`` over contiguous parts of ``range(count)``, one a thread.

    ``work`` releases the interpreter's lock and writes disjoint voxels, each from its own inputs alone, so the result
    does not depend on ``threads``.
    """
    parts = max(1, min(threads, count))
    if parts == 1:
        work(0, count)
        return
    bounds = [count * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        for done in [pool.submit(work, start, stop) for start, stop in pairwise(bounds)]:
            done.result()
