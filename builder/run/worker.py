"""What a worker process of the local cluster does before it takes tasks and after the last (Dask's preload)."""

from importlib import import_module
from typing import Any

from builder.run.leaving import WayOut
from builder.run.loading import load_libraries, mind_garbage

TASKS = ("builder.run.batches", "builder.stages.index", "builder.stages.shard", "builder.stages.survey")
"""Modules of the functions that a build's tasks call; the rest of the pipeline stays in the first process."""

_WAY_OUT = WayOut()


def dask_setup(worker: Any) -> None:
    """Load what the first task of a build would load, while the other processes start."""
    _WAY_OUT.prepare()
    mind_garbage()
    load_libraries()
    for module in TASKS:
        import_module(module)


def dask_teardown(worker: Any) -> None:
    """It was told to end: nothing is left to be freed one by one."""
    _WAY_OUT.code = 0
