"""What a worker process of the local cluster does before it takes tasks and after the last (Dask's preload)."""

from typing import Any

from builder.run.allocator import keep_one_heap
from builder.run.leaving import WayOut
from builder.run.loading import load_libraries, mind_garbage

_WAY_OUT = WayOut()


def dask_setup(worker: Any) -> None:
    """Load what the first task of a build would load, while the other processes start."""
    _WAY_OUT.prepare()
    mind_garbage()
    keep_one_heap()
    load_libraries()
    import builder.run.pipeline  # noqa: F401 (tasks are pickled by the names of its modules)


def dask_teardown(worker: Any) -> None:
    """It was told to end: nothing is left to be freed one by one."""
    _WAY_OUT.code = 0
