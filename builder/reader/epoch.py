"""One epoch of batches: what a user may choose about it, and how these choices become an order and its batches."""

from collections.abc import Mapping
from functools import partial
from typing import TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from builder.reader.batches import Allocate, Batches, Buffers, Work
from builder.reader.jobs import Chosen, make_job, objects_of
from builder.reader.order import ORDERS, Deal, Ends, Population, State, class_weights
from builder.reader.targets import balance
from builder.storage import LocalStore


class BatchOptions(TypedDict, total=False):
    """The options of ``Dataset.batches``, which explains them. A type checker knows them by their names."""

    order: str
    seed: int
    epoch: int
    state: State | Mapping[str, int] | None
    weights: ArrayLike | None
    by_person: bool
    crop: tuple[int, int, int] | None
    rank: int
    world: int
    ends: Ends
    threads: int
    prefetch: int
    requests: int
    allocate: Allocate | None


def make_batches(chosen: Chosen, batch_size: int, *, selection: int, options: BatchOptions) -> Batches:
    """Return one epoch of batches of the chosen samples, which ``selection`` identifies.

    Raises
    ------
    TypeError
        If an option is unknown.
    ValueError
        If the options do not fit together.
    """
    unknown = sorted(set(options) - set(BatchOptions.__annotations__))
    if unknown:
        raise TypeError(f"batches: found {unknown}, expected some of {', '.join(BatchOptions.__annotations__)}")
    order = options.get("order", "sequential")
    if order not in ORDERS:
        raise ValueError(f"order: found {order!r}, expected one of {', '.join(ORDERS)}")
    source, start = chosen.source, _start(options).of(selection, len(chosen.rows))
    weights = _weights(chosen, options.get("weights"), by_person=options.get("by_person", False))
    positions = ORDERS[order](Population(source.shards[chosen.rows], weights), start.seed, start.epoch)
    deal = Deal(batch_size, options.get("world", 1), options.get("rank", 0), options.get("ends", "keep"))
    work = Work(options.get("threads", 2), options.get("prefetch", 2), options.get("requests", 8))
    maker = partial(make_job, chosen, crop=options.get("crop"), seed=start.seed, epoch=start.epoch)
    allocate = options.get("allocate")
    buffers = source.buffers if allocate is None else Buffers(allocate)
    objects = None if isinstance(source.store, LocalStore) else partial(objects_of, chosen)
    return Batches(deal, work, start, positions, maker, buffers, objects)


def _start(options: BatchOptions) -> State:
    """Return where to begin: the state if one is given, else the start of the epoch."""
    state = options.get("state")
    if state is None:
        return State(options.get("seed", 0), options.get("epoch", 0))
    return state if isinstance(state, State) else State.from_dict(state)


def _weights(chosen: Chosen, weights: ArrayLike | None, *, by_person: bool) -> NDArray[np.float64] | None:
    """Return (sample,) how often each sample should appear; None for once each."""
    if by_person and not isinstance(weights, str):
        raise ValueError("by_person: found it without a column, expected weights to name one")
    if weights is None:
        return None
    if isinstance(weights, str):
        if weights not in chosen.table.schema.names:
            raise ValueError(f"weights: found no column {weights!r}, expected one of the index")
        rows = pa.array(chosen.rows)
        if by_person:
            return balance(chosen.table.take(rows), weights)
        return class_weights(chosen.table.column(weights).take(rows).to_pylist())
    found = np.asarray(weights, dtype=np.float64)
    if found.shape != (len(chosen.rows),):
        raise ValueError(f"weights: found shape {found.shape}, expected ({len(chosen.rows)},)")
    return found
