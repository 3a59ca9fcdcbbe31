"""Run worker processes on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from builder.errors import ResourceError, SpecError
from builder.run.clusters.connection import Large, MemoryGib, configure_dask, connect, with_large
from builder.stages.graph import Runner

STARTS = 5
MOST_WORKERS = 1024
"""Workers that one machine may be asked for: more only exhaust its memory."""
PRELOAD = "builder.run.worker"


class Local(BaseModel):
    """Worker processes on this machine, one thread each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["local"] = "local"
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)] | None = None
    """Number of workers; None for one per core."""
    memory_gib: MemoryGib | None = None
    """Memory of one worker; None divides the machine's memory."""
    scratch: str | None = None
    """Folder for workers' temporary files; None uses the system's."""
    large: Large | None = None
    """Workers for tasks that do not fit the others."""
    dashboard: bool = False
    VERSION: ClassVar[int] = 1

    @contextmanager
    def open(self, workers: int | None) -> Iterator[Runner]:
        """Open a runner on a new LocalCluster that is closed at the end."""
        configure_dask()
        count = workers or self.workers or os.cpu_count() or 1
        if count > MOST_WORKERS:
            raise SpecError(f"--workers: found {count}, expected at most {MOST_WORKERS} on one machine")
        with self._start(count) as cluster:
            # adapt() also replaces a worker whose nanny dies
            cluster.adapt(minimum=count, maximum=count, interval="2s")
            with connect(cluster, tls=None, workers=1) as runner:
                yield with_large(runner, self.large, self._as_large)

    def _as_large(self, large: Large) -> "Local":
        update = {"workers": large.workers, "memory_gib": large.memory_gib, "large": None}
        return self.model_copy(update=update)

    def _start(self, count: int) -> Any:
        """Start a cluster of ``count`` workers, and try again if a worker dies during the start."""
        from distributed import LocalCluster

        for _ in range(STARTS):
            try:
                return LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    memory_limit="auto" if self.memory_gib is None else int(self.memory_gib * 2**30),
                    host="127.0.0.1",
                    local_directory=self.scratch,
                    preload=[PRELOAD],
                    dashboard_address="127.0.0.1:0",
                    scheduler_kwargs={"dashboard": self.dashboard},
                )
            except RuntimeError:
                continue
        raise ResourceError(
            f"cluster: found that workers died while starting, {STARTS} times, expected {count} workers; "
            "look for what kills processes on this machine (memory?), and run the same command again"
        )
