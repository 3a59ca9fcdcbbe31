"""Batches for training: threads decode them into reusable buffers, in a resumable order."""

import contextlib
import itertools
import math
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.errors import counted
from builder.reader.order import Deal, Positions, State
from builder.reader.targets import PaddedBoxes, padded_boxes, targets_of

Allocate: TypeAlias = Callable[[int], NDArray[np.uint8]]
"""Makes a buffer of a given number of bytes, e.g. in pinned memory."""
MOST_FREE_BUFFERS = 16


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """Samples that were decoded together.

    Parameters
    ----------
    indices
        (sample,) positions in the dataset's index.
    arrays
        Field name to (sample, channel, slice, row, column) array.
    state
        State of the run after this batch; None outside an order.
    starts
        (sample, 3) first voxel (slice, row, column) of each crop in its sample; None for whole samples.
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

    def __repr__(self) -> str:
        return f"<batch of {counted(len(self), 'sample')}: {shown(self.arrays)}>"

    @property
    def table(self) -> pa.Table:
        """The rows of the samples, in the order of the samples."""
        return self._table.take(pa.array(self.indices))

    def targets(self, columns: str | Sequence[str]) -> NDArray[Any]:
        """Return class labels as numbers, as ``Dataset.targets`` does."""
        return targets_of(self.table, columns)

    def boxes(self, label: str, *, names: Sequence[str], most: int | None = None) -> PaddedBoxes:
        """Return the boxes of a label, padded to one number a sample; of crops, the parts that lie in them.

        ``names`` are the classes in the order of their numbers. Raises SpecError if a sample has more than ``most``.
        """
        shape = next(iter(self.arrays.values())).shape[2:] if self.starts is not None else None
        return padded_boxes(self.table, label, names=names, starts=self.starts, shape=shape, most=most)


@dataclass(frozen=True)
class Work:
    """How batches are made.

    Parameters
    ----------
    threads
        Number of threads that read and decode; with 0 the caller decodes.
    prefetch
        Number of batches made ahead of the one in use.
    requests
        Number of objects of an object store that are fetched ahead at the same time.
    """

    threads: int = 2
    prefetch: int = 2
    requests: int = 8

    def __post_init__(self) -> None:
        if min(self.threads, self.prefetch, self.requests) < 0:
            raise ValueError(f"found {self}, expected 0 or more of each")


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of one epoch from ``state`` to its end. Every iteration starts at ``state`` again.

    The buffers of a batch are reused as soon as nothing refers to its arrays, so keep only the arrays you need.
    Threads exist only from the first batch to the last.
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
        """Yield the batches of one of several worker processes: ``worker``, ``worker + workers``, ...

        The first ``done`` of them are skipped.
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
        """Return a function to call before each step, which starts fetching the objects of later steps.

        At most ``requests`` objects are being fetched at any time.
        """
        objects = self._objects
        if objects is None or self.work.requests == 0:
            return lambda step: None
        fetcher = stack.enter_context(_threads(self.work.requests, "builder-reader-fetch"))
        coming = ((step, one) for step in steps for one in objects(self._positions(step)))
        under_way: deque[tuple[int, Future[None]]] = deque()
        seen: set[int] = set()

        def fetch(step: int) -> None:
            # Objects of steps that have begun are no longer waited for: the step itself reads them and raises errors
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
        # The pieces follow the storage order, so that the reads of one thread lie close together
        pieces = np.array_split(job.storage_order, min(self.work.threads, len(positions)) or 1)
        return _Pending(job, state, [executor.submit(job.fill, piece) for piece in pieces])


@dataclass(frozen=True, eq=False)
class Job:
    """A batch that can be filled piece by piece.

    Parameters
    ----------
    storage_order
        Rows of the batch in the order in which their samples are stored.
    fill
        Function that decodes the given rows.
    """

    batch: Batch
    storage_order: Positions
    fill: Callable[[Positions], None]


Maker: TypeAlias = "Callable[[Positions, Positions, Buffers], Job]"
"""Makes a job with buffers from positions in a dataset and their numbers in the order."""


@dataclass(frozen=True)
class _Pending:
    """A batch that is being decoded."""

    job: Job
    state: State
    futures: list[Future[None]]

    def result(self) -> Batch:
        for future in self.futures:
            future.result()
        made = self.job.batch
        return Batch(made.indices, made.arrays, made._table, self.state, made.starts)


class Preparable(Protocol):
    """A stored object that can be fetched ahead."""

    def prepare(self) -> None:
        """Fetch what the first read needs."""
        ...


ObjectsOf: TypeAlias = Callable[[Positions], Sequence[Preparable]]
"""Returns the stored objects that hold the samples at some positions."""


class Buffers:
    """A pool of arrays. Memory returns to the pool when an array and all its views are gone.

    Fresh memory causes page faults, which take longer than decompressing into memory that is already mapped. At most
    ``MOST_FREE_BUFFERS`` buffers of each size are kept.
    """

    def __init__(self, allocate: Allocate | None = None) -> None:
        self._allocate = allocate or _allocate
        self._free: dict[int, list[memoryview]] = {}
        self._lent: dict[int, weakref.ref[Any]] = {}
        self._numbers = itertools.count()

    def take(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Return an array with undefined content."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size == 0:
            return np.empty(shape, dtype)
        free = self._free.setdefault(size, [])
        # The buffer must not be an array: NumPy would make it the base of every view, and the array below would be
        # freed while views of it still exist
        memory = free.pop() if free else self._allocate(size).data
        array = np.frombuffer(memory, dtype=dtype).reshape(shape)
        # reshape returns a view; its base is the array that all further views refer to
        owner: Any = array.base
        number = next(self._numbers)
        self._lent[number] = weakref.ref(owner, partial(self._give_back, number, free, memory))
        return array

    def _give_back(self, number: int, free: list[memoryview], memory: memoryview, _: Any) -> None:
        del self._lent[number]
        if len(free) < MOST_FREE_BUFFERS:
            free.append(memory)


def shown(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return names, types and shapes of arrays in one line, for ``repr``."""
    return ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())


@contextlib.contextmanager
def _threads(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    executor = ThreadPoolExecutor(count, thread_name_prefix=name)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _allocate(size: int) -> NDArray[np.uint8]:
    return np.empty(size, np.uint8)
