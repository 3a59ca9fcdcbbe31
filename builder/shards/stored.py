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
            document = json.loads(self.read(f"{array}/zarr.json"))
            wanted = [number] if layout.shape is not None else None
            chunks[layout.name] = self._chunks(array, document, wanted)
            shapes[layout.name] = tuple(document["shape"])
        return StoredSample(self.rows[number], chunks, shapes)

    def _chunks(self, array: str, document: Any, wanted: list[int] | None) -> list[bytes]:
        inner = document["codecs"][0]["configuration"]["chunk_shape"]
        count = int(np.prod([-(-n // c) for n, c in zip(document["shape"], inner, strict=True)]))
        path = shard_path(self.receipt.fingerprint, array, "c", *"0" * len(document["shape"]))
        places = self._index(path, count)
        ranges = [(int(start), int(length)) for start, length in (places if wanted is None else places[wanted])]
        found = [bytes(data) for data in self.store.read_ranges(path, ranges)]
        if any(checksum(data[:-CHECKSUM_BYTES]) != data[-CHECKSUM_BYTES:] for data in found):
            raise self._damaged(array)
        return found

    def _index(self, path: str, count: int) -> NDArray[np.uint64]:
        size, length = self.store.size(path), index_bytes(count)
        return decode_index(
            bytes(self.store.read_range(path, size - length, length=length)), chunks=count, size=size, where=path
        )

    def _damaged(self, path: str) -> LayoutError:
        return LayoutError(
            f"{shard_path(self.receipt.fingerprint, path)}: found another content than was stored, expected samples to "
            "copy; restore the shard from a copy, see builder verify"
        )
