"""Spare a server: how many connections at once, how many requests a second, at which hours, and how much a day.

The limits hold for all workers of a build together, on any cluster. A worker asks a server only while it holds one of
the server's slots, and there are as many slots as connections. The slots are leases in the dataset's private workspace,
which every worker reaches, so those of a worker that died become free: at once on the same machine, after
``DEAD_S`` seconds without a beat from another one.
"""

import atexit
import hashlib
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from functools import cache
from typing import Annotated, Final, Protocol, TypeVar, cast
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from builder.sources.patience import excuse
from builder.sources.recordings import Recording
from builder.storage import Store, leases, open_store

DEAD_S: Final = 30.0
"""A slot whose holder does not beat for so long is free."""

LINGER_S: Final = 1.0
"""A slot that is not used for so long is given up. Taking one costs some operations on the store."""

LOOK_S: Final = 0.1
"""Pause between two looks for a free slot."""

FOLDER: Final = "-slots"
"""End of the name of the folder beside the kept objects, from which no object is removed to make room."""

_HOURS = re.compile(r"(\d{2}):(\d{2})-(\d{2}):(\d{2})")
_SOON = 1 << 24
_OPENING = threading.Lock()


def _checked_hours(text: str) -> str:
    found = _HOURS.fullmatch(text)
    numbers = [int(number) for number in found.groups()] if found else []
    if not found or numbers[:2] == numbers[2:] or max(numbers[::2]) > 23 or max(numbers[1::2]) > 59:
        raise ValueError(f"found {text!r}, expected two times of day such as 22:00-06:00")
    return text


def _checked_zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"found the time zone {text!r}, expected one such as Europe/Oslo (the package tzdata lists them where the "
            "system does not)"
        ) from None
    return text


class Politeness(BaseModel):
    """How much a server is asked, by all workers of a build together.

    Parameters
    ----------
    connections
        Most requests, or associations, at the same time. Without it, 4 for an archive and 64 for a bucket.
    per_second
        Most requests a second.
    hours
        Times of day between which the server is asked, e.g. ``22:00-06:00``; outside them the build waits. A request
        that has begun is finished.
    time_zone
        Time zone of ``hours`` and of the day of ``gib_per_day``, e.g. ``Europe/Oslo``.
    gib_per_day
        Most GiB to receive a day; after that the build waits for the next day. Requests that have begun are finished.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    connections: Annotated[int, Field(ge=1, le=1024)] | None = None
    per_second: Annotated[float, Field(gt=0)] | None = None
    hours: Annotated[str, AfterValidator(_checked_hours)] | None = None
    time_zone: Annotated[str, AfterValidator(_checked_zone)] = "UTC"
    gib_per_day: Annotated[float, Field(gt=0)] | None = None

    def opens_in(self, now: datetime) -> float:
        """Return the seconds until the server may be asked; 0 when it may be asked now."""
        if self.hours is None:
            return 0.0
        first, last = (time_of_day.fromisoformat(text) for text in self.hours.split("-"))
        local = now.astimezone(ZoneInfo(self.time_zone))
        clock = local.time().replace(tzinfo=None)
        if (first <= clock < last) if first < last else (clock >= first or clock < last):
            return 0.0
        day = local.date() + timedelta(days=clock >= first)
        opening = datetime.combine(day, first, ZoneInfo(self.time_zone))
        return max((opening.astimezone(UTC) - now.astimezone(UTC)).total_seconds(), 1.0)

    def day(self, now: datetime) -> str:
        """Return the date in the time zone."""
        return now.astimezone(ZoneInfo(self.time_zone)).date().isoformat()


class Clock:
    """Tells and passes time; tests give another one."""

    def now(self) -> datetime:
        """Return the time of day."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that no change of the time of day moves."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Return pause."""
        time.sleep(seconds)


CLOCK = Clock()


class Connection(Protocol):
    """What stays open between two requests: an HTTP client, an association."""

    def close(self) -> None:
        """End it."""


Open = TypeVar("Open", bound=Connection)


@dataclass
class Turn:
    """The right to ask a server. Whoever reads the answer counts ``received``."""

    received: int = 0
    _name: object = None
    _connection: Connection | None = None

    def connection(self, name: object, make: Callable[[], Open]) -> Open:
        """Return the connection that an earlier turn left open under a name, or a new one."""
        if self._connection is None or self._name != name:
            self.drop()
            self._connection, self._name = make(), name
        return cast("Open", self._connection)

    def drop(self) -> None:
        """Close the connection, because it broke or another one is wanted."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()


