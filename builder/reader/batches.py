"""Batches for training: decoded by threads into buffers that are used again, in a resumable order."""

import contextlib
import itertools
import math
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.reader.order import Deal, Positions, State

Allocate: TypeAlias = Callable[[int], NDArray[np.uint8]]
"""Makes a buffer of that many bytes, e.g. in pinned memory."""
MOST_FREE_BUFFERS = 16


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples decoded together.

    Parameters
    ----------
    indices
        (sample,) positions in the dataset's index.
    arrays
        Field name to (sample, channel, slice, row, column) array.
    state
        Where the run stands once this batch is done; None outside an order.
    starts
        (sample, 3) first voxel (slice, row, column) of each crop in its sample; None when samples are whole.
    """

    indices: Positions
    arrays: dict[str, NDArray[Any]]
    _table: pa.Table = field(repr=False)
    state: State | None = None
    starts: NDArray[np.int64] | None = None

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def table(self) -> pa.Table:
        """The samples' rows, in their order."""
        return self._table.take(pa.array(self.indices))


@dataclass(frozen=True)
class Work:
    """How batches are made.

    Parameters
    ----------
    threads
        Threads that read and decode; 0 decodes in the caller.
    prefetch
        Batches made ahead of the one in use.
    requests
        Objects of an object store that are asked for ahead, at the same time.
    """

    threads: int = 2
    prefetch: int = 2
    requests: int = 8

    def __post_init__(self) -> None:
        if min(self.threads, self.prefetch, self.requests) < 0:
            raise ValueError(f"found {self}, expected 0 or more of each")


@dataclass(frozen=True, eq=False)
class Batches:
    """One epoch of batches, from ``state`` to its end; every iteration starts there again.

    The buffers of a batch are used again once nothing refers to its arrays any more: keep what you need, drop the
    rest. No thread exists before the first batch is asked for, nor after the last.
    """

    deal: Deal
    work: Work
    state: State
    order: Positions
    """Positions of the whole epoch, for all ranks."""
    _make: "Maker"
    _buffers: "Buffers"
    _objects: "ObjectsOf | None" = None

    def __len__(self) -> int:
        return self.deal.steps(len(self.order), seen=self.state.seen)

    def __iter__(self) -> Iterator[Batch]:
        return self.part(0, 1)

    def part(self, worker: int, workers: int, *, done: int = 0) -> Iterator[Batch]:
        """The batches of one of several worker processes that take turns: ``worker``, ``worker + workers``, ...

        The first ``done`` of them are left out.
        """
        pool = self._buffers
        steps = range(worker + done * workers, len(self), workers)
        if self.work.threads == 0:
            for step in steps:
                yield self._start(step, pool, None).result()
            return
        with contextlib.ExitStack() as stack:
            executor = stack.enter_context(_threads(self.work.threads, "builder-reader"))
            ahead = self._look_ahead(steps, stack)
            pending: deque[_Pending] = deque()
            for step in steps:
                ahead(step)
                pending.append(self._start(step, pool, executor))
                if len(pending) > self.work.prefetch:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def _look_ahead(self, steps: range, stack: contextlib.ExitStack) -> Callable[[int], None]:
        """A function that, told of each step, has the objects of later steps fetched: never more than ``requests``."""
        objects = self._objects
        if objects is None or self.work.requests == 0:
            return lambda step: None
        fetcher = stack.enter_context(_threads(self.work.requests, "builder-reader-fetch"))
        coming = ((step, one) for step in steps for one in objects(self._positions(step)))
        under_way: deque[tuple[int, Future[None]]] = deque()
        seen: set[int] = set()

        def fetch(step: int) -> None:
            # what belongs to steps already begun is read there, errors included
            while under_way and (under_way[0][0] <= step or under_way[0][1].done()):
                under_way.popleft()
            while len(under_way) < self.work.requests and (following := next(coming, None)):
                if id(following[1]) not in seen:
                    seen.add(id(following[1]))
                    under_way.append((following[0], fetcher.submit(following[1].prepare)))

        return fetch

    def _positions(self, step: int) -> Positions:
        numbers = self.deal.numbers(len(self.order), step=step, seen=self.state.seen)
        return self.order[numbers % len(self.order)]

    def _start(self, step: int, pool: "Buffers", executor: ThreadPoolExecutor | None) -> "_Pending":
        numbers = self.deal.numbers(len(self.order), step=step, seen=self.state.seen)
        positions = self.order[numbers % len(self.order)]
        state = self.deal.after(self.state, samples=len(self.order), step=step)
        job = self._make(positions, numbers, pool)
        if executor is None:
            job.fill(job.storage_order)
            return _Pending(job, state, [])
        # pieces are cut along the order of storage, so that a thread's reads are near each other
        pieces = np.array_split(job.storage_order, min(self.work.threads, len(positions)) or 1)
        return _Pending(job, state, [executor.submit(job.fill, piece) for piece in pieces])


@dataclass(frozen=True, eq=False)
class Job:
    """A batch that can be filled piece by piece.

    Parameters
    ----------
    storage_order
        Rows of the batch in the order their samples are stored.
    fill
        Decodes the given rows.
    """

    batch: Batch
    storage_order: Positions
    fill: Callable[[Positions], None]


Maker: TypeAlias = "Callable[[Positions, Positions, Buffers], Job]"
"""From positions of a dataset and their numbers in the order to a batch with buffers."""


@dataclass(frozen=True)
class _Pending:
    """A batch under way."""

    job: Job
    state: State
    futures: list[Future[None]]

    def result(self) -> Batch:
        for future in self.futures:
            future.result()
        made = self.job.batch
        return Batch(made.indices, made.arrays, made._table, self.state, made.starts)


class Preparable(Protocol):
    """A stored object whose first bytes can be fetched ahead."""

    def prepare(self) -> None:
        """Fetch what every later read needs."""
        ...


ObjectsOf: TypeAlias = Callable[[Positions], Sequence[Preparable]]
"""The stored objects that samples at some positions are read from."""


class Buffers:
    """Arrays whose memory is used again when they and all views of them are gone.

    Fresh memory costs page faults, which take longer than decompressing into memory already mapped. At most
    ``MOST_FREE_BUFFERS`` of a size are kept.
    """

    def __init__(self, allocate: Allocate | None = None) -> None:
        self._allocate = allocate or _allocate
        self._free: dict[int, list[memoryview]] = {}
        self._lent: dict[int, weakref.ref[Any]] = {}
        self._numbers = itertools.count()

    def take(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """An array of undefined content."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size == 0:
            return np.empty(shape, dtype)
        free = self._free.setdefault(size, [])
        # the array's base must not be an array: views of views would then refer to it and not to this array
        memory = free.pop() if free else self._allocate(size).data
        array = np.frombuffer(memory, dtype=dtype).reshape(shape)
        # reshape gives a view; what all further views refer to is its base
        owner: Any = array.base
        number = next(self._numbers)
        self._lent[number] = weakref.ref(owner, partial(self._give_back, number, free, memory))
        return array

    def _give_back(self, number: int, free: list[memoryview], memory: memoryview, _: Any) -> None:
        del self._lent[number]
        if len(free) < MOST_FREE_BUFFERS:
            free.append(memory)


@contextlib.contextmanager
def _threads(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    executor = ThreadPoolExecutor(count, thread_name_prefix=name)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _allocate(size: int) -> NDArray[np.uint8]:
    return np.empty(size, np.uint8)
