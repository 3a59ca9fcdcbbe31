"""Read a folder of files, including the zip and tar archives in it."""

import difflib
import errno
import fnmatch
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Final, Literal
from urllib.parse import unquote, urlsplit

from pydantic import field_validator

from builder.errors import CaseError, Reason, SourceError, counted
from builder.protocols import Entry
from builder.sources.archives import read_member
from builder.sources.described import Described
from builder.sources.layout import LayoutBlock
from builder.sources.names import name_bytes
from builder.sources.walking import DEEP_STAMP, LINK_STAMP, Earlier, Walk

LINK_REFUSED: Final = "a link that leads out of the folder or to nothing is not followed"

DENIED: Final = "this process may not read the file; let its user read it and build again"


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
    files
        Whether a file may change in place. ``mutable`` looks at the size and time of every file in each listing.
        ``write_once`` is for archives whose files are written once (exports of a PACS, research stores): of a folder
        that has not changed since the last listing, the files are taken from that listing, and only the folders in it
        are visited. A file that is added, removed, or replaced under its name by another changes its folder. One that
        is rewritten in place does not, and goes unnoticed until the spec says ``mutable`` for one plan.
    layout
        Who and what the files are that are not DICOM (``builder.sources.layout``). Without it, such files are masks and
        tables at most, and never images.

    Notes
    -----
    Links that stay in the folder are not followed, because their target is listed itself. A link that points outside or
    to nothing is an entry that cannot be read, so that it is reported. So is a file or folder whose path is too long
    for the system to open. Names may consist of any bytes (``builder.sources.names``).

    ``write_once`` tells by device, number, and times of change that a folder has not changed. It looks through a folder
    that changed less than a minute before the last listing, or of which a file was written then, and through one with
    links, archives, or files that could not be opened.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["folder"] = "folder"
    url: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    identity: Literal["header", "content"] = "header"
    files: Literal["mutable", "write_once"] = "mutable"
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

    def list(self) -> Iterator[Entry]:
        """List every file in the order of its path, and archives as their members. Raises SourceError."""
        for entry in self.walk().entries():
            assert isinstance(entry, Entry), "without an earlier listing, none is taken from it"
            yield entry

    def walk(self, earlier: Earlier | None = None) -> Walk:
        """Return a walk through the folder that goes on from an earlier listing. Raises SourceError."""
        root = self.root
        if root.is_file():
            raise SourceError(f"found a file at {self.url}, expected a folder; name the folder it is in", host="folder")
        if not _is_folder(root):
            message = f"found no folder {self.url}, expected a source's files there{_nearest(root)}"
            raise SourceError(message, host="folder")
        return Walk(root, self.url, self._is_wanted, earlier, write_once=self.files == "write_once")

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
        if not self.include and not self.exclude:
            return True
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
