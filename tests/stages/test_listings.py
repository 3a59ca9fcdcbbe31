"""A listing that goes on from an earlier one is what a listing from nothing is, and looks at no more than it must."""

import os
import re
import shutil
import time
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.model.parquet import read_parquet
from builder.planning.inventory import take_inventory
from builder.protocols import Entry
from builder.run.progress import SilentProgress
from builder.run.serial import SerialRunner
from builder.sources import Folder, walking
from builder.stages import parts
from builder.stages.boundary import Faults
from builder.stages.listings import entries_of
from builder.stages.parts import plan_index
from builder.storage import Store, open_store

Files = Literal["mutable", "write_once"]
TICK = 0.02
"""Seconds after which the clock of the file system has moved on."""


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_FILES", (2, 4))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what was written just now count as left alone. Whoever writes after a listing waits for a ``TICK``."""
    monkeypatch.setattr(walking, "SETTLED_NS", 0)


def listed(archive: Path, store: Store, files: Files, **options: Any) -> list[tuple[str, list[dict[str, Any]]]]:
    """List an archive, and return the names of the parts with their entries."""
    plans = list(plan_index(Folder(url=str(archive), files=files, **options), 0, store=store))
    time.sleep(TICK)
    return [(plan.name, read_parquet(store.read(entries_of(plan.name))).to_pylist()) for plan in plans]


def paths(found: list[tuple[str, list[dict[str, Any]]]]) -> list[str]:
    return [entry["path"] for _, entries in found for entry in entries]


def write(archive: Path, *names: str) -> None:
    for name in names:
        (archive / name).parent.mkdir(parents=True, exist_ok=True)
        (archive / name).write_text(name)
    time.sleep(TICK)


NAMES = st.builds("/".join, st.lists(st.sampled_from(["a", "b", "b c", "ä", "z", "1", "2"]), min_size=1, max_size=3))
EDITS = st.tuples(
    st.sampled_from(["write", "write", "write", "replace", "remove", "move", "folder", "zip"]), NAMES, NAMES
)


