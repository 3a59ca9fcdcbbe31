"""Disks that fill up or fail, clocks that jump, tasks that run twice, two builders, a builder that stood still."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pydicom
import pytest

from builder.storage import STOP_VARIABLE
from tests.faults.archive import write_archive, write_spec
from tests.faults.builds import Case, Poller, Server, count, leftovers, open_server, tree
from tests.faults.server import FAILING

FLUSHES = 300
"""A few more than there are in a build: what is asked for beyond meets none, and does not count."""
WRITES = count("WRITES", ci=11, long=FLUSHES)
CLOCKS = count("CLOCKS", ci=4, long=20)
TWO_BUILDERS = count("TWO_BUILDERS", ci=3, long=50)
STOPS = count("STOPS", ci=3, long=50)
ORDERS = count("ORDERS", ci=5, long=60)
REPLACED = count("REPLACED", ci=3, long=20)


def spread(total: int, most: int) -> list[int]:
    """``total`` numbers from 1 to ``most``, evenly."""
    return sorted({1 + i * (most - 1) // max(1, total - 1) for i in range(total)})


@pytest.mark.fault("disk full or I/O error from the k-th flush on")
@pytest.mark.parametrize("number", spread(WRITES, FLUSHES))
def test_disk_full_or_broken_from_a_write_on(disturb: Callable[..., Case], number: int, record_property) -> None:
    case = disturb()
    code = ("ENOSPC", "EIO")[number % 2]
    build = case.start(fault={"write": number, "code": code})
    status = build.wait()
    assert status in (0, 1), build.said()
    met = FAILING in build.said()
    assert met or not status
    if status:
        assert "run the same command again" in build.said()
        assert "Traceback" not in build.said()
    record_property("times", int(met))


@pytest.mark.fault("clock a day off, or jumping back")
@pytest.mark.parametrize("number", range(CLOCKS))
def test_clocks_a_day_off_and_jumping_back(disturb: Callable[..., Case], number: int) -> None:
    case = disturb()
    clock = (86400.0, -86400.0, 0.0, 3600.0)[number % 4]
    fault = {"clock": clock, "jumps": 500 * (number % 4 > 1)}
    first = case.start(fault=fault, env={"BUILDER_CRASH_AT": "shard.receipt:2"})
    assert first.wait() == -signal.SIGKILL
    second = case.start(fault={"clock": -clock, "jumps": 0})
    assert second.wait() == 0, second.said()


@pytest.mark.fault("every task executed twice: {how}")
@pytest.mark.parametrize("how", ["after", "at once"])
def test_every_task_runs_twice(disturb: Callable[..., Case], how: str) -> None:
    build = disturb().start(fault={"twice": how})
    assert build.wait() == 0, build.said()


@pytest.mark.fault("two builders, one dataset")
@pytest.mark.parametrize("number", range(TWO_BUILDERS))
def test_two_builders_of_one_dataset(disturb: Callable[..., Case], number: int) -> None:
    case = disturb()
    pause = random.Random(number).uniform(0, 1.5)
    first = case.start()
    time.sleep(pause)
    second = case.start()
    assert first.wait() == 0, first.said()
    assert second.wait() == 0, second.said()


@pytest.mark.fault("SIGSTOP past the lease, another builder, SIGCONT")
@pytest.mark.parametrize("number", range(STOPS))
def test_a_builder_that_stood_still_publishes_nothing_late(
    server: Server, spec: Path, undisturbed: Path, tmp_path: Path, number: int
) -> None:
    """It is stopped past the lease; another takes over with another spec; it wakes, and must not publish its own.

    Every other time it stops between its last look at the lease and the swap of the pointer.
    """
    other = tmp_path / "other.yaml"
    other.write_text(spec.read_text().replace("seed: 11", "seed: 12"))
    env = {"BUILDER_LEASE_SECONDS": "3"}
    stale, case = (Case(server, path, tmp_path / "dataset", (), env) for path in (other, spec))
    poller = Poller(case.target)
    poller.start()
    if number % 2:
        first = stale.start()
        while not [*(tmp_path / "dataset.private").glob("lease/*")]:  # until then it would only be the later builder
            assert first.poll(0.02) is None, first.said()
        assert first.poll(random.Random(number).random() / 2) is None
        os.killpg(first.pid, signal.SIGSTOP)
    else:
        first = stale.start(env={STOP_VARIABLE: "swap.guarded"})
        while psutil.Process(first.pid).status() != psutil.STATUS_STOPPED:
            assert first.poll(0.05) is None, first.said()
    second = case.start()
    status = second.wait()
    published = (case.target / "CURRENT").read_bytes()
    os.killpg(first.pid, signal.SIGCONT)
    assert status == 0, second.said()
    assert first.wait() == 1, first.said()
    assert "took this dataset over" in first.said()
    assert (case.target / "CURRENT").read_bytes() == published
    poller.stop()
    assert poller.faults == []
    gc = case.command("gc", str(case.target), "--unreferenced", "delete")
    assert gc.wait() == 0, gc.said()
    assert tree(case.target) == tree(undisturbed)
    assert leftovers(case.target) == []


SURROUNDINGS = (
    {"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu"},
    {"PYTHONHASHSEED": "31337", "LC_ALL": "C", "COLUMNS": "40", "TERM": "dumb"},
    {"TZ": "America/St_Johns", "PYTHONHASHSEED": "7", "FAULTS_UMASK": "077"},
    {"LC_ALL": "C.UTF-8", "LANG": "tr_TR.UTF-8", "OMP_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "2"},
    {"PYTHONUTF8": "0", "LC_ALL": "POSIX"},
)


@pytest.mark.fault("order, 1 to 8 workers, threads, hash seed, time zone, locale, umask")
@pytest.mark.parametrize("number", range(min(ORDERS, len(SURROUNDINGS))))
def test_surroundings_do_not_matter(
    disturb: Callable[..., Case], server: Server, spec: Path, tmp_path: Path, number: int, record_property
) -> None:
    """The same surroundings under the serial runner and, in a long run, under local clusters of several sizes."""
    variables = SURROUNDINGS[number]
    sizes = [0, *(1 + (number + 3 * i) % 8 for i in range(-(-ORDERS // len(SURROUNDINGS)) - 1))]
    with open_server(variables) as other:
        if len(sizes) > 1:
            other.warm(spec, tmp_path / "warm")
        for size in sizes:
            more = ("--cluster", "local", "--workers", str(size)) if size else ()
            case = disturb(*more, name=f"dataset-{size}", env=variables)
            case.server = other
            build = case.start()
            assert build.wait() == 0, build.said()
            case.server, case.more = server, ()
    record_property("times", len(sizes))


@pytest.fixture
def own_archive(tmp_path: Path) -> tuple[Path, Path]:
    archive = write_archive(tmp_path / "archive", persons=6)
    return archive, write_spec(tmp_path / "spec.yaml", archive)


@pytest.mark.fault("a source object replaced while a build is at work")
@pytest.mark.parametrize("number", range(REPLACED))
def test_a_source_object_is_replaced_during_the_build(
    server: Server, own_archive: tuple[Path, Path], tmp_path: Path, number: int
) -> None:
    """Who meets it stops and says so; the same command takes the new bytes, and ends like a build of its own."""
    archive, spec = own_archive
    case = Case(server, spec, tmp_path / "dataset")
    build = case.start()
    while not list(tmp_path.glob("dataset.private/plan/*/shards/*.jsonl")):
        assert build.poll(0.002) is None, build.said()
    os.killpg(build.pid, signal.SIGSTOP)
    victim = sorted((archive / f"p{1 + number % 5:03d}" / "ct").iterdir())[3]
    image = pydicom.dcmread(victim)
    image.PixelData = bytes([image.PixelData[0] ^ 1]) + image.PixelData[1:]
    image.AcquisitionNumber = 77
    image.save_as(victim)
    os.killpg(build.pid, signal.SIGCONT)
    if build.wait():
        assert "changed after it was indexed" in build.said()
        assert not (case.target / "CURRENT").exists()
    case.finish()
    fresh = Case(server, spec, tmp_path / "fresh")
    fresh.finish()
    assert tree(case.target) == tree(fresh.target)
    assert leftovers(case.target) == []
