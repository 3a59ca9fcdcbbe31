"""Workers of the local cluster have imported what their first task needs, and share one heap between threads."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builder.errors import SourceError
from builder.run.clusters import address

ROOT = Path(__file__).resolve().parents[2]

CODE = """
import json, os, sys

def look(name):
    return getattr(sys.modules.get(name), "__name__", None), os.environ.get(name), os.getpid()

if __name__ == "__main__":
    from builder.run.clusters.local import Local
    from builder.stages.graph import Task
    modules = ["builder.stages.shard", "builder.run.pipeline", "SimpleITK", "zarr"]
    names = [*modules, "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "OMP_NUM_THREADS"]
    with Local(workers=1).open(None) as runner:
        found = {o.task.argument: o.value for o in runner.run([Task(f"look-{n}", look, n, memory=1) for n in names])}
    assert {pid for *_, pid in found.values()} != {os.getpid()}
    print(json.dumps({name: module or value for name, (module, value, _) in found.items()}))
"""


def test_a_heartbeat_that_a_closing_scheduler_leaves_unanswered_is_not_told() -> None:
    """On a busy machine it was a traceback behind a build that had gone well."""
    import builder.run.worker  # noqa: F401  # as every worker does

    def told(message: str) -> bool:
        record = logging.LogRecord("distributed.worker", logging.ERROR, "", 0, message, None, None)
        return bool(logging.getLogger("distributed.worker").filter(record))

    assert not told("Failed to communicate with scheduler during heartbeat.")
    assert told("Unexpected exception during heartbeat. Closing worker.")


def test_a_worker_has_loaded_what_a_build_needs_and_no_more(tmp_path: Path) -> None:
    script = tmp_path / "look.py"
    script.write_text(CODE)
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_TRIM_THRESHOLD_"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run([sys.executable, script], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    assert json.loads(done.stdout) == {
        "builder.stages.shard": "builder.stages.shard",
        "builder.run.pipeline": None,
        "SimpleITK": None,
        "zarr": None,
        "MALLOC_TRIM_THRESHOLD_": None,
        "MALLOC_ARENA_MAX": "1",
        "OMP_NUM_THREADS": "1",
    }


def test_a_scheduler_without_workers_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(address, "PATIENCE_SECONDS", 1)
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as cluster:
        url = cluster.scheduler_address
        with pytest.raises(SourceError) as caught, address.Address(url=url).open(None):
            pass
    assert str(caught.value).startswith(
        f"cluster: found 0 workers at {url} after 1 s, expected 1; start some, such as: dask worker {url}"
    )


def test_a_port_that_nobody_listens_on_is_said_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    begun = time.monotonic()
    with pytest.raises(SourceError) as caught, address.Address(url=url).open(None):
        pass
    assert time.monotonic() - begun < 15  # importing dask takes most of it
    assert str(caught.value).startswith(f"cluster: found no scheduler that answers at {url} (ConnectionRefusedError)")
