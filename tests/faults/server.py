"""Runs ``builder`` commands in forked children of a process that has everything imported: a build starts in no time.

Speaks JSON lines: {"start": {...}} is answered by {"pid"}, {"wait": {...}} by {"status"} (null: still at work),
{"warm": {...}} by {"modules"}: from then on what that command imported is imported already, in Dask's workers too.
A fault is planted in the child, before the command starts: see ``plant``. Besides builder's commands there are
``scheduler`` and ``worker``, which are Dask's own.
"""

import ctypes
import errno
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CLONE_NEWNET = 0x40000000
FAILING = "planted: a flush fails"


def main() -> None:
    """Serve until stdin ends. Nothing waits for the disk: a process that is killed loses nothing that it wrote."""
    vars(os)["fsync"] = lambda descriptor: None
    preload()
    for line in sys.stdin:
        request = json.loads(line)
        if "warm" in request:
            answer: dict[str, Any] = {"modules": warm(**request["warm"])}
        elif "start" in request:
            answer = {"pid": start(**request["start"])}
        else:
            answer = {"status": wait(**request["wait"])}
        print(json.dumps(answer), flush=True)


def preload() -> None:
    """Import what a build imports, and do what each process does once; nothing here starts a thread."""
    import distributed.cli.dask_scheduler
    import distributed.cli.dask_worker  # noqa: F401

    import builder.catalog.page
    import builder.cli
    import builder.reader.opening
    import builder.report.html
    import builder.run.dask
    import builder.run.pipeline

    builder.report.html.page_template()
    builder.catalog.page.page_template()
    preload_catalog()
    preload_headers()


def preload_catalog() -> None:
    """Read the questions of the catalog's records, and compile the answers to them."""
    from builder.catalog import answers

    folder = Path(answers.__file__).parent
    for path in sorted(folder.rglob("*.yaml")):
        for text in texts(answers.questions(path.relative_to(folder).as_posix())):
            answers._compiled(text)


def texts(value: Any) -> Iterator[str]:
    """The templates in a document."""
    if isinstance(value, str):
        yield from [value] if "{" in value else []
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts(inner)


def preload_headers() -> None:
    """Load the kernel that reads headers, and compile the rules that say what a series is."""
    from builder.headers.walker import walk
    from builder.imaging import series_types

    walk([bytes(128) + b"DICM"], [132])
    for steps in series_types.shipped().steps.values():
        for rule in (rule for step in steps for rule in step.rules):
            series_types.compiled(rule.when)


def warm(argv: list[str], log: str) -> int:
    """Run a command in a child, and import here what it imported; returns how many modules that were."""
    reading, writing = os.pipe()
    before = set(sys.modules)
    pid = start(argv, {}, log, {}, report=writing)
    os.close(writing)
    with os.fdopen(reading) as stream:
        imported = [name for name in json.load(stream) if name not in before]
    os.waitpid(pid, 0)
    found = [name for name in imported if _imports(name)]
    _preload_workers(["distributed", *(n for n in sys.modules if n.startswith("builder.")), *found])
    return len(found)


def _imports(name: str) -> bool:
    """Whether a module could be imported; one that only exists inside a command cannot."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def _preload_workers(names: list[str]) -> None:
    """Let the process that forks Dask's workers import modules before the first of them."""
    from distributed.utils import get_mp_context

    context = get_mp_context()
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(names)


def start(argv: list[str], env: dict[str, str], log: str, fault: dict[str, Any], *, report: int = -1) -> int:
    """Fork a child that runs the command in a session of its own; writes to ``report`` what it imported."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:  # an exception that leaves the command is printed, and counts as exit 70
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(env)
        time.tzset()
        os.umask(int(env.get("FAULTS_UMASK", "022"), 8))
        plant(**fault)
        code = run(argv)
        if report >= 0:
            os.write(report, json.dumps(list(sys.modules)).encode())
    except Exception:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(argv: list[str]) -> int:
    """The command's exit code."""
    from distributed.cli.dask_scheduler import main as scheduler
    from distributed.cli.dask_worker import main as worker

    from builder.cli import main as command

    try:
        {"scheduler": lambda: scheduler(argv[1:]), "worker": lambda: worker(argv[1:])}.get(
            argv[0], lambda: command(argv)
        )()
    except SystemExit as done:
        return int(done.code or 0)
    return 72


def wait(pid: int, seconds: float) -> int | None:
    """Exit code, or minus the signal, of a child; None when it is still at work after some seconds."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.005)


def plant(
    write: int = 0,
    code: str = "ENOSPC",
    clock: float = 0.0,
    jumps: int = 0,
    twice: str = "",
    space: str = "",
    power: str = "",
) -> None:
    """Plant a fault: the ``write``-th flush fails with an errno, the clock is off or jumps back, tasks run twice.

    ``space`` is a network name space to move to, ``power`` a file that notes what a power failure would spare.
    """
    if space:
        enter(space)
    if power:
        from tests.faults.power import record

        record(power)
    if write:
        fail_flush(write, getattr(errno, code))
    if clock or jumps:
        shift_clock(clock, jumps)
    if twice:
        run_twice(twice)


def enter(space: str) -> None:
    """Move this process into a named network name space."""
    library = ctypes.CDLL(None, use_errno=True)
    with open(f"/var/run/netns/{space}") as handle:  # noqa: PTH123
        if library.setns(handle.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


def fail_flush(number: int, code: int) -> None:
    """From the ``number``-th fsync on every one fails: a disk that is full, or gone, stays so."""
    real, seen = os.fsync, [0]

    def fsync(handle: Any) -> None:
        seen[0] += 1
        if seen[0] >= number:
            print(FAILING, file=sys.stderr, flush=True)
            raise OSError(code, os.strerror(code))
        real(handle)

    vars(os)["fsync"] = fsync


def shift_clock(seconds: float, jumps: int) -> None:
    """Wall clocks are off by ``seconds``; with jumps, every call of time() goes back a further minute."""
    real, calls = time.time, [0]

    def now() -> float:
        calls[0] += 1
        return real() + seconds - 60.0 * min(calls[0], jumps)

    time.time = now
    time.time_ns = lambda: int(now() * 1e9)


def run_twice(how: str) -> None:
    """Every task runs twice: one run after the other, or both at once in threads."""
    import threading

    from builder.run.serial import SerialRunner
    from builder.stages.graph import Outcome

    def both(task: Any) -> Any:
        if how == "after":
            task.function(task.argument)
            return task.function(task.argument)
        values: list[Any] = []
        threads = [threading.Thread(target=lambda: values.append(task.function(task.argument))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(values) != 2:
            raise RuntimeError("one of two runs of a task failed")
        return values[0]

    def every(self: SerialRunner, tasks: Any) -> Any:
        for task in tasks:
            yield Outcome(task, both(task))

    SerialRunner.run = every  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
