"""Bounds of time and memory for tests on damaged files."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 20
MEBIBYTES = 1024


@contextmanager
def bounded() -> Iterator[None]:
    """Stop what hangs, and refuse what grows beyond a gigabyte of what the process already used."""

    def stop(signum: int, frame: object) -> None:
        raise TimeoutError(f"still at it after {SECONDS} s")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024 - before < MEBIBYTES
