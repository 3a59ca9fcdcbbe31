"""Splitting a loop over slices or rows among threads, or into slabs that are made one after the other."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray


def run_slabs(work: Callable[[int, int], None], count: int, *, threads: int) -> None:
    """Call ``work(start, stop)`` for contiguous parts of ``range(count)``, one per thread.

    ``work`` must release the interpreter's lock and write disjoint voxels, each computed from its own inputs alone.
    The result then does not depend on ``threads``.
    """
    parts = max(1, min(threads, count))
    if parts == 1:
        work(0, count)
        return
    bounds = [count * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        for done in [pool.submit(work, start, stop) for start, stop in pairwise(bounds)]:
            done.result()


def lay_slabs(
    shape: tuple[int, int, int], dtype: np.dtype[Any], *, slices: int, rows: int
) -> Iterator[tuple[NDArray[Any], slice, slice]]:
    """Yield a buffer for each slab of a (slice, row, column) array, with its slices and rows, in C order.

    A slab has ``slices`` slices and ``rows`` rows, or fewer at the end of an axis. All slabs share one buffer.
    """
    high, deep = min(slices, shape[0]), min(rows, shape[1])
    room = np.empty((high * deep * shape[2],), dtype)
    for first in range(0, shape[0], high):
        for top in range(0, shape[1], deep):
            size = (min(high, shape[0] - first), min(deep, shape[1] - top), shape[2])
            yield room[: prod(size)].reshape(size), slice(first, first + size[0]), slice(top, top + size[1])