def edit(archive: Path, kind: str, name: str, other: str) -> None:
    """Change an archive as one may whose files are written once. What is not possible is not done."""
    place, beside = archive / name, archive / other
    try:
        if kind == "write" and not place.exists():
            write(archive, name)
        elif kind == "replace" and place.is_file():
            (archive.parent / "new").write_text(other)
            (archive.parent / "new").rename(place)
        elif kind == "remove":
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        elif kind == "move":
            place.rename(beside)
        elif kind == "folder":
            place.mkdir(parents=True)
        elif kind == "zip":
            with zipfile.ZipFile(place, "x") as packed:
                packed.writestr("one", other)
                packed.writestr("two", name)
    except OSError:
        return


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(EDITS, max_size=6), min_size=2, max_size=4))
def test_a_listing_that_goes_on_is_one_from_nothing(rounds: list[list[tuple[str, str, str]]]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(walking, "SETTLED_NS", 0)
        archive, once, mutable = (Path(folder, name) for name in ("archive", "once", "mutable"))
        write(archive, *(f"{a}/{b}" for a in "abz" for b in "12345"))
        for number, edits in enumerate(rounds):
            for each in edits:
                edit(archive, *each)
            time.sleep(TICK)
            anew = listed(archive, open_store(Path(folder, f"anew-{number}")), "mutable")
            assert listed(archive, open_store(mutable), "mutable") == anew
            assert listed(archive, open_store(once), "write_once") == anew


@pytest.mark.usefixtures("settled")
def test_folders_of_files_written_once_are_looked_through_where_they_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, store = tmp_path / "archive", open_store(tmp_path / "work")
    write(archive, *(f"{folder}/{n}" for folder in ("a", "b", "b/in", "c") for n in range(5)))
    looked: list[str] = []
    look = walking.Walk._look
    monkeypatch.setattr(walking.Walk, "_look", lambda self, place, path: looked.append(path) or look(self, place, path))

    def counted(files: Files) -> tuple[list[str], list[str]]:
        looked.clear()
        return paths(listed(archive, store, files)), list(looked)

    first, _ = counted("write_once")
    assert counted("write_once") == (first, [])
    write(archive, "b/in/new", "c/6/1")
    second, seen = counted("write_once")
    assert (set(second) - set(first), seen) == ({"b/in/new", "c/6/1"}, ["b/in/", "c/", "c/6/"])
    assert counted("mutable") == (second, ["", "a/", "b/", "b/in/", "c/", "c/6/"])
    assert counted("write_once") == (second, []), "a listing of every file serves the next one as well"
    assert paths(listed(archive, store, "write_once", exclude=("a/*",))) == [p for p in second if p[0] != "a"]


@pytest.mark.usefixtures("settled")
def test_a_file_rewritten_in_place_is_noticed_where_files_are_mutable(tmp_path: Path) -> None:
    archive, store = tmp_path / "archive", open_store(tmp_path / "work")
    write(archive, "a/1", "a/2", "b/1")
    first = listed(archive, store, "write_once")
    (archive / "a/1").write_text("longer than before")
    assert listed(archive, store, "write_once") == first, "as its docstring says"
    second = listed(archive, store, "mutable")
    assert (second[0][1][0]["size"], second != first) == (18, True)
    assert listed(archive, store, "write_once") == second


def stopped_clock(monkeypatch: pytest.MonkeyPatch, time_ns: int) -> None:
    """Let folders keep their times whatever changes in them, as if the file system's clock had not moved on."""
    lstat = os.lstat

    def frozen(path: bytes) -> SimpleNamespace:
        facts = lstat(path)
        told = {name: getattr(facts, name) for name in dir(facts) if name.startswith("st_")}
        return SimpleNamespace(**told | {"st_mtime_ns": time_ns, "st_ctime_ns": time_ns})

    monkeypatch.setattr(os, "lstat", frozen)


@pytest.mark.parametrize("ahead", [-1, 3600])
def test_a_folder_that_changed_just_before_a_listing_is_looked_through_again(
    ahead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, store = tmp_path / "archive", open_store(tmp_path / "work")
    write(archive, "a/1", "a/2")
    os.utime(archive / "a/1", ns=(1, 1))
    os.utime(archive / "a/2", ns=(1, 1))
    stopped_clock(monkeypatch, time.time_ns() + ahead * 10**9)
    assert paths(listed(archive, store, "write_once")) == ["a/1", "a/2"]
    write(archive, "a/3")
    assert paths(listed(archive, store, "write_once")) == ["a/1", "a/2", "a/3"]


def test_a_file_that_was_being_written_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, store = tmp_path / "archive", open_store(tmp_path / "work")
    write(archive, "a/1")
    stopped_clock(monkeypatch, 10**18)
    first = listed(archive, store, "write_once")
    with (archive / "a/1").open("a") as stream:
        stream.write(" and the rest")
    assert listed(archive, store, "write_once")[0][1][0]["size"] == first[0][1][0]["size"] + 13
    os.utime(archive / "a/1", ns=(1, 1))
    assert listed(archive, store, "write_once")[0][1][0]["stamp"] == "1"
    (archive / "a/1").write_text("")
    assert listed(archive, store, "write_once")[0][1][0]["stamp"] == "1", "by now it is taken as written"


@pytest.mark.usefixtures("settled")
def test_another_folder_in_the_place_of_one_is_looked_through_whatever_its_time(tmp_path: Path) -> None:
    archive, store = tmp_path / "archive", open_store(tmp_path / "work")
    write(archive, "a/b/1", "a/b/2")
    listed(archive, store, "write_once")
    shutil.copytree(archive / "a/b", tmp_path / "other")
    (tmp_path / "other/2").unlink()
    times = (archive / "a/b").stat()
    above = (archive / "a").stat()
    shutil.rmtree(archive / "a/b")
    (tmp_path / "other").rename(archive / "a/b")
    for place, facts in ((archive / "a/b", times), (archive / "a", above)):
        os.utime(place, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert paths(listed(archive, store, "write_once")) == ["a/b/1"]


@pytest.mark.usefixtures("settled")
def test_a_folder_whose_time_was_put_back_is_looked_through(tmp_path: Path) -> None:
    archive, store = tmp_path / "archive", open_store(tmp_path / "work")
    write(archive, "a/1")
    listed(archive, store, "write_once")
    facts = (archive / "a").stat()
    write(archive, "a/2")
    os.utime(archive / "a", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert paths(listed(archive, store, "write_once")) == ["a/1", "a/2"]


@pytest.mark.usefixtures("settled")
def test_links_archives_and_closed_files_are_looked_at_in_every_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, store = tmp_path / "archive", open_store(tmp_path / "work")
    write(archive, "link/1", "closed/1", "archive/1", "plain/1")
    (archive / "link/to").symlink_to(archive / "plain/2")
    with zipfile.ZipFile(archive / "closed/some.zip", "w") as packed:
        packed.writestr("one", "1")
    (archive / "archive/other.zip").write_bytes((archive / "closed/some.zip").read_bytes())
    kind = walking.archive_kind
    with monkeypatch.context() as patch:
        patch.setattr(walking, "archive_kind", lambda path: None if b"/closed/" in path else kind(path))
        first = paths(listed(archive, store, "write_once"))
    assert first == ["archive/1", "archive/other.zip", "closed/1", "closed/some.zip", "link/1", "link/to", "plain/1"]
    (tmp_path / "outside").write_text("")
    (archive / "plain/2").write_text("now the link leads to a file of the archive")
    with zipfile.ZipFile(archive / "archive/other.zip", "a") as packed:
        packed.writestr("two", "2")
    found = [(e["path"], e["member"]) for _, entries in listed(archive, store, "write_once") for e in entries]
    assert found == [
        ("archive/1", ""), ("archive/other.zip", "one"), ("archive/other.zip", "two"), ("closed/1", ""),
        ("closed/some.zip", "one"), ("link/1", ""), ("plain/1", ""), ("plain/2", ""),
    ]  # fmt: skip


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("damage", ["listing", "listing cut", "entries", "entries gone", "part gone", "nothing"])
def test_what_is_damaged_or_gone_of_an_earlier_listing_means_a_listing_of_every_file(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, private = tmp_path / "archive", open_store(tmp_path / "work")
    write(archive, *(f"{folder}/{n}" for folder in "abc" for n in range(5)))
    source = Folder(url=str(archive), files="write_once")
    runner, progress = SerialRunner(), SilentProgress()

    def taken() -> tuple[str, int]:
        inventory = take_inventory([source], private, runner=runner, progress=progress, faults=Faults("exclude"))
        return inventory.store.url, inventory.files

    first = taken()
    (kept,) = (tmp_path / "work/index").glob("listed-*.json")
    entries = sorted((tmp_path / "work/index").glob("*.entries.parquet"))
    assert len(entries) > 3
    if damage.startswith("listing"):
        before, _, after = kept.read_bytes().partition(b'"parts":')
        other = before + b'"parts":' + re.sub(rb",(\d+)\],", b",1],", after, count=1)  # the bytes of a part
        kept.write_bytes(other if damage == "listing" else kept.read_bytes()[:-9])
    for path in kept.parent.glob(f"{entries[0].name[:32]}.*") if damage == "part gone" else ():
        path.unlink()
    for path in entries if damage.startswith("entries") else ():
        path.unlink() if damage == "entries gone" else path.write_bytes(path.read_bytes()[:-1])
    looked: list[str] = []
    look = walking.Walk._look
    monkeypatch.setattr(walking.Walk, "_look", lambda self, place, path: looked.append(path) or look(self, place, path))
    time.sleep(TICK)
    write(archive, "d/1")
    again = taken()
    assert (again[1], set(looked) >= {"", "d/"}) == (first[1] + 1, True)
    assert ("a/" in looked) == (damage != "nothing")


@pytest.mark.usefixtures("settled")
def test_after_a_file_changed_during_a_plan_every_file_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, private = tmp_path / "archive", open_store(tmp_path / "work")
    write(archive, "a/1", "a/2")
    source = Folder(url=str(archive), files="write_once")
    read, runner, progress = Folder.read, SerialRunner(), SilentProgress()

    def rewritten(self: Folder, entry: Entry, **options: Any) -> bytes:
        (archive / "a/1").write_text("a file that somebody still wrote")
        return read(self, entry, **options)

    def reasons() -> list[str]:
        inventory = take_inventory([source], private, runner=runner, progress=progress, faults=Faults("exclude"))
        return sorted(inventory.leftovers()["reason"].to_pylist())

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "read", rewritten)
        assert reasons() == ["source_changed"]
    time.sleep(TICK)
    assert reasons() == []


def test_how_files_are_looked_at_names_no_part(tmp_path: Path) -> None:
    write(tmp_path, "a/1", "a/2")
    stores = [open_store(tmp_path / name) for name in ("one", "other")]
    assert listed(tmp_path / "a", stores[0], "mutable") == listed(tmp_path / "a", stores[1], "write_once")
