"""A published dataset as training code sees it: a table of samples, and their voxels."""

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from builder.errors import LayoutError, SpecError
from builder.model.expression import compile as compile_expression
from builder.model.geometry import Geometry
from builder.model.layout import (
    CURRENT,
    INDEX,
    MANIFEST,
    FieldLayout,
    Manifest,
    parse_current,
    parse_manifest,
    shard_path,
    version_path,
)
from builder.model.parquet import read_parquet
from builder.reader.shard import ChunkObject, Crop, chunk_count
from builder.storage import Store, open_store

_UNIFORM_KEY = "c/0/0/0/0/0"
_VOLUME_KEY = "c/0/0/0/0"


def open_dataset(
    url: str | Path,
    *,
    split: str | None = None,
    fields: Sequence[str] | None = None,
    version: str | None = None,
    checksums: bool = True,
) -> "Dataset":
    """Open a dataset in a folder or object store.

    Parameters
    ----------
    split
        Name of a split; all samples when None.
    fields
        Array fields to read; all when None.
    version
        A version other than the published one.
    checksums
        Whether each chunk's crc32c is compared when it is read (about 5 % of the time).

    Raises
    ------
    LayoutError
        When nothing is published there, a file is not what the manifest says, or the format is of another version.
    SpecError
        For a split or field the dataset does not have.
    """
    store = open_store(url)
    version = version or parse_current(_read(store, CURRENT))
    manifest = parse_manifest(_read(store, version_path(version, MANIFEST)))
    data = _read(store, version_path(version, INDEX))
    _verify(data, INDEX, manifest=manifest)
    names = [layout.name for layout in manifest.fields]
    chosen = tuple(names if fields is None else fields)
    for name in chosen:
        if name not in names:
            raise SpecError(f"fields: found {name!r}, expected some of {', '.join(names)}")
    table = read_parquet(data)
    source = _Source(store, manifest, checksums, *_places(table, manifest))
    dataset = Dataset(source, table, np.arange(table.num_rows), chosen)
    return dataset if split is None else dataset.split(split)


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
        found: dict[str, Any] = self._table.slice(self.index, 1).to_pylist()[0]
        return found

    @property
    def geometry(self) -> Geometry:
        """The sample's grid in LPS mm."""
        row = self._table.select(["slices", "rows", "columns", "affine"]).slice(self.index, 1).to_pylist()[0]
        return Geometry((row["slices"], row["rows"], row["columns"]), np.reshape(row["affine"], (4, 4)))


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples decoded together.

    Parameters
    ----------
    indices
        (sample,) positions in the dataset's index.
    arrays
        Field name to (sample, channel, slice, row, column) array.
    """

    indices: NDArray[np.int64]
    arrays: Mapping[str, NDArray[Any]]
    _table: pa.Table = field(repr=False)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def table(self) -> pa.Table:
        """The samples' rows, in their order."""
        return self._table.take(pa.array(self.indices))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples of a dataset, or some of them; nothing is read before it is asked for.

    Subsets share table and open files with the whole; pickling and forking are safe at any time.
    """

    _source: "_Source"
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
    def shards(self) -> NDArray[np.int32]:
        """(sample,) number of the shard each sample lies in."""
        return self._source.shards[self.rows]

    def layout(self, name: str) -> FieldLayout:
        """Type, shape and segments of a field. Raises SpecError for an unknown one."""
        found = next((f for f in self._source.manifest.fields if f.name == name), None)
        if found is None:
            raise SpecError(f"fields: found {name!r}, expected one of {', '.join(self.fields)}")
        return found

    def split(self, name: str) -> "Dataset":
        """The samples of one split. Raises SpecError for a name no sample has."""
        splits = self._table.column("split")
        known = sorted(s for s in pc.unique(splits).to_pylist() if s is not None)
        if name not in known:
            raise SpecError(f"split: found {name!r}, expected one of {', '.join(known)}")
        return self._masked(pc.fill_null(pc.equal(splits, name), False))

    def where(self, expression: str) -> "Dataset":
        """The samples whose row fulfils an expression (see ``builder.model.expression``). Raises SpecError."""
        return self._masked(compile_expression(expression, self._table.schema).mask(self._table))

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
            arrays[name] = np.empty(self.shape(index, name), self.layout(name).dtype)
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
            shape = self.batch_shape(indices, name)
            if out is None:
                arrays[name] = np.empty(shape, self.layout(name).dtype)
            _check_buffer(arrays[name], shape, self.layout(name))
            self._source.read_many(indices, name, arrays[name])
        return Batch(indices, arrays, self._table)

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
            arrays[name] = np.empty((layout.channels, *shape), layout.dtype)
            self._source.crop(index, name, start, out=arrays[name])
        return arrays

    def shape(self, index: int, name: str) -> tuple[int, int, int, int]:
        """(channel, slice, row, column) of a field of the sample at ``index`` of the dataset's index."""
        return (self.layout(name).channels, *self._source.shape(index))

    def batch_shape(self, indices: NDArray[np.int64], name: str) -> tuple[int, int, int, int, int]:
        """(sample, channel, slice, row, column) of a batch. Raises ValueError when shapes differ."""
        shapes = np.unique(self._source.shapes[indices], axis=0)
        if len(shapes) != 1:
            raise ValueError(f"batch: found samples of {len(shapes)} shapes, expected one; read crops of one shape")
        s, r, c = (int(n) for n in shapes[0])
        return (len(indices), self.layout(name).channels, s, r, c)

    def _masked(self, mask: pa.Array) -> "Dataset":
        keep = np.asarray(mask.to_numpy(zero_copy_only=False) if isinstance(mask, pa.Array) else mask.to_numpy())
        return replace(self, rows=self.rows[keep[self.rows].astype(bool)])


