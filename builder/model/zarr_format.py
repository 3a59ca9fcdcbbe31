"""The part of Zarr v3 this project writes and reads: metadata documents and the index of a sharded chunk.

Source: Zarr core specification version 3; the ``sharding_indexed`` codec 1.0, binary shard format: an index of
(offset, length) as little endian uint64 a chunk, here at the end and followed by its crc32c.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from builder.errors import LayoutError
from builder.model.canonical import Json

CHECKSUM_BYTES = 4
ENTRY_BYTES = 16
SAMPLE_AXES = ("sample", "channel", "slice", "row", "column")
VOLUME_AXES = ("channel", "slice", "row", "column")


@dataclass(frozen=True)
class Codec:
    """How an inner chunk is compressed: a Blosc compressor, its level, and its shuffle (shuffle, bitshuffle)."""

    compressor: str
    level: int
    shuffle: str
    by_plane: bool = False
    """Whether each plane of bytes is compressed only where that saves much (``builder.shards.planes``)."""


def array_document(
    shape: Sequence[int],
    *,
    name: str,
    chunk: Sequence[int],
    dtype: str,
    codec: Codec,
    attributes: Mapping[str, Json],
) -> Json:
    """Return ``zarr.json`` of an array that is one shard object with inner chunks of ``chunk``.

    ``name`` is the field's: xarray takes axes of one name for one axis, and an image and a mask need not have as many
    channels.
    """
    whole = [-(-n // c) * c for n, c in zip(shape, chunk, strict=True)]
    sharding = {
        "chunk_shape": list(chunk),
        "codecs": [_bytes_codec(dtype), _blosc_codec(dtype, codec), {"name": "crc32c"}],
        "index_codecs": [_bytes_codec("uint64"), {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": whole}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _fill_value(dtype),
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": dict(attributes),
        "dimension_names": _axes(name, len(shape)),
        "storage_transformers": [],
    }


def group_document(attributes: Mapping[str, Json], *, members: Mapping[str, Json] | None = None) -> Json:
    """Return ``zarr.json`` of a group; the documents of its ``members``, path to document, are repeated in it.

    With them a Zarr library need not list the folder, where it would wonder about our own files (and which takes
    long on an object store). Source: zarr-python's inline consolidated metadata, ``must_understand`` false.
    """
    document: Json = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    if members is not None:
        metadata = dict(sorted(members.items()))
        document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    return document


def checksum(data: bytes) -> bytes:
    """Return the four bytes that the crc32c codec appends (RFC 3720, little endian)."""
    return int(google_crc32c.value(data)).to_bytes(CHECKSUM_BYTES, "little")


def encode_index(places: Sequence[tuple[int, int]]) -> bytes:
    """Return the index of a shard: (offset, length) of every inner chunk, in C order of the chunk grid."""
    table = np.asarray(places, dtype="<u8").reshape(-1, 2).tobytes()
    return table + checksum(table)


def index_bytes(chunks: int) -> int:
    """Return the length of the index of a shard of ``chunks`` inner chunks."""
    return chunks * ENTRY_BYTES + CHECKSUM_BYTES


def decode_index(data: bytes, *, chunks: int, size: int, where: str) -> NDArray[np.uint64]:
    """Return (chunk, 2) offsets and lengths from the last ``index_bytes(chunks)`` bytes of an object of ``size`` bytes.

    Raises
    ------
    LayoutError
        When the checksum does not fit, or a chunk is missing or lies outside the object.
    """
    if len(data) != index_bytes(chunks) or checksum(data[:-CHECKSUM_BYTES]) != data[-CHECKSUM_BYTES:]:
        raise LayoutError(f"{where}: found a damaged index of {len(data)} bytes, expected {chunks} chunks and a crc32c")
    index = np.frombuffer(data, "<u8", count=2 * chunks).reshape(-1, 2)
    limit = np.uint64(max(size - len(data), 0))
    # compared one by one, so that a sum cannot wrap; a missing chunk is 2^64 - 1 twice
    inside = (index[:, 0] <= limit) & (index[:, 1] <= limit) & (index[:, 1] > CHECKSUM_BYTES)
    inside &= index[:, 1] <= limit - np.minimum(index[:, 0], limit)
    if not inside.all():
        wrong = int(np.flatnonzero(~inside)[0])
        raise LayoutError(f"{where}: found chunk {wrong} missing or outside the object, expected every chunk stored")
    return index


def _bytes_codec(dtype: str) -> Json:
    if np.dtype(dtype).itemsize == 1:
        return {"name": "bytes"}
    return {"name": "bytes", "configuration": {"endian": "little"}}


def _blosc_codec(dtype: str, codec: Codec) -> Json:
    return {
        "name": "blosc",
        "configuration": {
            "typesize": np.dtype(dtype).itemsize,
            "cname": codec.compressor,
            "clevel": codec.level,
            "shuffle": codec.shuffle,
            "blocksize": 0,
        },
    }


def _axes(name: str, count: int) -> list[str]:
    axes = SAMPLE_AXES if count == len(SAMPLE_AXES) else VOLUME_AXES
    return [f"{name}_channel" if axis == "channel" and name != "image" else axis for axis in axes]


def _fill_value(dtype: str) -> Json:
    kind = np.dtype(dtype).kind
    return False if kind == "b" else 0.0 if kind == "f" else 0
