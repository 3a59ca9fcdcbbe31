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
from builder.sources import contents
from builder.sources.contents import Contents, empty, limit_of, place_of, trim
from builder.storage import LocalStore


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
    folder = contents._temporary()
    assert contents._temporary() != folder
    assert folder.is_dir()  # without a lock nobody can tell whether it was left, so it stays
