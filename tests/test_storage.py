"""Storage: whole or absent, at every step a process can die; the same answers from a folder and an object store."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from builder.errors import LayoutError, SpecError
from builder.storage import CRASH_VARIABLE, SCRATCH_PREFIX, ObjectStore, Store, open_store, read_at

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(tmp_path / "set")
    return open_store(f"memory://{tmp_path.name}")


def test_an_empty_text_is_no_folder() -> None:
    with pytest.raises(SpecError, match="found an empty path, expected a folder or URL"):
        open_store("")


def test_round_trip(store: Store, tmp_path: Path) -> None:
    assert not store.exists("a/b.bin")
    store.put("a/b.bin", b"0123456789")
    store.put("a/c/d.bin", b"x")
    assert store.exists("a/b.bin")
    assert store.size("a/b.bin") == 10
    assert store.read("a/b.bin") == b"0123456789"
    assert store.read_range("a/b.bin", 3, length=4) == b"3456"
    assert store.read_ranges("a/b.bin", [(8, 2), (0, 1), (4, 0)][:2]) == [b"89", b"0"]
    assert list(store.list("a")) == ["a/b.bin", "a/c/d.bin"]
    assert store.join("a").read("c/d.bin") == b"x"
    assert store.join("a", "c").read("d.bin") == b"x"
    assert list(store.join("a").list()) == ["b.bin", "c/d.bin"]
    store.put("a/b.bin", b"new")
    assert store.read("a/b.bin") == b"new"
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    for call in (store.read, store.size):
        with pytest.raises(FileNotFoundError):
            call("a/b.bin")
    with pytest.raises(FileNotFoundError):
        store.read_range("a/b.bin", 0, length=1)


def test_reopening_by_url_finds_the_same(store: Store) -> None:
    inner = store.join("deep", "er")
    inner.put("x", b"1")
    if not isinstance(store, ObjectStore):
        assert open_store(inner.url).read("x") == b"1"
    assert store.read("deep/er/x") == b"1"


def test_create_has_one_winner(store: Store) -> None:
    won = []

    def write(name: bytes) -> None:
        try:
            store.create("lock", name)
        except FileExistsError:
            return
        won.append(name)

    threads = [threading.Thread(target=write, args=(b"%d" % i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [store.read("lock")]
    assert list(store.list()) == ["lock"]


def test_commit_moves_a_scratch_file(store: Store) -> None:
    with store.scratch() as folder:
        (folder / "part").write_bytes(b"abc" * 1000)
        store.commit("x/part", folder / "part")
        assert not (folder / "part").exists()
    assert store.read("x/part") == b"abc" * 1000
    assert list(store.list()) == ["x/part"]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="a system without advice on its page cache")
def test_a_committed_file_is_left_on_the_disk_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel does with the advice differs from run to run, so the test looks at what it is told."""
    told: list[tuple[str, int]] = []

    def flush(handle: int) -> None:
        told.append(("flush", os.fstat(handle).st_ino))

    def advise(handle: int, offset: int, length: int, advice: int) -> None:
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)  # length 0: up to the end
        told.append(("drop", os.fstat(handle).st_ino))

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "posix_fadvise", advise)
    store = open_store(tmp_path / "set")
    with store.scratch() as scratch:
        (scratch / "x").write_bytes(b"1" * 100_000)
        file = (scratch / "x").stat().st_ino
        store.commit("x", scratch / "x")
    assert [step for step, inode in told if inode == file] == ["flush", "drop"]  # only flushed pages can be dropped
    assert store.read("x") == b"1" * 100_000


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../up", "a\0b"])
def test_paths_stay_inside(store: Store, path: str) -> None:
    with pytest.raises(ValueError, match="relative path"):
        store.put(path, b"")


def test_unknown_scheme_is_named() -> None:
    with pytest.raises(SpecError, match="'ftp'"):
        open_store("ftp://host/x")