@dataclass
class _Source:
    """Where samples lie: shared by a dataset and its subsets."""

    store: Store
    manifest: Manifest
    verify: bool
    shards: NDArray[np.int32]
    places: NDArray[np.int64]
    shapes: NDArray[np.int32]
    _objects: dict[tuple[int, str, int], ChunkObject] = field(default_factory=dict)
    _opened: deque[ChunkObject] = field(default_factory=deque)
    _layouts: dict[str, FieldLayout] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._layouts = {layout.name: layout for layout in self.manifest.fields}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_objects": {}, "_opened": deque()}

    def shape(self, index: int) -> tuple[int, int, int]:
        s, r, c = self.shapes[index].tolist()
        return (s, r, c)

    def read(self, index: int, name: str, out: NDArray[Any]) -> None:
        """Decode one sample of a field into ``out``."""
        layout = self._layouts[name]
        source, chunk = self._locate(index, layout)
        if layout.shape is not None:
            source.decode(chunk, out)
        else:
            Crop(layout, self.shape(index)).read(source, (0, 0, 0), out=out)

    def read_many(self, indices: NDArray[np.int64], name: str, out: NDArray[Any]) -> None:
        """Decode samples of one field into the rows of ``out``, shard by shard."""
        layout = self._layouts[name]
        if layout.shape is None:
            for position, index in enumerate(indices.tolist()):
                self.read(index, name, out[position])
            return
        order = np.lexsort((self.places[indices], self.shards[indices]))
        shards = self.shards[indices][order]
        for group in np.split(order, np.flatnonzero(np.diff(shards)) + 1):
            source, _ = self._locate(int(indices[group[0]]), layout)
            source.decode_many(self.places[indices[group]].tolist(), [out[i] for i in group.tolist()])

    def crop(self, index: int, name: str, start: tuple[int, int, int], *, out: NDArray[Any]) -> None:
        """Fill ``out`` with a box of one sample of a field."""
        layout, shape = self._layouts[name], self.shape(index)
        if any(a < 0 or a + n > m for a, n, m in zip(start, out.shape[1:], shape, strict=True)):
            raise ValueError(f"crop: found {out.shape[1:]} from {start}, expected a box inside {shape}")
        source, chunk = self._locate(index, layout)
        if layout.shape is None:
            Crop(layout, shape).read(source, start, out=out)
            return
        whole = np.empty((layout.channels, *shape), out.dtype)
        source.decode(chunk, whole)
        box = tuple(slice(a, a + n) for a, n in zip(start, out.shape[1:], strict=True))
        out[...] = whole[(slice(None), *box)]

    def _locate(self, index: int, layout: FieldLayout) -> tuple[ChunkObject, int]:
        """The object a sample's field is in, and its chunk there."""
        shard, place = int(self.shards[index]), int(self.places[index])
        key = (shard, layout.name, place if layout.shape is None else 0)
        found = self._objects.get(key)
        if found is None:
            entry = self.manifest.shards[shard]
            path = f"{layout.name}/{_UNIFORM_KEY}" if layout.shape else f"{layout.name}/{place}/{_VOLUME_KEY}"
            size = next((o.bytes for o in entry.objects if o.path == path), None)
            if size is None:
                raise LayoutError(f"{MANIFEST}: found no object {path} in shard {entry.fingerprint}, expected one")
            chunks = entry.rows if layout.shape else chunk_count(layout, self.shape(index))
            # two threads may both come here: both objects are right, and one is kept
            path = shard_path(entry.fingerprint, path)
            fresh = ChunkObject(self.store, path, size, chunks, self.verify, self._opened)
            found = self._objects.setdefault(key, fresh)
        return found, place if layout.shape else 0


