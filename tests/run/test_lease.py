"""Who holds the lease, and when another may take it: from here only processes of this machine can be known dead."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builder.errors import LayoutError
from builder.run import lease
from builder.run.lease import hold_lease, is_gone
from builder.storage import Store, leases, open_store

SECONDS = 0.6


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("BUILDER_LEASE_SECONDS", str(SECONDS))
    return open_store(str(tmp_path / "dataset.private"))


def dead_process() -> dict[str, Any]:
    """What a process that has ended wrote about itself while it lived on this machine."""
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = {**leases._identity(), "pid": ended.pid, "process": leases._process(ended.pid)}
    assert identity["process"]
    ended.communicate()
    return identity


def held_by(private: Store, holder: dict[str, Any], counter: int = 1) -> None:
    """Write down that somebody holds the lease."""
    private.join(lease.FOLDER).create(leases._name(counter), json.dumps({**holder, "token": "t"}).encode())


def beat(private: Store, counter: int = 1) -> None:
    private.join(lease.FOLDER).put(leases._beat_name(counter), os.urandom(8))


def test_a_place_whose_folder_is_gone_is_given_up_in_silence(private: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def swept(store: Store, path: str, data: bytes) -> None:
        raise LayoutError("found this build's unfinished file gone")

    monkeypatch.setattr(type(private), "put", swept)
    leases.beat(private, 1)
    leases.release(private, 1)


def test_a_dead_process_of_this_machine_holds_nothing(private: Store) -> None:
    held_by(private, dead_process())
    told: list[str] = []
    assert is_gone(private, 1)
    with hold_lease(private, say=told.append) as mine:
        assert mine.counter == 2
    assert told == []


def test_a_reused_process_number_is_another_process(private: Store) -> None:
    held_by(private, {**leases._identity(), "process": "1"})
    assert is_gone(private, 1)


def test_a_living_process_of_this_machine_holds_its_lease(private: Store) -> None:
    held_by(private, leases._identity())
    assert not is_gone(private, 1)


def test_a_builder_on_another_machine_is_not_judged_dead_from_here(private: Store) -> None:
    """Its process number means nothing here: it lost the lease only when its beat stood still for the whole time."""
    held_by(private, {**dead_process(), "machine": "another", "host": "elsewhere"})
    assert not is_gone(private, 1)
    told: list[str] = []
    start = time.monotonic()
    with hold_lease(private, say=told.append) as mine:
        assert time.monotonic() - start >= SECONDS
        assert mine.counter == 2
    assert len(told) == 1
    assert "on elsewhere" in told[0]


def test_a_beating_builder_on_another_machine_keeps_its_lease(private: Store) -> None:
    held_by(private, {**dead_process(), "machine": "another", "host": "elsewhere"})
    taken, told = threading.Event(), threading.Event()

    def wait() -> None:
        with hold_lease(private, say=lambda _: told.set()):
            taken.set()

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    assert told.wait(10)
    for _ in range(20):
        beat(private)
        assert not taken.wait(SECONDS / 6)
    private.join(lease.FOLDER).put(leases._released(1), b"")
    assert taken.wait(10)
    waiter.join(10)


def test_a_released_lease_is_taken_at_once(private: Store) -> None:
    with hold_lease(private, say=print) as first:
        assert first.counter == 1
        assert not is_gone(private, 1)
    assert is_gone(private, 1)
    told: list[str] = []
    with hold_lease(private, say=told.append) as second:
        assert second.counter == 2
        second.check()
    assert told == []


def test_a_lease_released_while_another_waits_is_taken_long_before_its_seconds(
    private: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_LEASE_SECONDS", "60")
    held_by(private, {**dead_process(), "machine": "another", "host": "elsewhere"})
    start = time.monotonic()

    def release(_: str) -> None:
        threading.Timer(0.2, lambda: private.join(lease.FOLDER).put(leases._released(1), b"")).start()

    with hold_lease(private, say=release) as mine:
        assert mine.counter == 2
    assert time.monotonic() - start < 30


def test_who_was_followed_may_not_publish(private: Store) -> None:
    with hold_lease(private, say=print) as mine:
        mine.check()
        held_by(private, leases._identity(), counter=2)
        with pytest.raises(LayoutError, match="build 2 took this dataset over while build 1"):
            mine.check()
        assert is_gone(private, 1)
        assert not is_gone(private, 2)


def test_an_answer_lost_on_the_way_is_no_defeat(private: Store) -> None:
    """A store that tries again after a lost answer meets the object it wrote itself."""

    class Twice:
        def __init__(self, store: Store) -> None:
            self.store = store

        def create(self, path: str, data: bytes) -> None:
            self.store.create(path, data)
            self.store.create(path, data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

    store = private.join(lease.FOLDER)
    assert leases._won(Twice(store), 1)
    assert not leases._won(store, 1)


def test_old_leases_are_cleared_away(private: Store) -> None:
    for counter in range(1, 8):
        with hold_lease(private, say=print) as mine:
            assert mine.counter == counter
    kept = {name.partition(".")[0] for name in private.join(lease.FOLDER).list()}
    assert kept == {f"{n:010d}" for n in (6, 7)}


def test_a_holder_beats_until_it_lets_go(private: Store) -> None:
    """Else a builder that works for longer than the lease's seconds would be taken for one that stands still."""
    store = private.join(lease.FOLDER)
    seen: set[bytes] = set()
    with hold_lease(private, say=print):
        end = time.monotonic() + 20
        while len(seen) < 4 and time.monotonic() < end:
            seen.add(leases._read_beat(store, 1))
            time.sleep(0.02)
        assert len(seen) >= 4
    last = leases._read_beat(store, 1)
    time.sleep(SECONDS / 2)
    assert leases._read_beat(store, 1) == last


