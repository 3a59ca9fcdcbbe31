"""Read zip and tar archives as folders of files, within limits and without unpacking them to disk."""

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
"""Most entries of a tar that is compressed as a whole, because reading an entry inflates everything before it."""

MEMBER_BYTES_LIMIT: Final = 8 * 2**30
TOTAL_BYTES_LIMIT: Final = 512 * 2**30
HELD_BYTES: Final = 64 * 2**20
HELD_MEMBER_BYTES: Final = 4 * 2**20
HELD_MEMBERS: Final = 512
"""Most members of a compressed tar to hold in memory, together with a limit on bytes; longer members are not held."""

RATIO_LIMIT: Final = 200
"""An archive that grows to more than this many times its size (and to more than ``RATIO_FLOOR``) counts as a bomb.
Medical images compress to about a third, sparse masks to a hundredth."""
RATIO_FLOOR: Final = 256 * 2**20

_OPEN = threading.local()


@dataclass(frozen=True)
class Member:
    """A file inside an archive. ``size`` is its uncompressed length in bytes."""

    name: str
    size: int


def list_members(path: Path, kind: str) -> tuple[Member, ...]:
    """List the files of the archive at ``path``. A zip is sorted by name, a tar (plain, or compressed by gzip, bzip2 or
    xz) keeps its own order, and a ``gzipped_dicom`` has one file.

    Raises
    ------
    CaseError
        UNREADABLE when the archive is damaged or has two files of one name, TOO_LARGE when it exceeds a limit.
    """
    try:
        found = list(_within_limits(_MEMBERS.get(kind, _tar_members)(path), path))
    except _DAMAGE as error:
        _raise_fault_of_disk(error)
        raise CaseError(Reason.UNREADABLE, f"the {kind} archive is damaged ({type(error).__name__})") from error
    names = {member.name for member in found}
    if len(names) != len(found):
        raise CaseError(Reason.UNREADABLE, f"the {kind} archive holds several files of one name")
    # a compressed tar is inflated once if its members are read in its own order, and again for each step back
    return tuple(found if kind != "zip" else sorted(found, key=lambda member: member.name))


def read_member(path: Path, name: str, *, stamp: str, start: int, length: int) -> bytes:
    """Read bytes ``start`` to ``start + length`` of one file of an archive.

    The archive stays open for this thread's next call, so reading members in listed order inflates it about once.

    Raises
    ------
    CaseError
        UNREADABLE when the member is damaged or encrypted, SOURCE_MISSING when no member has that name.
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
    """Close the archive that this thread has open."""
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
    """Raise what the system reported about a failed read. Only an OSError without a number is about the archive."""
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
            raise CaseError(Reason.TOO_LARGE, f"the archive inflates to more than {TOTAL_BYTES_LIMIT:,} bytes")
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
    """Return whether a tar is uncompressed, by its first header."""
    with path.open("rb") as file:
        return file.read(262)[257:] == b"ustar"


def _tar(path: Path) -> tarfile.TarFile:
    """Open a tar. Names are read as UTF-8, whatever the locale of this process is."""
    return tarfile.open(path, mode="r:*", encoding="utf-8", errors="surrogateescape")


def _text(info: tarfile.TarInfo) -> str:
    return name_text(info.name.encode("utf-8", "surrogateescape"))


def _gzip_members(path: Path) -> Iterator[Member]:
    """Yield the one file, after inflating it once to learn its size."""
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
    """An open gzipped file. Reading a range before the last one inflates it again."""

    def __init__(self, path: Path, stamp: str) -> None:
        self.key = (path, stamp)
        self._name = path.name.removesuffix(".gz")
        self._stream = gzip.open(path)  # noqa: SIM115 - closed with this object

    def read(self, name: str, start: int, length: int) -> bytes:
        """Read a range of the file."""
        if name != self._name:
            raise KeyError(name)
        self._stream.seek(start)
        return self._stream.read(length)

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            self._stream.close()


class _Zip:
    """An open zip and its last read member, so that the next range of the member continues where the last one ended."""

    def __init__(self, path: Path, stamp: str) -> None:
        self.key = (path, stamp)
        self._archive = zipfile.ZipFile(path)
        self._name: str | None = None
        self._member: IO[bytes] | None = None

    def read(self, name: str, start: int, length: int) -> bytes:
        """Read a range of one member."""
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
    """An open tar with the positions of its members.

    For a compressed tar it keeps the members read last, because a step back, such as for the next range of the same
    member, would inflate the archive from its beginning.
    """

    def __init__(self, path: Path, stamp: str) -> None:
        self.key = (path, stamp)
        self._archive = _tar(path)
        self._members = {_text(info): info for info in self._archive}
        self._held: dict[str, bytes] = {}
        self._room = 0 if _is_plain(path) else HELD_BYTES

    def read(self, name: str, start: int, length: int) -> bytes:
        """Read a range of one member. Links have no bytes of their own."""
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
