"""Walk through a folder and the folders in it, and take from an earlier listing what has not changed since."""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeAlias

from builder.errors import CaseError, SourceError
from builder.headers.sniff import ARCHIVES, HEAD_BYTES, sniff
from builder.protocols import Entry
from builder.sources.archives import list_members
from builder.sources.names import name_bytes, name_text

LINK_STAMP: Final = "link"
"""Stamp of a link that points outside the folder or to nothing; reading it raises CaseError."""

DEEP_STAMP: Final = "deep"
"""Stamp of a file or folder whose path is too long for the system to open; reading it raises CaseError."""

SETTLED_NS: Final = 60 * 10**9
"""Nanoseconds that a folder and its files must have been left alone before it is listed. What is newer may still be
being written, or change once more within the resolution of the file system's clock, which no time would tell."""

Row: TypeAlias = tuple[str, int, str, str]
"""Path, size, stamp and member of an entry."""


class Seen(NamedTuple):
    """A folder as a listing saw it.

    Parameters
    ----------
    path
        Relative to the source, with a slash at its end; "" for the source itself.
    state
        Device, number and times of the folder; "" if they do not tell that nothing in it has changed.
    folders
        Names of the folders in it, in order.
    runs
        Where the files before, between and after these folders stand in the listing: start and stop.
    odd
        Names of what has to be looked at in every listing: archives, links, and files that could not be opened.
    """

    path: str
    state: str
    folders: Sequence[str]
    runs: Sequence[Sequence[int]]
    odd: Sequence[str]


class Earlier(Protocol):
    """An earlier listing of the same source with the same options."""

    @property
    def folders(self) -> Mapping[str, Seen]:
        """The folders in it by their paths."""
        ...

    def rows(self, start: int, stop: int) -> list[Row]:
        """Return its entries from one place to another. Raises FileNotFoundError, LayoutError."""
        ...


@dataclass
class Walk:
    """A walk through a source.

    Parameters
    ----------
    root
        The source's folder, with links resolved.
    url
        The folder as messages name it.
    wanted
        Whether the file at a path belongs to the source.
    earlier
        An earlier listing, if there is one.
    write_once
        Whether to take the files of a folder that has not changed from the earlier listing without a look at them.
    """

    root: Path
    url: str
    wanted: Callable[[str], bool]
    earlier: Earlier | None = None
    write_once: bool = False
    seen: list[Seen] = field(default_factory=list)
    """The folders that were walked through, for the next listing."""

    def entries(self) -> Iterator[Entry | range]:
        """Yield entries by the names on their paths, or where in the earlier listing those are that are as they were.

        Raises SourceError.
        """
        position = 0
        waiting = [self._opened("")]
        while waiting:
            folder = waiting[-1]
            item = next(folder.items, None)
            if item is None:
                waiting.pop()
                self.seen.append(Seen(folder.path, folder.state, folder.folders, folder.runs, folder.odd))
            elif isinstance(item, str):
                path = folder.path + item
                try:
                    waiting.append(self._opened(f"{path}/"))
                except _TooLong:
                    folder.state = ""
                    if self.wanted(path):
                        position += 1
                        yield Entry(path, 0, DEEP_STAMP)
            else:
                folder.runs.append((position, position + len(item)))
                position += len(item)
                if isinstance(item, list):
                    yield from item
                elif item:
                    yield item

    def _opened(self, path: str) -> "_Folder":
        """Begin with a folder. Raises SourceError, or _TooLong where its path is too long to open."""
        place = os.fsencode(self.root) + (b"/" + name_bytes(path[:-1]) if path else b"")
        now = time.time_ns()  # before the look at the folder, so that whatever changes meanwhile is not settled
        try:
            facts = os.lstat(place)
            state = f"{facts.st_dev}:{facts.st_ino}:{facts.st_mtime_ns}:{facts.st_ctime_ns}"
            before = self.earlier.folders.get(path) if self.earlier is not None else None
            if self.write_once and before is not None and before.state == state:
                return _Folder(path, _alternating(_places(before), before.folders), before.folders, state)
            look = self._look(place, path)
        except OSError as error:
            raise _fault(error, self.url) from error
        runs = self._runs(place, path, look, before)
        settled = not look.odd and max(facts.st_mtime_ns, facts.st_ctime_ns, look.newest) < now - SETTLED_NS
        return _Folder(path, _alternating(runs, look.folders), look.folders, state if settled else "", look.odd)

    def _look(self, place: bytes, path: str) -> "_Look":
        """List what is in a folder, and when each file was written."""
        look = _Look()
        with os.scandir(place) as scan:
            items = sorted(scan, key=lambda item: item.name)
        for item in items:
            name = name_text(item.name)
            if item.is_file(follow_symlinks=False):
                if self.wanted(path + name):
                    look.add(item, path, name)
            elif item.is_symlink():
                look.odd.append(name)  # what it leads to may come, go or move
                if not _resolved(item.path).is_relative_to(self.root) and self.wanted(path + name):
                    look.runs[-1].append((path + name, 0, LINK_STAMP, ""))
            elif item.is_dir(follow_symlinks=False):
                look.folders.append(name)
                look.runs.append([])
        return look

    def _runs(self, place: bytes, path: str, look: "_Look", before: Seen | None) -> list["range | list[Entry]"]:
        """Return each run of files as its places in the earlier listing if it is as it was, or as entries."""
        opened: set[Row] = set()
        if before is not None and self.earlier is not None:
            held = [self.earlier.rows(*run) for run in before.runs]
            if held == look.runs and not before.odd and not look.odd:
                return _places(before)
            odd = set(before.odd)
            opened = {row for rows in held for row in rows if row[0].removeprefix(path) not in odd}
        found: list[range | list[Entry]] = []
        for run in look.runs:
            entries: list[Entry] = []
            for row in run:
                if row in opened or row[2] in (LINK_STAMP, DEEP_STAMP):
                    entries.append(Entry(*row))
                    continue
                name = row[0].removeprefix(path)
                file = place + b"/" + name_bytes(name)
                kind = archive_kind(file)
                if kind != "":
                    look.odd.append(name)
                entries += _members(file, kind, row) if kind else [Entry(*row)]
            found.append(entries)
        return found


