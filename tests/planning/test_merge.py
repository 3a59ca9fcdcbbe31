"""Few rows are sorted and compared in memory, many by DuckDB: what is written is the same bytes."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.model.parquet import parquet_bytes
from builder.model.tables import INSTANCES
from builder.planning import duplicates, merge
from builder.planning.merge import merge_parts
from builder.storage import open_store

TEXTS = st.sampled_from([None, "", "1.2", "1.2.3", "1.10", "é", "z", "\U0001f600"])
CLASSES = st.sampled_from(
    [
        None,
        "1.2.840.10008.5.1.4.1.1.2",
        "1.2.840.10008.5.1.4.1.1.66.4",
        "1.2.840.10008.5.1.4.1.1.66.40",
        "1.2.840.10008.5.1.4.1.1.88.11",
        "1.2.840.10008.5.1.4.1.1.88",
        "1x2y840z10008",
    ]
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "status": st.sampled_from(["instance", "instance", "file", "duplicate", "quarantined"]),
            "series_uid": TEXTS,
            "sop_instance_uid": TEXTS,
            "sop_class_uid": CLASSES,
            "source": st.integers(0, 1),
            "size": st.integers(0, 2),
            "header_sha256": st.sampled_from(["a", "b"]),
        }
    ),
    max_size=40,
)


def table(rows: list[dict[str, object]]) -> pa.Table:
    named = [{"path": f"{i * 7 % 41:02d}", "member": "", "stamp": "", **row} for i, row in enumerate(rows)]
    return pa.Table.from_pylist(named, schema=INSTANCES)


def merged(parts: list[pa.Table], folder: Path) -> dict[str, bytes]:
    files = []
    for number, part in enumerate(parts):
        files.append(folder / f"{number}.parquet")
        files[-1].write_bytes(parquet_bytes(part, compression="lz4" if number % 2 else "zstd"))
    store = open_store(str(folder / "out"))
    merge_parts(files, store)
    return {path: store.read(path) for path in sorted(store.list())}


@settings(max_examples=25)
@given(rows=ROWS, cut=st.integers(0, 40))
def test_sorted_in_memory_and_out_of_core(rows: list[dict[str, object]], cut: int) -> None:
    parts = [table(rows).slice(0, cut), table(rows).slice(cut)]
    found = []
    for most in (10**6, -1):
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
            patch.setattr(merge, "MEMORY_ROWS", most)
            patch.setattr(merge, "BATCH_ROWS", 7)
            patch.setattr(merge, "CHUNK_ROWS", (5, 10))
            found.append(merged(parts, Path(folder)))
    assert found[0] == found[1]


def test_what_does_not_fit_into_memory_lies_beside_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def chunks(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        settings = "SELECT current_setting('temp_directory'), current_setting('memory_limit')"
        asked.append([str(value) for value in opened[-1].sql(settings).fetchall()[0]])
        return iter(())

    opened: list[duckdb.DuckDBPyConnection] = []
    connect = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda **given: opened.append(connect(**given)) or opened[-1])
    monkeypatch.setattr(merge, "MEMORY_ROWS", -1)
    monkeypatch.setattr(merge, "_chunks", chunks)
    merged([table([{"status": "instance", "series_uid": "1.2"}])], tmp_path)
    assert asked == [[str(tmp_path), "488.2 MiB"]]  # 512 MB


@settings(max_examples=25)
@given(rows=ROWS, cut=st.integers(0, 40), most=st.sampled_from([-1, 3, 10]))
def test_repeated_in_memory_and_on_disk(rows: list[dict[str, object]], cut: int, most: int) -> None:
    parts = [table(rows).slice(0, cut), table(rows).slice(cut)]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        few = list(duplicates._copies(parts, Path(folder)))
        patch.setattr(duplicates, "MEMORY_ROWS", most)
        assert list(duplicates._copies(parts, Path(folder))) == few
