"""Views: other libraries read a selection as one array, through fsspec alone."""

import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr

from builder.reader import open_dataset
from builder.reader.views import split_views, view_document


def open_view(document: bytes, root: Path, folder: Path) -> Any:
    path = folder / "view.json"
    path.write_bytes(document)
    fs = fsspec.filesystem(
        "reference",
        fo=str(path),
        remote_protocol="file",
        template_overrides={"root": str(root)},
        asynchronous=True,
        skip_instance_cache=True,
    )
    return zarr.storage.FsspecStore(fs, read_only=True)


@pytest.mark.parametrize("selection", ["true", "sex = 'F'", "false"])
def test_one_array_a_field(patches: Any, tmp_path: Path, selection: str) -> None:
    dataset = open_dataset(patches.root).where(selection)
    document = view_document(dataset)
    assert document == view_document(dataset)
    assert str(patches.root) not in document.decode()
    group = zarr.open_group(open_view(document, patches.root, tmp_path), mode="r")
    if not len(dataset):
        assert not list(group.arrays())
        return
    for name in dataset.fields:
        found = group[name]
        assert found.chunks == (1, 1, 6, 7, 8)
        np.testing.assert_array_equal(found[:], patches.stack(name, dataset.rows))


def test_whole_volumes_one_array_each(volumes: Any, tmp_path: Path) -> None:
    dataset = open_dataset(volumes.root).select([3, 0])
    group = zarr.open_group(open_view(view_document(dataset), volumes.root, tmp_path), mode="r")
    for position, row in enumerate([3, 0]):
        np.testing.assert_array_equal(group[f"image/{position}"][:], volumes.samples[row].arrays["image"])


def test_xarray_reads_it(patches: Any, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    dataset = open_dataset(patches.root, split="train")
    with xarray.open_zarr(open_view(view_document(dataset), patches.root, tmp_path), chunks=None) as found:
        assert found["image"].dims == ("sample", "channel", "slice", "row", "column")
        np.testing.assert_array_equal(found["image"].values, patches.stack("image", dataset.rows))


def test_references_lie_inside_their_objects(patches: Any) -> None:
    dataset = open_dataset(patches.root)
    for reference in json.loads(view_document(dataset))["refs"].values():
        if isinstance(reference, list):
            path, offset, length = reference
            assert offset + length <= dataset.store.size(path.removeprefix("{{root}}/"))


def test_every_split_has_a_view(patches: Any, tmp_path: Path) -> None:
    dataset = open_dataset(patches.root)
    views = split_views(dataset.store, dataset.manifest, dataset.table)
    assert sorted(views) == ["views/test.json", "views/train.json", "views/validation.json"]
    group = zarr.open_group(open_view(views["views/test.json"], patches.root, tmp_path), mode="r")
    rows = [i for i, split in enumerate(patches.splits) if split == "test"]
    np.testing.assert_array_equal(group["tumor"][:], patches.stack("tumor", rows))