def test_file_url_and_private_folders(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/with%20space/deep", directory_mode=0o700)
    store.put("in/x", b"1")
    for folder in ("with space", "with space/deep", "with space/deep/in"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700


def test_local_stores_do_not_load_obstore(tmp_path: Path) -> None:
    code = (
        "import sys; from builder.storage import open_store\n"
        "s = open_store(sys.argv[1]); s.put('x', b'1'); s.read('x')\n"
        "sys.exit(any(m in sys.modules for m in ('obstore', 'fsspec')))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT)


STEPS = {
    "put": ["write.before", "write.tmp", "write.fsynced", "write.renamed"],
    "create": ["create.before", "create.tmp", "create.fsynced", "create.linked"],
    "commit": ["commit.before", "commit.fsynced", "commit.renamed"],
}
PROGRAM = """
import sys
from builder.storage import open_store
store, way, data = open_store(sys.argv[1]), sys.argv[2], sys.argv[3].encode() * 100000
if way == "commit":
    with store.scratch() as folder:
        (folder / "p").write_bytes(data)
        store.commit("x", folder / "p")
else:
    getattr(store, way)("x", data)
"""


@pytest.mark.parametrize(("way", "step"), [(way, step) for way, steps in STEPS.items() for step in steps])
def test_killed_at_any_step_leaves_the_old_or_the_new(tmp_path: Path, way: str, step: str) -> None:
    store = open_store(tmp_path)
    old = None if way == "create" else b"old"
    if old:
        store.put("x", old)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), way, "new"]
    died = subprocess.run(command, cwd=ROOT, env={**os.environ, CRASH_VARIABLE: step}, check=False)
    assert died.returncode == -signal.SIGKILL
    done = step.endswith(("renamed", "linked"))
    assert (store.read("x") if store.exists("x") else None) == (b"new" * 100000 if done else old)
    left = [path for path in store.list() if path != "x"]
    assert all(path.split("/")[0].startswith(SCRATCH_PREFIX) for path in left)
    if way == "create" and done:
        return
    subprocess.run(command, cwd=ROOT, check=True)
    assert store.read("x") == b"new" * 100000


def test_the_crash_hook_counts(tmp_path: Path) -> None:
    program = "import sys\nfrom builder.storage import open_store\ns = open_store(sys.argv[1])\n" + "\n".join(
        f"s.put('{i}', b'')" for i in range(4)
    )
    env = {**os.environ, CRASH_VARIABLE: "write.renamed:3"}
    died = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, env=env, check=False)
    assert died.returncode == -signal.SIGKILL
    assert list(open_store(tmp_path).list()) == ["0", "1", "2"]


def test_a_swap_that_another_writer_overtook_is_refused(tmp_path: Path) -> None:
    """On a disk by the successor's fence, in a bucket by the successor's own swap: both between guard and swap."""
    for url, overtake in ((str(tmp_path), "fence"), ("memory://swap", "swap")):
        store = open_store(url)
        store.swap("CURRENT", b"first", guard=lambda: None)

        def successor(store: Store = store, how: str = overtake) -> None:
            if how == "fence":
                store.fence()
            else:
                store.swap("CURRENT", b"second", guard=lambda: None)

        before = b"first" if overtake == "fence" else b"second"
        with pytest.raises(LayoutError, match="another build"):
            store.swap("CURRENT", b"late", guard=successor)
        assert store.read("CURRENT") == before
        store.swap("CURRENT", b"third", guard=lambda: None)
        assert store.read("CURRENT") == b"third"
        assert list(store.list()) == ["CURRENT"]


def test_a_swap_whose_guard_refuses_leaves_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.put("CURRENT", b"first")

    def refuse() -> None:
        raise LayoutError("taken over")

    with pytest.raises(LayoutError, match="taken over"):
        store.swap("CURRENT", b"late", guard=refuse)
    assert store.read("CURRENT") == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["CURRENT"]


def test_files_of_a_private_folder_are_closed_to_others(tmp_path: Path):
    store = open_store(tmp_path / "private", directory_mode=0o700)
    store.put("put", b"1")
    store.create("created", b"1")
    with store.scratch() as folder:
        (folder / "x").write_bytes(b"1")
        store.commit("committed", folder / "x")
    assert {(tmp_path / "private" / name).stat().st_mode & 0o077 for name in ("put", "created", "committed")} == {0}
    open_store(tmp_path / "open").put("put", b"1")
    assert (tmp_path / "open" / "put").stat().st_mode & 0o444 == 0o444 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_a_link_out_of_a_store_is_neither_read_nor_replaced(tmp_path: Path):
    (tmp_path / "outside").write_bytes(b"theirs")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path / "outside")
    store = open_store(tmp_path / "store")
    for attempt in (lambda: store.read("link"), lambda: store.put("link", b"ours"), lambda: store.delete("link")):
        with pytest.raises(LayoutError, match="leads out of store"):
            attempt()
    assert (tmp_path / "outside").read_bytes() == b"theirs"


def test_an_object_is_read_at_its_path_or_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "table.csv").write_bytes(b"a,b")
    monkeypatch.chdir(tmp_path)
    for url in ("table.csv", "./table.csv", str(tmp_path / "table.csv"), (tmp_path / "table.csv").as_uri()):
        assert read_at(url) == b"a,b"
    with pytest.raises(FileNotFoundError):
        read_at("/table.csv")
