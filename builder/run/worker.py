"""What a worker process of the local cluster does before it takes tasks (Dask's preload)."""

from typing import Any

from builder.run.allocator import keep_one_heap
from builder.run.loading import load_libraries, mind_garbage


def dask_setup(worker: Any) -> None:
    """Load what the first task of a build would load, while the other processes start."""
    mind_garbage()
    keep_one_heap()
    load_libraries()
    import builder.run.pipeline  # noqa: F401 (tasks are pickled by the names of its modules)
