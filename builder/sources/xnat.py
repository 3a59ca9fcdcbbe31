"""Read the scans of one project of an XNAT server through its REST API."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote

from builder.errors import CaseError, IncompleteError, Reason
from builder.protocols import Entry
from builder.sources.contents import place_of
from builder.sources.counted import UNLISTED, confirmed
from builder.sources.described import Remote
from builder.sources.http import Answer, Server, host_of, server
from builder.sources.patience import Fault, persist
from builder.sources.signin import SignIn
from builder.sources.together import in_order

LIST_LIMIT: Final = 256 * 2**20
"""Most bytes of one list."""

_MD5 = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[^/\0]{1,128}")

Rows = dict[str, Mapping[str, Any]]
"""Rows of a list by the name of what they describe."""


class Xnat(Remote):
    """Files of the scans of a project.

    Parameters
    ----------
    url
        Root of the server, e.g. ``https://xnat.example``.
    project
        ID of the project.
    resources
        Labels of the resource folders of each scan whose files are wanted.
    sign_in
        How to sign in; without it only public projects are readable.

    Notes
    -----
    An entry's path is ``experiment/scan/resource/file``. XNAT describes files by name, size and, where the server
    computes it, MD5, so each file is fetched whole once, for the index, checked and kept.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["xnat"] = "xnat"
    url: str
    project: str
    resources: tuple[str, ...] = ("DICOM", "secondary")
    sign_in: SignIn | None = None

    @property
    def lane(self) -> str:
        """Return one queue per server."""
        return self._queue(f"net:xnat:{self._host}")

    def list(self) -> Iterator[Entry]:
        """List every file, by experiment and scan.

        ``file_count`` decides whether the list of a folder is whole. Nobody counts experiments, scans and folders for
        sure, so each of these lists must come twice in a row. Raises SourceError.
        """
        experiments = self._confirmed(f"data/projects/{quote(self.project, safe='')}/experiments", "ID")
        for entries in in_order(self._listed, experiments, width=self.at_once):
            yield from entries

    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """Read bytes of a file, which is fetched whole. Raises CaseError, SourceError."""
        if entry.stamp == UNLISTED:
            raise CaseError(Reason.SOURCE_INCOMPLETE, "the source did not list the session whole after all tries")
        place = place_of((self.kind, self.url, entry.path.rpartition("/")[0]), f"{entry.path}\0{entry.stamp}")
        contents = self._contents()
        data = contents.read(place, start=start, length=length)
        if data is not None:
            return data
        whole = self._get(entry)
        contents.put(place, whole)
        return whole[start:] if length is None else whole[start : start + length]

    @property
    def _host(self) -> str:
        return host_of(self.url)

    def _server(self) -> Server:
        return server(self.url, self.sign_in, source=self.kind, gate=self.gate(self._host))

    def _listed(self, experiment: str) -> Sequence[Entry]:
        try:
            return self._list_experiment(experiment)
        except IncompleteError as error:
            self._left_out(error)
            return [Entry(experiment, 0, UNLISTED)]

    def _list_experiment(self, experiment: str) -> Sequence[Entry]:
        """List the files of a session. Raises IncompleteError when a folder has fewer than the server counts."""
        root, entries = f"data/experiments/{quote(experiment, safe='')}/scans", []
        for scan in self._confirmed(root, "ID"):
            folders = self._confirmed(f"{root}/{quote(scan, safe='')}/resources", "label")
            for label, facts in folders.items():
                if label in self.resources:
                    path = f"{root}/{quote(scan, safe='')}/resources/{quote(label, safe='')}/files"
                    found = self._files(path, facts.get("file_count"))
                    entries += [Entry(f"{experiment}/{scan}/{label}/{n}", s, md5) for n, (s, md5) in found.items()]
        return entries

    def _confirmed(self, path: str, key: str) -> Rows:
        """Return the rows of a list by the name in a column, in the order of names."""

        def ask() -> Rows:
            found = self._server().get(f"{path}?format=json", _rows, accept="application/json")
            return dict(sorted((_name(row.get(key)), row) for row in found))

        return confirmed(ask, source=self.kind, host=self._host)

    def _files(self, path: str, count: Any) -> dict[str, tuple[int, str]]:
        """Return size and MD5 of each file of a folder by its name below it, as many as the server counts."""

        def ask() -> dict[str, tuple[int, str]]:
            rows = self._server().once(f"{path}?format=json", _rows, accept="application/json")
            found = dict(sorted(_file(row) for row in rows))
            if str(count).isdigit() and len(found) != int(count):
                raise Fault(f"found a list of {len(found)} files, expected {count} as the server counts")
            return found

        if not str(count).isdigit():
            return confirmed(lambda: persist(ask, source=self.kind, host=self._host), source=self.kind, host=self._host)
        return persist(ask, source=self.kind, host=self._host)

    def _get(self, entry: Entry) -> bytes:
        """Get a file whole and checked. Raises CaseError, SourceError."""
        experiment, scan, label, name = entry.path.split("/", 3)

        def read(answer: Answer) -> bytes:
            body = answer.body()
            if len(body) != entry.size:
                raise Fault(f"found {len(body)} bytes of a file, expected {entry.size}")
            if entry.stamp and hashlib.md5(body, usedforsecurity=False).hexdigest() != entry.stamp:
                raise Fault("found a file whose MD5 is not the one that the server states")
            return body

        words = (quote(word, safe="") for word in (experiment, scan, label))
        path = "data/experiments/{}/scans/{}/resources/{}/files/".format(*words) + quote(name)
        try:
            return self._server().get(path, read)
        except IncompleteError as error:
            raise self._left_out(error) from None


def _rows(answer: Answer) -> Sequence[Mapping[str, Any]]:
    """Return the rows of a list. A server that does not know us may answer with its page for signing in."""
    body = answer.body(LIST_LIMIT)
    try:
        rows = json.loads(body)["ResultSet"]["Result"]
    except (ValueError, KeyError, TypeError, RecursionError):
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        shown = answer.headers.get("content-type", "").partition(";")[0][:40] or "no type"
        raise Fault(f"found {len(body)} bytes of type {shown}, expected a list in JSON; check sign_in")
    return rows


def _name(value: Any) -> str:
    """Return a name that may become part of a path."""
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value in (".", ".."):
        raise Fault("found a row of a list without a name that can be part of an address")
    return value


def _file(row: Mapping[str, Any]) -> tuple[str, tuple[int, str]]:
    """Return a file's name below its folder, its size, and its MD5 where the server states one."""
    uri, size, md5 = (str(row.get(key) or "") for key in ("URI", "Size", "digest"))
    _, found, name = uri.partition("/files/")
    if not found or not size.isdigit():
        raise Fault("found a file in a list without an address and a size")
    name = "/".join(_name(part) for part in name.split("/"))
    return name, (int(size), md5.lower() if _MD5.fullmatch(md5.lower()) else "")
