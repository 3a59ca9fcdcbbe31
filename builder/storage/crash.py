"""Named points at which the fault tests stop a process."""

import os
import signal

CRASH_VARIABLE = "BUILDER_CRASH_AT"
STOP_VARIABLE = "BUILDER_STOP_AT"
_hits: dict[str, int] = {}


def checkpoint(name: str) -> None:
    """Kill this process if ``BUILDER_CRASH_AT`` is ``name``, or ``name:n`` and this is the n-th call.

    The fault tests use this to kill a process (SIGKILL) at every durable step, or with ``BUILDER_STOP_AT`` to suspend
    it (SIGSTOP). Nothing happens if the variables are not set.
    """
    for variable, number in ((CRASH_VARIABLE, signal.SIGKILL), (STOP_VARIABLE, signal.SIGSTOP)):
        target, _, count = os.environ.get(variable, "").partition(":")
        if target != name:
            continue
        _hits[name] = _hits.get(name, 0) + 1
        if _hits[name] == int(count or 1):
            os.kill(os.getpid(), number)
