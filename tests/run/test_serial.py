"""The serial runner survives tasks that end their process; what they raise arrives as it was raised."""

import os
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import builder
from builder.decode.apart import Apart, Died
from builder.errors import CaseError, Reason, ResourceError, SourceError
from builder.run.serial import SerialRunner
from builder.stages.graph import Task
from tests import synthetic
from tests.endtoend.trees import KEY

ROOT = Path(__file__).resolve().parents[2]


def fall(argument: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def fall_unless(mark: str) -> str:
    """Dies until somebody wrote the file."""
    if not Path(mark).exists():
        fall(None)
    return "done"


def mend(mark: str, memory: int) -> int:
    Path(mark).write_text(str(memory))
    return 1


def speak(argument: str) -> str:
    print("what a library prints")
    return argument


def complain(argument: str) -> None:
    raise SourceError(argument, host="archive", attempt=2)


def fail(argument: str) -> None:
    raise CaseError(Reason.CRASHED, argument)


def test_a_task_that_dies_is_isolated_and_run_again(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    tasks = [
        Task("plain", speak, "a"),
        Task("deadly", fall_unless, mark, isolate=mend, deadly=True),
        Task("after", speak, "b", deadly=True),
    ]
    assert [outcome.value for outcome in SerialRunner().run(tasks)] == ["a", "done", "b"]
    assert Path(mark).read_text() == "0"


@pytest.mark.parametrize("isolate", [None, mend])
def test_a_death_nobody_is_guilty_of_is_said(isolate: object, tmp_path: Path) -> None:
    task = Task("shard-1", fall, str(tmp_path / "mark"), isolate=isolate, deadly=True)  # type: ignore[arg-type]
    with pytest.raises(ResourceError, match="of signal 11"):
        list(SerialRunner().run([task]))


def test_errors_arrive_as_they_were_raised() -> None:
    with Apart() as apart:
        with pytest.raises(SourceError, match="gone") as caught:
            apart.call(complain, "gone")
        assert (caught.value.host, caught.value.attempt) == ("archive", 2)
        with pytest.raises(CaseError) as failed:
            apart.call(fail, "so")
        assert failed.value.reason == Reason.CRASHED
        assert apart.call(speak, "still there") == "still there"
        with pytest.raises(Died) as died:
            apart.call(fall, None)
        assert died.value.status == -signal.SIGSEGV
        assert apart.call(speak, "again") == "again"


def test_a_decoder_that_crashes_costs_one_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "archive"
    for number in range(3):
        name = f"p{number:03d}"
        synthetic.ct_series(folder / name, slices=3, encoding="jpegls", patient_id=name)
    monkeypatch.setenv("BUILDER_TEST_KEY", KEY)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}/tests/faults/poison:{ROOT}")
    monkeypatch.setenv("FAULTS_POISON", "p001=segv")
    spec = builder.DatasetSpec.model_validate(
        {
            "name": "crash", "license": "none", "sources": [{"kind": "folder", "url": str(folder)}],
            "deid": {"patient_key": "${env:BUILDER_TEST_KEY}"}, "samples": {"kind": "volumes"},
            "splits": {"ratios": {"train": 1.0}},
        }
    )  # fmt: skip
    builder.build(spec, to=str(tmp_path / "dataset"))
    found = builder.open_dataset(str(tmp_path / "dataset"))
    assert found.manifest.totals["cases"] == 2
    version = tmp_path / "dataset" / "versions" / (tmp_path / "dataset" / "CURRENT").read_text().strip()
    rows = pq.read_table(version / "exclusions.parquet").to_pylist()
    assert [row["reason"] for row in rows] == ["crashed"]
