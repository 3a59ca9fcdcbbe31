"""Files that were written again after their shards were planned are counted."""

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from builder import open_dataset
from builder.model.layout import RECEIPT, shard_path
from builder.plan import PLANNED
from builder.planning import sorted_rows
from builder.planning.shard_plans import count_touched
from builder.run.pipeline import build
from builder.run.pipeline import plan as plan_dataset
from builder.run.progress import SilentProgress
from builder.spec import DatasetSpec
from builder.stages.planned import LineReader, Rows, plan_line
from builder.storage import open_store
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series


def line(*stamps: str) -> bytes:
    rows = [{"case": 0, "role": "image", "source": 0, "path": f"{n}.dcm", "member": "", "stamp": stamp, "size": 9}
            for n, stamp in enumerate(stamps)]  # fmt: skip
    return plan_line("f" * 32, (), Rows.of(pa.Table.from_pylist(rows, schema=PLANNED)), {})


@pytest.mark.parametrize(
    ("before", "now", "touched"),
    [("abc", "abc", 0), ("abc", "abd", 1), ("abc", "xyz", 3), ("abc", "ab", 0), ("", "", 0)],
)
def test_other_stamps_are_counted(before: str, now: str, touched: int):
    assert count_touched(line(*before), line(*now)) == touched


class Heard(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetSpec:
    """A spec of four shards, each of a series in a folder of its own."""
    monkeypatch.setenv("BUILDER_KEY", KEY)
    archive = tmp_path / "archive"
    for number in range(4):
        ct_series(archive / f"{number}", slices=2, shape=(4, 4), patient_id=f"P{number}", series=f"{number}")
    return DatasetSpec.model_validate(
        {
            "name": "touched",
            "license": "CC0-1.0",
            "sources": [{"kind": "folder", "url": str(archive)}],
            "deid": {"patient_key": "${env:BUILDER_KEY}"},
            "samples": {"kind": "volumes"},
            "shards": {"cases": 1},
            "splits": {"ratios": {"train": 1.0}},
        }
    )


def test_files_of_built_shards_are_counted_by_every_plan(
    spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, heard = tmp_path / "archive", Heard()
    made = plan_dataset(spec, to=tmp_path / "dataset").plan
    for shard in made.shards:
        open_store(tmp_path / "dataset").put(shard_path(shard.fingerprint, RECEIPT), b"")
    for path in [*(archive / "0").iterdir(), *(archive / "3").iterdir()]:
        os.utime(path, (1, 1))
    monkeypatch.setattr(sorted_rows, "GROUP_CASES", 1)  # four tasks now, where there was one
    for _ in range(2):
        again = plan_dataset(spec, to=tmp_path / "dataset", progress=heard).plan
        assert again.url == made.url
    assert len([line for line in heard.lines if line.startswith("plan: 4 files were written again")]) == 2


def touched(archive: Path) -> None:
    for path in archive.rglob("*.dcm"):
        os.utime(path, (1, 1))


def moved(archive: Path) -> None:
    (archive / "0").rename(archive / "elsewhere")


@pytest.mark.parametrize("change", [touched, moved])
def test_an_archive_that_changed_after_it_was_planned_is_built_as_it_is(
    change: Callable[[Path], None], spec: DatasetSpec, tmp_path: Path
) -> None:
    plan_dataset(spec, to=tmp_path / "dataset")
    change(tmp_path / "archive")
    build(spec, to=tmp_path / "dataset")
    assert len(open_dataset(tmp_path / "dataset")) == 4


def test_files_of_an_earlier_plan_are_read_once_however_many_shards_are_planned_anew(
    spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan_dataset(spec, to=tmp_path / "dataset").plan
    touched(tmp_path / "archive")
    before, read = open_store(made.url), []
    whole = LineReader._read

    def counted(self: LineReader) -> None:
        read.append(self._store.url)
        whole(self)

    monkeypatch.setattr(LineReader, "_read", counted)
    plan_dataset(spec, to=tmp_path / "dataset")
    assert read.count(before.url) == 1
