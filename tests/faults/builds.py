"""Starting builds, breaking them, and the oracle: the tree of an undisturbed run, and what a reader saw meanwhile."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import builder
from builder.errors import LayoutError
from builder.storage import SCRATCH_PREFIX
from tests.faults.archive import KEY

ROOT = Path(__file__).resolve().parents[2]
RUN = os.environ.get("BUILDER_FAULTS", "few")


def count(name: str, *, ci: int, long: int) -> int:
    """How often a fault is tried: ``BUILDER_FAULTS_<NAME>``, or by BUILDER_FAULTS: few (a fifth of ci), ci, long."""
    number = {"few": -(-ci // 5), "ci": ci, "long": long}[RUN]
    return int(os.environ.get(f"BUILDER_FAULTS_{name}", number))


@dataclass
class Server:
    """The process that forks builds; see ``server.py``."""

    process: subprocess.Popen[str]

    def ask(self, request: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return next(iter(json.loads(self.process.stdout.readline()).values()))


@contextmanager
def open_server(env: dict[str, str] | None = None) -> Iterator[Server]:
    """A server with variables that count from the start of Python, such as PYTHONHASHSEED."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BUILDER_", "PYTEST_"))}
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "faults" / "server.py")],
        env={**kept, "BUILDER_KEY": KEY, **(env or {})},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Server(process)


@dataclass
class Build:
    """A build in a process of its own."""

    server: Server
    pid: int
    log: Path
    status: int | None = None

    def wait(self, seconds: float = 400.0) -> int:
        """Exit code, or minus the signal."""
        status = self.poll(seconds)
        if status is None:
            self.kill()
        assert status is not None, f"still at work after {seconds} s:\n{self.said()}"
        return status

    def poll(self, seconds: float = 0.0) -> int | None:
        """Exit code, or None while it runs."""
        if self.status is None:
            self.status = self.server.ask({"wait": {"pid": self.pid, "seconds": seconds}})
        return self.status

    def kill(self) -> None:
        """SIGKILL everything the build started."""
        os.killpg(self.pid, signal.SIGKILL)

    def said(self) -> str:
        """What it printed."""
        return self.log.read_text() if self.log.exists() else ""


@dataclass
class Case:
    """One target: its spec, its folder, and the server that builds it."""

    server: Server
    spec: Path
    target: Path
    more: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    versions: int = 1
    """How many a reader will have seen."""

    def start(self, *, env: dict[str, str] | None = None, fault: dict[str, Any] | None = None) -> Build:
        """Start ``builder build``."""
        return self.command("build", str(self.spec), "--to", str(self.target), *self.more, env=env, fault=fault)

    def command(self, *argv: str, env: dict[str, str] | None = None, fault: dict[str, Any] | None = None) -> Build:
        """Start any command."""
        log = self.target.with_suffix(".log")
        request = {"argv": list(argv), "env": {**self.env, **(env or {})}, "log": str(log), "fault": fault or {}}
        return Build(self.server, self.server.ask({"start": request}), log)

    def finish(self) -> None:
        """Type the same command again, clean up, and look for what is left over."""
        build = self.start()
        assert build.wait() == 0, build.said()
        gc = self.command("gc", str(self.target))
        assert gc.wait() == 0, gc.said()


class Poller(threading.Thread):
    """A reader that looks every 50 ms, checks every object of what it finds, and reads it once to the last sample."""

    def __init__(self, dataset: Path) -> None:
        super().__init__(daemon=True)
        self.dataset = dataset
        self.versions: list[str] = []
        self.faults: list[str] = []
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.05):
            self.look()

    def look(self) -> None:
        if not (self.dataset / "CURRENT").exists():
            return
        try:
            found = builder.open_dataset(self.dataset)
            version = found.manifest.version
            for shard in found.manifest.shards:
                for stored in shard.objects:
                    size = (self.dataset / "data" / shard.fingerprint / stored.path).stat().st_size
                    if size != stored.bytes:
                        self.faults.append(f"{stored.path}: {size} bytes, expected {stored.bytes}")
            if version not in self.versions:
                self.versions.append(version)
                sum(1 for sample in found if sample["image"].size)
        except (LayoutError, OSError) as error:
            self.faults.append(str(error))

    def stop(self) -> None:
        self._done.set()
        self.join()
        self.look()


def tree(folder: Path) -> dict[str, str]:
    """Relative path to SHA-256 of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def leftovers(target: Path) -> list[str]:
    """Temporary objects in a dataset and its private workspace."""
    private = target.with_name(target.name + ".private")
    return [str(p) for home in (target, private) for p in home.rglob(SCRATCH_PREFIX + "*")]
