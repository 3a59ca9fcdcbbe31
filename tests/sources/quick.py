"""Make the retries of sources take no time."""

import time
from types import SimpleNamespace

import pytest

from builder.sources import patience


class Clock:
    """A clock that only pauses move. ``pauses`` are those that were asked for."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def monotonic(self) -> float:
        return sum(self.pauses)


def no_pauses(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of the retries."""
    clock = Clock()
    fake = SimpleNamespace(sleep=clock.sleep, monotonic=clock.monotonic, time=time.time)
    monkeypatch.setattr(patience, "time", fake)
    return clock
