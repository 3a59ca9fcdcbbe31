"""A published dataset as training code sees it: a table of samples, and their voxels."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from builder.errors import MissingExtra, SpecError
from builder.model.expression import compile as compile_expression
from builder.model.geometry import Geometry
from builder.model.layout import (
    FieldLayout,
    Manifest,
)
from builder.reader.batches import Allocate, Batch, Batches, Buffers, Work
from builder.reader.jobs import Chosen, make_job, objects_of
from builder.reader.order import ORDERS, Deal, Ends, Population, State, class_weights
from builder.reader.shard import ChunkObject
from builder.reader.source import Source
from builder.storage import LocalStore, Store

if TYPE_CHECKING:
    from builder.reader.torch import TorchBatches, TorchSamples


@dataclass(frozen=True, eq=False)
class Item:
    """One sample: ``item["image"]`` is an array, ``item.row`` the rest.

    Parameters
    ----------
    index
        Position in the dataset's index (not in a subset of it).
    arrays
        Field name to (channel, slice, row, column) array.
    """

    index: int
    arrays: Mapping[str, NDArray[Any]]
    _table: pa.Table = field(repr=False)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    @property
    def row(self) -> dict[str, Any]:
        """Every column of the sample: split, geometry, labels, clinical."""
        return self.values(self._table.schema.names)

    def values(self, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of the row, at the cost of these alone."""
        found: dict[str, Any] = self._table.select(list(columns)).slice(self.index, 1).to_pylist()[0]
        return found

    @property
    def geometry(self) -> Geometry:
        """The sample's grid in LPS mm."""
        row = self.values(["slices", "rows", "columns", "affine"])
        return Geometry((row["slices"], row["rows"], row["columns"]), np.reshape(row["affine"], (4, 4)))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples of a dataset, or some of them; nothing is read before it is asked for.

    Subsets share table and open files with the whole; pickling and forking are safe at any time.
    """

    _source: Source
    _table: pa.Table
    rows: NDArray[np.int64]
    """(sample,) positions in the dataset's index."""
    fields: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        manifest = self._source.manifest
        return f"<{manifest.name} {manifest.version}: {len(self)} samples, fields {', '.join(self.fields)}>"

    @property
    def manifest(self) -> Manifest:
        """What the dataset says of itself."""
        return self._source.manifest

    @property
    def table(self) -> pa.Table:
        """The samples' rows, in their order."""
        return self._table.take(pa.array(self.rows))

    @property
    def schema(self) -> pa.Schema:
        """Schema of ``table``."""
        return self._table.schema

    @property
    def shards(self) -> NDArray[np.int32]:
        """(sample,) number of the shard each sample lies in."""
        return self._source.shards[self.rows]

    @cached_property
    def selection(self) -> int:
        """A number that names the dataset's version and these samples in their order; states of a run carry it."""
        chosen = hashlib.sha256(self._source.manifest.version.encode() + b"\0")
        chosen.update(np.ascontiguousarray(self.rows, dtype="<i8").tobytes())
        return 1 + (int.from_bytes(chosen.digest()[:8], "big") >> 2)

    def layout(self, name: str) -> FieldLayout:
        """Type, shape and segments of a field. Raises SpecError for an unknown one."""
        found = next((f for f in self._source.manifest.fields if f.name == name), None)
        if found is None:
            raise SpecError(f"fields: found {name!r}, expected one of {', '.join(self.fields)}")
        return found

    def dtype(self, name: str) -> str:
        """NumPy name of the numbers of a field as they are read (see ``values`` of ``open_dataset``)."""
        return self._source.dtype(self.layout(name))

    @property
    def checksums(self) -> bool:
        """Whether each chunk's crc32c is compared when it is read."""
        return self._source.verify

    @property
    def store(self) -> Store:
        """Where the dataset lies."""
        return self._source.store

    def close_files(self) -> None:
        """Let go of open files, whose pages count as memory of this process; the next read opens what it needs.

        For this dataset and all its subsets, while none of them is being read.
        """
        self._source.close_files()

    def locate(self, position: int, name: str) -> tuple[ChunkObject, int]:
        """The stored object a field of a sample is in, and its first chunk there."""
        return self._source.locate(int(self.rows[position]), self.layout(name))

    def split(self, name: str) -> "Dataset":
        """The samples of one split. Raises SpecError for a name no sample has."""
        splits = self._table.column("split")
        known = sorted(s for s in pc.unique(splits).to_pylist() if s is not None)
        if name not in known:
            raise SpecError(f"split: found {name!r}, expected one of {', '.join(known)}")
        return self._masked(pc.fill_null(pc.equal(splits, name), False))

    def where(self, expression: str | pc.Expression) -> "Dataset":
        """The samples whose row fulfils an expression, of ``builder.model.expression`` or of Arrow. Raises SpecError.

        Only the columns it names are read; nothing is copied.
        """
        if isinstance(expression, str):
            return self._masked(compile_expression(expression, self._table.schema).mask(self._table))
        from pyarrow.dataset import dataset  # imports pandas, where there is one

        hits = dataset(self._table).to_table(columns={"hit": expression}).column("hit")
        return self._masked(pc.fill_null(hits, False))

    def sql(self, query: str) -> pa.Table:
        """The answer to a DuckDB query over ``samples``: this dataset's rows, and their ``position`` here.

        ``select`` takes the positions of an answer. The query sees nothing but this table.

        Raises
        ------
        SpecError
            When DuckDB refuses the query.
        MissingExtra
            Where DuckDB is not installed: reading alone does not need it.
        """
        try:
            import duckdb
        except ImportError as error:
            raise MissingExtra("duckdb") from error
        positions = pa.array(np.arange(len(self)))
        table = self.table.append_column("position", positions)
        with duckdb.connect(":memory:", config={"enable_external_access": False}) as connection:
            connection.register("samples", table)
            try:
                answer = connection.sql(query)
                return pa.table({}) if answer is None else answer.to_arrow_table()
            except duckdb.Error as error:
                raise SpecError(f"sql: found a query DuckDB refuses ({error}), expected one over samples") from error

    def select(self, positions: ArrayLike) -> "Dataset":
        """The samples at ``positions`` of this dataset, in that order; repeats are allowed."""
        return replace(self, rows=self.rows[np.asarray(positions, dtype=np.int64)])

    @overload
    def __getitem__(self, position: int) -> Item: ...
    @overload
    def __getitem__(self, position: slice) -> "Dataset": ...
    def __getitem__(self, position: "int | slice") -> "Item | Dataset":
        """One sample, decoded; a slice gives a subset. Raises IndexError, and LayoutError for damaged data."""
        if isinstance(position, slice):
            return replace(self, rows=self.rows[position])
        index = int(self.rows[position])
        arrays = {}
        for name in self.fields:
            arrays[name] = np.empty(self.shape(index, name), self.dtype(name))
            self._source.read(index, name, arrays[name])
        return Item(index, arrays, self._table)

    def __iter__(self) -> Iterator[Item]:
        return (self[position] for position in range(len(self)))

    def get(self, positions: ArrayLike, *, out: Mapping[str, NDArray[Any]] | None = None) -> Batch:
        """Several samples of one shape in one batch; reads are sorted by shard and near ranges fetched together.

        Parameters
        ----------
        out
            Field name to a C-contiguous (sample, channel, slice, row, column) array to decode into.

        Raises
        ------
        ValueError
            When the samples have different shapes, or ``out`` does not fit.
        """
        indices = self.rows[np.asarray(positions, dtype=np.int64)]
        arrays = dict(out) if out is not None else {}
        for name in self.fields:
            shape = self._source.batch_shape(indices, self.layout(name))
            if out is None:
                arrays[name] = np.empty(shape, self.dtype(name))
            _check_buffer(arrays[name], shape, name, dtype=self.dtype(name))
            self._source.read_many(indices, name, arrays[name], rows=self._source.storage_order(indices))
        return Batch(indices, arrays, self._table)

    def batches(  # noqa: PLR0913 (public: every option by its name)
        self,
        batch_size: int,
        *,
        order: str = "sequential",
        seed: int = 0,
        epoch: int = 0,
        state: State | Mapping[str, int] | None = None,
        weights: ArrayLike | None = None,
        crop: tuple[int, int, int] | None = None,
        rank: int = 0,
        world: int = 1,
        ends: Ends = "keep",
        threads: int = 2,
        prefetch: int = 2,
        requests: int = 8,
        allocate: Allocate | None = None,
    ) -> Batches:
        """One epoch of batches, decoded by threads straight into one buffer a field.

        Parameters
        ----------
        order
            ``sequential``, ``shuffled``, ``shard_shuffled`` or ``balanced`` (see ``builder.reader.order``).
        state
            Where to go on, from ``Batch.state`` of any rank; replaces seed and epoch. It must come from the same
            samples of the same version.
        weights
            (sample,) for ``balanced``: how often each sample should come, or the name of a column whose values
            should all be as frequent. Samples without a value are of no class and are not drawn.
        crop
            (slice, row, column) of a random box of each sample, another one each epoch; where a sample is smaller
            the box is filled up with the lowest value of its unit. None: whole samples, which must have one shape.
        rank, world, ends
            How ranks share the epoch (see ``Deal``).
        threads, prefetch, requests
            How batches are made (see ``Work``).
        allocate
            Makes a buffer of so many bytes, e.g. ``builder.reader.torch.pinned``.

        Raises
        ------
        ValueError
            For arguments that do not fit together.
        """
        if order not in ORDERS:
            raise ValueError(f"order: found {order!r}, expected one of {', '.join(ORDERS)}")
        start = state if isinstance(state, State) else State(seed, epoch) if state is None else State.from_dict(state)
        start = start.of(self.selection, len(self))
        population = Population(self.shards, self._weights(weights))
        positions = ORDERS[order](population, start.seed, start.epoch)
        layouts = tuple(self.layout(name) for name in self.fields)
        chosen = Chosen(self._source, self._table, self.rows, layouts)
        maker = partial(make_job, chosen, crop=crop, seed=start.seed, epoch=start.epoch)
        deal, work = Deal(batch_size, world, rank, ends), Work(threads, prefetch, requests)
        buffers = self._source.buffers if allocate is None else Buffers(allocate)
        objects = None if isinstance(self.store, LocalStore) else partial(objects_of, chosen)
        return Batches(deal, work, start, positions, maker, buffers, objects)

    def torch_samples(self, columns: Sequence[str] = ()) -> "TorchSamples":
        """A map-style dataset for PyTorch. Raises MissingExtra without it, SpecError for an unknown column."""
        samples: TorchSamples = _torch().TorchSamples(self, self._known(columns))
        return samples

    def torch_batches(self, batch_size: int, *, columns: Sequence[str] = (), **options: Any) -> "TorchBatches":
        """An iterable dataset of whole batches for PyTorch; ``options`` are those of ``batches``.

        Raises MissingExtra without PyTorch, SpecError for an unknown column.
        """
        batches: TorchBatches = _torch().TorchBatches(self, self._known(columns), {"batch_size": batch_size, **options})
        return batches

    def _known(self, columns: Sequence[str]) -> tuple[str, ...]:
        for name in columns:
            if name not in self._table.schema.names:
                raise SpecError(f"columns: found {name!r}, expected some of the index's columns")
        return tuple(columns)

    def _weights(self, weights: ArrayLike | None) -> NDArray[np.float64] | None:
        if weights is None:
            return None
        if isinstance(weights, str):
            if weights not in self._table.schema.names:
                raise ValueError(f"weights: found no column {weights!r}, expected one of the index")
            values = self._table.column(weights).take(pa.array(self.rows)).to_pylist()
            return class_weights(values)
        found = np.asarray(weights, dtype=np.float64)
        if found.shape != (len(self),):
            raise ValueError(f"weights: found shape {found.shape}, expected ({len(self)},)")
        return found

    def crop(
        self, position: int, start: tuple[int, int, int], shape: tuple[int, int, int]
    ) -> dict[str, NDArray[Any]]:
        """A box of every field of one sample; of volumes only the chunks it meets are read.

        Raises
        ------
        ValueError
            When the box does not lie inside the sample.
        """
        index = int(self.rows[position])
        arrays = {}
        for name in self.fields:
            layout = self.layout(name)
            arrays[name] = np.empty((layout.channels, *shape), self.dtype(name))
            self._source.crop(index, name, start, out=arrays[name])
        return arrays

    def shape(self, index: int, name: str) -> tuple[int, int, int, int]:
        """(channel, slice, row, column) of a field of the sample at ``index`` of the dataset's index."""
        return (self.layout(name).channels, *self._source.shape(index))

    def sample_shapes(self, positions: ArrayLike) -> NDArray[np.int32]:
        """(n, 3) shape (slice, row, column) of the samples at ``positions``."""
        return self._source.shapes[self.rows[np.asarray(positions, dtype=np.int64)]]

    def _masked(self, mask: pa.Array) -> "Dataset":
        keep = np.asarray(mask.to_numpy(zero_copy_only=False) if isinstance(mask, pa.Array) else mask.to_numpy())
        return replace(self, rows=self.rows[keep[self.rows].astype(bool)])


def _torch() -> Any:
    try:
        from builder.reader import torch
    except ImportError as error:
        raise MissingExtra("torch", "torch") from error
    return torch


def _check_buffer(buffer: NDArray[Any], shape: tuple[int, ...], name: str, *, dtype: str) -> None:
    if buffer.shape != shape or buffer.dtype != np.dtype(dtype) or not buffer.flags.c_contiguous:
        raise ValueError(
            f"out[{name!r}]: found {buffer.dtype} {buffer.shape}, expected C-contiguous {dtype} {shape}"
        )
