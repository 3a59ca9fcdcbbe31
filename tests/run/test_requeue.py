"""Whether a driver that stopped or is queued goes on by itself, with commands of Slurm that only pretend."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from builder.run import journal, requeue, submit
from builder.run.journal import keep_journal, read_status
from builder.run.lease import hold_lease
from builder.run.requeue import lead, script, will_run_again
from builder.storage import private_store


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Put programs of these names and shell texts first in the path."""
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(("state", "again"), [("PENDING", True), ("RUNNING", True), ("CANCELLED", False), ("", False)])
def test_a_job_in_the_queue_runs_again(
    state: str, again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, monkeypatch, squeue=f"echo {state}")
    assert will_run_again("17") is again


def test_without_a_job_or_slurm_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not will_run_again("")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not will_run_again("17")


@pytest.mark.parametrize(("walltime", "seconds"), [("04:00:00", 120), ("1-00:00:00", 120), ("00:04:00", 60)])
def test_lead(walltime: str, seconds: int) -> None:
    assert lead(walltime) == seconds


def test_a_driver_whose_job_is_queued_is_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = str(tmp_path / "dataset")
    private = private_store(dataset)
    monkeypatch.setenv(requeue.JOB_VARIABLE, "17")
    with hold_lease(private, say=print) as lease, pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with keep_journal(private, lease.counter, facts={}):
            raise KeyboardInterrupt
    assert read_status(dataset).state == "cancelled"
    pretend(tmp_path, monkeypatch, squeue="echo PENDING")
    assert read_status(dataset).state == "waiting"


def test_who_follows_sees_the_next_run_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = str(tmp_path / "dataset")
    private = private_store(dataset)
    monkeypatch.setenv(requeue.JOB_VARIABLE, "17")
    monkeypatch.setattr(journal, "AGAIN_SECONDS", 0.05)
    pretend(tmp_path, monkeypatch, squeue="echo PENDING")
    with hold_lease(private, say=print) as lease, pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with keep_journal(private, lease.counter, facts={}):
            raise KeyboardInterrupt
    states = []
    for event in journal.follow(dataset):
        if event["event"] == "end":
            states.append(event["state"])
            if len(states) == 1:
                with hold_lease(private, say=print) as lease, keep_journal(private, lease.counter, facts={}):
                    pass
    assert states == ["cancelled", "published"]


SUBMITTED = submit.Submission("0a1b2c3d", "slurm job", "17", "login", "/home/me/driver.log")


@pytest.mark.parametrize("before", [0, 1])
def test_who_watches_waits_until_the_submitted_build_begins(
    before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, said = str(tmp_path / "dataset"), []
    private = private_store(dataset)
    for _ in range(before):
        with hold_lease(private, say=print) as lease, keep_journal(private, lease.counter, facts={}):
            pass
    queued = replace(SUBMITTED, after=journal.last_run(dataset))
    private.put(f"{submit.FOLDER}/{queued.identity}.json", json.dumps(queued.facts()).encode())
    pretend(tmp_path, monkeypatch, squeue="echo PENDING")

    sleep = time.sleep

    def begin(seconds: float) -> None:
        if seconds != submit.POLL_SECONDS:
            return sleep(seconds)  # somebody else's
        assert said == ["waiting for slurm job 17 to start; its output will be in /home/me/driver.log"]
        with hold_lease(private, say=print) as lease, keep_journal(private, lease.counter, facts={}):
            pass

    monkeypatch.setattr(time, "sleep", begin)
    submit.wait_for_start(dataset, say=said.append)
    assert len(said) == 1
    assert journal.last_run(dataset) > queued.after


def test_who_watches_does_not_wait_for_a_build_that_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = str(tmp_path / "dataset")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    process = replace(SUBMITTED, kind="process", handle=str(ended.pid), host=socket.gethostname())
    elsewhere = replace(process, identity="elsewhere", handle=str(os.getpid()), host="another")
    pretend(tmp_path, monkeypatch, squeue="echo CANCELLED", kubectl="exit 1")
    for queued in (SUBMITTED, process, elsewhere, replace(SUBMITTED, identity="pod", kind="kubernetes job")):
        private_store(dataset).put(f"{submit.FOLDER}/{queued.identity}.json", json.dumps(queued.facts()).encode())
    submit.wait_for_start(dataset, say=pytest.fail)


DRIVER = """
import sys, time
open(sys.argv[1], "a").write("began\\n")
try:
    time.sleep(60 if len(sys.argv) > 2 else 0)
except KeyboardInterrupt:
    open(sys.argv[1], "a").write("stopped\\n")
    sys.exit(130)
"""


@pytest.mark.parametrize("ends", [True, False])
def test_the_script_stops_its_driver_and_queues_itself_again(
    ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver stands for the package: a module of the same name that waits for Ctrl-C."""
    pretend(tmp_path, monkeypatch, scontrol=f'echo "$@" > {tmp_path}/asked')
    (tmp_path / "builder").mkdir()
    (tmp_path / "builder" / "__init__.py").write_text("")
    (tmp_path / "builder" / "__main__.py").write_text(DRIVER)
    log = tmp_path / "log"
    text = script([sys.executable, str(log), *([] if ends else ["wait"])], prologue=["export A=1"])
    environment = {**os.environ, "SLURM_JOB_ID": "17", "PYTHONPATH": str(tmp_path)}
    job = subprocess.Popen(["sh", "-c", text], env=environment, cwd=tmp_path)
    deadline = time.monotonic() + 40
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    if not ends:
        time.sleep(0.5)
        job.send_signal(10)  # USR1
    job.wait(40)
    assert log.read_text().split() == (["began"] if ends else ["began", "stopped"])
    assert (tmp_path / "asked").exists() is not ends
    if not ends:
        assert (tmp_path / "asked").read_text().strip() == "requeue 17"
