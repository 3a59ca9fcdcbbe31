"""Read a folder of files, including the zip and tar archives in it."""

import difflib
import errno
import fnmatch
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Final, Literal
from urllib.parse import unquote, urlsplit

from pydantic import field_validator

from builder.errors import CaseError, Reason, SourceError, counted
from builder.headers.sniff import ARCHIVES, HEAD_BYTES, sniff
from builder.protocols import Entry
from builder.sources.archives import list_members, read_member
from builder.sources.described import Described
from builder.sources.layout import LayoutBlock
from builder.sources.names import name_bytes, name_text

LINK_STAMP: Final = "link"
"""Stamp of a link that points outside the folder or to nothing; reading it raises CaseError."""

LINK_REFUSED: Final = "a link that leads out of the folder or to nothing is not followed"

DENIED: Final = "this process may not read the file; let its user read it and build again"
DEEP_STAMP: Final = "deep"
"""Stamp of a file or folder whose path is too long for the system to open; reading it raises CaseError."""


class Folder(Described):
    """Files below one folder of a disk, at any depth.

    Parameters
    ----------
    url
        The folder: a path or a ``file://`` URL.
    site, country, collection
        Names of the site, the country and the collection that the files come from; they become columns of the dataset.
    include, exclude
        Globs of relative paths (``*`` also matches ``/``); empty ``include`` means everything.
    identity
        What decides whether a file has changed for shards that are finished. ``header`` uses the bytes before the
        pixels and the file's length, and reads headers only. ``content`` uses every byte, so that it notices pixels
        rewritten in place, but reads each new or touched file whole when it is indexed.
    layout
        Who and what the files are that are not DICOM (``builder.sources.layout``). Without it, such files are masks and
        tables at most, and never images.

    Notes
    -----
    Links that stay in the folder are not followed, because their target is listed itself. A link that points outside or
    to nothing is an entry that cannot be read, so that it is reported. So is a file or folder whose path is too long
    for the system to open. Names may consist of any bytes (``builder.sources.names``).
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["folder"] = "folder"
    url: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    identity: Literal["header", "content"] = "header"
    layout: LayoutBlock = None

    @field_validator("url")
    @classmethod
    def _is_local(cls, url: str) -> str:
        scheme = urlsplit(url).scheme if "://" in url else ""
        if scheme not in ("", "file"):
            raise ValueError(f"found the scheme {scheme}://, expected a path or a file:// URL")
        if not url.strip():
            raise ValueError("found an empty url, expected the folder's path or a file:// URL")
        try:
            Path(url).expanduser()
        except RuntimeError:
            raise ValueError(f"found {url!r}, but nobody of that name has a home folder on this machine") from None
        return url

    @property
    def reads_whole(self) -> bool:
        """Return whether ``identity`` is ``content``."""
        return self.identity == "content"

    @property
    def root(self) -> Path:
        """Return the folder as an absolute path with links resolved."""
        return _root(self.url)

    @property
    def place(self) -> Path:
        """Return the folder as an absolute path as it is written, through links."""
        return _path(self.url).absolute()

    def list(self, known: Iterable[tuple[str, int, str]] = ()) -> Iterator[Entry]:
        """List every file in the order of its path, and archives as their members. Raises SourceError.

        ``known`` are paths, sizes and stamps of files that an earlier listing opened and that are no archives, in its
        order. Those that are still so are not opened again.
        """
        root = self.root
        if root.is_file():
            raise SourceError(f"found a file at {self.url}, expected a folder; name the folder it is in", host="folder")
        if not _is_folder(root):
            message = f"found no folder {self.url}, expected a source's files there{_nearest(root)}"
            raise SourceError(message, host="folder")
        plain = _Known(iter(known))
        everything = not self.include and not self.exclude
        for path, item in _walk(root, self.url):
            if everything or self._is_wanted(path):
                yield from _entries(item, path, plain) if item is not None else (Entry(path, 0, DEEP_STAMP),)

    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """Read bytes of a file or archive member. Raises CaseError when it is gone, changed or not readable."""
        if length is None:
            length = max(0, entry.size - start)
        if entry.stamp == LINK_STAMP:
            raise CaseError(Reason.SOURCE_MISSING, LINK_REFUSED)
        if entry.stamp == DEEP_STAMP:
            raise CaseError(
                Reason.UNREADABLE, "the path is longer than this system can open; move it up, and build again"
            )
        place = _place(self.root, entry.path)
        handle = _opened(place)
        try:
            _check_unchanged(handle, entry)
            if not entry.member:
                return _read_at(handle, start, length)
        finally:
            os.close(handle)
        return read_member(Path(os.fsdecode(place)), entry.member, stamp=entry.stamp, start=start, length=length)

    def _is_wanted(self, path: str) -> bool:
        kept = not self.include or any(fnmatch.fnmatchcase(path, glob) for glob in self.include)
        return kept and not any(fnmatch.fnmatchcase(path, glob) for glob in self.exclude)


@lru_cache(maxsize=64)
def _root(url: str) -> Path:
    path = _path(url)
    try:
        return path.resolve()
    except RuntimeError:  # links that form a loop; from Python 3.13 on their path is returned, as here
        return path.absolute()


def _path(url: str) -> Path:
    return (Path(unquote(urlsplit(url).path)) if url.startswith("file://") else Path(url)).expanduser()


def _is_folder(root: Path) -> bool:
    try:
        return root.is_dir()
    except OSError:
        return False


def _nearest(root: Path) -> str:
    """Return the nearest existing folder above a missing one, and the name in it most like the missing one."""
    there = next((parent for parent in root.parents if _is_folder(parent)), root)
    missing = root.relative_to(there).parts[:1] if there != root else ()
    try:
        with os.scandir(there) as scan:
            names = [item.name for item in scan if _is_folder(Path(item.path))]
    except OSError:
        return ""
    near = difflib.get_close_matches(missing[0], names, n=1) if missing else []
    hint = f"did you mean {near[0]!r}?" if near else "check the path, and that it is mounted"
    return f"; {there} holds {counted(len(names), 'folder')}: {hint}"


def _place(root: Path, path: str) -> bytes:
    return os.fsencode(root) + b"/" + name_bytes(path)


def _walk(root: Path, url: str) -> Iterator[tuple[str, "os.DirEntry[bytes] | None"]]:
    """Yield relative paths of files and of links that point outside or to nothing, by their names (code points).

    Each comes with its directory entry, or None if it is a folder whose path is too long to open.
    """
    waiting = [("", iter(_scanned(os.fsencode(root), url)))]
    while waiting:
        above, items = waiting[-1]
        item = next(items, None)
        if item is None:
            waiting.pop()
            continue
        path = above + name_text(item.name)
        if item.is_file(follow_symlinks=False):
            yield path, item
        elif item.is_symlink():
            if not _resolved(item.path).is_relative_to(root):
                yield path, item
        elif item.is_dir(follow_symlinks=False):
            try:
                waiting.append((f"{path}/", iter(_scanned(item.path, url))))
            except _TooLong:
                yield path, None


class _TooLong(Exception):
    """Raised when a folder's path is longer than the system can open."""


