"""Limits on how much a server is asked: they hold for all workers together, also when workers die."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.run.batches import Batches
from builder.sources import DicomWeb, politeness
from builder.sources.http import Server
from builder.sources.politeness import Gate, Politeness
from builder.stages.graph import Task
from tests.sources.servers import Reply, http_server


class Clock:
    """A clock that only pauses move."""

    def __init__(self, start: datetime) -> None:
        self.start, self.passed = start, 0.0

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    politeness._queue.cache_clear()
    yield
    politeness._queue.cache_clear()


@pytest.mark.parametrize(
    ("hours", "zone", "now", "seconds"),
    [
        ("22:00-06:00", "UTC", "2026-11-28T21:00:00", 3600),
        ("22:00-06:00", "UTC", "2026-11-28T22:00:00", 0),
        ("22:00-06:00", "UTC", "2026-11-29T05:59:59", 0),
        ("22:00-06:00", "UTC", "2026-11-29T06:00:00", 16 * 3600),
        ("12:00-13:30", "UTC", "2026-11-28T13:30:00", 22.5 * 3600),
        ("12:00-13:30", "UTC", "2026-11-28T13:29:59", 0),
        ("22:00-06:00", "Europe/Oslo", "2026-11-28T20:30:00", 1800),
        ("22:00-06:00", "Asia/Kolkata", "2026-11-28T16:30:00", 0),
        ("08:00-09:00", "Europe/Oslo", "2026-03-28T08:00:00", 22 * 3600),  # the night in which an hour is left out
    ],
)
def test_hours(hours: str, zone: str, now: str, seconds: float) -> None:
    rules = Politeness(hours=hours, time_zone=zone)
    assert rules.opens_in(datetime.fromisoformat(now).replace(tzinfo=UTC)) == seconds


@settings(max_examples=60, deadline=None)
@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),
    st.sampled_from(["22:00-06:00", "00:00-01:00", "09:15-17:45", "23:59-00:00"]),
    st.sampled_from(["UTC", "Europe/Oslo", "America/St_Johns"]),
)
def test_the_server_is_open_when_the_wait_is_over(now: datetime, hours: str, zone: str) -> None:
    rules = Politeness(hours=hours, time_zone=zone)
    begin = now.replace(tzinfo=UTC)
    wait = rules.opens_in(begin)
    assert 0 <= wait <= 25 * 3600 + 1
    assert rules.opens_in(begin + timedelta(seconds=wait + 1)) == 0 or hours == "23:59-00:00"


@pytest.mark.parametrize("hours", ["22-6", "24:00-06:00", "22:00-22:00", "22:60-23:00"])
def test_wrong_hours(hours: str) -> None:
    with pytest.raises(ValueError, match="two times of day"):
        Politeness(hours=hours)


def test_wrong_zone() -> None:
    with pytest.raises(ValueError, match="Europe/Oslo"):
        Politeness(hours="22:00-06:00", time_zone="Oslo")


def test_requests_wait_for_the_hours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock(datetime(2026, 11, 28, 20, 0, tzinfo=UTC))
    monkeypatch.setattr(politeness, "CLOCK", clock)
    asked = []

    def answer(target: str, headers: dict[str, str]) -> Reply:
        asked.append(clock.now())
        return 200, {}, b"x"

    with http_server(answer) as url:
        rules = Politeness(connections=1, hours="22:00-06:00", time_zone="Europe/Oslo")
        client = Server(url, gate=Gate("pacs", rules, str(tmp_path)))
        assert client.get("a", lambda found: found.body()) == b"x"
        assert client.get("b", lambda found: found.body()) == b"x"
    assert asked == [datetime(2026, 11, 28, 21, 0, tzinfo=UTC)] * 2


@pytest.mark.parametrize("shared", [True, False])
def test_what_came_today_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: bool) -> None:
    clock = Clock(datetime(2026, 11, 28, 20, 0, tzinfo=UTC))
    monkeypatch.setattr(politeness, "CLOCK", clock)
    gate = Gate("pacs", Politeness(connections=2, gib_per_day=1e-6), str(tmp_path) if shared else "")
    days = []
    with http_server(lambda target, headers: (200, {}, b"x" * 600)) as url:
        client = Server(url, gate=gate)
        for _ in range(5):
            client.get("a", lambda found: found.body())
            days.append(clock.now().day)
            if shared:
                politeness._queue(gate, os.getpid()).close()
                politeness._queue.cache_clear()  # what another process received counts as well
    assert days == [28, 28, 29, 29, 30]


def test_a_rate_holds_over_all_slots() -> None:
    gate = Gate("pacs", Politeness(connections=4, per_second=40.0))
    times: list[float] = []

    def ask(_: int) -> None:
        with gate.turn():
            times.append(time.monotonic())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(24)))
    assert max(times) - min(times) >= (24 / 4 - 1) * 4 / 40.0 * 0.99


def _hold(folder: str, connections: int, count: int, seconds: float, log: str) -> None:
    """A worker: takes turns and notes when each begins and ends."""
    gate = Gate("pacs", Politeness(connections=connections), folder)
    for _ in range(count):
        with gate.turn():
            begin = time.monotonic()
            time.sleep(seconds)
            with Path(log).open("a") as stream:
                stream.write(f"{begin} {time.monotonic()}\n")
    politeness._queue(gate, os.getpid()).close()


def _worker(folder: Path, *, connections: int, count: int, seconds: float) -> multiprocessing.process.BaseProcess:
    arguments = (str(folder / "content"), connections, count, seconds, str(folder / "log"))
    worker = multiprocessing.get_context("fork").Process(target=_hold, args=arguments)
    worker.start()
    return worker


def test_workers_share_the_connections(tmp_path: Path) -> None:
    """Six processes at once, and never more than three connections."""
    workers = [_worker(tmp_path, connections=3, count=2, seconds=0.4) for _ in range(6)]
    for worker in workers:
        worker.join()
    spans = [tuple(map(float, line.split())) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(spans) == 12
    assert 2 <= max(sum(begin <= start < end for begin, end in spans) for start, _ in spans) <= 3


def test_the_slot_of_a_dead_worker_is_free(tmp_path: Path) -> None:
    victim = _worker(tmp_path, connections=1, count=1, seconds=60.0)
    slots = tmp_path / f"content{politeness.FOLDER}"
    end = time.monotonic() + 30
    while not list(slots.rglob("*.json")) and time.monotonic() < end:
        time.sleep(0.01)
    other = _worker(tmp_path, connections=1, count=1, seconds=0.0)
    time.sleep(0.5)
    assert not (tmp_path / "log").exists()  # the only slot is held
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join()
    other.join(20)
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each of many workers would keep one open that it does not use."""
    monkeypatch.setattr(politeness, "LINGER_S", 0.05)
    closed = threading.Event()

    class Connection:
        def close(self) -> None:
            closed.set()

    gate = Gate("pacs", Politeness(connections=1))
    for _ in range(2):
        with gate.turn() as turn:
            first = turn.connection("a", Connection)
        with gate.turn() as turn:
            assert turn.connection("a", Connection) is first
    assert closed.wait(10)


def test_a_lane_is_as_wide_as_the_server_allows() -> None:
    source = DicomWeb.model_validate({"kind": "dicomweb", "url": "http://pacs.example/w", "polite": {"connections": 2}})
    assert source.lane == "net:dicomweb:pacs.example*2"
    batches = Batches([Task(f"t-{n}", print, n, lane=source.lane) for n in range(5)])
    assert [len(batches.next(8)) for _ in range(3)] == [1, 1, 0]