def test_a_store_that_fails_for_a_while_ends_no_beating(private: Store) -> None:
    class Flaky:
        def __init__(self) -> None:
            self.asked = 0

        def put(self, path: str, data: bytes) -> None:
            self.asked += 1
            raise OSError("no answer")

    store, done = Flaky(), threading.Event()
    beats = threading.Thread(target=lease._beat, args=(lease.Lease(store, 1), done, 0.01), daemon=True)  # type: ignore[arg-type]
    beats.start()
    end = time.monotonic() + 20
    while store.asked < 3 and time.monotonic() < end:
        time.sleep(0.01)
    done.set()
    beats.join(10)
    assert store.asked >= 3


def test_a_builder_beats_several_times_in_the_seconds_of_its_lease(
    private: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One beat may be late or lost on a slow store. An unset variable means the minute that the docs state."""
    every: list[float] = []
    monkeypatch.setattr(lease, "_beat", lambda lease, done, seconds: every.append(seconds))
    with hold_lease(private, say=print):
        pass
    monkeypatch.delenv("BUILDER_LEASE_SECONDS")
    with hold_lease(private, say=print):
        pass
    assert every[0] <= SECONDS / 5
    assert (every[1], lease.SECONDS) == (10, 60)


def test_the_thread_that_beats_keeps_no_process_alive_and_has_ended_when_the_lease_is_given_up(private: Store) -> None:
    def beating() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "lease"]

    with hold_lease(private, say=print):
        assert [thread.daemon for thread in beating()] == [True]
    assert beating() == []


def test_a_beat_under_way_has_arrived_before_the_lease_is_given_up(
    private: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would follow the release, and come back after a later holder has cleared the files away."""
    order: list[str] = []

    def slow(_: lease.Lease, done: threading.Event, seconds: float) -> None:
        done.wait(10)
        time.sleep(0.1)
        order.append("beat")

    monkeypatch.setattr(lease, "_beat", slow)
    monkeypatch.setattr(leases, "release", lambda store, counter: order.append("released"))
    with hold_lease(private, say=print):
        pass
    assert order == ["beat", "released"]


@pytest.mark.parametrize(("seconds", "pause"), [("0.6", 0.03), ("60", 1.0)])
def test_a_waiting_builder_looks_again_soon_and_says_once_who_is_at_work(
    private: Store, monkeypatch: pytest.MonkeyPatch, seconds: str, pause: float
) -> None:
    answers, paused, told = iter([None, None, None, 7]), list[float](), list[str]()
    newest = iter([0, 6, 6])
    monkeypatch.setenv("BUILDER_LEASE_SECONDS", seconds)
    monkeypatch.setattr(leases, "try_take", lambda store, watch: next(answers))
    monkeypatch.setattr(leases, "newest", lambda store: next(newest))
    monkeypatch.setattr(leases, "holder_of", lambda store, counter: "process 5 on elsewhere")
    monkeypatch.setattr(lease, "time", SimpleNamespace(sleep=paused.append))  # of this module alone: threads sleep too
    with hold_lease(private, say=told.append) as mine:
        assert mine.counter == 7
    assert paused == pytest.approx([pause] * 3)
    assert told == ["another build of this dataset is at work (build 6, process 5 on elsewhere); waiting for it to end"]


def test_a_beat_that_stood_still_for_exactly_the_seconds_is_outlived(
    private: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch, store = leases.Watch(60), private.join(lease.FOLDER)
    beat(private)
    assert not watch.outlived(store, 1)
    now[0] = 159.9
    assert not watch.outlived(store, 1)
    now[0] = 160.0
    assert watch.outlived(store, 1)
    beat(private)
    assert not watch.outlived(store, 1), "it beats again"
    now[0] = 220.0
    assert not watch.outlived(store, 2), "another holder has seconds of its own"


def test_a_process_that_ended_and_was_not_waited_for_is_gone(private: Store) -> None:
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert leases._process(ended.pid) == ""
    ended.wait()


def test_a_place_that_a_later_holder_cleared_away_is_neither_free_nor_won(private: Store) -> None:
    class Cleared:
        def create(self, path: str, data: bytes) -> None:
            raise FileExistsError(path)

        def read(self, path: str) -> bytes:
            raise FileNotFoundError(path)

        def exists(self, path: str) -> bool:
            return False

    store: Any = Cleared()
    assert not leases._won(store, 1)
    assert not leases.is_free(store, 1)
