"""Runs ``builder`` commands in forked children of a process that has everything imported: a build starts in no time.

Speaks JSON lines: {"start": {...}} is answered by {"pid"}, {"wait": {...}} by {"status"} (null: still at work).
A fault is planted in the child, before the command starts: see ``plant``.
"""

import errno
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any


def main() -> None:
    """Serve until stdin ends."""
    preload()
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"pid": start(**request["start"])} if "start" in request else {"status": wait(**request["wait"])}
        print(json.dumps(answer), flush=True)


def preload() -> None:
    """Import what a build imports; nothing here starts a thread."""
    import builder.cli
    import builder.imaging.pixels
    import builder.labels.rtstruct
    import builder.reader.dataset
    import builder.report.assembly
    import builder.run.pipeline
    import builder.shards
    import builder.stages.finish  # noqa: F401


def start(argv: list[str], env: dict[str, str], log: str, fault: dict[str, Any]) -> int:
    """Fork a child that runs the command in a session of its own."""
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
    except Exception:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(argv: list[str]) -> int:
    """The command's exit code."""
    from builder.cli import main as command

    try:
        command(argv)
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


def plant(write: int = 0, code: str = "ENOSPC", clock: float = 0.0, jumps: int = 0, twice: str = "") -> None:
    """Plant a fault: the ``write``-th flush fails with an errno, the clock is off or jumps back, tasks run twice."""
    if write:
        fail_flush(write, getattr(errno, code))
    if clock or jumps:
        shift_clock(clock, jumps)
    if twice:
        run_twice(twice)


def fail_flush(number: int, code: int) -> None:
    """From the ``number``-th fsync on every one fails: a disk that is full, or gone, stays so."""
    real, seen = os.fsync, [0]

    def fsync(handle: int) -> None:
        seen[0] += 1
        if seen[0] >= number:
            raise OSError(code, os.strerror(code))
        real(handle)

    os.fsync = fsync


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