def _scanned(folder: bytes, url: str) -> list["os.DirEntry[bytes]"]:
    """Return a folder's entries sorted by name. The error names only the source: a folder's name may be a person's."""
    try:
        with os.scandir(folder) as scan:
            return sorted(scan, key=lambda item: item.name)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _TooLong from error
        raise SourceError(
            f"{url}: a folder in it cannot be listed ({error.strerror}); find '{url}' -type d ! -readable lists such "
            "folders: make them readable, or name them under the source's exclude",
            host="folder",
        ) from error


def _resolved(link: bytes) -> Path:
    try:
        return Path(os.fsdecode(link)).resolve(strict=True)
    except (OSError, RuntimeError):  # links that form a loop, or lead to nothing
        return Path("/")


@dataclass
class _Known:
    """Files that are known to be no archives, asked for in the order of a listing."""

    files: Iterator[tuple[str, int, str]]
    ahead: tuple[str, int, str] = ("", 0, "")

    def has(self, file: tuple[str, int, str]) -> bool:
        """Return whether a file is one of them."""
        path = file[0]
        if self.ahead[0] != path:
            place = path.split("/")
            while self.ahead[0] != path:
                if self.ahead[0].split("/") > place:
                    return False
                found = next(self.files, None)
                if found is None:
                    return False
                self.ahead = found
        held, self.ahead = self.ahead, next(self.files, self.ahead)
        return held == file


def _entries(item: "os.DirEntry[bytes]", path: str, known: _Known) -> Iterator[Entry]:
    try:
        facts = item.stat(follow_symlinks=False)
    except FileNotFoundError:  # disappeared since the folder was scanned
        return
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        yield Entry(path, 0, DEEP_STAMP)
        return
    if stat.S_ISLNK(facts.st_mode):
        yield Entry(path, 0, LINK_STAMP)
        return
    stamp = str(facts.st_mtime_ns)
    kind = None if known.has((path, facts.st_size, stamp)) else _archive_kind(item.path)
    members = None
    if kind:
        try:
            members = list_members(Path(os.fsdecode(item.path)), kind)
        except CaseError:
            members = None  # listed as a file: the index recognises the archive and reports that it is not usable
    if members:
        yield from (Entry(path, member.size, stamp, member.name) for member in members)
    else:
        yield Entry(path, facts.st_size, stamp)


def _archive_kind(path: bytes) -> str | None:
    """Return the kind of an archive by its first bytes; None for other files and for files that cannot be opened."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        head = os.pread(handle, HEAD_BYTES, 0)
    finally:
        os.close(handle)
    kind = sniff(head)
    return kind if kind in ARCHIVES else None


def _opened(path: bytes) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise CaseError(Reason.SOURCE_MISSING, "the file was listed and is gone") from error
    except PermissionError as error:
        raise CaseError(Reason.UNREADABLE, DENIED) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CaseError(Reason.SOURCE_CHANGED, "the file became a link after it was listed; build again") from error
        raise SourceError(f"a file cannot be opened ({error.strerror})", host="folder") from error


def _check_unchanged(handle: int, entry: Entry) -> None:
    facts = os.fstat(handle)
    if str(facts.st_mtime_ns) != entry.stamp or (not entry.member and facts.st_size != entry.size):
        raise CaseError(Reason.SOURCE_CHANGED, "the file is not the one that was listed; build again")


def _read_at(handle: int, start: int, length: int) -> bytes:
    try:
        data = os.pread(handle, length, start)
        while len(data) < length and (more := os.pread(handle, length - len(data), start + len(data))):
            data += more
    except OSError as error:
        raise SourceError(f"a file cannot be read ({error.strerror})", host="folder") from error
    return data
