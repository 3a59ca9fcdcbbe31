"""Show what a run is doing: bars on a terminal, plain lines elsewhere, JSON lines for machines."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO, TypeVar

from builder.protocols import Progress

Item = TypeVar("Item")
PLAIN_SECONDS = 5.0


@dataclass(frozen=True)
class SilentProgress:
    """Shows nothing."""

    def track(self, items: Iterable[Item], *, stage: str, total: int | None) -> Iterator[Item]:
        yield from items

    def say(self, message: str) -> None:
        return


@dataclass
class PlainProgress:
    """Prints a line per stage and one every few seconds, for logs and pipes."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)

    def track(self, items: Iterable[Item], *, stage: str, total: int | None) -> Iterator[Item]:
        start = shown = time.monotonic()
        done = 0
        for item in items:
            yield item
            done += 1
            now = time.monotonic()
            if now - shown >= PLAIN_SECONDS:
                shown = now
                self.say(f"{stage}: {_count(done, total)}, {done / (now - start):.1f}/s")
        self.say(f"{stage}: {_count(done, total)}, done in {time.monotonic() - start:.1f} s")

    def say(self, message: str) -> None:
        print(message, file=self.stream, flush=True)


@dataclass
class JsonProgress:
    """Prints one JSON object per line: ``{"stage", "done", "total"}`` or ``{"message"}``."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)

    def track(self, items: Iterable[Item], *, stage: str, total: int | None) -> Iterator[Item]:
        done = 0
        for item in items:
            yield item
            done += 1
            self._emit({"stage": stage, "done": done, "total": total})
        if done == 0:
            self._emit({"stage": stage, "done": 0, "total": total})

    def say(self, message: str) -> None:
        self._emit({"message": message})

    def _emit(self, event: dict[str, Any]) -> None:
        print(json.dumps(event, sort_keys=True), file=self.stream, flush=True)


@dataclass
class BarProgress:
    """Shows bars with rich on a terminal."""

    bars: Any

    def track(self, items: Iterable[Item], *, stage: str, total: int | None) -> Iterator[Item]:
        task = self.bars.add_task(stage, total=total)
        for item in items:
            yield item
            self.bars.advance(task)
        self.bars.update(task, total=self.bars.tasks[task].completed)

    def say(self, message: str) -> None:
        self.bars.console.print(message, highlight=False)


@contextmanager
def open_progress(style: str) -> Iterator[Progress]:
    """Open progress on stderr by style: ``auto`` (bars in a terminal or plain), ``plain``, ``json`` or ``silent``."""
    if style == "silent":
        yield SilentProgress()
    elif style == "json":
        yield JsonProgress()
    elif style == "plain" or not sys.stderr.isatty():
        yield PlainProgress()
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn())
        with Bars(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bars:
            yield BarProgress(bars)


def _count(done: int, total: int | None) -> str:
    return f"{done}" if total is None else f"{done} of {total}"
