"""Read from a DICOMweb server: QIDO-RS lists, WADO-RS metadata describe, WADO-RS gets instances (PS3.18 chapter 10)."""

import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote

import pydicom
from pydantic import Field
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from builder.errors import CaseError, Reason, SourceError
from builder.headers.boundary import parsing
from builder.headers.identity import sop_instance_uid
from builder.protocols import Description, Entry
from builder.sources.described import Described
from builder.sources.http import Answer, Server, SignIn, server
from builder.sources.multipart import parts

PAGE_LIMIT: Final = 100_000
"""Most pages of one query; more means that the server repeats itself."""

VALUES_LIMIT: Final = 256
"""Most values of an element in a description; longer elements are left out."""

_JSON = "application/dicom+json"
_OBJECT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_UID = re.compile(r"[0-9.]{1,64}")
_PLAIN = re.compile(r"[A-Za-z0-9.*^,_:\-]*")
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"


class DicomWeb(Described):
    """Instances behind a DICOMweb service.

    Parameters
    ----------
    url
        Root of the service, e.g. ``https://pacs.example/dicom-web``.
    query
        Study-level filters by keyword or tag, e.g. ``{StudyDate: 20200101-20201231, ModalitiesInStudy: PT}``.
    modalities
        Modalities of the series wanted; empty means all.
    page
        Number of results to request at a time.
    sign_in
        How to sign in.

    Notes
    -----
    The index is made from metadata, so ``header_sha256`` is computed over the metadata, and the position of the pixels
    in a file is unknown. An entry's path is ``study/series/instance``. QIDO-RS reports no sizes, so they are listed as
    0.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["dicomweb"] = "dicomweb"
    url: str
    query: Mapping[str, str] = Field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    page: int = Field(default=500, ge=1, le=10_000)
    sign_in: SignIn | None = None

    @property
    def lane(self) -> str:
        """Return one queue per server."""
        return f"net:dicomweb:{_server(self).host}"

    def list(self) -> Iterator[Entry]:
        """List every instance of the matching studies by study, series and instance UID. Raises SourceError."""
        for study in self._find("studies", self.query, _STUDY):
            for series, facts in self._find(f"studies/{study}/series", {}, _SERIES).items():
                if self.modalities and _value(facts, "00080060") not in self.modalities:
                    continue
                for instance in self._find(f"studies/{study}/series/{series}/instances", {}, _INSTANCE):
                    yield Entry(f"{study}/{series}/{instance}", 0, "")

    def describe(self, entries: Sequence[Entry]) -> Iterator[Description | CaseError]:
        """Yield each instance's header as a DICOM file without pixels, made from the metadata of its series."""
        for (study, series), group in groupby(entries, key=lambda entry: tuple(entry.path.split("/")[:2])):
            try:
                found = self._metadata(f"studies/{study}/series/{series}/metadata")
            except CaseError as error:
                yield from (error for _ in group)
                continue
            for entry in group:
                yield _header_file(found.get(entry.path.rpartition("/")[2]))

    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """Read bytes of an instance in its stored transfer syntax. Raises CaseError, SourceError."""
        study, series, instance = entry.path.split("/")
        path = f"studies/{study}/series/{series}/instances/{instance}"
        answer = _server(self).get(path, accept=_OBJECT)
        found = list(parts(answer.body, answer.headers.get("content-type", "")))
        if len(found) != 1:
            raise CaseError(Reason.UNREADABLE, f"found {len(found)} objects in the answer, expected one")
        data = found[0][1]
        if sop_instance_uid(data) != instance:
            raise CaseError(Reason.SOURCE_CHANGED, "the server sent another object than the one asked for")
        return data[start:] if length is None else data[start : start + length]

    def _find(self, path: str, query: Mapping[str, str], tag: str) -> dict[str, dict[str, Any]]:
        """Return attributes by UID for everything one QIDO-RS query finds, in the order of UIDs, page by page."""
        filters = "".join(f"&{quote(k)}={_encoded(v)}" for k, v in sorted(query.items()))
        found: dict[str, dict[str, Any]] = {}
        for page in range(PAGE_LIMIT):
            answer = _server(self).get(f"{path}?limit={self.page}&offset={page * self.page}{filters}", accept=_JSON)
            results = _json_list(answer, _server(self).host)
            new = {uid: item for item in results if (uid := _uid(item, tag)) not in found}
            if not results or (not new and len(results) != self.page):
                break  # the end, or a server that ignores the limit and sends everything
            if not new:
                raise SourceError("the server repeats a page: it does not honour offset", host=_server(self).host)
            found.update(new)
            if len(results) > self.page:
                break  # the server ignores the limit, so this was everything
        self._check_encoded_filters(query, found)
        return dict(sorted(found.items()))

    def _check_encoded_filters(self, query: Mapping[str, str], found: Mapping[str, Any]) -> None:
        """Refuse an empty result if the server may just not have decoded the query (Orthanc does not)."""
        odd = [name for name, value in query.items() if not _PLAIN.fullmatch(value)]
        if odd and not found:
            raise SourceError(
                f"nothing found by {', '.join(sorted(odd))}, whose value had to be percent-encoded, which some servers "
                "do not decode; filter by dates, UIDs or ids without spaces and special characters",
                host=_server(self).host,
            )

    def _metadata(self, path: str) -> dict[str, dict[str, Any]]:
        """Return the metadata of a series by SOP Instance UID."""
        answer = _server(self).get(path, accept=_JSON)
        return {_uid(item, _INSTANCE): item for item in _json_list(answer, _server(self).host)}


def _server(source: DicomWeb) -> Server:
    return server(source.url, source.sign_in)


def _encoded(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else quote(value, safe="*^,")


def _json_list(answer: Answer, host: str) -> list[dict[str, Any]]:
    if answer.status == 204 or not answer.body:
        return []
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise SourceError("the server's answer is not JSON", host=host) from None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise SourceError("the server's answer is not a list of data sets (PS3.18 annex F)", host=host)
    return found


def _uid(item: Mapping[str, Any], tag: str) -> str:
    uid = _value(item, tag)
    if uid is None or not _UID.fullmatch(uid):
        raise SourceError(f"found a result without a UID in ({tag[:4]},{tag[4:]}), expected one in each", host="")
    return uid


def _value(item: Mapping[str, Any], tag: str) -> str | None:
    values = (item.get(tag) or {}).get("Value") or [None]
    return values[0] if isinstance(values[0], str) else None


def _header_file(item: Mapping[str, Any] | None) -> Description | CaseError:
    """Encode metadata (PS3.18 annex F) as a DICOM file without bulk data and pixels."""
    if item is None:
        return CaseError(Reason.SOURCE_MISSING, "the series' metadata do not hold the instance that was listed")
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings(), parsing(Reason.UNREADABLE, "pydicom cannot parse the metadata"):
            warnings.simplefilter("ignore")
            dataset = Dataset.from_json(_without_bulk(item))
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    except CaseError as error:
        return error
    return Description(stream.getvalue(), whole=False)


def _without_bulk(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata without file meta information, bulk data and pixels, at any depth."""
    kept: dict[str, Any] = {}
    for tag, element in item.items():
        if tag.startswith("0002") or tag in ("7FE00008", "7FE00009", "7FE00010") or "BulkDataURI" in element:
            continue
        if element.get("vr") != "SQ" and len(element.get("Value", ())) > VALUES_LIMIT:
            continue  # contours, which are slow to convert and useless to the index
        if element.get("vr") == "SQ":
            element = {"vr": "SQ", "Value": [_without_bulk(child) for child in element.get("Value", [])]}
        kept[tag] = element
    return kept
