"""The published dataset that training code works with: a table of samples and their voxels."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from builder.errors import LayoutError, MissingExtra, SpecError, counted
from builder.model.classes import is_class
from builder.model.expression import compile as compile_expression
from builder.model.fields import FieldLayout
from builder.model.layout import Manifest
from builder.reader.batches import Batch, Batches
from builder.reader.epoch import BatchOptions, make_batches
from builder.reader.item import Item
from builder.reader.jobs import Chosen
from builder.reader.shard import ChunkObject
from builder.reader.source import Source
from builder.reader.targets import ClassWeights, class_levels, fit_weights, targets_of
from builder.storage import Store

if TYPE_CHECKING:
    from builder.reader.torch import TorchBatches, TorchSamples


@dataclass(frozen=True, eq=False)
class Dataset:
    """All samples of a dataset, or a subset of them. Voxels are read only when they are asked for.

    Subsets share the table and the open files with the whole dataset. Pickling and forking are safe at any time.
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
        return f"<{manifest.name} {manifest.version}: {counted(len(self), 'sample')}, fields {', '.join(self.fields)}>"

    @property
    def manifest(self) -> Manifest:
        """The dataset's manifest: its name, version, fields and shards."""
        return self._source.manifest

    @property
    def table(self) -> pa.Table:
        """The rows of the samples, in the order of the samples."""
        return self._table.take(pa.array(self.rows))

    @property
    def schema(self) -> pa.Schema:
        """The schema of ``table``."""
        return self._table.schema

    @property
    def shards(self) -> NDArray[np.int32]:
        """(sample,) number of the shard that holds each sample."""
        return self._source.shards[self.rows]

    @cached_property
    def selection(self) -> int:
        """A number that identifies the dataset's version and these samples in their order.

        The state of a run carries it, so that the state is refused for other samples.
        """
        chosen = hashlib.sha256(self._source.manifest.version.encode() + b"\0")
        chosen.update(np.ascontiguousarray(self.rows, dtype="<i8").tobytes())
        return 1 + (int.from_bytes(chosen.digest()[:8], "big") >> 2)

    def layout(self, name: str) -> FieldLayout:
        """Return the type, shape and segments of a field. Raises SpecError for an unknown field."""
        found = next((f for f in self._source.manifest.fields if f.name == name), None)
        if found is None:
            raise SpecError(f"fields: found {name!r}, expected one of {', '.join(self.fields)}")
        return found

    @property
    def image_fields(self) -> tuple[str, ...]:
        """The fields that hold images; the others are masks."""
        return tuple(layout.name for layout in self._source.manifest.fields if layout.is_image)

    def channels(self, name: str = "image") -> tuple[str, ...]:
        """Return the names of a field's channels, such as the images of a case. Raises SpecError as ``layout`` does."""
        layout = self.layout(name)
        return layout.channel_names or (name,) * layout.channels

    def dtype(self, name: str) -> str:
        """Return the NumPy name of the type in which a field is read (see ``values`` of ``open_dataset``)."""
        return self._source.dtype(self.layout(name))

    def fill_value(self, name: str) -> float:
        """Return the value that fills voxels beyond a sample: air for HU, 0 for any other unit and for labels."""
        return self._source.fill_value(self.layout(name))

    @property
    def checksums(self) -> bool:
        """Whether the crc32c of each chunk is verified when the chunk is read."""
        return self._source.verify

    @property
    def store(self) -> Store:
        """The store that holds the dataset."""
        return self._source.store

    def close_files(self) -> None:
        """Close the open files, because their pages count as memory of this process. The next read reopens them.

        This applies to the dataset and all its subsets. Call it while none of them is being read.
        """
        self._source.close_files()

    def locate(self, position: int, name: str) -> tuple[ChunkObject, int]:
        """Return the stored object that holds a field of a sample, and the number of its first chunk there."""
        return self._source.locate(int(self.rows[position]), self.layout(name))

    def split(self, name: str) -> "Dataset":
        """Return the samples of one split. Raises SpecError if no sample belongs to it."""
        splits = self._table.column("split")
        known = sorted(s for s in pc.unique(splits).to_pylist() if s is not None)
        if name not in known:
            raise SpecError(f"split: found {name!r}, expected one of {', '.join(known)}")
        return self._masked(pc.fill_null(pc.equal(splits, name), False))

    def where(self, expression: str | pc.Expression) -> "Dataset":
        """Return the samples whose row matches an expression.

        The expression is a text in the language of ``builder.model.expression``, or an Arrow expression. Only the
        columns that it names are read, and nothing is copied. Raises SpecError for an invalid expression.
        """
        if isinstance(expression, str):
            return self._masked(compile_expression(expression, self._table.schema).mask(self._table))
        from pyarrow.dataset import dataset  # imported late because it imports pandas where that is installed

        hits = dataset(self._table).to_table(columns={"hit": expression}).column("hit")
        return self._masked(pc.fill_null(hits, False))

    def sql(self, query: str) -> pa.Table:
        """Run a DuckDB query over the table ``samples`` and return the result.

        ``samples`` holds the rows of this dataset and their ``position`` in it; pass these positions to ``select`` to
        get the samples. The query cannot read anything else.

        Raises
        ------
        SpecError
            If DuckDB refuses the query.
        MissingExtra
            If DuckDB is not installed. Reading a dataset does not need it.
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
        """Return the samples at ``positions`` of this dataset, in that order. Positions may repeat."""
        return replace(self, rows=self.rows[np.asarray(positions, dtype=np.int64)])

    @overload
    def __getitem__(self, position: int) -> Item: ...
    @overload
    def __getitem__(self, position: slice) -> "Dataset": ...
    def __getitem__(self, position: "int | slice") -> "Item | Dataset":
        """Decode one sample, or return a subset for a slice. Raises IndexError, and LayoutError for damaged data."""
        if isinstance(position, slice):
            return replace(self, rows=self.rows[position])
        index = int(self.rows[position])
        arrays = {}
        for name in self.fields:
            arrays[name] = _room(self.shape(index, name), self.dtype(name))
            self._source.read(index, name, arrays[name])
        grids = {layout.name: layout.grid for layout in self.manifest.fields if layout.grid}
        return Item(index, arrays, self._table, grids, self.image_fields)

    def __iter__(self) -> Iterator[Item]:
        return (self[position] for position in range(len(self)))

    def get(self, positions: ArrayLike, *, out: Mapping[str, NDArray[Any]] | None = None) -> Batch:
        """Decode several samples of one shape into one batch.

        Reads are sorted by shard, and ranges that lie close together are fetched in one request.

        Parameters
        ----------
        out
            Field name to a C-contiguous (sample, channel, slice, row, column) array to decode into.

        Raises
        ------
        ValueError
            If the samples have different shapes, or ``out`` does not fit.
        """
        indices = self.rows[np.asarray(positions, dtype=np.int64)]
        arrays = dict(out) if out is not None else {}
        for name in self.fields:
            shape = self._source.batch_shape(indices, self.layout(name))
            if out is None:
                arrays[name] = _room(shape, self.dtype(name))
            _check_buffer(arrays[name], shape, name, dtype=self.dtype(name))
            self._source.read_many(indices, name, arrays[name], rows=self._source.storage_order(indices))
        return Batch(indices, arrays, self._table)

    def batches(self, batch_size: int, **options: Unpack[BatchOptions]) -> Batches:
        """Return one epoch of batches. Threads decode the samples directly into one buffer per field.

        Parameters
        ----------
        batch_size
            Samples per batch of one rank.
        order
            ``sequential`` (the default), ``shuffled``, ``shard_shuffled`` or ``balanced`` (``builder.reader.order``).
        seed, epoch
            What an order depends on; 0 by default.
        state
            Where to continue, taken from ``Batch.state`` of any rank. It replaces seed and epoch, and must come from
            the same samples of the same version.
        weights
            For ``balanced``: (sample,) how often each sample should appear, or the name of a column whose values
            should all be equally frequent. Samples without a value belong to no class and are not drawn.
        by_person
            For ``balanced`` by a column: whether the persons of a value are equally frequent too, however many samples
            each of them has.
        crop
            (slice, row, column) of a random box of each sample, which changes every epoch. Where a sample is smaller
            than the box, the rest is filled with the lowest value of its unit. None reads whole samples, which must
            all have the same shape.
        rank, world, ends
            How the ranks share the epoch (see ``Deal``).
        threads, prefetch, requests
            How the batches are made (see ``Work``).
        allocate
            Function that makes a buffer of a given number of bytes, e.g. ``builder.reader.torch.pinned``.

        Raises
        ------
        ValueError
            If the options do not fit together.
        """
        layouts = tuple(self.layout(name) for name in self.fields)
        chosen = Chosen(self._source, self._table, self.rows, layouts)
        return make_batches(chosen, batch_size, selection=self.selection, options=options)

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Maps each column of class labels to its levels, in the order of the numbers of ``targets``.

        A column of numbers has none.
        """
        return {field.name: class_levels(field) for field in self.schema if is_class(field)}

    def targets(self, columns: str | Sequence[str]) -> NDArray[Any]:
        """Return class labels of the samples as numbers.

        One column gives (sample,): the number of the level, -1 where it is unknown, or the number itself, NaN where it
        is unknown. Several columns give (sample, column) float32, NaN where unknown. Raises SpecError for a column that
        holds no class label.
        """
        return targets_of(self.table, columns)

    def class_weights(self, column: str, *, fitted_on: str = "train") -> ClassWeights:
        """Return the weights of the values of a column. They are fitted on the persons of one split, and say so.

        Whatever subset this is, all samples of that split count, and no others. Raises SpecError if none has a value.
        """
        return fit_weights(self._table, column, fitted_on=fitted_on)

    def torch_samples(
        self, columns: Sequence[str] = (), *, transform: Callable[[dict[str, Any]], Any] | None = None
    ) -> "TorchSamples":
        """Return a map-style dataset for PyTorch; ``transform`` is called with each sample, in the worker process.

        Raises MissingExtra if PyTorch is not installed, and SpecError for an unknown column.
        """
        samples: TorchSamples = _torch().TorchSamples(self, self._known(columns), transform)
        return samples

    def torch_batches(
        self,
        batch_size: int,
        *,
        columns: Sequence[str] = (),
        transform: Callable[[dict[str, Any]], Any] | None = None,
        **options: Unpack[BatchOptions],
    ) -> "TorchBatches":
        """Return an iterable dataset of whole batches for PyTorch; ``options`` are those of ``batches``.

        ``transform`` is called with each batch, in the worker process.

        Raises MissingExtra if PyTorch is not installed, and SpecError for an unknown column.
        """
        given = {"batch_size": batch_size, **options}
        batches: TorchBatches = _torch().TorchBatches(self, self._known(columns), given, transform)
        return batches

    def _known(self, columns: Sequence[str]) -> tuple[str, ...]:
        for name in columns:
            if name not in self._table.schema.names:
                raise SpecError(f"columns: found {name!r}, expected some of the index's columns")
        return tuple(columns)

    def crop(self, position: int, start: tuple[int, int, int], shape: tuple[int, int, int]) -> dict[str, NDArray[Any]]:
        """Read a box of every field of one sample. For volumes, only the chunks that the box touches are read.

        Raises
        ------
        ValueError
            If the box does not lie inside the sample.
        """
        index = int(self.rows[position])
        arrays = {}
        for name in self.fields:
            layout = self.layout(name)
            arrays[name] = np.empty((layout.channels, *shape), self.dtype(name))
            self._source.crop(index, name, start, out=arrays[name])
        return arrays

    def shape(self, index: int, name: str) -> tuple[int, int, int, int]:
        """Return the (channel, slice, row, column) shape of a field of the sample at ``index`` of the index."""
        return (self.layout(name).channels, *self._source.shape(index, self.layout(name)))

    def sample_shapes(self, positions: ArrayLike) -> NDArray[np.int32]:
        """Return the (n, 3) shapes (slice, row, column) of the samples at ``positions``."""
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


def _room(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Return an array for voxels. Raises LayoutError if there is no memory for what the dataset states."""
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:
        raise LayoutError(
            f"index: found samples of the shape {shape}, for which there is no memory, expected less; read smaller "
            "batches or crops, or check that the dataset was not changed"
        ) from error


def _check_buffer(buffer: NDArray[Any], shape: tuple[int, ...], name: str, *, dtype: str) -> None:
    if buffer.shape != shape or buffer.dtype != np.dtype(dtype) or not buffer.flags.c_contiguous:
        raise ValueError(f"out[{name!r}]: found {buffer.dtype} {buffer.shape}, expected C-contiguous {dtype} {shape}")