def _read(store: Store, path: str) -> bytes:
    try:
        return store.read(path)
    except FileNotFoundError as error:
        raise LayoutError(
            f"{store.url}: found no {path}, expected a published dataset; build one, or check the location"
        ) from error


def _verify(data: bytes, path: str, *, manifest: Manifest) -> None:
    entry = next((f for f in manifest.files if f.path == path), None)
    if entry is None:
        raise LayoutError(f"{MANIFEST}: found no entry for {path}, expected one")
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise LayoutError(f"{path}: found the SHA-256 {digest}, expected {entry.sha256}; the file is damaged")


def _places(
    table: pa.Table, manifest: Manifest
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Shard number, row and shape of every sample, checked against the manifest."""
    needed = ("split", "shard", "row", "slices", "rows", "columns", "affine")
    missing = [name for name in needed if name not in table.schema.names]
    if missing:
        raise LayoutError(f"{INDEX}: found no column {missing[0]!r}, expected it")
    known = pa.array([shard.fingerprint for shard in manifest.shards], pa.string())
    numbers = pc.index_in(table.column("shard").cast(pa.string()), value_set=known)
    if numbers.null_count:
        raise LayoutError(f"{INDEX}: found samples of shards the manifest does not list, expected none")
    shards = cast("NDArray[np.int32]", numbers.to_numpy().astype(np.int32))
    places = cast("NDArray[np.int64]", table.column("row").to_numpy().astype(np.int64))
    rows = np.array([shard.rows for shard in manifest.shards], dtype=np.int64)
    if len(places) and ((places < 0) | (places >= rows[shards])).any():
        raise LayoutError(f"{INDEX}: found samples beyond the rows of their shard, expected none")
    axes = [table.column(name).to_numpy().astype(np.int32) for name in ("slices", "rows", "columns")]
    return shards, places, np.stack(axes, axis=1)


def _check_buffer(buffer: NDArray[Any], shape: tuple[int, ...], layout: FieldLayout) -> None:
    if buffer.shape != shape or buffer.dtype != np.dtype(layout.dtype) or not buffer.flags.c_contiguous:
        raise ValueError(
            f"out[{layout.name!r}]: found {buffer.dtype} {buffer.shape}, expected C-contiguous {layout.dtype} {shape}"
        )
