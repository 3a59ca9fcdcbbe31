"""Read the samples of a finished shard as they are stored, to copy them into another one."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import LayoutError
from builder.model.fields import FieldLayout
from builder.model.layout import SAMPLES, Receipt, shard_path
from builder.model.parquet import read_parquet
from builder.model.zarr_format import CHECKSUM_BYTES, checksum, decode_index, index_bytes
from builder.shards.writer import StoredSample
from builder.storage import Store


@dataclass(frozen=True)
class StoredShard:
    """A finished shard of a dataset."""

    store: Store
    receipt: Receipt

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the samples, in order."""
        rows: list[dict[str, Any]] = read_parquet(self.read(SAMPLES)).to_pylist()
        return rows

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Case to the numbers of its samples."""
        found: dict[str, list[int]] = {}
        for number, row in enumerate(self.rows):
            found.setdefault(row["case_key"], []).append(number)
        return found

    def fields(self) -> tuple[FieldLayout, ...]:
        """Return the fields without what cases say about them."""
        blank = {"unit": "", "segments": {}, "channel_names": (), "channel_units": (), "grid": ""}
        return tuple(replace(layout, **blank) for layout in self.receipt.fields)  # type: ignore[arg-type]

    def read(self, path: str) -> bytes:
        """Read a small object of the shard. Raises LayoutError if it is not what the receipt states."""
        data = self.store.read(shard_path(self.receipt.fingerprint, path))
        stated = next((stored.sha256 for stored in self.receipt.objects if stored.path == path), None)
        if hashlib.sha256(data).hexdigest() != stated:
            raise self._damaged(path)
        return data

    def sample(self, number: int) -> StoredSample:
        """Return one sample. Raises LayoutError where a chunk does not have the checksum that is stored with it."""
        chunks, shapes = {}, {}
        for layout in self.receipt.fields:
            array = layout.name if layout.shape is not None else f"{layout.name}/{number}"
            whole = layout.shape is None
            held = self._array(array) if whole else self._packed[array]
            places = held.places if whole else held.places[[number]]
            ranges = [(int(start), int(length)) for start, length in places]
            chunks[layout.name] = [bytes(data) for data in self.store.read_ranges(held.path, ranges)]
            if any(checksum(data[:-CHECKSUM_BYTES]) != data[-CHECKSUM_BYTES:] for data in chunks[layout.name]):
                raise self._damaged(array)
            shapes[layout.name] = held.shape
        return StoredSample(self.rows[number], chunks, shapes)

    @cached_property
    def _packed(self) -> dict[str, "_Array"]:
        """The arrays that hold a chunk of every sample, read once."""
        return {layout.name: self._array(layout.name) for layout in self.receipt.fields if layout.shape is not None}

    def _array(self, array: str) -> "_Array":
        document = json.loads(self.read(f"{array}/zarr.json"))
        inner = document["codecs"][0]["configuration"]["chunk_shape"]
        count = int(np.prod([-(-n // c) for n, c in zip(document["shape"], inner, strict=True)]))
        path = shard_path(self.receipt.fingerprint, array, "c", *"0" * len(document["shape"]))
        size, length = self.store.size(path), index_bytes(count)
        index = bytes(self.store.read_range(path, size - length, length=length))
        return _Array(path, tuple(document["shape"]), decode_index(index, chunks=count, size=size, where=path))

    def _damaged(self, path: str) -> LayoutError:
        return LayoutError(
            f"{shard_path(self.receipt.fingerprint, path)}: found another content than was stored, expected samples to "
            "copy; restore the shard from a copy, see builder verify"
        )


@dataclass(frozen=True, eq=False)
class _Array:
    """Where an array's inner chunks lie: its object, its shape, and start and length (n, 2) of each chunk."""

    path: str
    shape: tuple[int, ...]
    places: NDArray[np.uint64]