@dataclass
class _Folder:
    """A folder that is being walked through."""

    path: str
    items: Iterator[str | range | list[Entry]]
    folders: Sequence[str]
    state: str
    odd: Sequence[str] = ()
    runs: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class _Look:
    """What is in a folder."""

    runs: list[list[Row]] = field(default_factory=lambda: [[]])
    folders: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    newest: int = 0
    """When the file that was written last was written."""

    def add(self, item: "os.DirEntry[bytes]", path: str, name: str) -> None:
        """Add a file, unless it disappeared since the folder was scanned."""
        try:
            facts = item.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            self.odd.append(name)
            self.runs[-1].append((path + name, 0, DEEP_STAMP, ""))
            return
        if stat.S_ISLNK(facts.st_mode):
            self.odd.append(name)
            self.runs[-1].append((path + name, 0, LINK_STAMP, ""))
            return
        self.newest = max(self.newest, facts.st_mtime_ns)
        self.runs[-1].append((path + name, facts.st_size, str(facts.st_mtime_ns), ""))


class _TooLong(Exception):
    """Raised when a folder's path is longer than the system can open."""


def _fault(error: OSError, url: str) -> Exception:
    """Return what to raise of a folder. The message names only the source: a folder's name may be a person's."""
    if error.errno == errno.ENAMETOOLONG:
        return _TooLong()
    return SourceError(
        f"{url}: a folder in it cannot be listed ({error.strerror}); find '{url}' -type d ! -readable lists such "
        "folders: make them readable, or name them under the source's exclude",
        host="folder",
    )


def _places(seen: Seen) -> list[range | list[Entry]]:
    """Return where the runs of files of a folder stand in the listing that saw it."""
    return [range(*run) for run in seen.runs]


def _alternating(runs: Sequence[range | list[Entry]], folders: Sequence[str]) -> Iterator[str | range | list[Entry]]:
    """Yield the files before, between and after folders, and these, in order."""
    for run, name in zip(runs, (*folders, None), strict=True):
        yield run
        if name is not None:
            yield name


def _resolved(link: bytes) -> Path:
    try:
        return Path(os.fsdecode(link)).resolve(strict=True)
    except (OSError, RuntimeError):  # links that form a loop, or lead to nothing
        return Path("/")


def archive_kind(path: bytes) -> str | None:
    """Return the kind of an archive by its first bytes; "" for other files, None for files that cannot be opened."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        head = os.pread(handle, HEAD_BYTES, 0)
    finally:
        os.close(handle)
    kind = sniff(head)
    return kind if kind in ARCHIVES else ""


def _members(path: bytes, kind: str, row: Row) -> list[Entry]:
    """Return the members of an archive, or the archive where it has none or is damaged: the index reports that."""
    try:
        members = list_members(Path(os.fsdecode(path)), kind)
    except CaseError:
        members = None
    name, _, stamp, _ = row
    return [Entry(name, member.size, stamp, member.name) for member in members or ()] or [Entry(*row)]
