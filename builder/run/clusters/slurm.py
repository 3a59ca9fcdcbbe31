"""A Slurm cluster, through dask-jobqueue."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from builder.errors import MissingExtra
from builder.run.clusters.connection import Large, Tls, configure_dask, connect, with_large
from builder.stages.graph import Runner

LOOPBACK = "lo"


class Slurm(BaseModel):
    """One job a worker; a job that is lost is replaced."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["slurm"] = "slurm"
    workers: Annotated[int, Field(ge=1, le=10_000)]
    memory_gib: Annotated[float, Field(gt=0)]
    """Of one job."""
    walltime: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$")] = "04:00:00"
    partition: str | None = None
    account: str | None = None
    cores: Annotated[int, Field(ge=1, le=256)] = 1
    """Of one job; a worker runs one task at a time all the same, more cores only get more memory on some clusters."""
    interface: str = LOOPBACK
    """Network interface of scheduler and workers, such as ib0."""
    scratch: str | None = None
    logs: str | None = None
    """Folder for the jobs' output; None: it is thrown away."""
    python: str | None = None
    directives: tuple[str, ...] = ()
    """Further #SBATCH options."""
    prologue: tuple[str, ...] = ()
    """Shell lines before the worker starts, such as ``module load ...``."""
    adaptive: Annotated[int, Field(ge=0)] | None = None
    """Fewest jobs when there is little to do; None: always all of them."""
    large: Large | None = None
    """Workers for tasks that do not fit the others."""
    tls: Tls | None = None
    VERSION: ClassVar[int] = 1

    @model_validator(mode="after")
    def _beyond_loopback_only_with_tls(self) -> "Slurm":
        if self.tls is None and self.interface != LOOPBACK:
            raise ValueError("tls: found nothing, expected TLS files beyond this machine; 'builder certs' makes them")
        return self

    @contextmanager
    def open(self, workers: int | None) -> Iterator[Runner]:
        """A runner on jobs that are submitted for this build, and end with it."""
        try:
            from dask_jobqueue import SLURMCluster
        except ImportError as error:
            raise MissingExtra("dask-jobqueue", "slurm") from error
        configure_dask()
        count = workers or self.workers
        with SLURMCluster(**self._options()) as cluster:
            # under scale() a job that is lost is never replaced; adapt() holds the number
            cluster.adapt(
                minimum_jobs=count if self.adaptive is None else min(self.adaptive, count), maximum_jobs=count,
                interval="2s", wait_count=5,
            )  # fmt: skip
            with connect(cluster, tls=self.tls, workers=1) as runner:
                yield with_large(runner, self.large, self._as_large)

    def _as_large(self, large: Large) -> "Slurm":
        update = {"workers": large.workers, "memory_gib": large.memory_gib, "large": None}
        return self.model_copy(update=update)

    def _options(self) -> dict[str, Any]:
        return {
            "queue": self.partition,
            "account": self.account,
            "cores": 1,
            "job_cpu": self.cores,
            "processes": 1,
            "memory": f"{int(self.memory_gib * 2**30)}B",
            "walltime": self.walltime,
            "interface": self.interface,
            "local_directory": self.scratch,
            "log_directory": self.logs,
            "death_timeout": 120,
            "job_extra_directives": list(self.directives),
            "job_script_prologue": list(self.prologue),
            "scheduler_options": {"dashboard": False},
            **({"python": self.python} if self.python else {}),
            **({"security": self.tls.security()} if self.tls else {}),
        }
