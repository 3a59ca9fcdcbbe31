"""Workers, schedulers and drivers killed at random; cases that kill their process, and innocents beside them."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import builder
from tests.faults.archive import write_archive, write_spec
from tests.faults.builds import ROOT, Build, Case, Server, count, leftovers, tree

WORKER_KILLS = count("WORKER_KILLS", ci=20, long=500)
NANNY_KILLS = count("NANNY_KILLS", ci=5, long=100)
DRIVER_KILLS = count("DRIVER_KILLS", ci=10, long=200)
LOCAL = ("--cluster", "local", "--workers", "2")


def workers(build: Build) -> list[psutil.Process]:
    """The worker processes of a build's local cluster."""
    try:
        children = psutil.Process(build.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [c for c in children if "spawn_main" in " ".join(_command(c))]


def _command(process: psutil.Process) -> list[str]:
    try:
        found: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return found


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec of 62 persons, one case a shard of four."""
    folder = tmp_path_factory.mktemp("crowd")
    return write_spec(folder / "spec.yaml", write_archive(folder / "archive", persons=62), cases=4)


@pytest.fixture(scope="module")
def crowd_undisturbed(server: Server, crowd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = Case(server, crowd, tmp_path_factory.mktemp("crowd-undisturbed") / "dataset")
    case.finish()
    return case.target


def test_workers_killed_at_random(
    server: Server, crowd: Path, crowd_undisturbed: Path, tmp_path: Path, record_property
) -> None:
    dice, killed, round_ = random.Random(5), 0, 0
    while killed < WORKER_KILLS:
        round_ += 1
        assert round_ <= WORKER_KILLS, "no worker could be caught at work"
        case = Case(server, crowd, tmp_path / f"dataset-{round_}", LOCAL)
        build = case.start()
        while build.poll() is None and killed < WORKER_KILLS:
            time.sleep(dice.uniform(0.5, 3.0))
            victims = workers(build)
            if victims and "index:" in build.said():
                os.kill(dice.choice(victims).pid, signal.SIGKILL)
                killed += 1
        assert build.wait(300) == 0, build.said()
        case.finish()
        assert tree(case.target) == tree(crowd_undisturbed)
        assert leftovers(case.target) == []
    record_property("times", killed)


def test_driver_and_all_it_started_killed_at_random(disturb: Callable[..., Case], record_property) -> None:
    dice, case = random.Random(3), disturb(*LOCAL)
    killed = 0
    for _ in range(DRIVER_KILLS):
        build = case.start()
        if build.poll(dice.uniform(0.1, 6.0)) is None:
            build.kill()
            assert build.wait() == -signal.SIGKILL
            killed += 1
    assert killed >= 1
    record_property("times", killed)


def test_driver_alone_killed_leaves_no_worker_behind(disturb: Callable[..., Case]) -> None:
    build = disturb(*LOCAL).start()
    while not (orphans := workers(build)):
        assert build.poll(0.05) is None
    os.kill(build.pid, signal.SIGKILL)
    assert build.wait() == -signal.SIGKILL
    _, alive = psutil.wait_procs(orphans, timeout=60)
    assert not alive


def test_deadly_cases_are_excluded_and_innocents_are_not(server: Server, crowd: Path, tmp_path: Path) -> None:
    env = {"PYTHONPATH": f"{ROOT}/tests/faults/poison", "FAULTS_POISON": "p007=segv,p031=exit"}
    case = Case(server, crowd, tmp_path / "dataset", LOCAL, env)
    case.finish()
    found = builder.open_dataset(case.target)
    assert found.manifest.totals["cases"] == len(set(found.table["case_key"].to_pylist())) == 60
    before = tree(case.target)
    shutil.rmtree(case.target)
    case.finish()  # what was found out about the deadly cases is kept with the plan
    assert tree(case.target) == before
