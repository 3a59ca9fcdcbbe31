"""PyTorch datasets: map-style for any DataLoader, and whole batches in a resumable order.

``Dataset.batches`` with threads is the fastest way to feed a training loop, because the worker processes of a
DataLoader copy every batch. The classes here are for loops that are built around a DataLoader, including torchdata's
StatefulDataLoader.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from builder.model.classes import is_class
from builder.model.layout import Manifest
from builder.reader.batches import Batch
from builder.reader.order import State
from builder.reader.targets import class_numbers


class Readable(Protocol):
    """The part of ``Dataset`` that this module uses. A protocol, because ``Dataset`` itself imports this module."""

    @property
    def schema(self) -> pa.Schema: ...
    @property
    def selection(self) -> int: ...
    @property
    def manifest(self) -> Manifest: ...
    def __len__(self) -> int: ...
    def __getitem__(self, position: int, /) -> Any: ...
    def get(self, positions: Any) -> Batch: ...
    def sample_shapes(self, positions: Any) -> NDArray[np.int32]: ...
    def batches(self, **options: Any) -> Any: ...
    def fill_value(self, name: str, /) -> float: ...


Transform = Callable[[dict[str, Any]], Any]
"""Takes a sample or a batch as a dict, and returns what the loader gets in its place."""


@dataclass(frozen=True, eq=False)
class TorchSamples:
    """A map-style dataset: ``samples[i]`` is a dict of tensors, with ``index`` and the chosen columns.

    Parameters
    ----------
    columns
        Columns of the row to return with each sample: numbers (NaN where missing), booleans and texts ("" where
        missing). Class labels become numbers, as in ``Dataset.targets``.
    transform
        What each sample passes through, in the process that reads it; None leaves it as it is.
    """

    dataset: Readable
    columns: tuple[str, ...] = ()
    transform: Transform | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> Any:
        return self._transformed(self._sample(position))

    def _transformed(self, sample: dict[str, Any]) -> Any:
        return sample if self.transform is None else self.transform(sample)

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch of samples of several shapes, for a DataLoader's ``collate_fn``.

        Every field is padded at the end of its axes to the largest sample: with air where it is in HU, otherwise with
        0. ``shapes`` holds the (sample, 3) shapes before padding (slice, row, column).
        """
        shapes = [next(v.shape[-3:] for v in s.values() if torch.is_tensor(v) and v.ndim == 4) for s in samples]
        padded = [{name: self._padded(name, value, samples) for name, value in s.items()} for s in samples]
        return {**default_collate(padded), "shapes": torch.tensor(shapes)}

    def _padded(self, name: str, value: Any, samples: Sequence[Mapping[str, Any]]) -> Any:
        if not torch.is_tensor(value) or value.ndim != 4:
            return value
        largest = [max(s[name].shape[axis] for s in samples) for axis in range(4)]
        known = {field.name for field in self.dataset.manifest.fields}
        full = value.new_full(largest, self.dataset.fill_value(name) if name in known else 0)
        full[tuple(slice(n) for n in value.shape)] = value
        return full

    def _sample(self, position: int) -> dict[str, Any]:
        item = self.dataset[position]
        found: dict[str, Any] = {name: torch.from_numpy(array) for name, array in item.arrays.items()}
        if self.columns:
            row = item.values(self.columns)
            found.update({name: self._value(name, value) for name, value in row.items()})
        return {**found, "index": item.index}

    def __getitems__(self, positions: Sequence[int]) -> list[Any]:
        """Return several samples, as a DataLoader asks for them. Samples that lie close together are read together."""
        if len(np.unique(self.dataset.sample_shapes(positions), axis=0)) != 1:
            return [self[position] for position in positions]
        batch = self.dataset.get(positions)
        tensors = {name: torch.from_numpy(array) for name, array in batch.arrays.items()}
        rows = batch.table.select(list(self.columns)).to_pylist() if self.columns else [{}] * len(batch)
        return [
            self._transformed(
                {
                    **{name: tensor[number] for name, tensor in tensors.items()},
                    **{name: self._value(name, value) for name, value in row.items()},
                    "index": int(batch.indices[number]),
                }
            )
            for number, row in enumerate(rows)
        ]

    def _value(self, column: str, value: Any) -> Any:
        field = self.dataset.schema.field(column)
        if is_class(field):
            return class_numbers(pa.chunked_array([[value]], field.type), field)[0].item()
        return _plain(value, field.type)


