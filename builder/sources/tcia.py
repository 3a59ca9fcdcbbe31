"""Read from The Cancer Imaging Archive or any NBIA REST server: lists of series, each fetched as a zip."""

import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote

from builder.errors import CaseError, Reason, SourceError
from builder.headers.identity import sop_instance_uid
from builder.headers.sniff import sniff
from builder.model.origin import Origin
from builder.protocols import Description, Entry
from builder.sources.described import Described
from builder.sources.http import Server, SignIn, server
from builder.sources.series_cache import CACHE_LIMIT, SeriesFolder, series_cache

PUBLIC_URL: Final = "https://services.cancerimagingarchive.net/nbia-api/services/v1"

_INSTANCE_NAMES = ("SOPInstanceUID", "sop_instance_uid")


class Tcia(Described):
    """Series of one collection.

    Parameters
    ----------
    url
        Root of the API. Version 1 is public; version 2 (``.../services/v2``) needs ``sign_in`` with a bearer token.
    collection
        Name of the collection; it becomes a column of the dataset.
    patients, modalities
        Wanted PatientIDs and modalities; empty means all.

    Notes
    -----
    An entry's path is ``study/series/instance``. Indexing fetches every series once. A zip may be at most 4 GiB.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["tcia"] = "tcia"
    collection: str
    url: str = PUBLIC_URL
    patients: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    sign_in: SignIn | None = None
    """How to sign in; public collections need none."""

    @property
    def lane(self) -> str:
        """Return one queue per server."""
        return f"net:tcia:{self._server().host}"

    def list(self) -> Iterator[Entry]:
        """List every instance of the collection's series, ordered by UIDs.

        Raises SourceError also when a series lists fewer or more instances than its ``ImageCount`` says.
        """
        found = self._ask(f"getSeries?Collection={quote(self.collection)}&format=json")
        rows = {(_text(row, "StudyInstanceUID"), _text(row, "SeriesInstanceUID")): row for row in found}
        for (study, series), row in sorted(rows.items()):
            if self.modalities and row.get("Modality") not in self.modalities:
                continue
            if self.patients and row.get("PatientID") not in self.patients:
                continue
            instances = self._instances(series)
            count = row.get("ImageCount")
            if count is not None and int(count) != len(instances):
                raise SourceError(
                    f"a series lists {len(instances)} instances, its ImageCount says {count}", host=self._server().host
                )
            yield from (Entry(f"{study}/{series}/{instance}", 0, "") for instance in instances)

    def describe(self, entries: Sequence[Entry]) -> Iterator[Description | CaseError]:
        """Yield each instance in full, because the API describes series only."""
        for entry in entries:
            try:
                yield Description(self.read(entry), whole=True)
            except CaseError as error:
                yield error

    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """Read bytes of an instance, fetched with its series. Raises CaseError, SourceError."""
        _, series, instance = entry.path.split("/")

        def fetch(folder: SeriesFolder) -> None:
            answer = self._server().get(f"getImage?SeriesInstanceUID={series}")
            _unpack(answer.body, folder, self._server().host)

        return series_cache().read(("tcia", self.url, series), instance, fetch, start=start, length=length)

    def series_origins(self) -> Mapping[str, Origin]:
        """Return licence and collection of every series, as the server lists them. Raises SourceError."""
        found = self._ask(f"getSeries?Collection={quote(self.collection)}&format=json")
        return {_text(row, "SeriesInstanceUID"): _origin(row) for row in found}

    def _instances(self, series: str) -> Sequence[str]:
        found = self._ask(f"getSOPInstanceUIDs?SeriesInstanceUID={series}&format=json")
        return sorted({_text(row, *_INSTANCE_NAMES) for row in found})

    def _ask(self, path: str) -> Sequence[dict[str, Any]]:
        """Return the rows of one query. An empty body means no rows."""
        body = self._server().get(path, accept="application/json").body
        try:
            rows = json.loads(body) if body.strip() else []
        except (ValueError, RecursionError):
            rows = None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise SourceError("the server's answer is not a JSON list of objects", host=self._server().host)
        return rows

    def _server(self) -> Server:
        return server(self.url, self.sign_in)


def _text(row: dict[str, Any], *names: str) -> str:
    """Return the first of some fields that exists. It must be a UID, because it becomes part of paths."""
    value = next((row[name] for name in names if isinstance(row.get(name), str)), "")
    if not value or not set(value) <= set("0123456789."):
        raise SourceError(f"found a row without a UID in {names[0]}, expected one in each", host="")
    return value


def _origin(row: dict[str, Any]) -> Origin:
    """Return the terms that a row of getSeries states. A collection page at doi.org has the DOI in its address."""
    page = str(row.get("CollectionURI") or "")
    _, named, doi = page.partition("doi.org/")
    return Origin(
        title=row.get("Collection") or None,
        license=row.get("LicenseURI") or row.get("LicenseName") or None,
        doi=doi if named and doi.startswith("10.") else None,
        page=page if not named and page.startswith("http") else None,
    )


def _unpack(body: bytes, folder: SeriesFolder, host: str) -> None:
    """Put the DICOM files of a zip into ``folder``. Licence texts and checksums beside them are ignored."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            if sum(info.file_size for info in infos) > CACHE_LIMIT:
                raise CaseError(Reason.TOO_LARGE, f"the series inflates to more than {CACHE_LIMIT} bytes")
            for info in infos:
                with archive.open(info) as member:
                    data = member.read(info.file_size + 1)
                if sniff(data[:1024]) == "dicom" and (uid := sop_instance_uid(data)):
                    folder.put(uid, data)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise SourceError(f"the server sent a damaged zip ({type(error).__name__})", host=host) from None
