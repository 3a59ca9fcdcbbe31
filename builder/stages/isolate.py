"""Find the cases that kill their process, by rehearsing each case in a process that may die.

A case is at fault when its process died twice while it ran alone. The verdicts are stored with the plan, so that every
later run of the same plan excludes the same cases for the same reasons.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import CaseError, Reason
from builder.stages.planned import load_plan
from builder.stages.shard import VERDICTS, ShardArgument, rehearse
from builder.storage import open_store

DEATHS = 2
KILLS = 3
"""Deaths needed when the signal is SIGKILL: another process may have sent it, so one more is required."""
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Death:
    """How a process ended: its exit code or minus the signal, and whether it exceeded its memory limit."""

    status: int
    outgrew: bool

    def as_error(self, memory: int, projected: int) -> CaseError:
        """Return the reason for excluding the case whose process died this way."""
        if self.outgrew or self.status == -signal.SIGKILL:
            limit = f"more than the {memory >> 20} MiB a worker has" if memory else "more memory than there is"
            expected = f"{projected / 2**20:.1f} MiB by its headers"  # in bytes, it would pass for a telephone number
            return CaseError(Reason.OUT_OF_MEMORY, f"found that it needs {limit}, expected {expected}")
        how = f"of signal {-self.status}" if self.status < 0 else f"with exit code {self.status}"
        return CaseError(Reason.CRASHED, f"found that its process dies {how}, expected a sample or a reason")


def isolate_shard(argument: ShardArgument, memory: int) -> int:
    """Rehearse every case of a shard, record those that kill their process, and return their number.

    Parameters
    ----------
    memory
        Bytes that a case's process may use; 0 for no limit.
    """
    store = open_store(argument.plan, directory_mode=0o700)
    plan = load_plan(store, argument.shard)
    verdicts: dict[str, list[str]] = {}
    number = 0
    while number < len(plan.cases):
        done, death = _run(argument, number, len(plan.cases), memory)
        number += done
        if death is not None and number < len(plan.cases):
            case = plan.cases[number]
            confirmed = _confirm(argument, number, memory)
            if confirmed is not None:
                error = confirmed.as_error(memory, case.peak_bytes)
                verdicts[case.case_key] = [error.reason.value, error.detail]
            number += 1
    store.put(f"{VERDICTS}/{argument.shard}.json", json.dumps(verdicts, sort_keys=True).encode())
    return len(verdicts)


def _confirm(argument: ShardArgument, number: int, memory: int) -> Death | None:
    """Return how a case's process died when it died every time it ran alone; None if it survived once."""
    death: Death | None = None
    for attempt in range(KILLS):
        done, death = _run(argument, number, number + 1, memory)
        if done or death is None:
            return None
        if attempt + 1 >= DEATHS and (death.outgrew or death.status != -signal.SIGKILL):
            break
    return death


def _run(argument: ShardArgument, first: int, stop: int, memory: int) -> tuple[int, Death | None]:
    """Rehearse cases ``first`` to ``stop`` in a process; return how many were done, and how it died."""
    request = json.dumps({"argument": argument.__dict__, "first": first, "stop": stop})
    command = [sys.executable, "-m", "builder.stages.isolate", request]
    nothing = subprocess.DEVNULL
    with (
        tempfile.TemporaryDirectory(prefix="builder-") as folder,  # a process that dies leaves its files behind
        subprocess.Popen(
            command, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing, env={**os.environ, "TMPDIR": folder}
        ) as child,
    ):
        outgrew = threading.Event()
        guard = threading.Thread(target=_guard, args=(child, memory, outgrew), daemon=True)
        guard.start()
        assert child.stdout is not None
        done = sum(1 for _ in child.stdout)
        status = child.wait()
        guard.join()
    return done, Death(status, outgrew.is_set()) if done < stop - first and status != 0 else None


def _guard(child: "subprocess.Popen[bytes]", memory: int, outgrew: threading.Event) -> None:
    """Kill a process that exceeds its memory limit, before the machine runs out of memory."""
    page = os.sysconf("SC_PAGE_SIZE")
    while memory and child.poll() is None:
        with contextlib.suppress(OSError, IndexError):
            resident = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1]) * page
            if resident > memory:
                outgrew.set()
                child.kill()
                return
        time.sleep(POLL_SECONDS)


def main(request: dict[str, Any]) -> None:
    """Rehearse cases in the process that may die, and print a line for each one survived."""
    argument = ShardArgument(**request["argument"])
    for number in range(request["first"], request["stop"]):
        try:
            rehearse(argument, number)
        finally:  # also after an exception: it does not kill the process, and the real build reports it
            os.write(1, b".\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
