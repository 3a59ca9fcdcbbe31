"""Where datasets live: one small store over a local folder or an object store, with atomic and durable writes.

Every write is whole or absent: a local object is written beside its name, flushed and renamed; an object store puts it
in one request. Readers never list. The only module that touches files, obstore or fsspec for datasets.
"""

import contextlib
import errno
import mmap
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from builder.errors import LayoutError, MissingExtra, SourceError, SpecError

CRASH_VARIABLE = "BUILDER_CRASH_AT"
SCRATCH_PREFIX = ".scratch-"
_OBJECT_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "memory", "http", "https")
ATTEMPTS = 4
_hits: dict[str, int] = {}
Answer = TypeVar("Answer")


def _read_umask() -> int:
    """The process's umask; to read it is to set it, which no thread may see, hence at import."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_UMASK = _read_umask()


class Store(Protocol):
    """Objects under one root, named by relative POSIX paths."""

    @property
    def url(self) -> str:
        """Root of the store; ``open_store(store.url)`` opens it again, in any process."""
        ...

    def join(self, *parts: str) -> "Store":
        """The store one or more folders down."""
        ...

    def read(self, path: str) -> bytes:
        """The whole object. Raises FileNotFoundError."""
        ...

    def read_range(self, path: str, start: int, *, length: int) -> bytes:
        """Bytes ``start`` to ``start + length``; shorter only where the object ends. Raises FileNotFoundError."""
        ...

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ``(start, length)`` ranges of one object, near ones fetched together."""
        ...

    def open(self, path: str) -> "ObjectReader":
        """A reader of one object that stays open: for many ranges, from many threads. Raises FileNotFoundError."""
        ...

    def size(self, path: str) -> int:
        """Bytes of an object. Raises FileNotFoundError."""
        ...

    def exists(self, path: str) -> bool:
        """Whether the object is there, completely."""
        ...

    def list(self, prefix: str = "") -> Iterator[str]:
        """Paths under a folder, sorted, unfinished writes too: for clean-up and verification, never for readers."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write or replace an object atomically and durably."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write an object only if there is none: of several writers one wins. Raises FileExistsError for the others."""
        ...

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """A local folder for objects still being written; it and all left in it go at the end."""
        ...

    def commit(self, path: str, scratch: Path) -> None:
        """Move a finished scratch file into place atomically and durably, replacing what was there."""
        ...

    def delete(self, path: str) -> None:
        """Remove an object; absent is fine."""
        ...

    def sweep(self) -> int:
        """Remove what writers that died left unfinished; returns how many. Call it when no writer is at work."""
        ...


class ObjectReader(Protocol):
    """An open object."""

    def read(self, start: int, length: int) -> bytes | memoryview:
        """Bytes ``start`` to ``start + length``; shorter only where the object ends."""
        ...

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> Iterable[bytes | memoryview]:
        """Several ``(start, length)`` ranges in their order, near ones fetched together."""
        ...


def open_store(url: str | Path, *, directory_mode: int = 0o777) -> Store:
    """A store at a folder or URL (``s3://``, ``gs://``, ``az://``, ``memory://``); nothing is created or contacted.

    Parameters
    ----------
    directory_mode
        Permissions of folders made on a local disk (before the umask): 0o700 for a private workspace.

    Raises
    ------
    SpecError
        When the URL's scheme is not one of those above.
    """
    text = str(url)
    scheme = urlsplit(text).scheme if "://" in text else ""
    if scheme in ("", "file"):
        path = Path(unquote(urlsplit(text).path)) if scheme else Path(text)
        return LocalStore(path.expanduser().absolute(), directory_mode)
    if scheme not in _OBJECT_SCHEMES:
        expected = ", ".join(f"{s}://" for s in ("file", *_OBJECT_SCHEMES))
        raise SpecError(f"found the URL scheme {scheme!r} in {text!r}, expected a folder or one of {expected}")
    return ObjectStore(text.rstrip("/"))


