"""Killed at every named step of every write, and continued by the same command."""

import signal
from collections.abc import Callable

import pytest

from builder.storage import CRASH_VARIABLE
from tests.faults.builds import Case, count

WRITES = ("write.before", "write.tmp", "write.fsynced", "write.renamed")
COMMITS = ("commit.before", "commit.fsynced", "commit.renamed")
SHARDS = ("shard.finish", "shard.receipt")
ONCE = ("publish.manifest", "publish.current", "publish.done")
TIMES = (1, 30, 7, 12, 18, 24, 36, 42, 48, 54)[: count("CRASH_TIMES", ci=2, long=10)]
POINTS = (
    *(f"{step}:{n}" for step in WRITES for n in TIMES),
    *(f"{step}:{n}" for step in COMMITS for n in range(1, len(TIMES) + 1)),
    *(f"{step}:{n}" for step in SHARDS for n in range(1, min(3, len(TIMES)) + 1)),
    *ONCE,
)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_point(disturb: Callable[..., Case], point: str) -> None:
    build = disturb().start(env={CRASH_VARIABLE: point})
    assert build.wait() == -signal.SIGKILL, build.said()
