"""Who holds the lease, and when another may take it: from here only processes of this machine can be known dead."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
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