@dataclass(frozen=True)
class Gate:
    """The queue of those who want to ask a server.

    Parameters
    ----------
    server
        Host, and port if it is not the usual one.
    rules
        ``connections`` must be stated.
    url
        Store of the kept objects, beside which the slots are; without it the limits hold for this process alone.
    recording
        Where answers are recorded, or come from without asking the server.
    """

    server: str
    rules: Politeness
    url: str = ""
    recording: Recording | None = None

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Wait for the server's hours, its budget and a slot, and hold the slot."""
        with _OPENING:  # two threads would open two, each with slots of its own
            queue = _queue(replace(self, recording=None), os.getpid())
        slot = queue.take()
        before = slot.turn.received
        try:
            yield slot.turn
        finally:
            queue.give_back(slot, slot.turn.received - before)


@dataclass
class _Slot:
    """A slot that this process holds."""

    number: int
    lease: int
    turn: Turn = field(default_factory=Turn)
    busy: bool = True
    asked: float = float("-inf")
    """When its last request began."""
    idle_since: float = 0.0
    beaten: float = 0.0
    day: str = ""
    unsaved: int = 0
    """Bytes that came on ``day`` and are not in the account yet."""


@dataclass
class _Queue:
    """The slots of one server as one process sees them."""

    gate: Gate
    store: Store | None
    process: int = field(default_factory=os.getpid)
    _held: dict[int, _Slot] = field(default_factory=dict)
    _watches: dict[int, leases.Watch] = field(default_factory=dict)
    _spent: tuple[float, str, int] = (float("-inf"), "", 0)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _keeper: threading.Thread | None = None

    @property
    def _pause(self) -> float:
        """Return the seconds between two requests in one slot, so that all slots together keep the rate."""
        rate = self.gate.rules.per_second
        return (self.gate.rules.connections or 1) / rate if rate else 0.0

    def take(self) -> _Slot:
        began = CLOCK.monotonic()
        while True:
            self._wait_until_open()
            with self._changed:
                slot = self._idle() or self._new()
                if slot is not None:
                    break
                self._changed.wait(LOOK_S * random.uniform(0.5, 1.5))
        early = slot.asked + self._pause - CLOCK.monotonic()
        if early > 0:
            CLOCK.sleep(early)
        slot.asked = CLOCK.monotonic()
        excuse(slot.asked - began)
        return slot

    def give_back(self, slot: _Slot, received: int) -> None:
        with self._changed:
            day = self.gate.rules.day(CLOCK.now())
            if slot.day != day:
                self._save(slot)
            slot.day, slot.unsaved = day, slot.unsaved + received
            if slot.unsaved >= _SOON:
                self._save(slot)
            slot.busy, slot.idle_since = False, CLOCK.monotonic()
            self._changed.notify()

    def close(self) -> None:
        """Give up what nobody uses."""
        self._release(float("inf"))

    def _wait_until_open(self) -> None:
        rules = self.gate.rules
        while True:
            seconds = rules.opens_in(CLOCK.now())
            if not seconds and rules.gib_per_day and self._received_today() >= rules.gib_per_day * 2**30:
                seconds = 600.0  # the date decides, which changes at midnight
            if not seconds:
                return
            CLOCK.sleep(min(seconds, 600.0))

    def _idle(self) -> _Slot | None:
        slot = next((slot for slot in self._held.values() if not slot.busy), None)
        if slot is not None:
            slot.busy = True
        return slot

    def _new(self) -> _Slot | None:
        """Take a slot that nobody holds; None when there is none."""
        count = self.gate.rules.connections or 1
        numbers = [number for number in range(count) if number not in self._held]
        random.shuffle(numbers)
        for number in numbers:
            lease = 0
            if self.store is not None:
                watch = self._watches.setdefault(number, leases.Watch(DEAD_S))
                lease = leases.try_take(self.store.join(f"{number:04d}"), watch) or 0
            if lease or self.store is None:
                slot = self._held[number] = _Slot(number, lease, beaten=time.monotonic())
                self._keep()
                return slot
        return None

    def _keep(self) -> None:
        """Start the thread that beats for the slots in use and gives up the others."""
        if self._keeper is None or not self._keeper.is_alive():
            self._keeper = threading.Thread(target=self._run_keeper, daemon=True, name="slots")
            self._keeper.start()

    def _run_keeper(self) -> None:
        while True:
            time.sleep(LINGER_S / 4)
            self._release(CLOCK.monotonic())
            with self._changed:
                if not self._held:
                    self._keeper = None
                    return
                for slot in self._held.values():
                    if time.monotonic() - slot.beaten > DEAD_S / 6 and self.store is not None:
                        leases.beat(self.store.join(f"{slot.number:04d}"), slot.lease)
                        slot.beaten = time.monotonic()

    def _release(self, now: float) -> None:
        """Give up the slots that were not used for a while, and close their connections first."""
        with self._changed:
            idle = [
                slot
                for slot in self._held.values()
                if not slot.busy and now >= slot.idle_since + LINGER_S and now >= slot.asked + self._pause
            ]
            for slot in idle:
                slot.busy = True
        for slot in idle:
            slot.turn.drop()  # outside the lock, because a server may take its time to answer a farewell
        with self._changed:
            for slot in idle:
                self._save(slot)
                if self.store is not None:
                    leases.release(self.store.join(f"{slot.number:04d}"), slot.lease)
                del self._held[slot.number]
            self._changed.notify_all()

    def _save(self, slot: _Slot) -> None:
        """Add what came through a slot to the account of the day, which only its holder writes."""
        if not self.gate.rules.gib_per_day or not slot.unsaved:
            return
        day = slot.day
        if self.store is not None:
            total = _account(self.store, slot.number, day) + slot.unsaved
            self.store.put(_account_name(slot.number), json.dumps({"day": day, "bytes": total}).encode())
            self._spent = (float("-inf"), "", 0)
        else:
            known = self._spent[2] if self._spent[1] == day else 0
            self._spent = (0.0, day, known + slot.unsaved)
        slot.unsaved = 0

    def _received_today(self) -> int:
        with self._changed:
            day, now = self.gate.rules.day(CLOCK.now()), CLOCK.monotonic()
            unsaved = sum(slot.unsaved for slot in self._held.values() if slot.day == day)
            if self.store is not None and (self._spent[1] != day or now - self._spent[0] > 5.0):
                count = self.gate.rules.connections or 1
                self._spent = (now, day, sum(_account(self.store, number, day) for number in range(count)))
            return unsaved + (self._spent[2] if self._spent[1] == day else 0)


def _account(store: Store, number: int, day: str) -> int:
    """Return the bytes that came through a slot on a day."""
    with suppress(FileNotFoundError, ValueError):
        facts = json.loads(store.read(_account_name(number)))
        return int(facts["bytes"]) if facts["day"] == day else 0
    return 0


def _account_name(number: int) -> str:
    return f"received/{number:04d}"


@cache
def _queue(gate: Gate, process: int) -> _Queue:
    """Return the queue of a server in this process; a fork has none of its parent's slots."""
    store = None
    if gate.url:
        digest = hashlib.sha256(gate.server.encode()).hexdigest()[:16]
        store = open_store(gate.url.rstrip("/") + FOLDER, directory_mode=0o700).join(digest)
    queue = _Queue(gate, store)
    _QUEUES.append(queue)
    atexit.register(queue.close)
    return queue


_QUEUES: "list[_Queue]" = []


def queues() -> tuple[_Queue, ...]:
    """Return the queues of this process, whose connections a program may want to close before it ends."""
    return tuple(queue for queue in _QUEUES if queue.process == os.getpid())
