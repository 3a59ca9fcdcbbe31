"""Keep the run journal: what every build of a dataset did, in its private workspace, readable from any machine.

``journal/<run>/<number>.jsonl`` are small objects of JSON lines, numbered without gaps. The run is the lease's counter.
Stage names are fixed words and messages hold counts. No identifier is ever written.
"""

import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from builder.errors import BuilderError, LayoutError
from builder.protocols import Progress
from builder.run.lease import is_gone
from builder.run.requeue import own_job, will_run_again
from builder.storage import Store, private_store

FOLDER = "journal"
CANCEL = "cancel"
FLUSH_SECONDS = 2.0
AGAIN_SECONDS = 10.0
"""Pause between two looks for a run that continues another."""

Item = TypeVar("Item")


class Cancelled(BuilderError):
    """Somebody ran ``builder cancel``. Nothing was published, and the same command continues the build."""


@dataclass
class Journal:
    """Appends events of one run. If the machine dies, at most the last two seconds of events are lost."""

    store: Store
    run: int
    _number: int = 0
    _events: list[dict[str, Any]] = field(default_factory=list)
    _flushed: float = 0.0

    def note(self, event: str, **facts: Any) -> None:
        """Note an event. It is written within ``FLUSH_SECONDS``, at the next event or at ``flush``."""
        self._events.append({"event": event, "time": round(time.time(), 3), **facts})
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def end(self, state: str, text: str) -> None:
        """Note how the run ended, if the store still allows it."""
        self._events.append({"event": "end", "time": round(time.time(), 3), "state": state, "text": text})
        with suppress(OSError, Cancelled):
            self.flush()

    def flush(self) -> None:
        """Write the noted events. Raises Cancelled when somebody asked the run to stop."""
        if self._events:
            lines = "".join(json.dumps(event, sort_keys=True) + "\n" for event in self._events)
            self.store.put(f"{_folder(self.run)}/{self._number:08d}.jsonl", lines.encode())
            self._number += 1
            self._events.clear()
        self._flushed = time.monotonic()
        if self.store.exists(f"{_folder(self.run)}/{CANCEL}"):
            raise Cancelled("cancelled by 'builder cancel'; nothing was published, the same command continues")


@dataclass(frozen=True)
class JournalProgress:
    """Progress that is both shown and noted."""

    shown: Progress
    journal: Journal

    def track(self, items: Iterable[Item], *, stage: str, total: int | None) -> Iterator[Item]:
        """Pass ``items`` through, and note the stage's start, counts and end."""
        self.journal.note("stage", stage=stage, done=0, total=total)
        self.journal.flush()
        done = 0
        noted = time.monotonic()
        for item in self.shown.track(items, stage=stage, total=total):
            yield item
            done += 1
            if time.monotonic() - noted >= FLUSH_SECONDS:
                noted = time.monotonic()
                self.journal.note("stage", stage=stage, done=done, total=total)
        self.journal.note("stage", stage=stage, done=done, total=total if total is not None else done, ended=True)

    def say(self, message: str) -> None:
        """Show and note a line of news."""
        self.shown.say(message)
        self.journal.note("message", text=message)


@contextmanager
def keep_journal(private: Store, run: int, *, facts: dict[str, Any]) -> Iterator[Journal]:
    """Keep a journal for a run, from a first event that says who runs it to a last one that says how it ended."""
    journal = Journal(private.join(FOLDER), run)
    job = {"job": own_job()} if own_job() else {}
    journal.note("start", host=socket.gethostname(), pid=os.getpid(), **job, **facts)
    try:
        yield journal
    except BaseException as error:
        # errors of other libraries may name paths, so only their class goes here; the terminal shows the whole error
        text = f": {error}" if isinstance(error, BuilderError) else ""
        stopped = isinstance(error, Cancelled | KeyboardInterrupt)
        journal.end("cancelled" if stopped else "failed", f"{type(error).__name__}{text}")
        raise
    journal.end("published", "")


@dataclass(frozen=True)
class Status:
    """What the journal says about the last run."""

    run: int
    state: str
    stage: str
    done: int
    total: int | None
    host: str
    pid: int
    message: str

    def facts(self) -> dict[str, Any]:
        """Return the status for machines."""
        return dict(self.__dict__)

    def text(self) -> str:
        """Return the status for a person."""
        count = f" {self.done}" if self.total is None else f" {self.done} of {self.total}"
        news = f"; {self.message}" if self.message else ""
        stage = f"{self.stage}{count if self.done or self.total else ''}"
        return f"run {self.run}: {self.state}, {stage} (process {self.pid} on {self.host}){news}"


