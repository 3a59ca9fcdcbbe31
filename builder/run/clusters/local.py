"""Worker processes on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from builder.run.clusters.connection import configure_dask, connect
from builder.stages.graph import Runner


class Local(BaseModel):
    """Worker processes on this machine, one thread each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["local"] = "local"
    workers: Annotated[int, Field(ge=1, le=1024)] | None = None
    """None: one a core."""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """Of one worker; None: the machine's memory shared out."""
    scratch: str | None = None
    """Folder for workers' temporary files; None: the system's."""
    dashboard: bool = False
    VERSION: ClassVar[int] = 1

    @contextmanager
    def open(self, workers: int | None) -> Iterator[Runner]:
        """A runner on a fresh LocalCluster that is closed at the end."""
        from distributed import LocalCluster

        configure_dask()
        count = workers or self.workers or os.cpu_count() or 1
        memory: Any = "auto" if self.memory_gib is None else int(self.memory_gib * 2**30)
        with (
            LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=memory,
                host="127.0.0.1",
                local_directory=self.scratch,
                dashboard_address="127.0.0.1:0" if self.dashboard else None,
            ) as cluster,
            connect(cluster, tls=None, workers=count) as runner,
        ):
            yield runner
