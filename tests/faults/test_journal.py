"""What the run journal says of a build that ends, dies, is cancelled, or was handed over."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

from builder.storage import CRASH_VARIABLE
from tests.faults.builds import Case, Server


def ask(case: Case, *command: str, expect: int = 0) -> str:
    """What a command says of the dataset."""
    log = case.target.with_suffix(".log")
    log.unlink(missing_ok=True)
    done = case.command(command[0], str(case.target), *command[1:])
    assert done.wait() == expect, done.said()
    return done.said()


def status(case: Case) -> dict[str, object]:
    found: dict[str, object] = json.loads(ask(case, "status", "--json"))
    return found


def test_a_dataset_without_a_run_says_so(server: Server, spec: Path, tmp_path: Path) -> None:
    assert "has this dataset been built" in ask(Case(server, spec, tmp_path / "none"), "status", expect=1)


def test_dead_then_published(disturb: Callable[..., Case]) -> None:
    case = disturb()
    assert case.start(env={CRASH_VARIABLE: "shard.receipt:2"}).wait() == -signal.SIGKILL
    assert status(case)["state"] == "died"
    assert "stage=survey" in ask(case, "watch")
    assert case.start().wait() == 0
    found = status(case)
    assert (found["run"], found["state"]) == (2, "published")
    events = json.loads(ask(case, "logs", "--json"))["events"]
    assert [e["event"] for e in events][:: len(events) - 1] == ["start", "end"]
    assert {e["stage"] for e in events if e["event"] == "stage"} >= {"list", "index", "survey", "build"}
    private = case.target.with_name(case.target.name + ".private")
    text = "".join(p.read_text() for p in private.glob("journal/*/*.jsonl"))
    assert "W001" not in text
    assert str(case.spec.parent) not in text


def test_cancelled_then_continued(disturb: Callable[..., Case]) -> None:
    case = disturb("--cluster", "local", "--workers", "1")
    build = case.start()
    deadline = time.monotonic() + 60
    while not list(case.target.parent.glob("*.private/journal/*/*.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ask(case, "cancel")
    assert build.wait() == 1
    assert status(case)["state"] == "cancelled"


def test_handed_over_and_followed(disturb: Callable[..., Case]) -> None:
    case = disturb()
    log = case.target.with_suffix(".log")
    submitted = case.command("submit", str(case.spec), "--to", str(case.target), "--cluster", "serial", "--json")
    assert submitted.wait() == 0, submitted.said()
    assert json.loads(log.read_text())["kind"] == "process"
    deadline = time.monotonic() + 120
    while not (case.target / "CURRENT").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ask(case, "watch").splitlines()[-1].endswith("end: state=published")