class TorchBatches(IterableDataset):  # type: ignore[misc]  # DataLoader recognises iterable datasets by this class
    """One epoch of batches as dicts of tensors, for a DataLoader with ``batch_size=None``.

    Worker processes take turns, so the order of the batches does not depend on their number. Each batch carries a
    ``state`` from which a run can continue with any number of ranks and workers. ``state_dict`` is for loaders that
    keep a state per worker. Call ``set_epoch`` before every epoch; persistent workers (``persistent_workers``) see the
    change through memory that they share with the calling process.

    Parameters
    ----------
    options
        Arguments of ``Dataset.batches``. In worker processes ``threads`` defaults to 1.
    transform
        What each batch passes through, in the process that reads it; None leaves it as it is.
    """

    def __init__(
        self,
        dataset: Readable,
        columns: Sequence[str],
        options: Mapping[str, Any],
        transform: Transform | None = None,
    ) -> None:
        super().__init__()
        self._transform = transform
        self._dataset, self._columns, self._options = dataset, tuple(columns), dict(options)
        given = self._options.pop("state", None)
        plain = State(self._options.pop("seed", 0), self._options.pop("epoch", 0))
        self._state = plain if given is None else given if isinstance(given, State) else State.from_dict(given)
        self._done = self._resume = self._orders = 0
        # The number of changes of the start so far, then its seed, epoch, seen, selection and batches done
        self._shared = torch.zeros(1 + len(_SHARED), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self._dataset.batches(**self._options, state=self._start()))

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        options = self._options if info is None else {"threads": 1, **self._options}
        batches = self._dataset.batches(**options, state=self._start())
        done, self._done = self._done, 0
        for batch in batches.part(worker, workers, done=done):
            done += 1
            self._resume = done
            found = to_tensors(batch, self._columns)
            yield found if self._transform is None else self._transform(found)
        self._resume = 0

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration start this epoch, also in worker processes."""
        state = self._start()
        self._change(State(state.seed, epoch, 0, state.selection), 0)

    def state_dict(self) -> dict[str, int]:
        """Return the position of this worker in the epoch."""
        return {**self._start().to_dict(), "done": self._resume}

    def load_state_dict(self, document: Mapping[str, int]) -> None:
        """Continue from a ``state_dict`` with the same number of workers, or from a batch's ``state`` with any."""
        state = {name: int(value) for name, value in document.items()}
        done = state.pop("done", 0)
        self._change(State.from_dict(state).of(self._dataset.selection, len(self._dataset)), done)

    def _change(self, state: State, done: int) -> None:
        self._state, self._done = state, done
        if get_worker_info() is None:  # a worker must not change the state of the others
            self._orders += 1
            self._shared.copy_(torch.tensor([self._orders, *(getattr(state, name) for name in _SHARED[:-1]), done]))

    def _start(self) -> State:
        """Return the state to start from, as last set by the process that created this dataset."""
        orders, *values = self._shared.tolist()
        if orders != self._orders:
            self._orders, self._done = orders, values[-1]
            self._state = State(**dict(zip(_SHARED[:-1], values, strict=False)))
        return self._state


_SHARED = ("seed", "epoch", "seen", "selection", "done")


def to_tensors(batch: Batch, columns: Sequence[str] = ()) -> dict[str, Any]:
    """Return a batch as a dict: tensors that share its memory, ``index``, ``state`` and the chosen columns."""
    found: dict[str, Any] = {name: torch.from_numpy(array) for name, array in batch.arrays.items()}
    if columns:
        table = batch.table
        found.update({name: _column(table.column(name), table.schema.field(name)) for name in columns})
    found["index"] = torch.from_numpy(np.ascontiguousarray(batch.indices))
    if batch.state is not None:
        found["state"] = batch.state.to_dict()
    return found


def pinned(size: int) -> NDArray[np.uint8]:
    """Return a buffer in page-locked memory, for ``Dataset.batches(allocate=pinned)``; needs a GPU."""
    return np.asarray(torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy())


def _column(values: pa.ChunkedArray, field: pa.Field) -> Any:
    if is_class(field):
        return torch.from_numpy(class_numbers(values, field))
    kind = values.type
    if pa.types.is_integer(kind) and values.null_count == 0:
        return torch.from_numpy(values.to_numpy().astype(np.int64))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return torch.from_numpy(values.cast(pa.float64()).to_numpy().astype(np.float64))
    if pa.types.is_boolean(kind) and values.null_count == 0:
        return torch.from_numpy(values.to_numpy().astype(bool))
    return [_plain(value, kind) for value in values.to_pylist()]


def _plain(value: Any, kind: pa.DataType) -> Any:
    """Return a value that DataLoader's default collation accepts."""
    if value is not None:
        return value
    return math.nan if pa.types.is_integer(kind) or pa.types.is_floating(kind) else ""
