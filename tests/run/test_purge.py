"""What a withdrawal deletes from the private workspace, and what is left if it is killed meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from builder.library.absence import Needles
from builder.model.parquet import parquet_bytes
from builder.planning.latest import Latest
from builder.run import purge
from builder.storage import Store, open_store


def workspace(folder: Path) -> Store:
    private = open_store(folder, directory_mode=0o700)
    part = parquet_bytes(pa.table({"source": [0], "path": ["who/went"], "member": [""]}))
    for path in ("index/part.parquet", "index/part.entries.parquet"):
        private.put(path, part)
    private.put("index/part.json", b"{}")
    private.put("index/listed-source.json", b"who/")
    for path in ("annotations.parquet", "images/chunk.parquet", "inventory.json", "leftovers.parquet"):
        private.put(f"inventory/before/{path}", b"")
    return private


def killed_at(number: int) -> Iterator[None]:
    yield from (None for _ in range(number))
    raise KeyboardInterrupt


def test_no_receipt_is_left_without_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needles, plan = Needles(files=frozenset({(0, "who/went", "")})), Latest("plan/now", "inventory/now", ())
    whole = set(workspace(tmp_path).list())
    for number in range(len(whole) + 1):
        private = workspace(tmp_path)
        steps = killed_at(number)
        monkeypatch.setattr(purge, "checkpoint", lambda _, steps=steps: next(steps))
        try:
            purge.purge_private(private, plan, needles, ())
        except KeyboardInterrupt:
            left = set(private.list())
            assert "index/part.json" not in left or "index/part.parquet" in left
            assert "inventory/before/inventory.json" not in left or {p for p in whole if "before" in p} <= left
            monkeypatch.setattr(purge, "checkpoint", lambda _: None)
            purge.purge_private(private, plan, needles, ())
        assert not list(private.list())


def test_rows_that_a_killed_plan_left_go(tmp_path: Path) -> None:
    """They are compressed, so that the search for a certificate of absence would not see whose they are."""
    private = open_store(tmp_path, directory_mode=0o700)
    left = (".scratch-a/run-000000", ".scratch-a/shards/000000.parquet", "inventory/now/.scratch-b/000000.parquet")
    kept = ("inventory/now/inventory.json", "lease/.scratch-beat", "plan/now/shards/000000.parquet")
    for path in (*left, *kept):
        private.put(path, b"rows of an archive")
    purge.purge_private(private, Latest("plan/now", "inventory/now", ()), Needles(), ())
    assert [path for path in private.list() if path in left + kept] == list(kept)
