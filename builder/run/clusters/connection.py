"""Provide what every kind of cluster needs: TLS, a client, and a configured, quiet Dask."""

import ipaddress
import logging
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from builder.errors import SourceError
from builder.run.clusters.likeness import check_likeness
from builder.stages.graph import WORKER_BYTES, Runner

CONNECT_SECONDS = 30
WORKER_SECONDS = 300
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Tls(BaseModel):
    """Files for mutual TLS, as ``builder certs`` writes them. All machines of the cluster use these paths."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ca_file: str
    cert_file: str
    key_file: str

    def security(self) -> Any:
        """Return Dask's form of it, in which both ends show a certificate and nothing is sent unencrypted."""
        from distributed.security import Security

        ends = {f"tls_{end}_{what}": value for end in ("client", "worker", "scheduler") for what, value in self._pair()}
        return Security(tls_ca_file=self.ca_file, require_encryption=True, **ends)

    def _pair(self) -> tuple[tuple[str, str], tuple[str, str]]:
        return ("cert", self.cert_file), ("key", self.key_file)


def _holds_a_worker(memory_gib: float) -> float:
    if memory_gib * 2**30 < WORKER_BYTES:
        least = WORKER_BYTES / 2**30
        raise ValueError(f"found {memory_gib:g}, expected at least {least:g} for the worker itself, and room for tasks")
    return memory_gib


MemoryGib = Annotated[float, AfterValidator(_holds_a_worker)]
"""Memory of one worker in GiB."""


class Large(BaseModel):
    """Workers with more memory, for tasks that do not fit the others. They start only when there is such a task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Number of workers; with SSH, on each host."""
    memory_gib: MemoryGib
    """Memory of one worker."""


def with_large(usual: Runner, large: Large | None, profile: Callable[[Large], Any]) -> Runner:
    """Return ``usual``, with a lane to the workers that ``profile`` starts if the profile has a block ``large``."""
    from builder.run.dask import DaskRunner
    from builder.run.large import LargeLane

    if large is None:
        return usual
    assert isinstance(usual, DaskRunner)
    return LargeLane(usual, int(large.memory_gib * 2**30), lambda: profile(large).open(None))


@contextmanager
def connect(where: Any, *, tls: Tls | None, workers: int, patience: int = WORKER_SECONDS) -> Iterator[Runner]:
    """Open a runner on a cluster object or a scheduler's address, once ``workers`` workers have started.

    ``patience`` is the number of seconds to wait for them.

    Raises
    ------
    SourceError
        When the scheduler or its workers do not appear.
    ResourceError
        When the workers have no memory for themselves.
    """
    from distributed import Client

    from builder.run.dask import DaskRunner, scheduler_gone

    security = tls.security() if tls else None
    try:
        if isinstance(where, str):
            _knock(where)
        client = Client(where, security=security, set_as_default=False, timeout=CONNECT_SECONDS)
    except OSError as error:
        raise SourceError(
            f"cluster: found no scheduler that answers{_at(where)} ({type(error).__name__}), expected one; "
            "check the address and the TLS files, and run the same command again",
            host="scheduler",
        ) from error
    with client:
        try:
            client.wait_for_workers(workers, timeout=patience)
            runner = DaskRunner(client)
            runner.check_room()
            check_likeness(client)
        except TimeoutError:
            found = len(client.scheduler_info(n_workers=-1).get("workers", ()))
            raise SourceError(
                f"cluster: found {found} workers{_at(where)} after {patience} s, expected {workers}; "
                f"{_start(where)}, and run the same command again",
                host="scheduler",
            ) from None
        except (OSError, CancelledError) as error:
            raise scheduler_gone() from error
        yield runner


def _knock(address: str) -> None:
    """Raise OSError at once if nobody listens. Dask's client would go on trying until its timeout."""
    parts = urlsplit(address)
    socket.create_connection((parts.hostname, parts.port), timeout=CONNECT_SECONDS).close()


def _at(where: Any) -> str:
    return f" at {where}" if isinstance(where, str) else ""


def _start(where: Any) -> str:
    """Return what to do about workers that do not appear."""
    if not isinstance(where, str):
        return "look into their logs"
    return f"start some, such as: dask worker {where}, or see in their logs why they end"


def configure_dask() -> None:
    """Configure what the runner relies on, and hide warnings about closing clusters; errors still show."""
    import dask

    from builder.run.dask import ALLOWED_FAILURES

    settings = {
        "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
        # a lost worker is replaced only after Dask gives it up, so that must happen soon
        "distributed.deploy.lost-worker-timeout": "10s",
        # one heap for all threads of a worker, from its first thread on (``keep_one_heap`` of the first process). This
        # replaces Dask's default MALLOC_TRIM_THRESHOLD_, with which glibc requests fresh pages for every buffer of a
        # case.
        "distributed.nanny.pre-spawn-environ": {**dict.fromkeys(THREADS, 1), "MALLOC_ARENA_MAX": 1},
        # Dask monitors itself 50 to 100 times a second in every process, which took 7 % of a core from two idle workers
        "distributed.admin.tick.interval": "500ms",
        "distributed.admin.system-monitor.interval": "2s",
        "distributed.worker.profile.interval": "100ms",
    }
    dask.config.set(settings)
    for name in ("nanny", "worker", "core", "comm", "client"):
        logging.getLogger(f"distributed.{name}").setLevel(logging.CRITICAL)


def is_loopback(host: str) -> bool:
    """Return whether a host can be reached only from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
