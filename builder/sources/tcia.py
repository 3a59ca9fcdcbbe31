"""Read from The Cancer Imaging Archive or any NBIA REST server: lists of series, each fetched as a zip."""

import csv
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import IO, Any, ClassVar, Final, Literal

from pydantic import model_validator

from builder.errors import CaseError, IncompleteError, Reason, SourceError, SpecError, counted
from builder.headers.identity import sop_instance_uid
from builder.headers.sniff import sniff
from builder.model.origin import Origin
from builder.protocols import Description, Entry
from builder.sources.contents import place_of
from builder.sources.counted import UNLISTED, confirmed, enough
from builder.sources.described import Remote
from builder.sources.http import Answer, Server, host_of, server
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

MANIFEST_LIMIT: Final = 256 * 2**20
_DIGEST_COLUMNS = ("seriesinstanceuid", "seriesuid", "seriesid")
_LIST = "ListOfSeriesToDownload="
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
    url: str = "nbia"
    patients: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    sign_in: SignIn | None = None

    @model_validator(mode="after")
    def _chooses(self) -> "Tcia":
        if not self.collection and not self.manifest:
            raise ValueError("found neither collection nor manifest, expected one of them")
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
            return self._series_of_manifest(self.manifest), frozenset()
        found = list_collection(self._ask, self.collection or "", source=self.kind, host=host)
        if found.short is None:
            return found.series, frozenset()
        short = {s for s in found.short_studies() if not self.patients or found.owners[s] in self.patients}
        if short:
            self._left_out(found.short)
        return found.series, frozenset(short)

    def _series_of_manifest(self, manifest: str) -> Mapping[str, Mapping[str, Any]]:
        host = self._server().host
        found: dict[str, Mapping[str, Any]] = {}
        absent = 0
        for series in read_manifest(manifest):
            path = f"getSeries?SeriesInstanceUID={series}&format=json"
            rows = confirmed(lambda path=path: self._rows(path), source=self.kind, host=host)  # type: ignore[misc]
            found.update(rows)
            absent += not rows
        if absent:
            other = next((name for name in HOSTS if name != self.url), "")
            raise SourceError(
                f"{self.kind} at {host}: found {absent} series in the manifest that this server does not hold; they "
                f"may be at the other public server (url: {other}), restricted or withdrawn: divide the manifest",
                host=host,
            )
        return found

    def _rows(self, path: str) -> Mapping[str, Mapping[str, Any]]:
        def ask() -> Mapping[str, Mapping[str, Any]]:
            return {name_of(row): row for row in self._ask(path)}

        return persist(ask, source=self.kind, host=self._server().host)

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

    def _server(self) -> Server:
        url = HOSTS.get(self.url, self.url)
        return server(url, self.sign_in, source=self.kind, gate=self.gate(host_of(url)))


def read_manifest(path: str) -> Sequence[str]:
    """Return the Series Instance UIDs that a manifest names, in its order.

    In a ``.tcia`` file the list follows the line ``ListOfSeriesToDownload=``. A line of the first version holds several
    fields between bars, of which the UID is one. In a digest of the portal (``.csv``, ``.xlsx``) it is the column of
    Series Instance UIDs.

    Raises
    ------
    SpecError
        When the file cannot be read or names no series.
    """
    suffix = Path(path).suffix.lower()
    try:
        if Path(path).stat().st_size > MANIFEST_LIMIT:
            raise SpecError(
                f"sources.manifest: found a file of more than {MANIFEST_LIMIT:,} bytes, expected a manifest"
            )
        if suffix in (".csv", ".xlsx"):
            return _read_digest(_rows_of_xlsx(path) if suffix == ".xlsx" else _rows_of_csv(path))
        text = Path(path).read_text("utf-8-sig")
    except (OSError, ValueError, csv.Error, KeyError, zipfile.BadZipFile) as error:
        raise SpecError(f"sources.manifest: found no file that can be read ({type(error).__name__})") from None
    _, mark, listed = text.partition(_LIST)
    fields = ([part.strip() for part in line.split("|")] for line in listed.splitlines())
    found = [next((part for part in parts if _is_uid(part)), "") for parts in fields if any(parts)]
    if not mark or not found or not all(found):
        raise SpecError(
            f"sources.manifest: found {counted(len(found), 'line')} after {_LIST!r}, expected a Series Instance UID in "
            "each; download the manifest from TCIA again"
        )
    return list(dict.fromkeys(found))


def _read_digest(rows: Iterator[Sequence[Any]]) -> Sequence[str]:
    """Return the UIDs in the column of a digest that holds them, in its order. Raises SpecError."""
    header = [str(name or "").replace(" ", "").replace("_", "").lower() for name in next(rows, ())]
    place = next((header.index(name) for name in _DIGEST_COLUMNS if name in header), None)
    if place is None:
        raise SpecError("sources.manifest: found no column Series Instance UID, expected one in a digest of the portal")
    found = [str(row[place] or "").strip() if place < len(row) else "" for row in rows if any(row)]
    if not found or not all(map(_is_uid, found)):
        wrong = sum(not _is_uid(uid) for uid in found)
        raise SpecError(
            f"sources.manifest: found {wrong} of {counted(len(found), 'row')} without a Series Instance UID, "
            "expected one in each; download the digest from TCIA again "
            "(a spreadsheet program may have turned UIDs into numbers)"
        )
    return list(dict.fromkeys(found))


def _rows_of_csv(path: str) -> Iterator[Sequence[str]]:
    with Path(path).open(encoding="utf-8-sig", newline="") as stream:
        yield from csv.reader(stream)


def _rows_of_xlsx(path: str) -> Iterator[Sequence[Any]]:
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        yield from book.worksheets[0].iter_rows(values_only=True)
    finally:
        book.close()


def _is_uid(text: str) -> bool:
    return bool(text) and set(text) <= set("0123456789.") and "." in text and len(text) <= 64


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
