"""Keep objects that came from servers in a private folder, so that nothing that came whole is fetched twice.

An object is put here only after its check, under a name that tells nothing of it. A hash behind its bytes shows later
damage; such an object counts as absent and is fetched again.
"""

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Final

from builder.errors import SpecError
from builder.sources.packs import SUFFIX, Pack, Spot, whole_objects
from builder.storage import SCRATCH_PREFIX, LocalStore, Store, open_store, temporary_folder

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
        self._spots: dict[str, Spot] = {}
        self._packs: dict[str, int] = {}
        self._begun: set[str] = set()
        self._added = limit  # the first object makes it look how much there is
        self._lock = threading.Lock()

    def read(self, place: str, *, start: int = 0, length: int | None = None) -> bytes | None:
        """Return bytes of an object, or None when it is not here whole."""
        spot = self._spots.get(place) or self._found(place)
        if spot is None:
            return None
        wanted = max(0, spot.size - start) if length is None else max(0, min(length, spot.size - start))
        try:
            return self._store.read_range(spot.path, spot.begin + start, length=wanted) if wanted else b""
        except FileNotFoundError:  # another process made room
            with self._lock:
                self._spots.pop(place, None)
            return None

    def holds(self, place: str) -> bool:
        """Return whether an object is here."""
        return place in self._spots or self._store.exists(place) or self._packed(place) is not None

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
        self._know(place, Spot(place, 0, len(data)))
        self._make_room(len(data))

    @contextlib.contextmanager
    def pack(self, series: str) -> Iterator[Callable[[str, bytes], None]]:
        """Yield a function that keeps objects of one series as ``put`` does, many in one file."""
        if not isinstance(self._store, LocalStore):
            yield self.put
            return
        pack = Pack(self._store, series)

        def know(written: Mapping[str, Spot]) -> None:
            for name, spot in written.items():
                self._know(f"{series}/{name}", spot)
                self._make_room(spot.size)

        with contextlib.closing(pack):
            try:
                yield lambda place, data: know(pack.add(place.rpartition("/")[2], data))
            finally:
                know(pack.write())

    def _make_room(self, added: int) -> None:
        """Remove what was used longest ago, now and then."""
        with self._lock:
            self._added += added + _DIGEST
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

    def _found(self, place: str) -> Spot | None:
        """Return where an object is that another process put here; None when it is not here whole."""
        with self._lock:
            if len(self._spots) >= _KNOWN:
                self._spots.clear()
                self._packs.clear()
        try:
            whole = self._store.read(place)
        except FileNotFoundError:
            return self._packed(place)
        if hashlib.sha256(memoryview(whole)[:-_DIGEST]).digest() != whole[-_DIGEST:]:
            self._store.delete(place)
            return None
        self._used(place)
        return self._know(place, Spot(place, 0, len(whole) - _DIGEST))

    def _packed(self, place: str) -> Spot | None:
        """Return where an object is in a pack of its series; None when it is in none."""
        series = place.rpartition("/")[0]
        for path in self._store.list(series) if isinstance(self._store, LocalStore) else ():
            with contextlib.suppress(FileNotFoundError):
                size = self._store.size(path) if path.endswith(SUFFIX) else 0
                if size > self._packs.get(path, 0):  # it may have grown since it was looked through
                    for name, spot in whole_objects(path, self._store.open(path), size):
                        self._know(f"{series}/{name}", spot)
                    self._packs[path] = size
                    self._used(path)
        return self._spots.get(place)

    def _used(self, path: str) -> None:
        """Note that a file is in use, so that it is among the last to go."""
        if isinstance(self._store, LocalStore):
            os.utime(self._store.root / path)

    def _know(self, place: str, spot: Spot) -> Spot:
        """Note where an object is that this process checked, or wrote, so that it need not be hashed again."""
        with self._lock:
            self._spots[place] = spot
        return spot


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
        return Contents(LocalStore(temporary_folder(TEMPORARY), 0o700))
    return Contents(open_store(url, directory_mode=0o700), limit=limit_of(os.environ))
