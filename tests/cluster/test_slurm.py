"""A Slurm of three nodes: the same bytes, a cancelled job replaced, and a driver that is a job itself."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import LayoutError
from builder.run.journal import read_status
from tests.docs import pages
from tests.endtoend.trees import ROOT, command, environment, run, tree

PROFILE = """
kind: slurm
workers: 3
memory_gib: 1.5
walltime: "00:20:00"
partition: test
cores: 1
python: {python}
scratch: {folder}/scratch
logs: {folder}/jobs
directives: ["--oversubscribe"]
"""


@pytest.fixture
def profile(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLURM_CONF", str(slurm / "slurm.conf"))
    path = slurm / "profile.yaml"
    path.write_text(PROFILE.format(python=sys.executable, folder=slurm))
    return path


def test_the_tutorial_runs(slurm: Path, tmp_path: Path, corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(slurm / "slurm.conf"))
    pages.run(ROOT / "docs" / "tutorials" / "slurm.md", tmp_path, corpus)


def test_same_bytes_with_a_job_cancelled(profile: Path, arguments, serial, tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    with (tmp_path / "log").open("w") as log:
        build = subprocess.Popen(
            command("build", *arguments, "--to", target, "--cluster", profile),
            env={**environment(), "SLURM_CONF": os.environ["SLURM_CONF"]}, cwd=ROOT, stdout=log, stderr=log,
        )  # fmt: skip
    cancelled = ""
    while build.poll() is None:
        time.sleep(0.2)
        running = _jobs("RUNNING")
        if not cancelled and len(running) == 3 and (tmp_path / "dataset" / "data").exists():
            cancelled = running[0]
            subprocess.run(["scancel", cancelled], check=True)
    assert build.wait(600) == 0, (tmp_path / "log").read_text()
    assert tree(target) == serial
    print("cancelled job:", cancelled)


def test_submitted_driver_is_a_job_and_can_be_followed(profile: Path, arguments, serial, tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    done = run("submit", *arguments, "--to", target, "--cluster", profile, "--json")
    submission = json.loads(done.stdout)
    assert submission["kind"] == "slurm job"
    end = time.monotonic() + 400
    while time.monotonic() < end and not (target / "CURRENT").exists():
        time.sleep(1)
    events = run("watch", target).stdout
    assert "published" in events.splitlines()[-1], Path(submission["log"]).read_text()
    assert json.loads(run("status", target, "--json").stdout)["state"] == "published"
    assert tree(target) == serial


def test_a_driver_goes_on_after_requeue_and_walltime(profile: Path, arguments, serial, tmp_path: Path) -> None:
    """Slurm requeues it (a node that failed), then its time is over: it is waiting, goes on, and nothing differs."""
    target = tmp_path / "dataset"
    submission = json.loads(run("submit", *arguments, "--to", target, "--cluster", profile, "--json").stdout)
    job, log = submission["handle"], Path(submission["log"])
    for stop in (["scontrol", "requeue", job], ["scancel", "--batch", "--signal=USR1", job]):
        _wait(lambda: job in _jobs("RUNNING") and _state(target) == "running", log)
        subprocess.run(stop, check=True)
        _wait(lambda: job in _jobs("PENDING"), log)
        _wait(lambda: _state(target) == "waiting", log)
        subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)  # do not sit out the hold
    _wait(lambda: (target / "CURRENT").exists(), log)
    assert "published" in run("watch", target).stdout.splitlines()[-1]
    assert tree(target) == serial


def test_workers_of_a_dead_node_are_replaced(profile: Path, arguments, serial, tmp_path: Path) -> None:
    target, log = tmp_path / "dataset", tmp_path / "log"
    with log.open("w") as stream:
        build = subprocess.Popen(
            command("build", *arguments, "--to", target, "--cluster", profile),
            env={**environment(), "SLURM_CONF": os.environ["SLURM_CONF"]}, cwd=ROOT, stdout=stream, stderr=stream,
        )  # fmt: skip
    _wait(lambda: len(_jobs("RUNNING")) == 3 and (target / "data").exists(), log)
    node = subprocess.run(["squeue", "-h", "-t", "RUNNING", "-o", "%N"], capture_output=True, text=True, check=True)
    dead = node.stdout.split()[0]
    subprocess.run(["scontrol", "update", f"NodeName={dead}", "State=DOWN", "Reason=test"], check=True)
    assert build.wait(600) == 0, log.read_text()
    subprocess.run(["scontrol", "update", f"NodeName={dead}", "State=RESUME"], check=False, capture_output=True)
    assert tree(target) == serial


def _wait(holds: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + 400
    while not holds():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


def _state(dataset: Path) -> str:
    try:
        return read_status(str(dataset)).state
    except LayoutError:
        return ""


def _jobs(state: str) -> list[str]:
    done = subprocess.run(["squeue", "-h", "-t", state, "-o", "%i"], capture_output=True, text=True, check=True)
    return done.stdout.split()
