"""Killed at every named step of every write, and continued by the same command."""

import signal
from collections.abc import Callable

import pytest

from builder.storage import CRASH_VARIABLE
from tests.faults.builds import Case, count

SPREAD = (1, 30, 7, 12, 18, 24, 36, 42, 48, 54)
"""Of the writes of a build: the first, and some further on."""
REACHED = {
    **dict.fromkeys(("write.before", "write.tmp", "write.fsynced", "write.renamed"), SPREAD),
    "folder.made": SPREAD,
    **dict.fromkeys(("commit.before", "commit.fsynced", "commit.renamed"), range(1, 11)),
    **dict.fromkeys(("shard.finish", "shard.receipt"), (1, 3, 5, 2, 4)),
    **dict.fromkeys(("create.before", "create.tmp", "create.fsynced", "create.linked"), (1,)),
    **dict.fromkeys(("publish.manifest", "publish.current", "swap.guarded", "publish.done"), (1,)),
}
"""Each named point, and at which of its times in a build a process can be killed there."""
TIMES = count("CRASH_TIMES", ci=1, long=10)
POINTS = [
    pytest.param(f"{step}:{times[n % len(times)]}", id=f"{step}-{n}")
    for step, times in REACHED.items()
    for n in range(TIMES)
]
COLLECTIONS = count("CRASH_COLLECTIONS", ci=1, long=5)


@pytest.mark.fault("SIGKILL at a named point of a write, receipt, seal or pointer")
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_point(disturb: Callable[..., Case], point: str) -> None:
    build = disturb().start(env={CRASH_VARIABLE: point})
    assert build.wait() == -signal.SIGKILL, build.said()


@pytest.mark.fault("SIGKILL while builder gc deletes")
@pytest.mark.parametrize("number", range(COLLECTIONS))
def test_killed_while_collecting(disturb: Callable[..., Case], number: int, record_property) -> None:
    """An older version and its shards go one by one; killed at any of them, the published version is whole."""
    case = disturb()
    case.versions = 2
    spec = case.spec
    case.spec = case.target.with_name("older.yaml")
    case.spec.write_text(spec.read_text().replace("seed: 11", "seed: 12"))
    older = case.start()
    assert older.wait() == 0, older.said()
    case.spec = spec
    build = case.start()
    assert build.wait() == 0, build.said()
    for point in (f"gc.delete:{1 + number}", f"gc.delete:{9 + number}"):
        gc = case.command("gc", str(case.target), "--unreferenced", "delete", env={CRASH_VARIABLE: point})
        assert gc.wait() == -signal.SIGKILL, gc.said()
    gc = case.command("gc", str(case.target), "--unreferenced", "delete")
    assert gc.wait() == 0, gc.said()
    record_property("times", 2)
