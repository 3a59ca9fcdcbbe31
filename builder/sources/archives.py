"""Zip and tar archives as folders of files: listed and read within limits, never unpacked to disk."""

import gzip
import lzma
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from builder.errors import CaseError, Reason
from builder.headers.sniff import HEAD_BYTES, sniff
from builder.sources.names import name_text

MEMBER_LIMIT: Final = 1_000_000
PACKED_MEMBER_LIMIT: Final = 100_000
"""Entries of a tar that is packed as a whole: reading any of them inflates everything before it."""

MEMBER_BYTES_LIMIT: Final = 8 * 2**30
TOTAL_BYTES_LIMIT: Final = 512 * 2**30
HELD_BYTES: Final = 64 * 2**20
HELD_MEMBER_BYTES: Final = 4 * 2**20
HELD_MEMBERS: Final = 512
"""Of a packed tar so many members and bytes are held in memory; longer members never."""

RATIO_LIMIT: Final = 200
"""An archive that grows to more than this many times its size (and to more than ``RATIO_FLOOR``) is a bomb; medical
images compress to about a third, sparse masks to a hundredth."""
RATIO_FLOOR: Final = 256 * 2**20

_OPEN = threading.local()


@dataclass(frozen=True)
class Member:
    """A file inside an archive; ``size`` is its inflated length in bytes."""

    name: str
    size: int


def list_members(path: Path, kind: str) -> tuple[Member, ...]:
    """The files of the archive at ``path``: of a zip, sorted by name; of a tar (plain, or packed by gzip, bzip2 or xz),
    in its own order; or the one file of a ``gzipped_dicom``.

    Raises
    ------
    CaseError
        UNREADABLE when the archive is damaged or has two files of one name, TOO_LARGE when it is over a limit.
    """
    try:
        found = list(_within_limits(_MEMBERS.get(kind, _tar_members)(path), path))
    except _DAMAGE as error:
        _raise_fault_of_disk(error)
        raise CaseError(Reason.UNREADABLE, f"the {kind} archive is damaged ({type(error).__name__})") from error
    names = {member.name for member in found}
    if len(names) != len(found):
        raise CaseError(Reason.UNREADABLE, f"the {kind} archive holds several files of one name")
    # a packed tar is inflated once when its members are read in its own order, and once for each step back otherwise
    return tuple(found if kind != "zip" else sorted(found, key=lambda member: member.name))


def read_member(path: Path, name: str, *, stamp: str, start: int, length: int) -> bytes:
    """Bytes ``start`` to ``start + length`` of one file of an archive.

    The archive stays open for the next call of this thread: reading members in listed order inflates it about once.

    Raises
    ------
    CaseError
        UNREADABLE when the member is damaged or encrypted, SOURCE_MISSING when there is none of that name.
    """
    try:
        archive = _opened(path, stamp)
        return archive.read(name, start, length)
    except KeyError as error:
        raise CaseError(Reason.SOURCE_MISSING, "the archive has no file of that name any more") from error
    except _DAMAGE as error:
        close_archive()
        _raise_fault_of_disk(error)
        raise CaseError(Reason.UNREADABLE, f"the file in the archive is damaged ({type(error).__name__})") from error


def close_archive() -> None:
    """Close what this thread has open."""
    _OPEN.archive = None


_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,  # an encrypted zip member
    ValueError,
)


