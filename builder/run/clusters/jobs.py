"""Use a queue of batch jobs (Slurm, PBS, SGE, LSF, OAR, Moab) through dask-jobqueue."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from builder.errors import MissingExtra
from builder.run.clusters.connection import Large, MemoryGib, Tls, configure_dask, connect, with_large
from builder.stages.graph import Runner

LOOPBACK = "lo"


@dataclass(frozen=True)
class Dialect:
    """The dask-jobqueue names of options that differ between kinds of queues.

    Parameters
    ----------
    cluster
        The cluster class.
    account
        The option for the account to charge.
    cores
        The option for cores beyond the one a worker uses; empty if ``resources`` states them.
    """

    cluster: str
    account: str
    cores: str = ""


DIALECTS = {
    "slurm": Dialect("SLURMCluster", "account", "job_cpu"),
    "pbs": Dialect("PBSCluster", "account"),
    "moab": Dialect("MoabCluster", "account"),
    "sge": Dialect("SGECluster", "project"),
    "lsf": Dialect("LSFCluster", "project", "ncpus"),
    "oar": Dialect("OARCluster", "project"),
}


class Jobs(BaseModel):
    """One job per worker; a lost job is replaced."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["slurm", "pbs", "moab", "sge", "lsf", "oar"]
    workers: Annotated[int, Field(ge=1, le=10_000)]
    memory_gib: MemoryGib
    """Memory of one job."""
    walltime: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$")] = "04:00:00"
    partition: str | None = None
    account: str | None = None
    cores: Annotated[int, Field(ge=1, le=256)] = 1
    """Cores of one job. A worker runs one task at a time anyway, but some clusters tie memory to cores."""
    resources: str | None = None
    """Resource request in the syntax of PBS, Moab, SGE or OAR, such as ``select=1:ncpus=1:mem=8gb``."""
    interface: str = LOOPBACK
    """Network interface of scheduler and workers, such as ib0."""
    scratch: str | None = None
    logs: str | None = None
    """Folder for the jobs' output; None discards it."""
    python: str | None = None
    directives: tuple[str, ...] = ()
    """Further lines for the head of the job script, without #SBATCH, #PBS, ..."""
    prologue: tuple[str, ...] = ()
    """Shell lines before the worker starts, such as ``module load ...``."""
    adaptive: Annotated[int, Field(ge=0)] | None = None
    """Fewest jobs when there is little to do; None always keeps all of them."""
    large: Large | None = None
    """Workers for tasks that do not fit the others."""
    tls: Tls | None = None
    VERSION: ClassVar[int] = 1

    @model_validator(mode="after")
    def _beyond_loopback_only_with_tls(self) -> "Jobs":
        if self.tls is None and self.interface != LOOPBACK:
            raise ValueError("tls: found nothing, expected TLS files beyond this machine; 'builder certs' makes them")
        return self

    @model_validator(mode="after")
    def _asks_in_words_of_its_queue(self) -> "Jobs":
        if self.kind in ("slurm", "lsf") and self.resources is not None:
            raise ValueError(f"resources: found them with kind {self.kind}, expected cores, memory_gib and directives")
        if self.kind not in ("slurm", "lsf") and self.cores != 1:
            raise ValueError(f"cores: found {self.cores} with kind {self.kind}, expected resources to ask for them")
        return self

    @contextmanager
    def open(self, workers: int | None) -> Iterator[Runner]:
        """Open a runner on jobs that are submitted for this build and end with it."""
        try:
            import dask_jobqueue
        except ImportError as error:
            raise MissingExtra("dask-jobqueue", "slurm") from error
        configure_dask()
        count = workers or self.workers
        with getattr(dask_jobqueue, DIALECTS[self.kind].cluster)(**self.options()) as cluster:
            # scale() never replaces a lost job, whereas adapt() maintains the number
            cluster.adapt(
                minimum_jobs=count if self.adaptive is None else min(self.adaptive, count), maximum_jobs=count,
                interval="2s", wait_count=5,
            )  # fmt: skip
            with connect(cluster, tls=self.tls, workers=1) as runner:
                yield with_large(runner, self.large, self._as_large)

    def _as_large(self, large: Large) -> "Jobs":
        update = {"workers": large.workers, "memory_gib": large.memory_gib, "large": None}
        return self.model_copy(update=update)

    def options(self) -> dict[str, Any]:
        """Return the options for dask-jobqueue."""
        dialect = DIALECTS[self.kind]
        return {
            "queue": self.partition,
            dialect.account: self.account,
            "cores": 1,
            **({dialect.cores: self.cores} if dialect.cores else {"resource_spec": self.resources}),
            "processes": 1,
            "memory": f"{int(self.memory_gib * 2**30)}B",
            "walltime": self._walltime(),
            "interface": self.interface,
            "local_directory": self.scratch,
            "log_directory": self.logs,
            "death_timeout": 120,
            "job_extra_directives": list(self.directives),
            "job_script_prologue": list(self.prologue),
            # status and metrics pages have no TLS, so they are only on this machine, on any port
            "scheduler_options": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            "worker_extra_args": ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"],
            **({"memory_per_core_property_name": "not_applicable"} if self.kind == "oar" else {}),
            **({"python": self.python} if self.python else {}),
            **({"security": self.tls.security()} if self.tls else {}),
        }

    def _walltime(self) -> str:
        """Format the time limit. Only Slurm has days, and LSF has no seconds."""
        if self.kind == "slurm":
            return self.walltime
        days, _, rest = self.walltime.rpartition("-")
        hours, minutes, seconds = rest.split(":")
        total = f"{24 * int(days or 0) + int(hours):02d}:{minutes}"
        return total if self.kind == "lsf" else f"{total}:{seconds}"
