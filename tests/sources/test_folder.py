"""The folder source: everything in the folder once, nothing outside it, archives within limits."""

import gzip
import io
import os
import pickle
import random
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from builder.errors import CaseError, Reason, SourceError
from builder.protocols import Entry, Source
from builder.sources import Folder, archives
from builder.sources.names import name_bytes


def names(source: Folder) -> list[tuple[str, str]]:
    return [(entry.path, entry.member) for entry in source.list()]


def fill(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_is_a_source_and_pickles(tmp_path: Path) -> None:
    source = Folder(url=str(tmp_path), site="here", country="NO", collection="trial")
    assert isinstance(source, Source)
    assert pickle.loads(pickle.dumps(source)) == source  # noqa: S301 - our own bytes


def test_lists_in_one_order_and_reads_ranges(tmp_path: Path) -> None:
    fill(tmp_path, {"b/2": b"two", "a.txt": b"0123456789", "b/1": b"one", "B": b""})
    source = Folder(url=tmp_path.as_uri())
    entries = list(source.list())
    assert [entry.path for entry in entries] == ["B", "a.txt", "b/1", "b/2"]
    text = entries[1]
    assert source.read(text) == b"0123456789"
    assert source.read(text, start=3, length=4) == b"3456"
    assert source.read(text, start=8, length=4) == b"89"
    assert source.read(text, start=20) == b""


def test_include_and_exclude(tmp_path: Path) -> None:
    fill(tmp_path, {"x/a.dcm": b"1", "x/b.txt": b"2", "y/a.dcm": b"3"})
    assert names(Folder(url=str(tmp_path), include=("*.dcm",), exclude=("y/*",))) == [("x/a.dcm", "")]


def test_links_never_lead_out(tmp_path: Path) -> None:
    fill(tmp_path, {"out/secret": b"s", "in/file": b"f"})
    (tmp_path / "in/same").symlink_to(tmp_path / "in/file")
    (tmp_path / "in/away").symlink_to(tmp_path / "out/secret")
    (tmp_path / "in/folder").symlink_to(tmp_path / "out")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in/loop")
    source = Folder(url=str(tmp_path / "in"))
    entries = {entry.path: entry for entry in source.list()}
    assert "file" in entries
    assert "same" not in entries
    (tmp_path / "in/dead").symlink_to("nothing")
    entries = {entry.path: entry for entry in source.list()}
    for name in ("away", "folder", "dead", "loop"):
        with pytest.raises(CaseError) as caught:
            source.read(entries[name])
        assert caught.value.reason is Reason.SOURCE_MISSING


def test_a_changed_or_lost_file_is_said_so(tmp_path: Path) -> None:
    fill(tmp_path, {"a": b"1234", "b": b"5678"})
    source = Folder(url=str(tmp_path))
    first, second = source.list()
    (tmp_path / "a").unlink()
    os.utime(tmp_path / "b", ns=(1, 1))
    for entry, reason in ((first, Reason.SOURCE_MISSING), (second, Reason.SOURCE_CHANGED)):
        with pytest.raises(CaseError) as caught:
            source.read(entry)
        assert caught.value.reason is reason


def _linked_out(path: Path) -> None:
    (path.parent.parent / "outside").write_bytes(b"12345678")
    path.unlink()
    path.symlink_to(path.parent.parent / "outside")


CHANGES: dict[str, tuple[Callable[[Path], Any], Reason]] = {
    "removed": (lambda path: path.unlink(), Reason.SOURCE_MISSING),
    "renamed": (lambda path: path.rename(path.with_name("z")), Reason.SOURCE_MISSING),
    "its folder renamed": (lambda path: path.parent.rename(path.parent.with_name("y")), Reason.SOURCE_MISSING),
    "a folder now": (lambda path: (path.unlink(), path.mkdir()), Reason.SOURCE_CHANGED),
    "a link out of the folder": (_linked_out, Reason.SOURCE_CHANGED),
    "written again": (lambda path: path.write_bytes(b"87654321"), Reason.SOURCE_CHANGED),
    "cut": (lambda path: path.write_bytes(b"1234"), Reason.SOURCE_CHANGED),
    "longer": (lambda path: path.write_bytes(b"123456789"), Reason.SOURCE_CHANGED),
    "emptied": (lambda path: path.write_bytes(b""), Reason.SOURCE_CHANGED),
    "an older one put back": (lambda path: os.utime(path, ns=(1, 1)), Reason.SOURCE_CHANGED),
    "another one moved there": (lambda path: (path.with_name("b")).replace(path), Reason.SOURCE_CHANGED),
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
def test_what_changed_between_listing_and_reading(
    change: Callable[[Path], Any], reason: Reason, tmp_path: Path
) -> None:
    fill(tmp_path / "in", {"x/a": b"12345678", "x/b": b"abcdefgh", "x/c": b"sound"})
    for name in "abc":
        os.utime(tmp_path / "in" / "x" / name, ns=(10**9, ord(name) * 10**9))
    source = Folder(url=str(tmp_path / "in"))
    entries = {entry.path: entry for entry in source.list()}
    change(tmp_path / "in" / "x" / "a")
    with pytest.raises(CaseError) as caught:
        source.read(entries["x/a"])
    assert caught.value.reason is reason
    if (tmp_path / "in" / "x").exists():
        assert source.read(entries["x/c"]) == b"sound", "one file costs only itself"


def test_a_closed_file_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read any file, so the system's answer is made up; by hand it was tried without that right."""
    source = Folder(kind="folder", url=str(fill(tmp_path, {"closed.dcm": b"x" * 300, "open.dcm": b"y" * 300})))
    real = os.open

    def refusing(path: Any, *given: Any, **named: Any) -> int:
        if os.fsencode(path).endswith(b"closed.dcm"):
            raise PermissionError(13, "Permission denied")
        return real(path, *given, **named)

    monkeypatch.setattr(os, "open", refusing)
    closed, opened = source.list()
    with pytest.raises(CaseError, match="may not read the file; let its user read it") as fault:
        source.read(closed)
    assert fault.value.reason is Reason.UNREADABLE
    assert source.read(opened) == b"y" * 300


def test_no_folder_is_an_error_not_an_empty_listing(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        list(Folder(url=str(tmp_path / "none")).list())


def made_zip(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def made_tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.mark.parametrize(
    "make", [made_zip, made_tar, *(partial(made_tar, mode=mode) for mode in ("w:gz", "w:bz2", "w:xz"))]
)
def test_members_of_archives_are_entries(tmp_path: Path, make: Callable[[dict[str, bytes]], bytes]) -> None:
    files = {f"d/{n}": bytes([n]) * 1000 for n in range(20)}
    fill(tmp_path, {"in.bin": make(files)})  # the name says nothing
    source = Folder(url=str(tmp_path))
    entries = list(source.list())
    assert [entry.member for entry in entries] == (sorted(files) if make is made_zip else list(files))
    for entry in entries[::-1]:
        assert entry.path == "in.bin"
        assert source.read(entry) == files[entry.member]
        assert source.read(entry, start=990, length=20) == files[entry.member][990:]
        assert source.read(entry, start=0, length=5) == files[entry.member][:5]
    archives.close_archive()


def test_a_gzipped_object_is_one_member(tmp_path: Path) -> None:
    content = bytes(128) + b"DICM" + os.urandom(5000)
    fill(tmp_path, {"a.dcm.gz": gzip.compress(content), "cut.dcm.gz": gzip.compress(content)[:-2000]})
    source = Folder(url=str(tmp_path))
    entry, cut = source.list()
    assert (entry.path, entry.member, entry.size) == ("a.dcm.gz", "a.dcm", len(content))
    assert source.read(entry) == content
    assert source.read(entry, start=100, length=50) == content[100:150]
    assert (cut.path, cut.member) == ("cut.dcm.gz", "")
    archives.close_archive()


def test_broken_archives_are_listed_as_themselves(tmp_path: Path) -> None:
    whole = made_tar({"a": b"x" * 5000}, "w:gz")
    fill(tmp_path, {"cut.tgz": whole[: len(whole) // 2], "empty.zip": made_zip({}), "odd.zip": b"PK\3\4" + bytes(50)})
    assert names(Folder(url=str(tmp_path))) == [("cut.tgz", ""), ("empty.zip", ""), ("odd.zip", "")]


def test_a_bomb_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "RATIO_FLOOR", 2**20)
    zeros = {"zeros": bytes(2**22)}
    fill(tmp_path, {"bomb.zip": made_zip(zeros), "bomb.tgz": made_tar(zeros, "w:gz")})
    assert names(Folder(url=str(tmp_path))) == [("bomb.tgz", ""), ("bomb.zip", "")]
    monkeypatch.setattr(archives, "MEMBER_LIMIT", 3)
    fill(tmp_path, {"many.zip": made_zip({str(n): b"x" for n in range(4)})})
    assert ("many.zip", "") in names(Folder(url=str(tmp_path)))


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"2")
    fill(tmp_path, {"twice.zip": stream.getvalue()})
    assert names(Folder(url=str(tmp_path))) == [("twice.zip", "")]


def test_a_damaged_member_loses_only_itself(tmp_path: Path) -> None:
    data = bytearray(made_zip({"a": os.urandom(2000), "b": b"good" * 10}))
    data[100] ^= 0xFF
    fill(tmp_path, {"z.zip": bytes(data)})
    source = Folder(url=str(tmp_path))
    first, second = source.list()
    with pytest.raises(CaseError) as caught:
        source.read(first)
    assert caught.value.reason is Reason.UNREADABLE
    assert source.read(second) == b"good" * 10
    assert source.read(Entry(second.path, second.size, second.stamp, second.member), length=4) == b"good"
    archives.close_archive()


LATIN = "Müller".encode("latin-1")


def odd_tree(root: Path) -> dict[bytes, bytes]:
    """Files whose names are of every byte a file system takes, in UTF-8 or not; name to content."""
    root.mkdir(parents=True)
    names = [bytes([b]) for b in range(1, 256) if b not in (ord("/"), ord("."))]
    names += ["Müller 日本語".encode(), LATIN, b"a\\xfc", b"a\xfc", "\U0001f600".encode(), b"\xed\xa0\x80"]
    (root / os.fsdecode(LATIN + b"-folder")).mkdir()
    names.append(LATIN + b"-folder/in it")
    for name in names:
        (root / os.fsdecode(name)).write_bytes(b"holds " + name)
    return {name: b"holds " + name for name in names}


def test_names_of_any_bytes_are_listed_stored_and_read(tmp_path: Path) -> None:
    files = odd_tree(tmp_path / "in")
    source = Folder(url=str(tmp_path / "in"))
    entries = list(source.list())
    assert [source.read(entry) for entry in entries] == sorted(files.values())
    stored = pa.array([entry.path for entry in entries], pa.string()).to_pylist()
    assert [name_bytes(path) for path in stored] == sorted(files)
    assert len(set(stored)) == len(files)
    assert {path for path in stored if "\0" not in path} == {n.decode() for n in files if is_utf8(n)}


ODD_NAMES = {
    "a dash": "-", "an option": "--param", "a device of Windows": "CON", "line ends": "a\nb\n", "a blank first": " a",
    "a dot and a blank at the end": "a. ", "composed": "\u00e9", "decomposed": "e\u0301", "right to left": "\u202ea",
    "zero width": "a\u200bb", "a pattern": "*?[x]{2}", "a variable": "${env:HOME}", "a home": "~root",
    "escapes": "%2e%2e%2f", "a version": "a@1.2", "a store": "x.zarr", "a query": "a?b#c&d=e", "a shell's": "a;b|c>d",
    "a backslash": "a\\b", "colours of a terminal": "\x01\x1b[31m", "hidden": ".git", "the longest": "x" * 255,
    "beyond the first plane": "\U0001f600", "a drive": "C:", "an index of DICOM": "DICOMDIR", "only dots": "...",
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD_NAMES)
def test_odd_names_of_folders_files_members_and_of_the_source_are_read(kind: str, tmp_path: Path) -> None:
    name = ODD_NAMES[kind]
    root = tmp_path / name
    fill(root, {f"{name}/{name}": b"file", "other": b"stays"})
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        archive.writestr(f"{name}/{name}", b"member")
    source = Folder(url=str(root), include=() if len(name) > 200 else ("*",))
    found = {source.read(entry): entry for entry in source.list()}
    assert found.keys() == {b"file", b"stays", b"member"}
    assert found[b"file"].path == f"{name}/{name}"
    assert (found[b"member"].path, found[b"member"].member) == ("a.zip", f"{name}/{name}")


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    """A pipe would wait for a writer for ever."""
    fill(tmp_path / "in", {"f": b"1"})
    os.mkfifo(tmp_path / "in" / "pipe")
    (tmp_path / "in" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "pipe 2").symlink_to("pipe")
    assert [path for path, _ in names(Folder(url=str(tmp_path / "in")))] == ["f"]


MEMBERS = ("../../up", "/above", "C:\\x\\y", "d/" * 2000 + "deep", "a//b", "./a/./c", "a/../d")


def test_members_that_name_places_outside_are_read_from_the_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in MEMBERS:
            archive.writestr(name, name.encode())
    source = Folder(url=str(tmp_path))
    assert {source.read(entry) for entry in source.list()} == {name.encode() for name in MEMBERS}
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_names_of_a_tar_may_be_of_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        archive.add(tmp_path / "x", "Müller/x")
    (tmp_path / "x").unlink()
    source = Folder(url=str(tmp_path))
    (entry,) = source.list()
    assert (entry.path, name_bytes(entry.member)) == ("a.tar", LATIN + b"/x")
    assert source.read(entry) == b"content"


def test_a_folder_deeper_than_the_system_opens_costs_only_itself(tmp_path: Path) -> None:
    fill(tmp_path, {"a/file": b"1", "z": b"2"})
    here = Path.cwd()
    try:
        os.chdir(tmp_path / "a")
        for _ in range(21):
            os.mkdir("L" * 200)  # noqa: PTH102 - the path from the root would be too long
            os.chdir("L" * 200)
        Path("lost").write_bytes(b"3")
    finally:
        os.chdir(here)
    source = Folder(url=str(tmp_path))
    deep, *others = sorted(source.list(), key=lambda entry: -len(entry.path))
    assert sorted(entry.path for entry in others) == ["a/file", "z"]
    with pytest.raises(CaseError, match="longer than this system can open") as caught:
        source.read(deep)
    assert caught.value.reason is Reason.UNREADABLE


def test_many_folders_in_one_another_are_followed(tmp_path: Path) -> None:
    deepest = tmp_path
    for _ in range(1500):
        deepest = deepest / "d"
        deepest.mkdir()
    (deepest / "f").write_bytes(b"1")
    listed = [entry.path for entry in Folder(url=str(tmp_path)).list()]
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # too deep for pytest to remove
    assert listed == ["d/" * 1500 + "f"]


def test_a_link_in_a_loop_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "archive").symlink_to("archive")
    (tmp_path / "archive2").mkdir()
    for name in ("archive", "archive/2020", "archiv"):
        with pytest.raises(
            SourceError, match=rf"found no folder .*; {tmp_path} holds 1 folder: did you mean 'archive2'"
        ):
            list(Folder(url=str(tmp_path / name)).list())


def test_a_missing_folder_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    fill(tmp_path, {"incoming/f": b"1", "other/f": b"1"})
    with pytest.raises(SourceError) as caught:
        list(Folder(url=f"{tmp_path}/incomming/2020").list())
    assert str(caught.value) == (
        f"found no folder {tmp_path}/incomming/2020, expected a source's files there; {tmp_path} holds 2 folders: "
        "did you mean 'incoming'?"
    )


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    fill(tmp_path, {"x.dcm": b"1"})
    with pytest.raises(SourceError, match=r"found a file at .*x\.dcm, expected a folder"):
        list(Folder(url=str(tmp_path / "x.dcm")).list())


@pytest.mark.parametrize("url", ["", "  "])
def test_an_empty_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="found an empty url, expected the folder's path"):
        Folder(url=url)


def test_a_packed_tar_is_inflated_about_once_however_often_its_members_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {f"{n:03d}": os.urandom(3000) for n in random.Random(1).sample(range(300), 300)}
    fill(tmp_path, {"a.tgz": made_tar(contents, "w:gz")})
    rewinds = []
    rewind = gzip.GzipFile.rewind
    monkeypatch.setattr(gzip.GzipFile, "rewind", lambda self: rewinds.append(1) or rewind(self))
    source = Folder(url=str(tmp_path))
    entries = list(source.list())
    assert [entry.member for entry in entries] == list(contents)  # in the archive's own order
    for entry in entries:
        assert source.read(entry, length=100) == contents[entry.member][:100]
        assert source.read(entry, start=50, length=2000) == contents[entry.member][50:2050]
        assert source.read(entry) == contents[entry.member]
    assert len(rewinds) <= 4
    archives.close_archive()


def test_a_packed_tar_has_fewer_entries_than_a_plain_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "PACKED_MEMBER_LIMIT", 3)
    many = {str(n): b"x" for n in range(4)}
    fill(tmp_path, {"packed.tgz": made_tar(many, "w:gz"), "plain.tar": made_tar(many, "w")})
    assert names(Folder(url=str(tmp_path))) == [("packed.tgz", ""), *(("plain.tar", str(n)) for n in range(4))]
