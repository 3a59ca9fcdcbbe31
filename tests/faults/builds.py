"""Starting builds, breaking them, and the oracle: the tree of an undisturbed run, and what a reader saw meanwhile."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import builder
from builder.errors import LayoutError
from builder.storage import SCRATCH_PREFIX
from tests.endtoend.trees import KEY

ROOT = Path(__file__).resolve().parents[2]
POISON = f"{ROOT}/tests/faults/poison:{ROOT}"
"""PYTHONPATH under which cases can be made deadly."""
RUN = os.environ.get("BUILDER_FAULTS", "few")
FORKING = {"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver"}
"""Workers are forked too: one that was killed is back at once."""


def count(name: str, *, ci: int, long: int) -> int:
    """How often a fault is tried: ``BUILDER_FAULTS_<NAME>``, or by BUILDER_FAULTS: few (a fifth of ci), ci, long."""
    number = {"few": -(-ci // 5), "ci": ci, "long": long}[RUN]
    return int(os.environ.get(f"BUILDER_FAULTS_{name}", number))


PERSONS = int(os.environ.get("BUILDER_WITHDRAW_PERSONS", "10"))
"""Persons of the small archive."""

INNOCENTS = max(20, count("INNOCENTS", ci=20, long=60))
"""Persons beside those whose cases are deadly."""


def portions(total: int, *, size: int) -> list[Any]:
    """``total`` tries in portions, each a test of its own: a long run that was cut off continues at the next one."""
    return [pytest.param(min(size, total - first), id=f"from-{first}") for first in range(0, total, size)]


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

    def warm(self, spec: Path, folder: Path) -> None:
        """Have everything imported that a build of ``spec`` imports."""
        folder.mkdir(exist_ok=True)
        argv = ["build", str(spec), "--to", str(folder / "dataset")]
        assert self.ask({"warm": {"argv": argv, "log": str(folder / "log")}}) > 0


@contextmanager
def open_server(env: dict[str, str] | None = None) -> Iterator[Server]:
    """A server with variables that count from the start of Python, such as PYTHONHASHSEED."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BUILDER_", "PYTEST_"))}
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "faults" / "server.py")],
        env={**kept, **FORKING, "BUILDER_KEY": KEY, "PYTHONPATH": str(ROOT), **(env or {})},
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

    def wait(self, seconds: float = 1200.0) -> int:
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

    def at_work_after(self, case: "Case", dice: random.Random) -> bool:
        """Whether the build still runs a moment after it got on; it may get on no more (then five seconds pass)."""
        marks, start = case.marks(), time.monotonic()
        while self.poll() is None and case.marks() == marks and time.monotonic() - start < 5:
            time.sleep(0.02)
        time.sleep(dice.uniform(0.0, 0.1))
        return self.poll() is None

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

    @property
    def private(self) -> Path:
        """Its workspace."""
        return self.target.with_name(self.target.name + ".private")

    def marks(self) -> int:
        """A number that grows as the build gets on."""
        inner = (name for _, _, names in os.walk(self.private) for name in names)  # unlike glob, it lets folders vanish
        return sum(name.endswith(".parquet") for name in inner) + len(list(self.target.glob("data/*/receipt.json")))

    def finish(self) -> None:
        """Type the same command again, clean up, and look for what is left over."""
        build = self.start()
        assert build.wait() == 0, build.said()
        gc = self.command("gc", str(self.target))
        assert gc.wait() == 0, gc.said()


class Poller(threading.Thread):
    """A reader that looks every 50 ms which version is published, and reads each once to the last sample.

    It checks every object of what it finds when that is new, and twice a second.
    """

    def __init__(self, dataset: Path) -> None:
        super().__init__(daemon=True)
        self.dataset = dataset
        self.versions: list[str] = []
        self.faults: list[str] = []
        self._done = threading.Event()
        self._seen: tuple[bytes, float] = (b"", 0.0)

    def run(self) -> None:
        while not self._done.wait(0.05):
            self.look()

    def look(self) -> None:
        try:
            pointer = (self.dataset / "CURRENT").read_bytes()
        except FileNotFoundError:
            return
        if self._seen[0] == pointer and time.monotonic() - self._seen[1] < 0.5:
            return
        self.check()
        self._seen = pointer, time.monotonic()

    def check(self) -> None:
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
        self._seen = b"", 0.0
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
