"""Read a folder that is elsewhere: in a bucket (S3, Google Cloud, Azure), behind a web server, or on another machine.

A spec writes it as a ``folder`` whose ``url`` begins with ``s3://``, ``gs://``, ``az://``, ``https://`` or ``ssh://``.
"""

import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal
from urllib.parse import urlsplit

from pydantic import WithJsonSchema, field_validator, model_validator

from builder.errors import CaseError, IncompleteError, Reason
from builder.headers.sniff import ARCHIVES, HEAD_BYTES, sniff
from builder.protocols import Entry
from builder.sources.archives import close_archive, list_members, read_member
from builder.sources.contents import place_of
from builder.sources.counted import UNLISTED, confirmed
from builder.sources.described import Remote
from builder.sources.far import LOCAL, SCHEMES, place_at
from builder.sources.folder import LINK_REFUSED
from builder.sources.layout import LayoutBlock
from builder.sources.patience import Fault, persist
from builder.sources.place import Object, Place
from builder.sources.signin import SignIn
from builder.sources.walking import LINK_STAMP

ARCHIVE_NAMES: Final = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".dcm.gz")
"""Names of archives. A look into each object would cost a request for each."""

OBJECT_LIMIT: Final = 64 * 2**30
"""Most bytes of an object; only archives are larger than a few GiB."""

AHEAD: Final = 16
"""Most archives that are fetched at once while the source is listed."""

_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
"""ETag of an object that was sent to S3 in one piece."""


