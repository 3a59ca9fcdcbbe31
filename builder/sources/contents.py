"""Keep objects that came from servers in a private folder, so that nothing that came whole is fetched twice.

An object is put here only after its check, under a name that tells nothing of it. A hash behind its bytes shows later
damage; such an object counts as absent and is fetched again.
"""

import atexit
import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Final

from builder.errors import SpecError
from builder.storage import SCRATCH_PREFIX, LocalStore, Store, open_store

LIMIT: Final = 64 * 2**30
"""Most bytes to keep, unless the environment says otherwise."""

LIMIT_VARIABLE: Final = "BUILDER_CONTENT_GIB"
"""Environment variable: most GiB of fetched objects to keep for each dataset."""

FOLDER: Final = "content"
"""Name of the folder in a dataset's private workspace."""

TEMPORARY: Final = "builder-content-"
"""Prefix of the folders for objects that belong to no dataset, as a scan fetches them."""

_DIGEST = 32
_KNOWN = 100_000
_OPENING = threading.Lock()


class Contents:
    """Objects by place. Any number of threads and processes may use one folder at once.

    Parameters
    ----------
    limit
        Most bytes to keep. The objects that were used longest ago are removed first.
    """

    def __init__(self, store: Store, *, limit: int = LIMIT) -> None:
        self._store = store
        self._limit = limit
        self._known: set[str] = set()
        self._begun: set[str] = set()
        self._added = limit  # the first object makes it look how much there is
        self._lock = threading.Lock()

    def read(self, place: str, *, start: int = 0, length: int | None = None) -> bytes | None:
        """Return bytes of an object, or None when it is not here whole."""
        try:
            if place not in self._known and not self._checked(place):
                return None
            size = self._store.size(place) - _DIGEST
            wanted = max(0, size - start) if length is None else max(0, min(length, size - start))
            return self._store.read_range(place, start, length=wanted) if wanted else b""
        except FileNotFoundError:
            return None

    def holds(self, place: str) -> bool:
        """Return whether an object is here."""
        return place in self._known or self._store.exists(place)

    def holds_any(self, series: str) -> bool:
        """Return whether any object of a series is here."""
        return next(iter(self._store.list(series)), None) is not None

    def begin(self, series: str) -> bool:
        """Return True the first time that this process asks for a series."""
        with self._lock:
            first = series not in self._begun
            self._begun.add(series)
        return first

    def put(self, place: str, data: bytes) -> None:
        """Keep an object that has been checked."""
        digest = hashlib.sha256(data).digest()
        if isinstance(self._store, LocalStore):
            self._store.put_unflushed(place, data, digest)  # the hash shows what a power failure damaged
        else:
            self._store.put(place, data + digest)
        with self._lock:
            self._know(place)
            self._added += len(data) + _DIGEST
            full = self._added >= self._limit // 64
            self._added = 0 if full else self._added
        if full:
            trim(self._store, limit=self._limit)

    @contextlib.contextmanager
    def spool(self) -> Iterator[IO[bytes]]:
        """Yield a file for what must come whole to be checked. It has no name, so no kill leaves it behind."""
        folder = None
        if isinstance(self._store, LocalStore):
            folder = self._store.root
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:
            yield stream

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a folder for what needs a name while it is unpacked; the next clean-up removes what a kill leaves."""
        with self._store.scratch() as folder:
            yield folder

    def _checked(self, place: str) -> bool:
        """Return whether an object has the hash that was stored with it; remove it if not."""
        whole = self._store.read(place)
        if hashlib.sha256(memoryview(whole)[:-_DIGEST]).digest() != whole[-_DIGEST:]:
            self._store.delete(place)
            return False
        if isinstance(self._store, LocalStore):
            os.utime(self._store.root / place)
        with self._lock:
            self._know(place)
        return True

    def _know(self, place: str) -> None:
        """Note that an object was checked, or written, by this process, so that it need not be hashed again."""
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known.add(place)


def place_of(series: tuple[str, ...], instance: str = "") -> str:
    """Return where an object is kept; without an instance, the folder of its series. Names are hashes."""
    digest = hashlib.sha256("\0".join(series).encode()).hexdigest()[:40]
    folder = f"{digest[:2]}/{digest}"
    return f"{folder}/{hashlib.sha256(instance.encode()).hexdigest()[:40]}" if instance else folder


def trim(store: Store, *, limit: int) -> tuple[int, int]:
    """Remove the objects that were used longest ago, until nine tenths of ``limit`` are left. Returns count, bytes."""
    held = sorted(_held(store))
    total = sum(size for _, _, size in held)
    count = removed = 0
    if total <= limit:
        return 0, 0
    for _, path, size in held:
        if total - removed <= limit * 9 // 10:
            break
        store.delete(path)
        count, removed = count + 1, removed + size
    return count, removed


def empty(store: Store) -> int:
    """Remove all objects and return their number."""
    places = [path for _, path, _ in _held(store)]
    for path in places:
        store.delete(path)
    return len(places)


def _held(store: Store) -> Iterator[tuple[float, str, int]]:
    """Yield when each object was used, its path and its bytes."""
    if not isinstance(store, LocalStore):
        yield from ((0.0, path, store.size(path)) for path in store.list())
        return
    for folder, folders, names in os.walk(store.root):
        folders[:] = [name for name in folders if not name.startswith(SCRATCH_PREFIX)]
        for name in names:
            path = Path(folder) / name
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue
            if not name.startswith(SCRATCH_PREFIX):
                yield facts.st_mtime, path.relative_to(store.root).as_posix(), facts.st_size


def limit_of(environment: Mapping[str, str]) -> int:
    """Return the most bytes to keep. Raises SpecError when the environment states no number."""
    text = environment.get(LIMIT_VARIABLE, "")
    try:
        return int(float(text) * 2**30) if text else LIMIT
    except (ValueError, OverflowError):
        raise SpecError(f"{LIMIT_VARIABLE}: found {text!r}, expected a number of GiB such as 64") from None


def contents_at(url: str) -> Contents:
    """Return the objects kept at a URL. Without one they are in a folder of this process, removed at its end."""
    with _OPENING:  # two threads would open two, each of which counts its own
        return _opened(url, os.getpid())


@cache
def _opened(url: str, process: int) -> Contents:
    if not url:
        return Contents(LocalStore(_temporary(), 0o700))
    return Contents(open_store(url, directory_mode=0o700), limit=limit_of(os.environ))


_LOCKED: Final[list[int]] = []
"""Handles of the folders of this process, which keep them locked."""


def _temporary() -> Path:
    """Make a folder that is removed when this process ends, and remove those of processes that were killed.

    A process holds a lock on its folder as long as it lives, so a folder without one belongs to nobody.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            held = _lock(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(held)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY))
        try:
            _LOCKED.append(_lock(folder))
        except (FileNotFoundError, BlockingIOError):
            continue  # another process took it for one that was left behind
        except OSError:
            pass  # on a file system without locks no process removes what another left
        if folder.is_dir():
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return folder


def _lock(folder: Path) -> int:
    """Lock a folder and return the handle that keeps it locked. Raises OSError when another process holds it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle
