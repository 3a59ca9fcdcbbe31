"""Killed at every named step of every write, and continued by the same command."""

import signal
from collections.abc import Callable

import pytest

from builder.storage import CRASH_VARIABLE
from tests.faults.builds import Case, count

WRITES = ("write.before", "write.tmp", "write.fsynced", "write.renamed")
CREATES = ("create.before", "create.tmp", "create.fsynced", "create.linked")
COMMITS = ("commit.before", "commit.fsynced", "commit.renamed")
SHARDS = ("shard.finish", "shard.receipt")
ONCE = ("publish.manifest", "publish.current", "publish.done")
TIMES = (1, 30, 7, 12, 18, 24, 36, 42, 48, 54)[: count("CRASH_TIMES", ci=2, long=10)]
"""Of the writes of a build: the first, and some further on; a point that is not reached lets the build be."""
POINTS = (
    *(f"{step}:{n}" for step in WRITES for n in TIMES),
    *(f"{step}:{n}" for step in COMMITS for n in range(1, len(TIMES) + 1)),
    *(f"{step}:{n}" for step in SHARDS for n in range(1, min(3, len(TIMES)) + 1)),
    *CREATES,
    *ONCE,
)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_point(disturb: Callable[..., Case], point: str) -> None:
    build = disturb().start(env={CRASH_VARIABLE: point})
    assert build.wait() == -signal.SIGKILL, build.said()


def test_killed_while_collecting(disturb: Callable[..., Case]) -> None:
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
    for point in ("gc.delete:1", "gc.delete:9"):
        gc = case.command("gc", str(case.target), "--unreferenced", "delete", env={CRASH_VARIABLE: point})
        assert gc.wait() == -signal.SIGKILL, gc.said()
    gc = case.command("gc", str(case.target), "--unreferenced", "delete")
    assert gc.wait() == 0, gc.said()
