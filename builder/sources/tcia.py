"""Read from The Cancer Imaging Archive or any NBIA REST server: lists of series, each fetched as a zip."""

import csv
import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import IO, Any, ClassVar, Final, Literal
from urllib.parse import quote

from pydantic import model_validator

from builder.errors import CaseError, ElsewhereError, IncompleteError, Reason, SourceError, counted
from builder.headers.identity import sop_instance_uid
from builder.headers.sniff import sniff
from builder.model.origin import Origin
from builder.protocols import Description, Entry
from builder.sources.contents import place_of
from builder.sources.counted import UNLISTED, confirmed, enough
from builder.sources.described import Remote
from builder.sources.http import Answer, Server, host_of, server
from builder.sources.manifests import read_manifest
from builder.sources.nbia import list_collection, name_of, uid
from builder.sources.patience import Fault, persist
from builder.sources.signin import SignIn
from builder.sources.together import in_order

HOSTS: Final = {
    "nbia": "https://nbia.cancerimagingarchive.net/nbia-api/services/v4",
    "nlst": "https://nlst.cancerimagingarchive.net/nbia-api/services/v4",
}
"""The two public servers by name; neither needs a login."""

SERIES_LIMIT: Final = 64 * 2**30
"""Most bytes of a series, as a zip and inflated."""

MEMBER_LIMIT: Final = 4 * 2**30
MEMBERS_LIMIT: Final = 200_000

CART_API: Final = "/v1"
"""Version of the API that tells what is in a shared cart; all else is asked of the version that the address names."""

_SAMPLE = 20
"""Most series that another server is asked for, to tell where they are."""

_HASHES = "md5hashes.csv"
_INSTANCE_NAMES = ("SOPInstanceUID", "sop_instance_uid")
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)
_UNKNOWN = (404, 405, 501)


