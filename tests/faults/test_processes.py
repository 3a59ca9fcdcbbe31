"""Workers, schedulers and drivers killed at random; cases that kill their process, and innocents beside them."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

import builder
from builder.errors import ResourceError
from builder.run.clusters.local import Local
from builder.run.dask import WORKER_BYTES
from builder.stages.graph import Task
from tests.faults.archive import KEY, write_archive, write_spec
from tests.faults.builds import ROOT, Build, Case, Server, count, leftovers, tree

WORKER_KILLS = count("WORKER_KILLS", ci=20, long=500)
DRIVER_KILLS = count("DRIVER_KILLS", ci=10, long=200)
SCHEDULER_KILLS = count("SCHEDULER_KILLS", ci=5, long=100)
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


def test_out_of_memory_is_a_reason_with_the_number(server: Server, crowd: Path, tmp_path: Path) -> None:
    """One case takes memory without end: its worker is killed for it, alone too; the others are all there."""
    profile = tmp_path / "profile.yaml"
    profile.write_text("kind: local\nworkers: 2\nmemory_gib: 0.75\n")
    env = {"PYTHONPATH": f"{ROOT}/tests/faults/poison", "FAULTS_POISON": "p011=memory"}
    case = Case(server, crowd, tmp_path / "dataset", ("--cluster", str(profile)), env)
    case.finish()
    version = (case.target / "CURRENT").read_text().strip()
    rows = pq.read_table(case.target / "versions" / version / "exclusions.parquet").to_pylist()
    details = [row["detail"] for row in rows if row["reason"] == "out_of_memory"]
    assert len(details) == 1
    assert str(int(0.75 * 2**30)) in details[0]
    assert builder.open_dataset(case.target).manifest.totals["cases"] == 61


def test_tasks_that_cannot_fit_are_refused_before_any_starts() -> None:
    ran = Task("small", os.getpid, None)
    with Local(workers=1, memory_gib=1).open(None) as runner:
        with pytest.raises(ResourceError, match="1 of 2 tasks") as refused:
            list(runner.run([ran, Task("large", abs, 1, memory=1 << 30)]))
        assert (refused.value.projected, refused.value.available) == ((1 << 30) + WORKER_BYTES, 1 << 30)


@pytest.mark.parametrize("number", range(SCHEDULER_KILLS))
def test_scheduler_killed(disturb: Callable[..., Case], number: int, tmp_path: Path) -> None:
    """The driver ends by itself and says what to do; with a new scheduler the same command continues."""
    port = 18900 + number % 50
    case = disturb("--cluster", f"tcp://127.0.0.1:{port}")
    with dask_cluster(port) as (scheduler, _):
        build = case.start()
        deadline = time.monotonic() + 120
        while not list(case.target.glob("data/*/receipt.json")) and build.poll(0.01) is None:
            assert time.monotonic() < deadline, build.said()
        os.kill(scheduler.pid, signal.SIGKILL)
        status = build.wait(120)
        assert status in (0, 1), build.said()
        if status:
            assert "run the same command again" in build.said()
            assert "Traceback" not in build.said()
    with dask_cluster(port):
        again = case.start()
        assert again.wait() == 0, again.said()
    case.more = ()


@contextmanager
def dask_cluster(port: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A scheduler and a worker, each a process of its own."""
    roles = [["scheduler", "--host", "127.0.0.1", "--port", str(port)]]
    roles += [["worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--host", "127.0.0.1", "--death-timeout", "30"]]
    env = {**os.environ, "BUILDER_KEY": KEY, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{role}", *rest, "--no-dashboard"],
            env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for role, *rest in roles
    ]  # fmt: skip
    try:
        yield processes
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(60)
