"""Present a selection of samples as one Zarr array per field, by reference, without copying any voxel.

The document is in fsspec's ReferenceFileSystem format, version 1. Any Zarr library that reads through fsspec opens it::

    fs = fsspec.filesystem("reference", fo="views/train.json", remote_protocol="file",
                           template_overrides={"root": "/path/of/the/dataset"}, asynchronous=True)
    zarr.open_group(zarr.storage.FsspecStore(fs, read_only=True), mode="r")["image"]
"""

import json

import pyarrow as pa

from builder.model.canonical import Json, canonical_json
from builder.model.layout import VIEWS, Manifest
from builder.model.zarr_format import group_document
from builder.reader.dataset import Dataset
from builder.reader.opening import dataset_over
from builder.storage import Store

ROOT = "root"
"""Name of the template for the location of the dataset.

The document is stored with the dataset, so it cannot know where the dataset will be moved to.
"""


def view_document(dataset: Dataset) -> bytes:
    """Return a reference document of the samples of ``dataset``, in their order.

    Fields of one shape become arrays (sample, channel, slice, row, column) with one chunk per sample, which refers to
    a range of a shard. Whole volumes become one array per sample, ``<field>/<position>``.

    Raises
    ------
    LayoutError
        If the index or metadata of a shard cannot be read.
    """
    members: dict[str, Json] = {}
    refs: dict[str, Json] = {}
    for name in dataset.fields if len(dataset) else ():
        layout = dataset.layout(name)
        attributes = {"unit": layout.unit, "segments": {k: list(v) for k, v in layout.segments.items()}}
        if layout.shape is None:
            members[name] = group_document(attributes)
            for position in range(len(dataset)):
                path, _, document = _stored(dataset, position, name)
                members[f"{name}/{position}"] = document
                refs[f"{name}/{position}/c/0/0/0/0"] = [path]
            continue
        members[name] = _joined(dataset, name)
        for position in range(len(dataset)):
            source, chunk = dataset.locate(position, name)
            offset, length = source.index[chunk]
            refs[f"{name}/c/{position}/0/0/0/0"] = [f"{{{{{ROOT}}}}}/{source.path}", offset, length]
    documents = {"": group_document({}, members=members), **members}
    refs |= {f"{path}/zarr.json".lstrip("/"): canonical_json(d).decode() for path, d in documents.items()}
    return canonical_json({"version": 1, "templates": {ROOT: "."}, "refs": refs})


def _joined(dataset: Dataset, name: str) -> Json:
    """Return the metadata of the array of all samples: that of the shards, with their inner chunks as chunks."""
    _, _, document = _stored(dataset, 0, name)
    inner = document["codecs"][0]["configuration"]
    shape = [len(dataset), *document["shape"][1:]]
    grid = {"name": "regular", "configuration": {"chunk_shape": inner["chunk_shape"]}}
    return {**document, "shape": shape, "chunk_grid": grid, "codecs": inner["codecs"]}


def _stored(dataset: Dataset, position: int, name: str) -> tuple[str, int, Json]:
    """Return the reference, chunk number and array metadata of a field of a sample."""
    source, chunk = dataset.locate(position, name)
    folder = source.path.split("/c/")[0]
    document = json.loads(dataset.store.read(f"{folder}/zarr.json"))
    return f"{{{{{ROOT}}}}}/{source.path}", chunk, document


def view_path(split: str) -> str:
    """Return the path of a split's view in the folder of a version."""
    return f"{VIEWS}/{split}.json"


def split_views(store: Store, manifest: Manifest, index: pa.Table) -> dict[str, bytes]:
    """Return the view of every split of a version before it is published, by path in the folder of the version."""
    fields = [layout.name for layout in manifest.fields]
    whole = dataset_over(store, manifest, index, fields=fields)
    names = sorted({name for name in index.column("split").to_pylist() if name is not None})
    return {view_path(name): view_document(whole.split(name)) for name in names}
