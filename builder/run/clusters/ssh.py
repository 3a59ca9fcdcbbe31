"""Use machines that are reached by SSH."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from builder.errors import MissingExtra, SpecError
from builder.run.clusters.connection import Large, MemoryGib, Tls, configure_dask, connect, is_loopback, with_large
from builder.stages.graph import Runner


class Ssh(BaseModel):
    """A scheduler on the first host and workers on all hosts, which see sources and dataset at the same paths."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["ssh"] = "ssh"
    hosts: Annotated[tuple[str, ...], Field(min_length=1)]
    user: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    key_file: str | None = None
    """Private key; None uses the agent's or the user's own."""
    known_hosts: str | None = None
    """File of host keys; None uses the user's own. Hosts that are not in it are refused."""
    python: str = "python3"
    workers_per_host: Annotated[int, Field(ge=1, le=1024)] = 1
    memory_gib: MemoryGib | None = None
    """Memory of one worker."""
    scratch: str | None = None
    environment: tuple[str, ...] = ("BUILDER_KEY",)
    """Variables to pass on through SSH, by name. sshd's AcceptEnv must allow them. Values are never written."""
    large: Large | None = None
    """Workers for tasks that do not fit the others."""
    tls: Tls | None = None
    VERSION: ClassVar[int] = 1

    @model_validator(mode="after")
    def _beyond_loopback_only_with_tls(self) -> "Ssh":
        if self.tls is None and not all(is_loopback(host) for host in self.hosts):
            raise ValueError("tls: found nothing, expected TLS files beyond this machine; 'builder certs' makes them")
        return self

    @contextmanager
    def open(self, workers: int | None) -> Iterator[Runner]:
        """Open a runner on workers that are started for this build and end with it."""
        if workers is not None:
            raise SpecError("--workers: found a number with an SSH profile, expected workers_per_host in the profile")
        try:
            import asyncssh  # noqa: F401
        except ImportError as error:
            raise MissingExtra("asyncssh", "ssh") from error
        from distributed import SSHCluster

        configure_dask()
        with (
            SSHCluster(
                [self.hosts[0], *self.hosts],
                connect_options=self._connection(),
                worker_options=self._worker(),
                scheduler_options={"dashboard": False, "dashboard_address": "127.0.0.1:0", **self._bound(), "port": 0},
                remote_python=self.python,
                security=self.tls.security() if self.tls else None,
            ) as cluster,
            connect(cluster, tls=self.tls, workers=len(self.hosts) * self.workers_per_host) as runner,
        ):
            yield with_large(runner, self.large, self._as_large)

    def _as_large(self, large: Large) -> "Ssh":
        update = {"workers_per_host": large.workers, "memory_gib": large.memory_gib, "large": None}
        return self.model_copy(update=update)

    def _connection(self) -> dict[str, Any]:
        options: dict[str, Any] = {"port": self.port, "known_hosts": self.known_hosts or ()}
        if self.user:
            options["username"] = self.user
        if self.key_file:
            options["client_keys"] = [self.key_file]
        if self.known_hosts is None:
            del options["known_hosts"]  # asyncssh then uses the user's own file
        options["env"] = {name: os.environ[name] for name in self.environment if name in os.environ}
        return options

    def _worker(self) -> dict[str, Any]:
        memory = "auto" if self.memory_gib is None else int(self.memory_gib * 2**30)
        options = {"n_workers": self.workers_per_host, "nthreads": 1, "memory_limit": memory, "dashboard": False}
        return {**options, **({"local_directory": self.scratch} if self.scratch else {}), **self._bound()}

    def _bound(self) -> dict[str, str]:
        """Return options that make clusters on loopback listen on loopback only."""
        return {"host": "127.0.0.1"} if all(is_loopback(host) for host in self.hosts) else {}
