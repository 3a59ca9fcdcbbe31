"""Export to MDS, the shards that MosaicML's ``streaming`` reads.

Source: mosaicml-streaming 0.13, "Dataset Format" and the encodings of its MDS writer. The library itself brings the
clients of four clouds, so the format is written here, and ``make test-peers`` reads it with the library.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from builder.errors import SpecError, counted
from builder.reader.dataset import Dataset
from builder.reader.export.folder import ExportFolder, Track, silently
from builder.reader.export.missing import Missing, check_present
from builder.reader.item import Item

SIZE_LIMIT: Final = 64 << 20
"""Bytes of voxels after which a shard is full; one sample at least is in each."""

LARGEST: Final = (1 << 32) - 1
"""Most bytes of a shard, because a sample's place in it has 32 bits."""

INDEX: Final = "index.json"
ROW: Final = "row"
_NUMBERS: Final = ("uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32", "int64", "float64")


def export_mds(
    dataset: Dataset, folder: str | Path | ExportFolder, *, missing: Missing = "refuse", track: Track = silently
) -> list[Path]:
    """Write ``<split>/shard.00000.mds`` and ``<split>/index.json`` for every split.

    ``streaming.StreamingDataset(local=folder, split="train")`` gives a dict a sample: every field as an array
    (channel, slice, row, column), and the columns of the row as ``row``, a dict. ``missing: fill`` also writes samples
    that lack an optional image; SpecError refuses them otherwise, and samples of 4 GiB or more.

    Returns
    -------
    list
        The shards, in the order of the splits and samples.
    """
    check_present(dataset, missing)
    target, columns = ExportFolder.of(folder), _columns(dataset)
    pieces = list(_pieces(dataset))

    def write(number: int) -> Path:
        split, count, group = pieces[number]
        name = f"shard.{count:05d}.mds"
        if not target.holds(split, name):
            target.write(_shard([_sample(dataset[n], columns) for n in group], columns), split, name)
        return target.path(split, name)

    paths = target.each(write, range(len(pieces)), track)
    for split in dict.fromkeys(split for split, _, _ in pieces):
        shards = [
            {
                **_config(columns),
                "raw_data": {"basename": path.name, "bytes": path.stat().st_size, "hashes": {}},
                "samples": len(group),
                "zip_data": None,
            }
            for path, (own, _, group) in zip(paths, pieces, strict=True)
            if own == split
        ]
        target.write(json.dumps({"version": 2, "shards": shards}, sort_keys=True).encode(), split, INDEX)
    return paths


def _columns(dataset: Dataset) -> dict[str, str]:
    """Return the encoding of each column, by name in the order in which a sample holds them."""
    if ROW in dataset.fields:
        raise SpecError(f"export: found a field called {ROW!r}, expected another name; mds keeps the rows under it")
    columns = {ROW: "json"}
    for name in dataset.fields:
        kind = np.dtype(dataset.dtype(name)).name
        if kind not in _NUMBERS:
            raise SpecError(f"export: found {name} of type {kind}, expected one of {', '.join(_NUMBERS)} for mds")
        columns[name] = f"ndarray:{kind}"
    return dict(sorted(columns.items()))


def _pieces(dataset: Dataset) -> Iterator[tuple[str, int, list[int]]]:
    """Yield the split, the number in it and the positions of the samples of each shard."""
    splits = dataset.table.column("split").to_pylist()
    voxels = dataset.sample_shapes(np.arange(len(dataset))).astype(np.int64).prod(axis=1)
    of_voxel = sum(dataset.layout(name).channels * np.dtype(dataset.dtype(name)).itemsize for name in dataset.fields)
    for split in dict.fromkeys(splits):
        number, group, size = 0, list[int](), 0
        for position in (n for n, own in enumerate(splits) if own == split):
            if group and size + voxels[position] * of_voxel > SIZE_LIMIT:
                yield split, number, group
                number, group, size = number + 1, [], 0
            group.append(position)
            size += int(voxels[position] * of_voxel)
        yield split, number, group


def _sample(item: Item, columns: dict[str, str]) -> bytes:
    """Return a sample: the length of each value as 32 bits, then the values."""
    values = [
        json.dumps(item.row, sort_keys=True, default=str).encode() if name == ROW else _array(item[name])
        for name in columns
    ]
    return b"".join([np.array([len(value) for value in values], "<u4").tobytes(), *values])


def _array(array: NDArray[Any]) -> bytes:
    """Return an array of a known type: number of axes and type of the shape, shape, and values."""
    longest = max(array.shape)
    power = 0 if longest < 1 << 8 else 1 if longest < 1 << 16 else 2
    shape = np.array(array.shape, f"<u{1 << power}")
    return bytes([array.ndim << 2 | power]) + shape.tobytes() + np.ascontiguousarray(array).tobytes()


def _shard(samples: Sequence[bytes], columns: dict[str, str]) -> bytes:
    """Return a shard: number of samples, where each begins and the last one ends, the columns, and the samples."""
    config = json.dumps(_config(columns), sort_keys=True).encode()
    begin = 4 + 4 * (len(samples) + 1) + len(config)
    ends = np.cumsum([begin, *map(len, samples)])
    if ends[-1] > LARGEST:
        raise SpecError(
            f"export: found {counted(len(samples), 'sample')} of {ends[-1]:,} bytes for a shard of mds, expected less "
            "than 4 GiB; build patches, or export in another form"
        )
    return b"".join([np.uint32(len(samples)).tobytes(), ends.astype("<u4").tobytes(), config, *samples])


def _config(columns: dict[str, str]) -> dict[str, Any]:
    return {
        "version": 2,
        "format": "mds",
        "compression": None,
        "hashes": [],
        "size_limit": SIZE_LIMIT,
        "column_names": list(columns),
        "column_encodings": list(columns.values()),
        "column_sizes": [None] * len(columns),
    }
