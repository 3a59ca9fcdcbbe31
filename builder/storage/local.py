"""A store in a local folder. Each object is written to a temporary file next to its target, flushed, and renamed."""

import contextlib
import errno
import mmap
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.errors import LayoutError
from builder.storage.contract import SWEPT, ObjectReader, checked
from builder.storage.crash import checkpoint

SCRATCH_PREFIX = ".scratch-"


def _read_umask() -> int:
    """Return the umask of the process.

    The umask can be read only by setting it, which other threads would notice. It is therefore read once, at import.
    """
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_UMASK = _read_umask()

_DURABLE: set[str] = set()
"""Folders that this process knows to survive a power failure. Some are forgotten when there are too many."""

_MANY = 4096
_BLOCK = 2**20

_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL})
"""Errors that mean that the parent of an existing folder cannot be flushed by this user, or needs no flush."""


@dataclass(frozen=True)
class LocalStore:
    """A store in a folder, on a file system that renames atomically."""

    root: Path
    directory_mode: int = 0o777

    @property
    def url(self) -> str:
        return str(self.root)

    def join(self, *parts: str) -> "LocalStore":
        return LocalStore(self._locate("/".join(parts)), self.directory_mode)

    def read(self, path: str) -> bytes:
        with os.fdopen(_opened(self._locate(path)), "rb") as stream:
            return stream.read()

    def read_range(self, path: str, start: int, *, length: int) -> bytes:
        return self.read_ranges(path, [(start, length)])[0]

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        handle = _opened(self._locate(path))
        try:
            return [_read_at(handle, start, length) for start, length in ranges]
        finally:
            os.close(handle)

    def open(self, path: str) -> ObjectReader:
        handle = _opened(self._locate(path))
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
            scratch = _write_beside(target, data, step="write", mode=self._file_mode)
            _replace(scratch, target, step="write")

    def swap(self, path: str, data: bytes, *, guard: Callable[[], None]) -> None:
        target = self._locate(path)
        self._make_folder(target.parent)
        with _swept_as_layout_error(path):
            scratch = _write_beside(target, data, step="write", mode=self._file_mode)
            try:
                # If another writer takes over after guard was called, its fence deletes the scratch file, and the
                # rename fails
                guard()
                checkpoint("swap.guarded")
                _replace(scratch, target, step="write")
            finally:
                scratch.unlink(missing_ok=True)

    def fence(self) -> None:
        for path in self.root.glob(f"{SCRATCH_PREFIX}*"):
            if path.is_file():
                path.unlink(missing_ok=True)

    def put_unflushed(self, path: str, *pieces: bytes) -> None:
        """Write an object without flushing it or its folders, for caches. A power failure may damage or remove it."""
        target = self._locate(path)
        self._make_folder(target.parent, flush=False)
        # tempfile's own names take a third as long as all the rest
        scratch = target.parent / f"{SCRATCH_PREFIX}{secrets.token_hex(8)}"
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as stream:
            for piece in pieces:
                stream.write(piece)
        scratch.replace(target)

    def create_unflushed(self, folder: str, *, suffix: str) -> tuple[int, str]:
        """Make an empty file under a new name, for a cache to append to. Returns its open handle and its path."""
        place = self._locate(folder)
        self._make_folder(place, flush=False)
        handle, name = tempfile.mkstemp(suffix=suffix, dir=place)
        return handle, f"{folder}/{Path(name).name}"

    def create(self, path: str, data: bytes) -> None:
        target = self._locate(path)
        self._make_folder(target.parent)
        scratch = _write_beside(target, data, step="create", mode=self._file_mode)
        try:
            # link fails if the name exists, also between machines on NFS; rename would replace the object silently
            os.link(scratch, target)
            checkpoint("create.linked")
        finally:
            scratch.unlink()
        _flush_folder(target.parent)

    def settle(self, path: str) -> None:
        folder = self._locate(path).parent
        self._make_folder(folder)
        _flush_folder(folder)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        self._make_folder(self.root)
        with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=self.root) as folder:
            try:
                yield Path(folder)
            except FileNotFoundError as error:
                if Path(folder).exists():
                    raise
                raise LayoutError(SWEPT.format(self.root.name)) from error

    def commit(self, path: str, scratch: Path) -> None:
        target = self._locate(path)
        self._make_folder(target.parent)
        checkpoint("commit.before")
        with _swept_as_layout_error(path):
            scratch.chmod(self._file_mode)
            _flush_uncached(scratch)
            checkpoint("commit.fsynced")
            _replace(scratch, target, step="commit")

    def delete(self, path: str) -> None:
        self._locate(path).unlink(missing_ok=True)

    def destroy(self, path: str) -> bool:
        place = self.root / checked(path)
        try:
            found = place.lstat()
        except FileNotFoundError:
            return False
        own = stat.S_ISREG(found.st_mode) and found.st_nlink == 1  # another name of the file may be the archive's
        if own:
            _overwrite(place, found.st_size)
        place.unlink(missing_ok=True)
        _flush_folder(place.parent)
        return own

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
        """Return the path of an object. Raises LayoutError if a link leads out of the folder.

        A dataset is untrusted. A link in it must not make a reader open, or a writer replace, any other file of the
        person who runs the program.
        """
        target = below = self.root / checked(path)
        while below != self.root and not below.is_symlink():
            below = below.parent
        if below == self.root:
            return target  # no link on the way, so it is inside
        root, real = os.path.realpath(self.root), os.path.realpath(target)
        if real != root and not real.startswith(root.rstrip(os.sep) + os.sep):
            raise LayoutError(
                f"{path}: found a link that leads out of {self.root.name}, expected an object inside; "
                "copy what it points to into the folder, or mount it there"
            )
        return target

    @property
    def _file_mode(self) -> int:
        """Permissions of new files. In a folder that is closed to other users they are closed to them too."""
        return self.directory_mode & 0o666 & ~_UMASK

    def _make_folder(self, folder: Path, *, flush: bool = True) -> None:
        """Create a folder and its parents, and make each of them durable before it is used, unless told not to.

        The process that created an existing folder may have died before the folder was durable. Existing folders are
        therefore flushed too, once per process.
        """
        there = folder.is_dir()
        if folder == folder.parent or (there and (not flush or str(folder) in _DURABLE)):
            return
        self._make_folder(folder.parent, flush=flush)
        if not there:
            folder.mkdir(mode=self.directory_mode, exist_ok=True)
            checkpoint("folder.made")
        if not flush:
            return
        try:
            _flush_folder(folder.parent)
        except OSError as error:
            if not there or error.errno not in _NOT_OURS:
                raise
        if len(_DURABLE) >= _MANY:
            _DURABLE.clear()
        _DURABLE.add(str(folder))


