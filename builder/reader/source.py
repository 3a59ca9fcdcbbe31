"""Locate the samples of a dataset in its shards and decode them into arrays."""

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from builder.errors import LayoutError
from builder.model.fields import FieldLayout
from builder.model.layout import INDEX, MANIFEST, Manifest, StoredObject, shard_path
from builder.reader.batches import Buffers
from builder.reader.cache import ObjectCache
from builder.reader.shard import ChunkObject, Crop, chunk_count
from builder.storage import Store

_UNIFORM_KEY = "c/0/0/0/0/0"
_VOLUME_KEY = "c/0/0/0/0"
AIR_HU = -1024
"""Value that fills crops beyond a volume in HU, as in patches. In every other unit it is 0."""


Values: TypeAlias = Literal["physical", "stored"]


@dataclass
class Source:
    """Reads the samples of a dataset. A dataset and its subsets share one."""

    store: Store
    manifest: Manifest
    verify: bool
    values: Values
    shards: NDArray[np.int32]
    places: NDArray[np.int64]
    shapes: NDArray[np.int32]
    grids: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    """(sample, 3) shapes of the fields that have a grid of their own, by its name."""
    cache: ObjectCache | None = None
    buffers: Buffers = field(default_factory=Buffers)
    _objects: dict[tuple[int, str, int], ChunkObject] = field(default_factory=dict)
    _opened: deque[ChunkObject] = field(default_factory=deque)
    _layouts: dict[str, FieldLayout] = field(default_factory=dict)
    _entries: dict[int, dict[str, StoredObject]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._layouts = {layout.name: layout for layout in self.manifest.fields}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_objects": {}, "_opened": deque(), "buffers": Buffers()}

    def dtype(self, layout: FieldLayout) -> str:
        """Return the NumPy name of the type that is read: float32 for packed numbers unless they stay as stored."""
        return layout.dtype if layout.packing is None or self.values == "stored" else "float32"

    def fill_value(self, layout: FieldLayout) -> float:
        """Return the value that fills voxels beyond a sample, in the form in which the field is read."""
        value = AIR_HU if layout.unit == "HU" else 0
        if layout.packing is None or self.values == "physical":
            return value if np.dtype(self.dtype(layout)).kind in "if" else 0
        limits = np.iinfo(layout.dtype)
        stored = round((value - layout.packing.offset) / layout.packing.factor)
        return max(limits.min, min(limits.max, stored))

    def shape(self, index: int, layout: FieldLayout) -> tuple[int, int, int]:
        """Return the (slice, row, column) shape of a field of a sample."""
        s, r, c = self.shapes_of(layout)[index].tolist()
        return (s, r, c)

    def shapes_of(self, layout: FieldLayout) -> NDArray[np.int32]:
        """Return the (sample, 3) shapes of a field."""
        return self.grids[layout.grid] if layout.grid else self.shapes

    def batch_shape(self, indices: NDArray[np.int64], layout: FieldLayout) -> tuple[int, int, int, int, int]:
        """Return the (sample, channel, slice, row, column) shape of a batch. Raises ValueError if shapes differ."""
        if layout.shape is not None:
            return (len(indices), layout.channels, *layout.shape)
        shapes = np.unique(self.shapes_of(layout)[indices], axis=0)
        if len(shapes) != 1:
            raise ValueError(f"batch: found samples of {len(shapes)} shapes, expected one; read crops of one shape")
        s, r, c = (int(n) for n in shapes[0])
        return (len(indices), layout.channels, s, r, c)

    def read(self, index: int, name: str, out: NDArray[Any]) -> None:
        """Decode one sample of a field into ``out``."""
        layout = self._layouts[name]
        source, chunk = self.locate(index, layout)
        if layout.shape is not None:
            source.decode(chunk, out)
        else:
            Crop(layout, self.shape(index, layout)).read(source, (0, 0, 0), out=out)

    def read_many(self, indices: NDArray[np.int64], name: str, out: NDArray[Any], *, rows: NDArray[np.int64]) -> None:
        """Decode samples ``indices[rows]`` of one field into ``out[rows]``, shard by shard in the order of ``rows``."""
        layout = self._layouts[name]
        if layout.shape is None:
            for row in rows.tolist():
                self.read(int(indices[row]), name, out[row])
            return
        chosen = indices[rows]
        columns = (self.shards[chosen], self.places[chosen], rows, chosen)
        stored = zip(*(column.tolist() for column in columns), strict=True)
        for _, group in itertools.groupby(stored, key=itemgetter(0)):
            members = list(group)
            source, _ = self.locate(members[0][3], layout)
            source.decode_many([place for _, place, _, _ in members], [out[row] for _, _, row, _ in members])

    def storage_order(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions in ``indices``, sorted by shard and by place in the shard."""
        return np.lexsort((self.places[indices], self.shards[indices]))

    def crop(self, index: int, name: str, start: tuple[int, int, int], *, out: NDArray[Any]) -> None:
        """Fill ``out`` with a box of one sample of a field."""
        layout = self._layouts[name]
        shape = self.shape(index, layout)
        if any(a < 0 or a + n > m for a, n, m in zip(start, out.shape[1:], shape, strict=True)):
            raise ValueError(f"crop: found {out.shape[1:]} from {start}, expected a box inside {shape}")
        source, chunk = self.locate(index, layout)
        if layout.shape is None:
            Crop(layout, shape).read(source, start, out=out)
            return
        whole = np.empty((layout.channels, *shape), out.dtype)
        source.decode(chunk, whole)
        box = tuple(slice(a, a + n) for a, n in zip(start, out.shape[1:], strict=True))
        out[...] = whole[(slice(None), *box)]

    def crop_padded(self, index: int, name: str, start: Sequence[int], *, out: NDArray[Any]) -> None:
        """Fill ``out`` as ``crop`` does, and fill what lies beyond the sample with the lowest value of its unit.

        ``start`` must lie inside the sample.
        """
        layout = self._layouts[name]
        shape = self.shape(index, layout)
        inner = tuple(slice(0, min(n - a, m)) for a, n, m in zip(start, shape, out.shape[1:], strict=True))
        s, r, c = (int(a) for a in start)
        if all(part.stop == m for part, m in zip(inner, out.shape[1:], strict=True)):
            self.crop(index, name, (s, r, c), out=out)
            return
        out[...] = self.fill_value(layout)
        piece = np.empty((layout.channels, *(part.stop for part in inner)), out.dtype)
        self.crop(index, name, (s, r, c), out=piece)
        out[(slice(None), *inner)] = piece

    def locate(self, index: int, layout: FieldLayout) -> tuple[ChunkObject, int]:
        """Return the object that holds a field of a sample, and the number of its first chunk there."""
        shard, place = int(self.shards[index]), int(self.places[index])
        key = (shard, layout.name, place if layout.shape is None else 0)
        found = self._objects.get(key)
        if found is None:
            entry = self.manifest.shards[shard]
            path = f"{layout.name}/{_UNIFORM_KEY}" if layout.shape else f"{layout.name}/{place}/{_VOLUME_KEY}"
            expected = self._entry(shard, path)
            if expected is None:
                raise LayoutError(f"{MANIFEST}: found no object {path} in shard {entry.fingerprint}, expected one")
            chunks = entry.rows if layout.shape else chunk_count(layout, self.shape(index, layout))
            # Two threads may both create the object. Either is correct, and setdefault keeps one
            path = shard_path(entry.fingerprint, path)
            packed = layout if layout.packing is not None and self.values == "physical" else None
            fresh = ChunkObject(self.store, path, expected, chunks, self.verify, self._opened, self.cache, packed)
            found = self._objects.setdefault(key, fresh)
        return found, place if layout.shape else 0

    def close_files(self) -> None:
        """Drop all open objects. Both collections are cleared because they and their members refer to each other."""
        self._objects.clear()
        self._opened.clear()

    def _entry(self, shard: int, path: str) -> StoredObject | None:
        """Return the manifest's entry of an object, from a dict, because shards of whole volumes have thousands."""
        if shard not in self._entries:
            self._entries[shard] = {o.path: o for o in self.manifest.shards[shard].objects}
        return self._entries[shard].get(path)


def find_places(table: pa.Table, manifest: Manifest) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Return the shard number, row and shape of every sample, checked against the manifest."""
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


def find_grids(table: pa.Table, manifest: Manifest) -> dict[str, NDArray[np.int32]]:
    """Return the shapes of the samples on every grid that some fields have for themselves, by the grid's name."""
    found = {}
    for name in sorted({layout.grid for layout in manifest.fields if layout.grid}):
        column = f"grid.{name}.shape"
        missing = [c for c in (column, f"grid.{name}.affine") if c not in table.schema.names]
        if missing:
            raise LayoutError(f"{INDEX}: found no column {missing[0]!r}, expected it")
        flat = table.column(column).combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.int32)
        if flat.size != 3 * table.num_rows or (flat < 1).any():
            raise LayoutError(f"{INDEX}: found {column} without three positive counts for a sample, expected them")
        found[name] = flat.reshape(-1, 3)
    return found