def read_status(dataset: str) -> Status:
    """Read the last run's state: ``running``, ``published``, ``failed``, ``cancelled``, or ``died`` without a word.

    It is ``waiting`` when the run has stopped and its driver's job is still in the queue, where it goes on by itself.
    A dead run shows as ``running`` on other machines until somebody builds the dataset again.

    Raises
    ------
    LayoutError
        When the dataset has no journal.
    """
    store = _open(dataset)
    run = _newest(store)
    events = [event for _, event in _events(store, run, after=-1)]
    start = next(e for e in events if e["event"] == "start")
    nothing: dict[str, Any] = {"stage": "start", "done": 0, "total": None}
    stage = next((e for e in reversed(events) if e["event"] == "stage"), nothing)
    end = next((e for e in reversed(events) if e["event"] == "end"), None)
    state = end["state"] if end else ("died" if is_gone(private_store(dataset), run) else "running")
    if state in ("died", "cancelled") and will_run_again(start.get("job", "")):
        state = "waiting"
    return Status(
        run=run,
        state=state,
        stage=stage["stage"],
        done=stage["done"],
        total=stage["total"],
        host=start["host"],
        pid=start["pid"],
        message="" if end is None else end["text"],
    )


def read_events(dataset: str) -> list[dict[str, Any]]:
    """Read the events of the last run. Raises LayoutError when there is none."""
    store = _open(dataset)
    return [event for _, event in _events(store, _newest(store), after=-1)]


def follow(dataset: str) -> Iterator[dict[str, Any]]:
    """Yield events of the last run as they are written, until it ends or is found dead.

    If its driver's job will run again, the events of the next run follow.
    """
    store = _open(dataset)
    run = _newest(store)
    while True:
        job, published = "", False
        for event in _follow_run(dataset, store, run):
            job = event.get("job", job)
            published |= event["event"] == "end" and event["state"] == "published"
            yield event
        if published:
            return
        while _newest(store) == run:
            if not will_run_again(job):
                return
            time.sleep(AGAIN_SECONDS)
        run = _newest(store)


def _follow_run(dataset: str, store: Store, run: int) -> Iterator[dict[str, Any]]:
    """Yield events of one run as they are written, until it ends or is found dead."""
    after = -1
    while True:
        for number, event in list(_events(store, run, after=after)):
            yield event
            after = number
            if event["event"] == "end":
                return
        if is_gone(private_store(dataset), run):
            yield from (event for _, event in _events(store, run, after=after))
            return
        time.sleep(1.0)


def ask_to_cancel(dataset: str) -> int:
    """Ask the last run to stop, which it does within seconds of its next event. Return its number.

    Raises
    ------
    LayoutError
        When there is no run, or it has ended.
    """
    store = _open(dataset)
    run = _newest(store)
    if any(event["event"] == "end" for _, event in _events(store, run, after=-1)):
        raise LayoutError(f"{dataset}: found run {run} ended, expected one at work; builder status tells how it ended")
    store.put(f"{_folder(run)}/{CANCEL}", b"")
    return run


def describe_event(event: dict[str, Any]) -> str:
    """Return an event as a line for a person, with the time in UTC."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(event["time"]))
    facts = " ".join(f"{k}={v}" for k, v in event.items() if k not in ("event", "time") and v not in (None, ""))
    return f"{at} {event['event']}: {facts}"


def _open(dataset: str) -> Store:
    return private_store(dataset).join(FOLDER)


def _events(store: Store, run: int, *, after: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield events of a run with the number of their object, from objects numbered above ``after``."""
    for path in store.list(_folder(run)):
        number = path.rpartition("/")[2].removesuffix(".jsonl")
        if number.isdigit() and int(number) > after:
            yield from ((int(number), json.loads(line)) for line in store.read(path).decode().splitlines())


def last_run(dataset: str) -> int:
    """Return the number of the last run of a dataset, 0 if it has none."""
    return _last(_open(dataset))


def _last(store: Store) -> int:
    return max((int(name) for name in {path.split("/")[0] for path in store.list()} if name.isdigit()), default=0)


def _newest(store: Store) -> int:
    last = _last(store)
    if not last:
        raise LayoutError(
            "journal: found no run, expected one; has this dataset been built, and do you see its .private? A build "
            "that was just submitted has no run before its job starts: builder watch waits for it"
        )
    return last


def _folder(run: int) -> str:
    return f"{run:010d}"