@dataclass(frozen=True)
class _LocalReader:
    """A memory-mapped file. Ranges are views of the page cache and not copies, as published objects never change."""

    view: memoryview

    def read(self, start: int, length: int) -> memoryview:
        return self.view[start : start + length]

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> Iterable[memoryview]:
        return (self.view[start : start + length] for start, length in ranges)

    def memory(self) -> memoryview:
        return self.view


@contextlib.contextmanager
def _swept_as_layout_error(path: str) -> Iterator[None]:
    """Raise LayoutError if the scratch file is gone: another build has published and removed it as unfinished."""
    try:
        yield
    except FileNotFoundError as error:
        raise LayoutError(SWEPT.format(path)) from error


def _opened(place: Path) -> int:
    """Open a file for reading. A pipe would keep the reader waiting, and a device may never end."""
    handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    kind = os.fstat(handle).st_mode
    if stat.S_ISREG(kind):
        return handle
    os.close(handle)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
    raise LayoutError(f"{place.name}: found a pipe or a device, expected a file; the dataset was changed")


def _read_at(handle: int, start: int, length: int) -> bytes:
    data = os.pread(handle, length, start)
    if len(data) == length or not data:
        return data
    parts = [data]  # one call returns at most 2 GiB, and less after a signal
    while (got := sum(map(len, parts))) < length and (more := os.pread(handle, length - got, start + got)):
        parts.append(more)
    return b"".join(parts)


def _write_beside(target: Path, data: bytes, *, step: str, mode: int) -> Path:
    checkpoint(f"{step}.before")
    handle, name = tempfile.mkstemp(prefix=SCRATCH_PREFIX, dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            checkpoint(f"{step}.tmp")
            os.fchmod(stream.fileno(), mode)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    checkpoint(f"{step}.fsynced")
    return Path(name)


def _overwrite(place: Path, size: int) -> None:
    """Put zeros in place of the bytes of a file, in the blocks that it has, and flush them."""
    handle = os.open(place, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for start in range(0, size, _BLOCK):
            os.pwrite(handle, bytes(min(_BLOCK, size - start)), start)
        os.fsync(handle)
    finally:
        os.close(handle)


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


def _flush_uncached(path: Path) -> None:
    """Flush a file as ``_flush`` does, and drop its pages from the page cache, since it will not be read soon."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):  # the file system does not support the advice
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)
