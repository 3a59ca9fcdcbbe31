"""Workers log the argument of a task that fails, so none may hold an identifier of the archive."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from builder.run.pipeline import build
from builder.run.serial import SerialRunner
from builder.spec import DatasetSpec
from builder.stages.graph import Outcome, Task
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series

NAMING = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What workers would log of all tasks."""
    found: list[str] = []
    run = SerialRunner.run

    def noted(self: SerialRunner, tasks: Iterable[Task]) -> Iterator[Outcome]:
        tasks = list(tasks)
        found.extend(f"{task.key} {task.argument!r}" for task in tasks)
        return run(self, tasks)

    monkeypatch.setattr(SerialRunner, "run", noted)
    return found


def test_no_argument_of_a_build_holds_an_identifier(
    said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build, and one of the archive after it grew."""
    monkeypatch.setenv("BUILDER_KEY", KEY)
    spec = DatasetSpec.model_validate(
        {
            "name": "arguments",
            "license": "CC0-1.0",
            "sources": [{"kind": "folder", "url": str(tmp_path / "archive")}],
            "deid": {"patient_key": "${env:BUILDER_KEY}"},
            "samples": {"kind": "volumes"},
            "splits": {"ratios": {"train": 1.0}},
        }
    )
    for number in range(3):
        for series in (f"{number}", f"{number}0"):
            ct_series(
                tmp_path / f"archive/{series}", slices=2, shape=(4, 4), patient_id=f"NOBODY{number}", series=series
            )
        if number:
            build(spec, to=tmp_path / "dataset")
    assert {line.split("-")[0] for line in said} >= {"index", "survey", "sort", "plan", "shard"}
    names = {text for path in (tmp_path / "archive").rglob("*.dcm") for text in identifiers(path)}
    assert len(names) > 20
    assert not [line for line in said if any(name in line for name in names)]


def identifiers(path: Path) -> set[str]:
    header = dcmread(path, stop_before_pixels=True)
    return {str(header[name].value) for name in NAMING}