def checkpoint(name: str) -> None:
    """Die here by SIGKILL when ``BUILDER_CRASH_AT`` is ``name`` or ``name:n`` and this is the n-th time.

    The fault tests stop a process at every durable step this way; without the variable nothing happens.
    """
    wanted = os.environ.get(CRASH_VARIABLE)
    if not wanted:
        return
    target, _, count = wanted.partition(":")
    if target != name:
        return
    _hits[name] = _hits.get(name, 0) + 1
    if _hits[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class LocalStore:
    """A folder on a file system that renames atomically."""

    root: Path
    directory_mode: int = 0o777

    @property
    def url(self) -> str:
        return str(self.root)

    def join(self, *parts: str) -> "LocalStore":
        return LocalStore(self._locate("/".join(parts)), self.directory_mode)

    def read(self, path: str) -> bytes:
        return self._locate(path).read_bytes()

    def read_range(self, path: str, start: int, *, length: int) -> bytes:
        return self.read_ranges(path, [(start, length)])[0]

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        handle = os.open(self._locate(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return [_read_at(handle, start, length) for start, length in ranges]
        finally:
            os.close(handle)

    def open(self, path: str) -> ObjectReader:
        handle = os.open(self._locate(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            # an empty file cannot be mapped
            empty = os.fstat(handle).st_size == 0
            return _LocalReader(memoryview(b"" if empty else mmap.mmap(handle, 0, access=mmap.ACCESS_READ)))
        finally:
            os.close(handle)

    def size(self, path: str) -> int:
        return self._locate(path).stat().st_size

    def exists(self, path: str) -> bool:
        return self._locate(path).is_file()

    def list(self, prefix: str = "") -> Iterator[str]:
        top = self._locate(prefix) if prefix else self.root
        found = ((Path(folder) / name for name in names) for folder, _, names in os.walk(top))
        yield from sorted(path.relative_to(self.root).as_posix() for paths in found for path in paths)

    def put(self, path: str, data: bytes) -> None:
        target = self._locate(path)
        self._make_folder(target.parent)
        with _swept_as_layout_error(path):
            scratch = _write_beside(target, data, step="write")
            _replace(scratch, target, step="write")

    def put_unflushed(self, path: str, data: bytes) -> None:
        """As ``put``, but a power failure may leave a damaged object: for caches, which can be filled again."""
        target = self._locate(path)
        self._make_folder(target.parent)
        handle, name = tempfile.mkstemp(prefix=SCRATCH_PREFIX, dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(name).replace(target)

    def create(self, path: str, data: bytes) -> None:
        target = self._locate(path)
        self._make_folder(target.parent)
        scratch = _write_beside(target, data, step="create")
        try:
            # link fails where the name exists, also between machines on NFS; rename would replace silently
            os.link(scratch, target)
            checkpoint("create.linked")
        finally:
            scratch.unlink()
        _flush_folder(target.parent)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        self._make_folder(self.root)
        with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=self.root) as folder:
            try:
                yield Path(folder)
            except FileNotFoundError as error:
                if Path(folder).exists():
                    raise
                raise LayoutError(_SWEPT.format(self.root.name)) from error

    def commit(self, path: str, scratch: Path) -> None:
        target = self._locate(path)
        self._make_folder(target.parent)
        checkpoint("commit.before")
        with _swept_as_layout_error(path):
            scratch.chmod(0o666 & ~_UMASK)
            _flush(scratch)
            checkpoint("commit.fsynced")
            _replace(scratch, target, step="commit")

    def delete(self, path: str) -> None:
        self._locate(path).unlink(missing_ok=True)

    def sweep(self) -> int:
        found = [Path(at) / n for at, folders, names in os.walk(self.root) for n in (*folders, *names)]
        left = [path for path in found if path.name.startswith(SCRATCH_PREFIX)]
        for path in left:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return len(left)

    def _locate(self, path: str) -> Path:
        return self.root / _checked(path)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and its parents, each durable before it is used."""
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(mode=self.directory_mode, exist_ok=True)
        _flush_folder(folder.parent)


@dataclass(frozen=True)
class ObjectStore:
    """A bucket, or a folder of it, through obstore (retries with backoff; credentials come from the environment)."""

    root: str
    prefix: str = field(default="")

    @property
    def url(self) -> str:
        return f"{self.root}/{self.prefix}" if self.prefix else self.root

    def join(self, *parts: str) -> "ObjectStore":
        return ObjectStore(self.root, self._key("/".join(parts)))

    def read(self, path: str) -> bytes:
        return _ask(path, lambda: bytes(_obstore().get(self._client(), self._key(path)).bytes()))

    def read_range(self, path: str, start: int, *, length: int) -> bytes:
        if length == 0:
            return b""
        key = self._key(path)
        return _ask(path, lambda: bytes(_obstore().get_range(self._client(), key, start=start, length=length)))

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        if not ranges:
            return []
        starts, lengths = [r[0] for r in ranges], [r[1] for r in ranges]
        key = self._key(path)
        found = _ask(path, lambda: _obstore().get_ranges(self._client(), key, starts=starts, lengths=lengths))
        return [bytes(part) for part in found]

    def open(self, path: str) -> ObjectReader:
        return _RemoteReader(self, path)

    def size(self, path: str) -> int:
        return _ask(path, lambda: int(_obstore().head(self._client(), self._key(path))["size"]))

    def exists(self, path: str) -> bool:
        try:
            self.size(path)
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[str]:
        base = self._key(prefix) if prefix else self.prefix
        cut = len(self.prefix) + 1 if self.prefix else 0
        listed = partial(_obstore().list, prefix=base or None)
        found = _ask(prefix, lambda: [entry["path"] for page in listed(self._client()) for entry in page])
        yield from sorted(path[cut:] for path in found)

    def put(self, path: str, data: bytes) -> None:
        checkpoint("write.before")
        _ask(path, lambda: _obstore().put(self._client(), self._key(path), data))
        checkpoint("write.renamed")

    def create(self, path: str, data: bytes) -> None:
        checkpoint("create.before")
        try:
            _ask(path, lambda: _obstore().put(self._client(), self._key(path), data, mode="create"))
        except _obstore().exceptions.AlreadyExistsError as error:
            raise FileExistsError(errno.EEXIST, "found an object, expected none", path) from error
        checkpoint("create.linked")

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="builder-") as folder:
            yield Path(folder)

    def commit(self, path: str, scratch: Path) -> None:
        checkpoint("commit.before")
        _ask(path, lambda: _obstore().put(self._client(), self._key(path), scratch))
        scratch.unlink()
        checkpoint("commit.renamed")

    def delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            _ask(path, lambda: _obstore().delete(self._client(), self._key(path)))

    def sweep(self) -> int:
        return 0  # an object that was not sent whole does not exist

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{_checked(path)}" if self.prefix else _checked(path)

    def _client(self) -> Any:
        # a client owns threads, which do not survive a fork: one a process
        return _client(self.root, os.getpid())


@dataclass(frozen=True)
class _LocalReader:
    """A mapped file: ranges are views of the page cache and cost no copy; published objects never change."""

    view: memoryview

    def read(self, start: int, length: int) -> memoryview:
        return self.view[start : start + length]

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> Iterable[memoryview]:
        return (self.view[start : start + length] for start, length in ranges)


@dataclass(frozen=True)
class _RemoteReader:
    """An object by name; connections are the client's."""

    store: ObjectStore
    path: str

    def read(self, start: int, length: int) -> bytes:
        return self.store.read_range(self.path, start, length=length)

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> Iterable[bytes]:
        return self.store.read_ranges(self.path, ranges)


@cache
def _client(root: str, process: int) -> Any:
    store = _obstore().store
    if root.startswith("memory://"):
        return store.MemoryStore()
    plain = {"client_options": {"allow_http": True}} if root.startswith("http://") else {}
    return store.from_url(root, **plain)


def _obstore() -> Any:
    try:
        import obstore
    except ImportError as error:
        raise MissingExtra("obstore", "objectstore") from error
    return obstore


def _ask(path: str, call: Callable[[], Answer]) -> Answer:
    """The answer of an object store, asked again when it was cut off on the way.

    obstore tries again what fails before an answer starts; every call here may be made twice.
    """
    errors = _obstore().exceptions
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except (FileNotFoundError, errors.NotFoundError) as error:
            raise FileNotFoundError(errno.ENOENT, "found no object", path) from error
        except errors.AlreadyExistsError:
            raise
        except errors.BaseError as error:
            refused = isinstance(error, errors.PermissionDeniedError | errors.UnauthenticatedError)
            if refused or attempt == ATTEMPTS:
                raise SourceError(
                    f"object store: found no answer but {type(error).__name__}, {attempt} time(s), expected one; "
                    "check address, credentials and network, and run the same command again",
                    attempt=attempt,
                ) from error
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _swept_as_layout_error(path: str) -> Iterator[None]:
    """An unfinished file that is gone was swept by a build that published meanwhile: this writer is too late."""
    try:
        yield
    except FileNotFoundError as error:
        raise LayoutError(_SWEPT.format(path)) from error


_SWEPT = (
    "{}: found this build's unfinished file gone, expected it to be there; another build took this dataset over, "
    "published, and cleared what was left: run the same command again"
)


def _checked(path: str) -> str:
    """``path`` if it is relative and stays inside the store."""
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError(f"found the object path {path!r}, expected a relative path without '..'")
    return "/".join(parts)


def _read_at(handle: int, start: int, length: int) -> bytes:
    data = os.pread(handle, length, start)
    if len(data) == length or not data:
        return data
    parts = [data]  # one call returns at most 2 GiB, and signals cut it short
    while (got := sum(map(len, parts))) < length and (more := os.pread(handle, length - got, start + got)):
        parts.append(more)
    return b"".join(parts)


def _write_beside(target: Path, data: bytes, *, step: str) -> Path:
    checkpoint(f"{step}.before")
    handle, name = tempfile.mkstemp(prefix=SCRATCH_PREFIX, dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            checkpoint(f"{step}.tmp")
            os.fchmod(stream.fileno(), 0o666 & ~_UMASK)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    checkpoint(f"{step}.fsynced")
    return Path(name)


def _replace(scratch: Path, target: Path, *, step: str) -> None:
    scratch.replace(target)
    checkpoint(f"{step}.renamed")
    _flush_folder(target.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_flush_folder = _flush
