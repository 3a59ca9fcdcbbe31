"""A Dask scheduler and workers, each a process of its own that can be killed, cut off and replaced."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.faults.builds import Build, Case, Server

NANNY = ("--nanny",)
ALONE = ("--no-nanny",)


@dataclass
class Roles:
    """A scheduler on ``url`` and its workers; a worker with a nanny is a group of processes."""

    server: Server
    folder: Path
    url: str
    scheduler: Build
    more: tuple[str, ...]
    workers: list[Build] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, ...]:
        """What a build is told to use this scheduler."""
        return ("--cluster", self.url)

    def add(self, *more: str, fault: dict[str, Any] | None = None) -> None:
        """One more worker."""
        argv = ("worker", self.url, "--nthreads", "1", "--memory-limit", "1.5GiB", "--death-timeout", "60")
        scratch = ("--no-dashboard", "--local-directory", str(self.folder / "scratch"))
        options = (*scratch, *self.more, *more)
        self.workers.append(role(self.server, self.folder, *argv, *options, env=self.env, fault=fault))

    def end(self) -> None:
        """Kill all that is left."""
        for build in (*self.workers, self.scheduler):
            if build.poll() is None:
                build.kill()
                build.wait()


def role(
    server: Server,
    folder: Path,
    *argv: str,
    env: dict[str, str] | None = None,
    fault: dict[str, Any] | None = None,
) -> Build:
    """Start a scheduler or a worker; what it says goes to a file named after it."""
    return Case(server, folder, folder / argv[0]).command(*argv, env=env, fault=fault)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def open_roles(server: Server, folder: Path, *more: str, workers: int = 2) -> Iterator[Roles]:
    """A scheduler on this machine and so many workers, started with options ``more``."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    scheduler = role(server, folder, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    roles = Roles(server, folder, f"tcp://127.0.0.1:{port}", scheduler, ("--host", "127.0.0.1", *more))
    try:
        for _ in range(workers):
            roles.add()
        yield roles
    finally:
        roles.end()


def worker_processes(pid: int) -> list[psutil.Process]:
    """The processes that run tasks, among those a driver or a nanny started."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if _runs_tasks(child)]


def _runs_tasks(process: psutil.Process) -> bool:
    """Whether the fork server, or Python's own way to spawn, made this process."""
    try:
        parent = process.parent()
        forked = parent is not None and "forkserver" in " ".join(parent.cmdline())
        return forked or "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def kill(process: psutil.Process) -> bool:
    """SIGKILL; False when it was gone already."""
    try:
        os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