def _raise_fault_of_disk(error: Exception) -> None:
    """Raise what the system said when it could not read: only an OSError without a number is about the archive."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _within_limits(members: Iterator[Member], path: Path) -> Iterator[Member]:
    total = 0
    packed = max(path.stat().st_size, 1)
    for count, member in enumerate(members, start=1):
        total += member.size
        if count > MEMBER_LIMIT:
            raise CaseError(Reason.TOO_LARGE, f"the archive has more than {MEMBER_LIMIT} files")
        if member.size > MEMBER_BYTES_LIMIT or total > TOTAL_BYTES_LIMIT:
            raise CaseError(Reason.TOO_LARGE, f"the archive inflates to more than {TOTAL_BYTES_LIMIT} bytes")
        if total > RATIO_FLOOR and total > RATIO_LIMIT * packed:
            raise CaseError(Reason.TOO_LARGE, f"the archive inflates to more than {RATIO_LIMIT} times its size")
        yield member


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield Member(info.filename, info.file_size)


def _tar_members(path: Path) -> Iterator[Member]:
    with _tar(path) as archive:
        limit = MEMBER_LIMIT if _is_plain(path) else PACKED_MEMBER_LIMIT
        for count, info in enumerate(archive, start=1):
            if count > limit:
                raise CaseError(Reason.TOO_LARGE, f"the archive has more than {limit} entries")
            if info.isfile() or info.islnk() or info.issym():
                yield Member(_text(info), info.size if info.isfile() else 0)


def _is_plain(path: Path) -> bool:
    """Whether a tar is not packed: its first header says so itself."""
    with path.open("rb") as file:
        return file.read(262)[257:] == b"ustar"


def _tar(path: Path) -> tarfile.TarFile:
    """An open tar; its names are read as UTF-8 whatever the locale of this process says."""
    return tarfile.open(path, mode="r:*", encoding="utf-8", errors="surrogateescape")


def _text(info: tarfile.TarInfo) -> str:
    return name_text(info.name.encode("utf-8", "surrogateescape"))


def _gzip_members(path: Path) -> Iterator[Member]:
    """The one file, inflated once to learn its size."""
    size, most = 0, max(RATIO_FLOOR, RATIO_LIMIT * path.stat().st_size)
    with gzip.open(path) as stream:
        while size <= most and (piece := stream.read(_PIECE)):
            size += len(piece)
    yield Member(path.name.removesuffix(".gz"), size)


_MEMBERS: Final = {"zip": _zip_members, "gzipped_dicom": _gzip_members}
_PIECE: Final = 2**20


def _opened(path: Path, stamp: str) -> "_Zip | _Tar | _Gzip":
    current: _Zip | _Tar | _Gzip | None = getattr(_OPEN, "archive", None)
    if current is None or current.key != (path, stamp):
        close_archive()
        current = _open(path, stamp)
        _OPEN.archive = current
    return current


def _open(path: Path, stamp: str) -> "_Zip | _Tar | _Gzip":
    if zipfile.is_zipfile(path):
        return _Zip(path, stamp)
    with path.open("rb") as stream:
        single = sniff(stream.read(HEAD_BYTES)) == "gzipped_dicom"
    return _Gzip(path, stamp) if single else _Tar(path, stamp)


class _Gzip:
    """A gzipped file kept open; a range before the one read last inflates it anew."""

    def __init__(self, path: Path, stamp: str) -> None:
        self.key = (path, stamp)
        self._name = path.name.removesuffix(".gz")
        self._stream = gzip.open(path)  # noqa: SIM115 - closed with this object

    def read(self, name: str, start: int, length: int) -> bytes:
        """A range of the file."""
        if name != self._name:
            raise KeyError(name)
        self._stream.seek(start)
        return self._stream.read(length)

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            self._stream.close()


class _Zip:
    """A zip kept open, with the member read last: a next range of it goes on where the last one ended."""

    def __init__(self, path: Path, stamp: str) -> None:
        self.key = (path, stamp)
        self._archive = zipfile.ZipFile(path)
        self._name: str | None = None
        self._member: IO[bytes] | None = None

    def read(self, name: str, start: int, length: int) -> bytes:
        """A range of one member."""
        if self._name != name or self._member is None:
            self._close_member()
            self._member = self._archive.open(name)
            self._name = name
        self._member.seek(start)
        return self._member.read(length)

    def _close_member(self) -> None:
        if self._member is not None:
            self._member.close()
            self._member = None

    def __del__(self) -> None:
        if hasattr(self, "_member"):
            self._close_member()
            self._archive.close()


class _Tar:
    """A tar kept open with the places of its members.

    Of a packed tar the members read last are held: a step back, as for the next range of the same member, would inflate
    the archive from its beginning.
    """

    def __init__(self, path: Path, stamp: str) -> None:
        self.key = (path, stamp)
        self._archive = _tar(path)
        self._members = {_text(info): info for info in self._archive}
        self._held: dict[str, bytes] = {}
        self._room = 0 if _is_plain(path) else HELD_BYTES

    def read(self, name: str, start: int, length: int) -> bytes:
        """A range of one member; links have no bytes of their own."""
        info = self._members[name]
        if name not in self._held and info.isfile() and info.size <= min(HELD_MEMBER_BYTES, self._room):
            self._hold(name, self._inflated(info, 0, info.size))
        if name in self._held:
            return self._held[name][start : start + length]
        return self._inflated(info, start, length)

    def _inflated(self, info: tarfile.TarInfo, start: int, length: int) -> bytes:
        member = self._archive.extractfile(info) if info.isfile() else None
        if member is None:
            return b""
        with member:
            member.seek(start)
            return member.read(length)

    def _hold(self, name: str, content: bytes) -> None:
        self._held[name] = content
        while sum(map(len, self._held.values())) > self._room or len(self._held) > HELD_MEMBERS:
            del self._held[next(iter(self._held))]

    def __del__(self) -> None:
        if hasattr(self, "_archive"):
            self._archive.close()
