"""Datasets that somebody changed to make their reader open, or their exports write, what lies outside."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from builder.errors import LayoutError
from builder.library.training import record_training
from builder.model.layout import INDEX, MANIFEST
from builder.model.parquet import parquet_bytes, read_parquet
from builder.reader import open_dataset
from builder.reader.export import export_datalist, export_nifti, export_nnunet, export_webdataset
from builder.reader.export.folder import ExportFolder

Change = Callable[[Path], object]
SECRET = b"what belongs to the person who opens the dataset"


def manifest_of(root: Path) -> Path:
    return root / "versions" / (root / "CURRENT").read_text().strip() / MANIFEST


def in_manifest(change: Callable[[Any], Any]) -> Change:
    def apply(root: Path) -> None:
        path = manifest_of(root)
        document = json.loads(path.read_bytes())
        change(document)
        path.write_text(json.dumps(document))

    return apply


def in_index(column: str, value: Any) -> Change:
    """The first row's value replaced, with a manifest that fits."""

    def apply(root: Path) -> None:
        path = manifest_of(root).with_name(INDEX)
        table = read_parquet(path.read_bytes())
        values = [value, *table[column].to_pylist()[1:]]
        place = table.schema.get_field_index(column)
        data = parquet_bytes(table.set_column(place, column, pa.array(values, table.schema.field(column).type)))
        path.write_bytes(data)

        def described(document: Any) -> None:
            for entry in document["files"]:
                if entry["path"] == INDEX:
                    entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

        in_manifest(described)(root)

    return apply


def linked(path: str) -> Change:
    """A file replaced by a link to the same bytes outside: what would be read is right, where it lies is not."""

    def apply(root: Path) -> None:
        target = next(root.glob(path))
        outside = root.parent / "outside" / "copy"
        shutil.move(target, outside)
        target.symlink_to(outside)

    return apply


def replaced(path: str, data: bytes) -> Change:
    return lambda root: next(root.glob(path)).write_bytes(data) and None


FIRST: Mapping[str, Change] = {
    "key_climbs": in_index("sample_key", "../../outside/x"),
    "key_is_absolute": in_index("sample_key", "/tmp/x"),
    "key_has_a_folder": in_index("sample_key", "a/b"),
    "key_is_hidden": in_index("sample_key", ".bashrc"),
    "split_climbs": in_index("split", "../outside"),
    "row_is_negative": in_index("row", -1),
    "version_climbs": replaced("CURRENT", b"../../outside\n"),
    "name_climbs": in_manifest(lambda d: d.update(name="../outside")),
    "name_is_absolute": in_manifest(lambda d: d.update(name="/tmp/outside")),
    "version_is_another": in_manifest(lambda d: d.update(version="v2")),
    "shard_climbs": in_manifest(lambda d: d["shards"][0].update(fingerprint="../../outside")),
    "object_climbs": in_manifest(lambda d: d["shards"][0]["objects"][0].update(path="../../outside/x")),
    "object_is_absolute": in_manifest(lambda d: d["shards"][0]["objects"][0].update(path="/etc/passwd")),
    "digest_is_a_path": in_manifest(lambda d: d["shards"][0]["objects"][0].update(sha256="../../outside/x")),
    "file_climbs": in_manifest(lambda d: d["files"][0].update(path="../../../outside/x")),
    "field_climbs": in_manifest(lambda d: d["fields"][0].update(name="../../outside/x")),
    "type_is_pointers": in_manifest(lambda d: d["fields"][0].update(dtype="O")),
    "type_is_a_record": in_manifest(lambda d: d["fields"][0].update(dtype="i4,i4")),
    "manifest_is_deep": lambda root: manifest_of(root).write_text("[" * 100_000) and None,
    "index_is_a_link": linked(f"versions/*/{INDEX}"),
    "manifest_is_a_link": linked(f"versions/*/{MANIFEST}"),
    "pointer_is_a_link": linked("CURRENT"),
}
"""What is refused when the dataset is opened."""

LATER = {"voxels_are_a_link": linked("data/*/image/c/0/0/0/0/0"), "shard_is_a_link": linked("data/*")}
"""What is refused when samples are read."""


@pytest.fixture
def hostile(fresh: Callable[..., Any], tmp_path: Path) -> Iterator[Path]:
    """A dataset to change, beside a folder that must stay as it is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(SECRET)
    yield fresh().root
    kept = {path.name for path in outside.iterdir()} - {"copy"}
    assert kept == {"x"}
    assert (outside / "x").read_bytes() == SECRET


@pytest.mark.parametrize("change", FIRST.values(), ids=FIRST)
def test_is_refused_when_it_is_opened(hostile: Path, change: Change):
    change(hostile)
    with pytest.raises(LayoutError):
        open_dataset(hostile)


@pytest.mark.parametrize("change", LATER.values(), ids=LATER)
def test_is_refused_when_it_is_read(hostile: Path, change: Change):
    change(hostile)
    dataset = open_dataset(hostile)
    with pytest.raises(LayoutError, match="leads out of"):
        list(dataset)


EXPORTS: Mapping[str, Callable[[Any, Path], Any]] = {
    "nifti": export_nifti,
    "datalist": lambda dataset, target: export_datalist(dataset, target, label="tumor"),
    "nnunet": lambda dataset, target: export_nnunet(dataset, target, number=1, label="tumor"),
    "webdataset": export_webdataset,
}


@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
def test_exports_write_nowhere_else(hostile: Path, tmp_path: Path, monkeypatch, export: Callable[..., Any]):
    monkeypatch.setattr("builder.reader.opening.check_names", lambda table: None)  # the second wall alone
    monkeypatch.setattr("builder.reader.export.nnunet._classes", lambda dataset, label: {1: 1})
    in_index("sample_key", "../../outside/y")(hostile)
    with pytest.raises(LayoutError, match="leads out of the target folder"):
        export(open_dataset(hostile), tmp_path / "target")


def test_an_export_follows_no_link_that_lies_in_its_folder(tmp_path: Path):
    (tmp_path / "outside").mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / "image").symlink_to(tmp_path / "outside")
    with pytest.raises(LayoutError, match="leads out of the target folder"):
        ExportFolder(target).path("image", "x.nii.gz")
    assert ExportFolder(target).write(b"1", "mask", "x").read_bytes() == b"1"


@pytest.mark.parametrize("suffix", [".uses", ".training"])
def test_a_link_beside_the_dataset_is_not_followed(hostile: Path, monkeypatch, suffix: str):
    monkeypatch.setattr("builder.reader.uses._seen", set())
    hostile.with_name(hostile.name + suffix).symlink_to(hostile.parent / "outside")
    open_dataset(hostile)
    words = {"architecture": "unet", "loss": "dice", "optimizer": "adam"}
    run = words | {"learning_rate": 0.1, "batch_size": 1, "epochs": 1}
    if suffix == ".training":
        with pytest.raises(LayoutError, match="found a link beside the dataset"):
            record_training(str(hostile), run)