class RemoteFolder(Remote):
    """Files below a folder that is not on a disk of this machine, at any depth.

    Parameters
    ----------
    url
        The folder: ``s3://bucket/path``, ``gs://bucket/path``, ``az://container/path``, ``https://host/path/`` with
        pages that list it, or ``ssh://user@host/path``. Credentials come from the environment, never from the URL.
    include, exclude
        Globs of relative paths (``*`` also matches ``/``); empty ``include`` means everything.
    sign_in
        How to sign in to a web server.
    layout
        Who and what the files are that are not DICOM, as for ``folder``.

    Notes
    -----
    Archives are told by their names (``.zip``, ``.tar``, ``.tar.gz``, ...), fetched whole, and listed as their members.
    """

    VERSION: ClassVar[int] = 1
    CONNECTIONS: ClassVar[int] = 32

    kind: Annotated[Literal["remote_folder"], WithJsonSchema({"enum": ["folder", "remote_folder"]})] = "remote_folder"
    url: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    sign_in: SignIn | None = None
    layout: LayoutBlock = None

    @field_validator("url")
    @classmethod
    def _is_elsewhere(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            expected = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise ValueError(f"found the scheme {parts.scheme}://, expected a path, file:// or one of {expected}")
        if parts.password or (parts.username and parts.scheme != "ssh") or parts.query or parts.fragment:
            raise ValueError("found a name, password or query in the address, expected credentials in the environment")
        if not parts.hostname:
            raise ValueError(f"found no name after {parts.scheme}://, expected that of a bucket or a host")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _signs_in_to_web_servers(self) -> "RemoteFolder":
        if self.sign_in is not None and urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError("sign_in: found it with a bucket or ssh://, expected credentials in the environment")
        return self

    @property
    def lane(self) -> str:
        """Return one queue per host or bucket."""
        return self._queue(f"net:{self._place.host}")

    def study_of(self, path: str) -> str:
        """Return the object's path, because the listing does not say which objects belong to a study."""
        return path

    def list(self) -> Iterator[Entry]:
        """List every object in the order of its path, and archives as their members. Raises SourceError.

        Nobody states how many objects there are, so the same list must come twice in a row.
        """
        found = confirmed(self._listed, source="folder", host=self._place.host)
        wanted = (item for path, item in found.items() if self._is_wanted(path))
        with ThreadPoolExecutor(AHEAD, thread_name_prefix="archives") as pool:
            while batch := list(islice(wanted, 4 * AHEAD)):
                for entries in pool.map(self._entries, batch):
                    yield from entries

    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """Read bytes of an object or of an archive's member, provided it has not changed since it was listed.

        The start of an object is read alone, for the index. Whatever else is asked for brings the whole object, which
        is checked against its MD5 where the bucket states that, and kept. Raises CaseError, SourceError.
        """
        if entry.stamp == LINK_STAMP:
            raise CaseError(Reason.SOURCE_MISSING, LINK_REFUSED)
        if entry.stamp == UNLISTED:
            raise CaseError(Reason.SOURCE_INCOMPLETE, "the source did not give the archive whole after all tries")
        stop = entry.size if length is None else min(entry.size, start + length)
        if start >= stop:
            return b""
        contents, place = self._contents(), self._kept_at(entry.path, entry.stamp, entry.member)
        kept = contents.read(place, start=start, length=stop - start)
        if kept is not None:
            return kept
        if entry.member:
            self._open_archive(Object(entry.path, 0, entry.stamp))
            kept = contents.read(place, start=start, length=stop - start)
            if kept is None:
                raise CaseError(Reason.SOURCE_CHANGED, "the archive has no file of that name any more; build again")
            return kept
        if start == 0 and stop < entry.size:
            return self._fetched(entry, 0, stop)
        whole = self._fetched(entry, 0, entry.size)
        contents.put(place, whole)
        return whole[start:stop]

    @property
    def _place(self) -> Place:
        return place_at(self.url, self.sign_in)

    def _kept_at(self, path: str, stamp: str, member: str = "") -> str:
        folder, _, name = path.rpartition("/")
        return place_of(("folder", self.url, folder), f"{name}\0{stamp}\0{member}")

    def _is_wanted(self, path: str) -> bool:
        kept = not self.include or any(fnmatch.fnmatchcase(path, glob) for glob in self.include)
        return kept and not any(fnmatch.fnmatchcase(path, glob) for glob in self.exclude)

    def _persist(self, call: Any) -> Any:
        return persist(call, source="folder", host=self._place.host)

    def _listed(self) -> Mapping[str, Object]:
        """Return all objects by path, in order. The place asks for a turn at each of its requests."""
        host, recording, request = self._place.host, self._recording, ("listing", self.url)
        if recording is not None and recording.replays:
            rows = json.loads(recording.get(request, source="folder", host=host))
            return {row[0]: Object(*row) for row in rows}
        gate = replace(self.gate(host), recording=None)  # the whole listing is recorded, not its pages
        found = self._persist(lambda: list(self._place.list(gate)))
        if recording is not None:
            rows = sorted([item.path, item.size, item.stamp] for item in found)
            recording.put(request, json.dumps(rows).encode())
        return {item.path: item for item in sorted(found, key=lambda item: item.path)}

    def _fetched(self, entry: Entry, start: int, stop: int) -> bytes:
        """Return bytes of an object, checked as far as they can be. Raises CaseError, SourceError."""
        md5 = _MD5.fullmatch(entry.stamp) if (start, stop) == (0, entry.size) else None

        def attempt() -> bytes:
            item = Object(entry.path, entry.size, entry.stamp)
            data = b"".join(self._pieces(item, start, stop))
            if len(data) != stop - start:
                raise Fault(f"found {len(data)} bytes of an object, expected {stop - start}")
            if md5 is not None and hashlib.md5(data, usedforsecurity=False).hexdigest() != md5[1]:
                raise Fault("found an object whose MD5 is not the one in its ETag")
            return data

        try:
            found: bytes = self._persist(attempt)
        except IncompleteError as error:
            raise self._left_out(error) from None
        return found

    def _pieces(self, item: Object, start: int, stop: int | None) -> Iterator[bytes]:
        """Yield bytes of an object from the server or from a recording."""
        host, recording = self._place.host, self._recording
        request = ("object", self.url, item.path, item.stamp, f"{start}-{stop}")
        if recording is not None and recording.replays:
            yield from recording.find(request, source="folder", host=host)[1]
            return
        with self.gate(host).turn() as turn:
            found = self._place.get(turn, item, start, stop)
            yield from found if recording is None else recording.keep(request, {}, found)

    def _entries(self, item: Object) -> Sequence[Entry]:
        """Return the entries of an object: itself, or the members of an archive."""
        if item.stamp == LINK_STAMP or not item.path.lower().endswith(ARCHIVE_NAMES):
            return [Entry(item.path, item.size, item.stamp)]
        try:
            members = self._open_archive(item)
        except CaseError as error:
            if error.reason == Reason.SOURCE_INCOMPLETE:
                return [Entry(item.path, 0, UNLISTED)]
            members = ()  # the index recognises the archive and reports that it cannot be used
        if not members:
            return [Entry(item.path, item.size, item.stamp)]
        return [Entry(item.path, size, item.stamp, name) for name, size in members]

    def _open_archive(self, item: Object) -> Sequence[tuple[str, int]]:
        """Fetch an archive, keep its members, and return their names and sizes.

        Raises CaseError when the archive is damaged, over a limit, or did not come whole and ``missing`` is
        ``exclude``.
        """
        contents = self._contents()
        try:
            with contents.scratch() as folder:
                local = folder / "archive"
                self._persist(partial(self._download, item, local))
                with local.open("rb") as stream:
                    kind = sniff(stream.read(HEAD_BYTES))
                if kind not in ARCHIVES:
                    return []
                members = list_members(local, kind)
                try:
                    for member in members:
                        data = read_member(local, member.name, stamp=item.stamp, start=0, length=member.size)
                        contents.put(self._kept_at(item.path, item.stamp, member.name), data)
                finally:
                    close_archive()
        except IncompleteError as error:
            raise self._left_out(error) from None
        return [(member.name, member.size) for member in members]

    def _download(self, item: Object, to: Path) -> None:
        """Write an object to a file, and check its length and hash as far as they are stated."""
        md5, digest, size = _MD5.fullmatch(item.stamp), hashlib.md5(usedforsecurity=False), 0
        to.touch(mode=0o600)  # a kill may leave it behind
        with to.open("wb") as stream:
            for chunk in self._pieces(item, 0, None):
                size += len(chunk)
                if size > OBJECT_LIMIT:
                    raise CaseError(Reason.TOO_LARGE, f"the archive is longer than {OBJECT_LIMIT:,} bytes")
                digest.update(chunk)
                stream.write(chunk)
        if item.size and size != item.size:
            raise Fault(f"found {size} bytes of an archive, expected {item.size}")
        if md5 is not None and digest.hexdigest() != md5[1]:
            raise Fault("found an archive whose MD5 is not the one in its ETag")


def elsewhere(block: Any) -> Any:
    """Turn a spec's block of a ``folder`` whose ``url`` is not on a disk into that of a ``remote_folder``."""
    if isinstance(block, Mapping) and block.get("kind") == "folder":
        url = os.fspath(block["url"]) if isinstance(block.get("url"), str | os.PathLike) else ""
        if "://" in url and urlsplit(url).scheme not in LOCAL:
            return {**block, "kind": "remote_folder"}
    return block
