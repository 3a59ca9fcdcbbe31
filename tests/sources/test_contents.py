"""Fetched objects are kept whole, private and within a bound."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from builder.errors import SpecError
from builder.sources.contents import TEMPORARY, Contents, empty, limit_of, place_of, trim
from builder.storage import LocalStore, temporary_folder


def kept(folder: Path, *, limit: int = 2**30) -> tuple[LocalStore, Contents]:
    store = LocalStore(folder, 0o700)
    return store, Contents(store, limit=limit)


def test_gives_back_what_was_put_also_to_another_process(tmp_path: Path) -> None:
    _, one = kept(tmp_path / "content")
    place = place_of(("dimse", "host", "1.2", "3.4"), "1.2.3")
    assert one.read(place) is None
    one.put(place, b"0123456789")
    _, other = kept(tmp_path / "content")
    assert other.holds(place)
    assert other.holds_any(place_of(("dimse", "host", "1.2", "3.4")))
    assert not other.holds_any(place_of(("dimse", "host", "1.2", "3.5")))
    assert other.read(place) == b"0123456789"
    assert other.read(place, start=2, length=3) == b"234"
    assert other.read(place, start=8, length=9) == b"89"
    assert other.read(place, start=10) == b""


def test_objects_of_one_answer_lie_in_one_file(tmp_path: Path) -> None:
    series = ("dicomweb", "host", "1.2")
    objects = {str(number): os.urandom(size) for number, size in enumerate([10, 0, 3 * 2**20, 33_000, 1])}
    _, one = kept(tmp_path / "content")
    with one.pack(place_of(series)) as put:
        for name, data in objects.items():
            put(place_of(series, name), data)
            assert one.read(place_of(series, name)) in (data, None)  # small ones are written together
    assert len([path for path in (tmp_path / "content").rglob("*") if path.is_file()]) == 1
    for contents_of in (one, kept(tmp_path / "content")[1]):
        for name, data in objects.items():
            assert contents_of.holds(place_of(series, name))
            assert contents_of.read(place_of(series, name)) == data
            assert contents_of.read(place_of(series, name), start=5, length=20_000) == data[5:20_005]
        assert contents_of.read(place_of(series, "5")) is None
        assert not contents_of.holds(place_of(series, "5"))
    with one.pack(place_of(("empty",))):
        pass
    assert not one.holds_any(place_of(("empty",)))


@pytest.mark.parametrize(
    ("at", "left"), [(60, "12"), (-1, "01"), (40, "12"), (5, ""), (30, ""), (0, "")], ids=str
)  # bytes of the first object; the last hash; the first hash, bytes, name, length and mark
def test_what_was_damaged_in_a_file_of_many_counts_as_absent_alone(tmp_path: Path, at: int, left: str) -> None:
    _, one = kept(tmp_path)
    with one.pack(place_of(("a",))) as put:
        for name in "012":
            put(place_of(("a",), name), b"0123456789" * 3)
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    _, other = kept(tmp_path)
    found = {name: other.read(place_of(("a",), name)) for name in "012"}
    assert {name for name, data in found.items() if data is not None} >= set(left)
    assert set(found.values()) <= {None, b"0123456789" * 3}
    assert None in found.values()
    other.put(place_of(("a",), "0"), b"again")
    assert kept(tmp_path)[1].read(place_of(("a",), "0")) == b"again"


@pytest.mark.parametrize("length", [0, 20, 50, 93, 94, 150, 187, 188, 281])
def test_of_a_file_that_a_kill_cut_off_the_whole_objects_are_used(tmp_path: Path, length: int) -> None:
    _, one = kept(tmp_path)
    with one.pack(place_of(("a",))) as put:
        for name in "012":
            put(place_of(("a",), name), b"0123456789" * 3)
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert path.stat().st_size == 3 * 94
    path.write_bytes(path.read_bytes()[:length])
    _, other = kept(tmp_path)
    found = [other.read(place_of(("a",), name)) for name in "012"]
    assert found == [b"0123456789" * 3] * (length // 94) + [None] * (3 - length // 94)


def test_what_did_not_fit_on_the_disk_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, pieces: list[memoryview]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    _, one = kept(tmp_path)
    place = place_of(("a",), "b")
    monkeypatch.setattr(os, "writev", full)
    pack = one.pack(place_of(("a",)))
    pack.__enter__()(place, b"0123456789")
    with pytest.raises(OSError, match="No space"):
        pack.__exit__(None, None, None)
    assert one.read(place) is None
    assert not one.holds(place)


def test_what_another_process_removed_is_not_here(tmp_path: Path) -> None:
    """A source asks for what is not here until it can be read, so it must not be told both."""
    store, one = kept(tmp_path)
    alone, together = place_of(("a",), "b"), place_of(("c",), "d")
    one.put(alone, b"0123456789")
    with one.pack(place_of(("c",))) as put:
        put(together, b"0123456789")
    assert empty(store) == 2
    for place in (alone, together):
        assert one.read(place) is None
        assert not one.holds(place)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"x" + data[1:]])
def test_what_was_damaged_counts_as_absent(tmp_path: Path, damage) -> None:
    store, one = kept(tmp_path)
    place = place_of(("a",), "b")
    one.put(place, b"0123456789")
    path = tmp_path / place
    path.write_bytes(damage(path.read_bytes()))
    _, other = kept(tmp_path)  # the process that wrote it does not hash it again
    assert other.read(place) is None
    assert not store.exists(place)


def test_names_tell_nothing_and_others_may_not_look(tmp_path: Path) -> None:
    _, one = kept(tmp_path / "content")
    one.put(place_of(("dicomweb", "https://pacs.example", "1.2.840.99"), "1.2.840.77"), b"x")
    for folder, folders, names in os.walk(tmp_path / "content"):
        for name in (*folders, *names):
            assert "840" not in name
            mode = stat.S_IMODE((Path(folder) / name).stat().st_mode)
            assert mode & 0o077 == 0
    assert stat.S_IMODE((tmp_path / "content").stat().st_mode) == 0o700


def test_the_oldest_go_when_there_is_too_much(tmp_path: Path) -> None:
    store, one = kept(tmp_path, limit=64 * 100)
    places = [place_of(("s",), str(number)) for number in range(100)]
    for age, place in enumerate(places):
        one.put(place, bytes(100))
        if store.exists(place):
            os.utime(tmp_path / place, (age, age))
    held = [place for place in places if store.exists(place)]
    assert sum(store.size(place) for place in held) <= 64 * 100
    assert held == places[-len(held) :]
    assert one.read(places[0]) is None
    assert trim(store, limit=10**6) == (0, 0)
    assert empty(store) == len(held)
    assert not one.read(held[0])


def test_the_bound_is_read_from_the_environment() -> None:
    assert limit_of({}) == 64 * 2**30
    assert limit_of({"BUILDER_CONTENT_GIB": "0.5"}) == 2**29
    with pytest.raises(SpecError, match="expected a number of GiB"):
        limit_of({"BUILDER_CONTENT_GIB": "much"})


MINE = """
import sys
from builder.sources.contents import contents_at
contents_at("").put("a/b", b"of a patient")
print(flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    def begun() -> subprocess.Popen[bytes]:
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        process = subprocess.Popen(
            [sys.executable, "-c", MINE], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def folders() -> set[Path]:
        return set(tmp_path.glob("builder-content-*"))

    first, second = begun(), begun()
    assert len(folders()) == 2  # neither removed the other's
    first.kill()
    first.communicate()
    assert len(folders()) == 2
    third = begun()
    assert len(folders()) == 2
    for process in (second, third):
        process.communicate()
    assert folders() == set()


def test_a_file_system_without_locks_has_a_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(fcntl, "flock", flock)
    folder = temporary_folder(TEMPORARY)
    assert temporary_folder(TEMPORARY) != folder
    assert folder.is_dir()  # without a lock nobody can tell whether it was left, so it stays
