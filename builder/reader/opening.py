"""Open a published dataset: read its pointer, manifest and index, and verify them."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final, TypedDict, Unpack

import numpy as np
import pyarrow as pa

from builder.errors import LayoutError, SpecError
from builder.model.layout import (
    CURRENT,
    INDEX,
    MANIFEST,
    Manifest,
    ShardEntry,
    StoredObject,
    check_names,
    parse_current,
    parse_manifest,
    version_path,
)
from builder.model.parquet import read_parquet
from builder.reader.cache import ObjectCache
from builder.reader.dataset import Dataset
from builder.reader.source import Source, Values, find_grids, find_places
from builder.reader.uses import BESIDE, log_use
from builder.storage import LocalStore, Store, open_store

CACHE_BYTES = 64 << 30


class ReadOptions(TypedDict, total=False):
    """How ``open_dataset``, which explains these options, reads voxels. A type checker knows them by their names."""

    checksums: bool
    values: Values
    cache: str | Path | None
    cache_bytes: int


def open_dataset(
    url: str | Path | Store,
    *,
    split: str | None = None,
    fields: Sequence[str] | None = None,
    version: str | None = None,
    uses: str = BESIDE,
    labels: str | Path | Store | None = None,
    **options: Unpack[ReadOptions],
) -> Dataset:
    """Open a dataset in a folder or object store.

    Parameters
    ----------
    url
        A folder, a URL (``s3://``, ``gs://``, ``az://``), or an open store.
    split
        Name of a split; None for all samples.
    fields
        Array fields to read; None for all.
    version
        Version to open instead of the published one.
    uses
        Where to write the log of use: ``beside`` the dataset, ``off``, or a folder or URL (``builder.reader.uses``).
    labels
        Separate store of sequestered labels (``splits.sequester`` of the spec). The samples then have all their labels.
    checksums
        Whether the crc32c of each chunk is verified when it is read (5 to 10 % of the time). True by default.
    values
        ``physical``, the default, unpacks packed numbers to float32 values. ``stored`` returns them as they are stored;
        ``layout(name).packing`` can turn them into values later, e.g. on a GPU.
    cache, cache_bytes
        Local folder that keeps objects of an object store, and its largest size (64 GiB by default). Without it, ranges
        are read from the store every time.

    Raises
    ------
    LayoutError
        If nothing is published there, a file is not what the manifest says, the format has another version, or
        ``labels`` does not belong to these samples and images.
    SpecError
        If the dataset does not have the split or a field.
    """
    unknown = sorted(set(options) - set(ReadOptions.__annotations__))
    if unknown:
        raise TypeError(f"open_dataset: found {unknown}, expected some of {', '.join(ReadOptions.__annotations__)}")
    store = open_store(url) if isinstance(url, (str, Path)) else url
    version = version or parse_current(_read(store, CURRENT))
    with ThreadPoolExecutor(2) as executor:  # both files are fetched in one round trip
        pending = executor.submit(_read, store, version_path(version, INDEX))
        manifest = parse_manifest(_read(store, version_path(version, MANIFEST)))
        data = pending.result()
    if manifest.version != version:
        raise LayoutError(f"{MANIFEST}: found the manifest of another version, expected {version}")
    _verify(data, INDEX, manifest=manifest)
    names = [layout.name for layout in manifest.fields]
    chosen = tuple(names if fields is None else fields)
    for name in chosen:
        if name not in names:
            raise SpecError(f"fields: found {name!r}, expected some of {', '.join(names)}")
    checksums, values = options.get("checksums", True), options.get("values", "physical")
    dataset = dataset_over(store, manifest, read_parquet(data), fields=chosen, checksums=checksums, values=values)
    cache = options.get("cache")
    if cache is not None:
        folder = LocalStore(Path(cache).absolute())
        dataset._source.cache = ObjectCache(folder, options.get("cache_bytes", CACHE_BYTES))
    if labels is not None:
        whole = open_dataset(labels, fields=chosen, checksums=checksums, values=values, uses="off")
        dataset = with_labels(dataset, whole)
    chosen_split = dataset if split is None else dataset.split(split)
    log_use(store, manifest, where=uses, split=split, fields=chosen, samples=len(chosen_split))
    return chosen_split


def with_labels(dataset: Dataset, whole: Dataset) -> Dataset:
    """Return the samples of a dataset, read from its separate store of labels.

    Raises
    ------
    LayoutError
        If the store holds other samples, or other images of them.
    """
    places = {key: place for place, key in enumerate(whole.table["sample_key"].to_pylist())}
    keys = dataset.table["sample_key"].to_pylist()
    images = [[_images_of(shard) for shard in d.manifest.shards] for d in (dataset, whole)]
    if images[0] != images[1] or any(key not in places for key in keys):
        raise LayoutError(
            "labels: found the labels of other samples or images, expected those of this version; "
            "open the version it was published with"
        )
    return replace(whole, rows=np.array([places[key] for key in keys], np.int64))


def _images_of(shard: ShardEntry) -> list[StoredObject]:
    return [o for o in shard.objects if o.path.startswith("image/")]


def dataset_over(
    store: Store,
    manifest: Manifest,
    table: pa.Table,
    *,
    fields: Sequence[str],
    checksums: bool = True,
    values: Values = "physical",
) -> Dataset:
    """Return the dataset that an index table and a manifest describe, published or not. Raises LayoutError."""
    check_names(table)
    source = Source(store, manifest, checksums, values, *find_places(table, manifest), find_grids(table, manifest))
    return Dataset(source, table, np.arange(table.num_rows), tuple(fields))


_LARGEST: Final = 1 << 30
"""Bytes of a pointer, a manifest or an index. A sparse file of any size costs its author nothing."""


def _read(store: Store, path: str) -> bytes:
    try:
        if isinstance(store, LocalStore) and store.size(path) > _LARGEST:
            raise LayoutError(f"{path}: found {store.size(path):_} bytes, expected at most {_LARGEST:_}")
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
