"""Datasets that somebody changed to make their reader open, or their exports write, what lies outside."""

import hashlib
import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from builder.errors import LayoutError
from builder.library.training import record_training
from builder.model.layout import INDEX, MANIFEST
from builder.model.parquet import parquet_bytes, read_parquet
from builder.publishing.report import render_again
from builder.reader import open_dataset
from builder.reader.export import (
    export_datalist,
    export_nifti,
    export_nnunet,
    export_omezarr,
    export_webdataset,
)
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


def in_index(column: str, value: Any, schema: pa.Schema | None = None) -> Change:
    """The first row's value replaced, with a manifest that fits; ``schema`` says more than the table's own."""

    def apply(root: Path) -> None:
        path = manifest_of(root).with_name(INDEX)
        table = read_parquet(path.read_bytes())
        values = [value, *table[column].to_pylist()[1:]]
        place = table.schema.get_field_index(column)
        table = table.set_column(place, column, pa.array(values, table.schema.field(column).type))
        data = parquet_bytes(table if schema is None else table.cast(schema))
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


def a_pipe(path: str) -> Change:
    """A pipe instead of a file: who opens it waits for ever."""

    def apply(root: Path) -> None:
        target = next(root.glob(path))
        target.unlink()
        os.mkfifo(target)

    return apply


def sparse(path: str) -> Change:
    """A file of 64 GiB that takes no space."""
    return lambda root: os.truncate(next(root.glob(path)), 64 << 30)


def with_pickle(root: Path) -> None:
    """An index with a column of the extension type that old versions of Arrow unpickled."""
    path = manifest_of(root).with_name(INDEX)
    table = read_parquet(path.read_bytes())
    payload = b"cos\nsystem\n(S'touch " + str(root.parent / "outside" / "y").encode() + b"'\ntR."
    kind = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": payload}
    fields = [f.with_metadata(kind) if f.name == "split" else f for f in table.schema]
    in_index("sample_key", table["sample_key"][0].as_py(), pa.schema(fields))(root)


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
    "pointer_is_a_pipe": a_pipe("CURRENT"),
    "index_is_a_pipe": a_pipe(f"versions/*/{INDEX}"),
    "pointer_has_no_end": sparse("CURRENT"),
    "manifest_has_no_end": sparse(f"versions/*/{MANIFEST}"),
    "key_has_dots_of_another_script": in_index("sample_key", "\u2024\u2024\u2215outside\u2215x"),
    "key_has_backslashes": in_index("sample_key", "..\\..\\outside"),
    "key_has_a_zero": in_index("sample_key", "a\0/../../outside/x"),
    "key_is_an_option": in_index("sample_key", "-rf"),
    "key_has_two_lines": in_index("sample_key", "a\n../../outside/x"),
    "pointer_has_two_lines": replaced("CURRENT", b"v1\n../../outside\n"),
    "pointer_has_backslashes": replaced("CURRENT", b"..\\..\\outside\n"),
    "pointer_has_a_zero": replaced("CURRENT", b"v1\0/../../outside\n"),
    "field_has_backslashes": in_manifest(lambda d: d["fields"][0].update(name="..\\x")),
    "field_has_a_zero": in_manifest(lambda d: d["fields"][0].update(name="image\0")),
    "file_is_escaped": in_manifest(lambda d: d["files"][0].update(path="%2e%2e/%2e%2e/outside/x")),
    "file_is_an_address": in_manifest(lambda d: d["files"][0].update(path="file:///etc/passwd")),
    "versions_are_a_link": linked("versions"),
    "version_is_a_link": linked("versions/*"),
    "key_is_long": in_index("sample_key", "a" * 100_000),
    "key_is_another_s": in_index("sample_key", "s00001"),
    "key_differs_in_case": in_index("sample_key", "S00001"),
    "number_is_long": replaced(f"versions/*/{MANIFEST}", b'{"format_version": ' + b"9" * 100_000 + b"}"),
    "total_is_a_list": in_manifest(lambda d: d["totals"].update(samples=[])),
    "spec_is_deep": in_manifest(lambda d: d.update(spec={"a": json.loads("[" * 900 + "]" * 900)})),
    "block_of_the_spec_is_text": in_manifest(lambda d: d.update(spec={"catalog": "x"})),
    "sources_of_the_spec_are_text": in_manifest(lambda d: d.update(spec={"sources": ["x"]})),
    "shape_is_negative": in_manifest(lambda d: d["fields"][0].update(shape=[1, -1, 8, 8])),
    "chunk_is_nothing": in_manifest(lambda d: d["fields"][0].update(chunk=[0, 0, 0])),
}
"""What is refused when the dataset is opened."""

LATER = {
    "voxels_are_a_link": linked("data/*/image/c/0/0/0/0/0"), "shard_is_a_link": linked("data/*"),
    "shards_are_a_link": linked("data"), "field_is_a_link": linked("data/*/image"),
}  # fmt: skip
"""What is refused when samples are read."""


HUGE: Mapping[str, Change] = {
    "shape_is_huge": in_manifest(lambda d: d["fields"][0].update(shape=[1, 1 << 20, 1 << 20, 1 << 20])),
    "volume_is_huge": in_index("slices", (1 << 31) - 1),
    "shard_has_many_rows": in_manifest(lambda d: d["shards"][0].update(rows=1 << 60)),
}
"""What would take all memory, wherever it is refused."""


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
    started = time.process_time()
    with pytest.raises(LayoutError):
        open_dataset(hostile)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("change", LATER.values(), ids=LATER)
def test_is_refused_when_it_is_read(hostile: Path, change: Change):
    change(hostile)
    dataset = open_dataset(hostile)
    with pytest.raises(LayoutError, match="leads out of"):
        list(dataset)


@pytest.mark.parametrize("change", HUGE.values(), ids=HUGE)
def test_takes_no_memory(hostile: Path, change: Change):
    change(hostile)
    started = time.process_time()
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, limit[1]))
    try:
        with pytest.raises(LayoutError):
            list(open_dataset(hostile))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)
    assert time.process_time() - started < 5


def test_a_damaged_table_is_told_by_name():
    with pytest.raises(LayoutError, match="no table in Parquet"):
        read_parquet(b"PAR1" + bytes(100) + b"PAR1")


@pytest.mark.parametrize("report", [b"[" * 300_000, b'{"splits": "../x"}', b"{}"])
def test_a_report_that_cannot_be_shown_is_told(hostile: Path, report: bytes):
    path = manifest_of(hostile).parent / "report"
    path.mkdir()
    (path / "report.json").write_bytes(report)
    with pytest.raises(LayoutError, match="report"):
        render_again(str(hostile))


def test_nothing_is_unpickled(hostile: Path):
    with_pickle(hostile)
    list(open_dataset(hostile))  # the fixture sees what a pickle would have written


EXPORTS: Mapping[str, Callable[[Any, Path], Any]] = {
    "nifti": export_nifti,
    "datalist": lambda dataset, target: export_datalist(dataset, target, label="tumor"),
    "nnunet": lambda dataset, target: export_nnunet(dataset, target, number=1, label="tumor"),
    "webdataset": export_webdataset,
    "omezarr": export_omezarr,
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