class Tcia(Remote):
    """Series of one collection, or of a manifest.

    Parameters
    ----------
    url
        ``nbia`` or ``nlst``, the public servers of TCIA, or the root of another NBIA API.
    collection
        Name of the collection; it becomes a column of the dataset.
    manifest
        Path of a manifest (``.tcia``), or of a digest of the portal (``.csv``, ``.xlsx``), that names the series
        wanted.
    cart
        Name of a cart that was shared on the portal, such as ``nbia-49121659384603347``; it names the series wanted.
    patients, modalities
        Wanted PatientIDs and modalities; empty means all.
    sign_in
        How to sign in; the public servers need no sign-in.

    Notes
    -----
    An entry's path is ``study/series/instance``. Indexing fetches every series once. Each instance is checked against
    the MD5 that the server states.
    """

    VERSION: ClassVar[int] = 2

    kind: Literal["tcia"] = "tcia"
    collection: str | None = None
    manifest: str | None = None
    cart: str | None = None
    url: str = "nbia"
    patients: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    sign_in: SignIn | None = None

    @model_validator(mode="after")
    def _chooses(self) -> "Tcia":
        if not self.collection and not self.manifest and not self.cart:
            raise ValueError("found neither collection nor manifest nor cart, expected one of them")
        if self.manifest and self.cart:
            raise ValueError("found a manifest and a cart, expected one of them")
        return self

    @property
    def lane(self) -> str:
        """Return one queue per server."""
        return self._queue(f"net:tcia:{self._server().host}")

    def list(self) -> Iterator[Entry]:
        """List every instance of the chosen series, ordered by UIDs.

        ``ImageCount`` decides whether the list of a series is whole, ``SeriesCount`` whether that of a study is.
        Raises SourceError.
        """
        rows, short = self._series()
        wanted: dict[str, dict[str, Any]] = {study: {} for study in short}
        for row in filter(self._wants, rows.values()):
            wanted.setdefault(uid(row, "StudyInstanceUID"), {})[uid(row, "SeriesInstanceUID")] = row

        def listed(item: tuple[str, Mapping[str, Any]]) -> Sequence[Entry]:
            return [Entry(item[0], 0, UNLISTED)] if item[0] in short else self._list_study(*item)

        for entries in in_order(listed, sorted(wanted.items()), width=self.at_once):
            yield from entries

    def _list_study(self, study: str, members: Mapping[str, Mapping[str, Any]]) -> Sequence[Entry]:
        try:
            return [
                Entry(f"{study}/{series}/{instance}", 0, "")
                for series, row in sorted(members.items())
                for instance in self._instances(series, row.get("ImageCount"))
            ]
        except IncompleteError as error:
            self._left_out(error)
            return [Entry(study, 0, UNLISTED)]

    def describe(self, entries: Sequence[Entry]) -> Iterator[Description | CaseError]:
        """Yield each instance in full, because the API describes series only."""
        groups = (tuple(group) for _, group in groupby(entries, key=lambda entry: entry.path.rpartition("/")[0]))
        for members, fault in in_order(self._brought, groups, width=self.at_once):
            for entry in members:
                try:
                    yield fault or Description(self.read(entry), whole=True)
                except CaseError as error:
                    yield error

    def _brought(self, members: Sequence[Entry]) -> tuple[Sequence[Entry], CaseError | None]:
        """Fetch instances of one series; return them, and why they did not come."""
        if members[0].stamp == UNLISTED:
            why = "the source did not list the study whole after all tries"
            return members, CaseError(Reason.SOURCE_INCOMPLETE, why)
        try:
            self._bring(members[0].path.split("/")[1], members)
        except IncompleteError as error:
            return members, self._left_out(error)
        except CaseError as error:
            return members, error
        return members, None

    def _rounds(self, entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
        """Yield one instance of each series, which brings the others."""
        yield tuple({entry.path.rpartition("/")[0]: entry for entry in reversed(entries)}.values())

    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """Read bytes of an instance, fetched with its series. Raises CaseError, SourceError."""
        _, series, instance = entry.path.split("/")
        place, contents = place_of(self._name(series), instance), self._contents()
        while (data := contents.read(place, start=start, length=length)) is None:  # others may remove what is old
            try:
                self._bring(series, (entry,))
            except IncompleteError as error:
                raise self._left_out(error) from None
        return data

    def series_origins(self) -> Mapping[str, Origin]:
        """Return licence and collection of every series, as the server lists them. Raises SourceError."""
        return {uid(row, "SeriesInstanceUID"): _origin(row) for row in self._series()[0].values()}

    def _name(self, series: str) -> tuple[str, ...]:
        return ("tcia", self.url, series)

    def _wants(self, row: Mapping[str, Any]) -> bool:
        if self.modalities and row.get("Modality") not in self.modalities:
            return False
        return not self.patients or row.get("PatientID") in self.patients

    def _series(self) -> tuple[Mapping[str, Mapping[str, Any]], frozenset[str]]:
        """Return the rows of the chosen series by study and series UID, and the studies that are short of some.

        Raises SourceError, SpecError.
        """
        host = self._server().host
        if self.manifest is not None:
            return self._series_named(read_manifest(self.manifest)), frozenset()
        if self.cart is not None:
            return self._series_named(self._in_cart(self.cart)), frozenset()
        found = list_collection(self._ask, self.collection or "", source=self.kind, host=host)
        if found.short is None:
            return found.series, frozenset()
        short = {s for s in found.short_studies() if not self.patients or found.owners[s] in self.patients}
        if short:
            self._left_out(found.short)
        return found.series, frozenset(short)

    def _in_cart(self, cart: str) -> Sequence[str]:
        """Return the series in a shared cart, once two lists of them agree. Raises SourceError when there is none."""
        at = self._server(CART_API)
        path = f"getContentsByName?name={quote(cart, safe='')}&format=json"

        def ask() -> Mapping[str, None]:
            rows = at.get(path, _read_rows, accept="application/json")
            return dict.fromkeys(sorted(uid(row, "SeriesInstanceUID", "seriesInstanceUID") for row in rows))

        found = confirmed(lambda: persist(ask, source=self.kind, host=at.host), source=self.kind, host=at.host)
        if not found:
            raise SourceError(
                f"{self.kind} at {at.host}: found no series in the cart, expected one at least; check its name, which "
                "is the last part of the link that the portal gave for it",
                host=at.host,
            )
        return list(found)

    def _series_named(self, wanted: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the rows of series. Raises ElsewhereError when this server does not hold all of them."""
        found: dict[str, Mapping[str, Any]] = {}
        absent = []
        for series in wanted:
            rows = self._rows(series)
            found.update(rows)
            absent += [] if rows else [series]
        if absent:
            raise self._elsewhere(absent)
        return found

    def _elsewhere(self, absent: Sequence[str]) -> ElsewhereError:
        """Return the error about series that this server does not hold, once the other public one has been asked."""
        host = self._server().host
        other = next((name for name in HOSTS if self.url in HOSTS and name != self.url), "")
        found = f"{self.kind} at {host}: found {len(absent)} series in the list that this server does not hold"
        advice = "they may be restricted, withdrawn or at another server"
        if other:
            asked, some = self.model_copy(update={"url": other, "sign_in": None}), absent[:_SAMPLE]
            try:
                there = sum(bool(asked._rows(series)) for series in some)
            except SourceError:
                advice = f"they may be at the other public server (url: {other}), restricted or withdrawn"
            else:
                if there:
                    advice = f"the other public server (url: {other}) holds {there} of the first {len(some)} of them"
        return ElsewhereError(f"{found}; {advice}: divide the list", host=host)

    def _rows(self, series: str) -> Mapping[str, Mapping[str, Any]]:
        """Return the row of a series by study and series UID, once it has come twice; empty where it is not held."""
        host = self._server().host

        def ask() -> Mapping[str, Mapping[str, Any]]:
            return {name_of(row): row for row in self._ask(f"getSeries?SeriesInstanceUID={series}&format=json")}

        return confirmed(lambda: persist(ask, source=self.kind, host=host), source=self.kind, host=host)

    def _instances(self, series: str, stated: Any) -> Sequence[str]:
        """List the instances of a series until there are as many as ``ImageCount`` states."""
        path = f"getSOPInstanceUIDs?SeriesInstanceUID={series}&format=json"
        count = int(stated) if str(stated).isdigit() else None

        def ask() -> Mapping[str, None]:
            return dict.fromkeys(sorted({uid(row, *_INSTANCE_NAMES) for row in self._ask(path)}))

        host = self._server().host
        if count is None:
            return list(confirmed(lambda: persist(ask, source=self.kind, host=host), source=self.kind, host=host))
        return list(persist(lambda: enough(ask(), count), source=self.kind, host=host))

    def _bring(self, series: str, entries: Sequence[Entry]) -> None:
        """Fetch a series and keep its instances, unless all that are wanted are here. Raises IncompleteError."""
        contents, name = self._contents(), self._name(series)
        places = [place_of(name, entry.path.rpartition("/")[2]) for entry in entries]
        if all(contents.holds(place) for place in places):
            return
        operations = ["getImageWithMD5Hash", "getImage"]

        def read(answer: Answer) -> None:
            with contents.spool() as stream:
                _receive(answer, stream)
                with contents.pack(place_of(name)) as put:
                    for uid, data in _checked_members(stream):
                        put(place_of(name, uid), data)
            left = sum(not contents.holds(place) for place in places)
            if left:
                raise Fault(f"found a zip without {left} of {counted(len(places), 'instance')} that were listed")

        def attempt() -> None:
            try:
                self._server().once(f"{operations[0]}?SeriesInstanceUID={series}", read)
            except Fault as fault:
                if fault.status in _UNKNOWN and len(operations) > 1:
                    operations.append(operations.pop(0))  # older servers know no hashes
                raise

        persist(attempt, source=self.kind, host=self._server().host)

    def _ask(self, path: str) -> Sequence[dict[str, Any]]:
        """Return the rows of one query. An empty body means no rows."""
        return self._server().get(path, _read_rows, accept="application/json")

    def _server(self, version: str = "") -> Server:
        """Return the server, at the version of its API that the address names, or at another one."""
        url = HOSTS.get(self.url, self.url)
        url = re.sub(r"/v[0-9]+/?$", version, url) if version else url
        return server(url, self.sign_in, source=self.kind, gate=self.gate(host_of(url)))


def _read_rows(answer: Answer) -> Sequence[dict[str, Any]]:
    body = answer.body()
    try:
        rows = json.loads(body) if body.strip() else []
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        shown = answer.headers.get("content-type", "").partition(";")[0][:40] or "no type"
        raise Fault(f"found {len(body)} bytes of type {shown}, expected a list in JSON")
    return rows


def _origin(row: Mapping[str, Any]) -> Origin:
    """Return the terms that a row of getSeries states. A collection page at doi.org has the DOI in its address."""
    page = str(row.get("CollectionURI") or "")
    _, named, doi = page.partition("doi.org/")
    return Origin(
        title=row.get("Collection") or None,
        license=row.get("LicenseURI") or row.get("LicenseName") or None,
        doi=doi if named and doi.startswith("10.") else None,
        page=page if not named and page.startswith("http") else None,
    )


def _receive(answer: Answer, stream: IO[bytes]) -> None:
    """Write a body to a file, within the limit."""
    size = 0
    for chunk in answer.chunks:
        size += len(chunk)
        if size > SERIES_LIMIT:
            raise CaseError(Reason.TOO_LARGE, f"the series is larger than {SERIES_LIMIT:,} bytes")
        stream.write(chunk)
    stream.seek(0)


def _checked_members(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield UID and bytes of each DICOM file in a zip, checked against its CRC and the MD5 that the zip states.

    Licence texts beside them are ignored. Raises Fault when the zip is damaged, or lacks a file whose MD5 it states.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            if len(infos) > MEMBERS_LIMIT or sum(info.file_size for info in infos) > SERIES_LIMIT:
                raise CaseError(Reason.TOO_LARGE, f"the series inflates to more than {SERIES_LIMIT:,} bytes")
            hashes = _hashes(archive, infos)
            for info in infos:
                if info.file_size > MEMBER_LIMIT:
                    raise CaseError(Reason.TOO_LARGE, f"the series holds a file of more than {MEMBER_LIMIT:,} bytes")
                data = archive.read(info)
                stated = hashes.pop(info.filename.rpartition("/")[2], None)
                if stated is not None and hashlib.md5(data, usedforsecurity=False).hexdigest() != stated:
                    raise Fault("found an instance whose MD5 is not the one that the server states")
                if sniff(data[:1024]) == "dicom" and (uid := sop_instance_uid(data)):
                    yield uid, data
            if hashes:
                raise Fault(f"found a zip without {counted(len(hashes), 'file')} whose MD5 it states")
    except _DAMAGE as error:
        raise Fault(f"found a damaged zip ({type(error).__name__})") from None


def _hashes(archive: zipfile.ZipFile, infos: Sequence[zipfile.ZipInfo]) -> dict[str, str]:
    """Return the stated MD5 by file name; empty when the zip states none."""
    found = [info for info in infos if info.filename.rpartition("/")[2] == _HASHES]
    if not found or found[0].file_size > 2**26:
        return {}
    rows = list(csv.reader(io.StringIO(archive.read(found[0]).decode("utf-8", errors="replace"))))
    return {row[0].strip(): row[1].strip().lower() for row in rows[1:] if len(row) >= 2}
