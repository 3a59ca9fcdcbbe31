"""Pulling the plug: a build that is killed at any moment and started again gives the tree of one that was not."""

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

import builder
from builder.errors import LayoutError
from tests.endtoend.trees import ROOT, SARCOMA, command, environment, run, tree

KILLS = int(os.environ.get("BUILDER_KILLS", "1"))
"""Of a build of the whole cohort; ``tests/faults`` kills builds of a small archive hundreds of times."""


class Poller(threading.Thread):
    """A reader that opens the dataset again and again, and reads what it finds to the last sample."""

    def __init__(self, dataset: Path) -> None:
        super().__init__(daemon=True)
        self.dataset = dataset
        self.sightings: list[tuple[str, int]] = []
        self.faults: list[str] = []
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.05):
            try:
                found = builder.open_dataset(self.dataset)
                samples = sum(1 for sample in found if sample["image"].size)
                self.sightings.append((found.manifest.version, samples))
            except LayoutError as error:
                if (self.dataset / "CURRENT").exists():
                    self.faults.append(str(error))

    def stop(self) -> None:
        self._done.set()
        self.join()


def kill_after(seconds: float, *arguments: str | Path) -> bool:
    """Run ``builder`` in a session of its own and SIGKILL all of it; True when it was still at work."""
    process = subprocess.Popen(
        command(*arguments), env=environment(), cwd=ROOT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def test_killed_at_random_moments_and_continued(sarcoma: Path, corpus, tmp_path: Path):
    target = tmp_path / "dataset"
    where = ("--to", target, "--param", f"corpus={corpus('sts')}")
    arguments = ("build", SARCOMA, *where, "--cluster", "local", "--workers", "2")
    poller = Poller(target)
    poller.start()
    dice = random.Random(7)
    killed, seconds = 0, 20.0
    for _ in range(4 * KILLS):
        started = time.monotonic()
        if kill_after(dice.uniform(0.05, 1.0) * seconds, *arguments):
            killed += 1
        else:  # it came through: begin anew, with moments inside what that took
            seconds = time.monotonic() - started
            for folder in (target, target.with_name(target.name + ".private")):
                shutil.rmtree(folder)
        if killed == KILLS:
            break
    done = json.loads(run(*arguments, "--json").stdout)
    poller.stop()
    assert killed == KILLS
    assert tree(target) == tree(sarcoma)
    assert poller.faults == []
    samples = builder.open_dataset(sarcoma).table.num_rows
    assert {(done["version"], samples)} >= set(poller.sightings)


def test_two_hundred_damages_are_all_found(sarcoma: Path, tmp_path: Path):
    from builder.library.verify import verify

    copy = tmp_path / "dataset"
    shutil.copytree(sarcoma, copy)
    assert verify(str(copy)).faults == ()
    dice = random.Random(11)
    files = sorted(p for p in copy.rglob("*") if p.is_file())
    for number in range(200):
        path = dice.choice(files)
        whole = path.read_bytes()
        damage = ("flip", "truncate", "delete")[number % 3]
        if damage == "flip":
            bit = dice.randrange(len(whole) * 8)
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(bytes(changed))
        elif damage == "truncate":
            path.write_bytes(whole[: dice.randrange(len(whole))])
        else:
            path.unlink()
        found = verify(str(copy)).faults
        assert found, f"damage {number}: {damage} of {path.relative_to(copy)} was not found"
        path.write_bytes(whole)
    assert verify(str(copy)).faults == ()


def test_verify_exits_with_1_and_names_the_object(sarcoma: Path, tmp_path: Path):
    copy = tmp_path / "dataset"
    shutil.copytree(sarcoma, copy)
    victim = next(copy.glob("data/*/image/c/0/0/0/0/0"))
    with victim.open("r+b") as stream:
        stream.seek(100)
        byte = stream.read(1)
        stream.seek(100)
        stream.write(bytes([byte[0] ^ 1]))
    done = run("verify", copy, expect=1)
    assert victim.relative_to(copy).as_posix() in done.stdout
    with pytest.raises(LayoutError):
        list(builder.open_dataset(copy))
