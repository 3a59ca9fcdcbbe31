"""Tasks that do not fit the usual workers run on larger ones; what fits neither is refused with figures."""

from pathlib import Path

import pytest
from distributed import get_worker

from builder.errors import ResourceError
from builder.run.clusters import load_cluster
from builder.stages.graph import WORKER_BYTES, Task

PROFILE = "kind: local\nworkers: 1\nmemory_gib: 0.5\nlarge: {workers: 1, memory_gib: 1.5}\n"
GIB = 2**30


def limit(argument: object) -> int:
    """What the worker that runs this may hold."""
    return int(get_worker().memory_manager.memory_limit)


def refuse(argument: object) -> None:
    raise AssertionError("this was not to be started")


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "local.yaml"
    path.write_text(PROFILE)
    return str(path)


def test_large_tasks_run_on_large_workers(profile: str) -> None:
    tasks = [Task("small-1", limit, 0), Task("large-1", limit, 1, memory=GIB), Task("small-2", limit, 2, memory=1000)]
    with load_cluster(profile).open(None) as runner:
        found = {outcome.task.key: outcome.value for outcome in runner.run(tasks)}
    assert found == {"small-1": GIB // 2, "small-2": GIB // 2, "large-1": GIB * 3 // 2}


def test_what_fits_no_worker_is_refused_before_anything_starts(profile: str) -> None:
    tasks = [Task("small-1", refuse, 0), Task("large-1", refuse, 1, memory=2 * GIB)]
    with load_cluster(profile).open(None) as runner, pytest.raises(ResourceError, match="1 of 2 tasks") as refused:
        list(runner.run(tasks))
    assert (refused.value.projected, refused.value.available) == (2 * GIB + WORKER_BYTES, GIB * 3 // 2)
