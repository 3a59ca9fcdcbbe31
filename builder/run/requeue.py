"""Tell whether the job of a driver that stopped is going to run again, and write the script that makes it do so."""

import os
import shlex
import subprocess
from collections.abc import Sequence

JOB_VARIABLE = "BUILDER_JOB"
"""Environment variable: the number of the Slurm job that runs the driver, for its journal."""

LEAD_SECONDS = 120
"""How long before the end of its time a job stops its driver; a quarter of the time if that is shorter."""

MOST = 500
"""Most times a driver's job puts itself back in the queue."""

_ALIVE = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "RUNNING"})


def own_job() -> str:
    """Return the Slurm job that this process is the driver of; "" if it is in none."""
    return os.environ.get(JOB_VARIABLE, "")


def will_run_again(job: str) -> bool:
    """Return whether Slurm still has a job, so that its driver will go on. False if Slurm is not installed here."""
    if not job.isdigit():
        return False
    try:
        command = ["squeue", "--noheader", "--jobs", job, "--format", "%T"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip().partition("+")[0] in _ALIVE


def lead(walltime: str) -> int:
    """Return how many seconds before its end a job with this time limit is told to stop."""
    days, _, clock = walltime.rpartition("-")
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return min(LEAD_SECONDS, (86400 * int(days or 0) + 3600 * hours + 60 * minutes + seconds) // 4)


def script(command: Sequence[str], *, prologue: Sequence[str]) -> str:
    """Return a batch script whose driver stops before the time is over, and which then waits in the queue again.

    The driver gets the signal of Ctrl-C, upon which it keeps what is finished and ends its workers' jobs. Shells start
    what runs in the background with that signal ignored, so Python is told to take it.
    """
    starter = (
        "import signal, sys, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "sys.argv = ['builder', *sys.argv[1:]]; runpy.run_module('builder', run_name='__main__', alter_sys=True)"
    )
    python, *arguments = command
    line = shlex.join([python, "-c", starter, *arguments])
    return "\n".join(
        (
            "#!/bin/sh",
            *prologue,
            f'export {JOB_VARIABLE}="$SLURM_JOB_ID"',
            "again=",
            "trap 'again=yes; kill -INT \"$driver\"' USR1",
            f"{line} &",
            "driver=$!",
            'wait "$driver"; code=$?',
            'while kill -0 "$driver" 2>/dev/null; do wait "$driver"; code=$?; done',
            f'if [ -n "$again" ] && [ "$code" != 0 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {MOST} ]; then',
            '    exec scontrol requeue "$SLURM_JOB_ID"',
            "fi",
            'exit "$code"',
            "",
        )
    )
