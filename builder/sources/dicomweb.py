"""Read from a DICOMweb server: QIDO-RS lists, WADO-RS metadata describe, WADO-RS gets instances (PS3.18 chapter 10)."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, groupby
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote

from pydantic import Field

from builder.errors import CaseError, IncompleteError, Reason, SourceError, counted
from builder.headers.identity import sop_instance_uid
from builder.protocols import Description, Entry
from builder.sources.contents import Contents, place_of
from builder.sources.counted import UNLISTED, confirmed, enough, enough_studies
from builder.sources.described import IN_FLIGHT, Remote
from builder.sources.dicom_json import UID, count_of, json_list, syntax_of, uid_of, value_of
from builder.sources.header_files import HeaderFiles
from builder.sources.http import Answer, Server, host_of, server
from builder.sources.multipart import parts
from builder.sources.patience import Fault, persist
from builder.sources.signin import SignIn
from builder.sources.together import in_order

PAGE_LIMIT: Final = 100_000
"""Most pages of one query; more means that the server repeats itself."""

WHOLE: Final = frozenset({"RTSTRUCT"})
"""Modalities of which the objects themselves are indexed, because their metadata hold all contours as text."""

LOOK_BYTES: Final = 64 * 2**10
"""Most bytes at the start of an object in which its file meta information must end."""

_OBJECT_STAMP = "object"
_JSON = "application/dicom+json"
_OBJECT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_SYNTAX = re.compile(rb"DICM.*?\x02\x00\x10\x00UI[\x01-\x40]\x00([0-9.]{1,64})[^0-9.]", re.DOTALL)
"""Transfer Syntax UID (0002,0010) in file meta information, always in explicit VR little endian (PS3.10 7.1)."""

_PLAIN = re.compile(r"[A-Za-z0-9.*^,_:\-]*")
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_PATIENT, _STUDIES_OF_PATIENT = "00100020", "00201200"
_SERIES_OF_STUDY, _INSTANCES_OF_STUDY, _INSTANCES_OF_SERIES = "00201206", "00201208", "00201209"
_MODALITY = "00080060"

Found = dict[str, dict[str, Any]]
"""Attributes by UID."""


class DicomWeb(Remote):
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
    in a file is unknown. Where the metadata do not state the transfer syntax, that of the first instance of a series is
    read from its start, and taken for all of them. Structure sets are fetched whole, and kept. An entry's path is
    ``study/series/instance``. QIDO-RS reports no sizes, so they are listed as 0.
    """

    VERSION: ClassVar[int] = 3

    kind: Literal["dicomweb"] = "dicomweb"
    url: str
    query: Mapping[str, str] = Field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    page: int = Field(default=500, ge=1, le=10_000)
    sign_in: SignIn | None = None

    @property
    def lane(self) -> str:
        """Return one queue per server."""
        return self._queue(f"net:dicomweb:{self._host}")

    def list(self) -> Iterator[Entry]:
        """List every instance of the matching studies by study, series and instance UID.

        The server's own counts of series and instances decide whether a list is whole. Where it states none, the same
        list must come twice in a row, that of the studies three times. Raises SourceError.
        """
        studies = confirmed(self._studies(), source=self.kind, host=self._host, times=3)
        self._check_encoded_filters(studies)
        for entries in in_order(lambda item: self._listed(*item), studies.items(), width=self.at_once):
            yield from entries

    def describe(self, entries: Sequence[Entry]) -> Iterator[Description | CaseError]:
        """Yield each instance's header as a DICOM file without pixels, made from the metadata of its series.

        Structure sets are given as they are.
        """
        groups = (list(group) for _, group in groupby(entries, key=lambda entry: entry.path.split("/")[:2]))
        for found in in_order(self._describe_series, groups, width=self.at_once):
            yield from found

    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """Read bytes of an instance in its stored transfer syntax. Raises CaseError, SourceError.

        The first instance of a series that is asked for brings the whole series in one answer. What did not come with
        it is fetched alone.
        """
        study, series, instance = entry.path.split("/")
        contents, series_name = self._contents(), (self.url, study, series)
        place = place_of(series_name, instance)
        data = contents.read(place, start=start, length=length)
        if data is None and contents.begin(place_of(series_name)) and not contents.holds_any(place_of(series_name)):
            self._take_series(f"studies/{study}/series/{series}", series_name, contents)
            data = contents.read(place, start=start, length=length)
        if data is not None:
            return data
        path = f"studies/{study}/series/{series}/instances/{instance}"
        try:
            whole = _server(self).get(path, lambda answer: _only_object(answer, instance), accept=_OBJECT)
        except IncompleteError as error:
            raise self._left_out(error) from None
        contents.put(place, whole)
        return whole[start:] if length is None else whole[start : start + length]

    @property
    def _host(self) -> str:
        return host_of(self.url)

    def _rounds(self, entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
        """Yield one instance of each series, which brings the others, and then those that did not come."""
        first = {entry.path.rpartition("/")[0]: entry for entry in reversed(entries)}
        yield tuple(first.values())
        contents = self._contents()
        yield [entry for entry in entries if not contents.holds(self._place(entry))]

    def _place(self, entry: Entry) -> str:
        """Return where an instance is kept."""
        study, series, instance = entry.path.split("/")
        return place_of((self.url, study, series), instance)

    def _studies(self) -> Callable[[], Found]:
        """Return what lists the studies, in pages of another size each time: where a list ends differs then."""
        before = 0

        def ask() -> Found:
            nonlocal before
            other = self.page - 1 - (before == self.page - 1)  # a whole list of that length would look like a page
            found = self._find("studies", self.query, _STUDY, page=other if before and other > 0 else self.page)
            before = 0 if before else len(found)
            patients = [
                (value_of(item, _PATIENT) or "", count_of(item, _STUDIES_OF_PATIENT)) for item in found.values()
            ]
            return enough_studies(found, patients, self.query)

        return lambda: persist(ask, source=self.kind, host=self._host)

    def _listed(self, study: str, facts: Mapping[str, Any]) -> Sequence[Entry]:
        try:
            return self._list_study(study, facts)
        except IncompleteError as error:
            self._left_out(error)
            return [Entry(study, 0, UNLISTED)]

    def _list_study(self, study: str, facts: Mapping[str, Any]) -> Sequence[Entry]:
        """List the instances of a study. Raises IncompleteError when there are fewer than the server counts."""
        path = f"studies/{study}/series"
        series = self._counted(path, _SERIES, count_of(facts, _SERIES_OF_STUDY))
        entries = []
        for name, own in series.items():
            modality = value_of(own, _MODALITY)
            if not self.modalities or modality in self.modalities:
                found = self._counted(f"{path}/{name}/instances", _INSTANCE, count_of(own, _INSTANCES_OF_SERIES))
                stamp = _OBJECT_STAMP if modality in WHOLE else ""
                entries += [Entry(f"{study}/{name}/{instance}", 0, stamp) for instance in found]
        of_study = count_of(facts, _INSTANCES_OF_STUDY)
        if not self.modalities and of_study is not None and len(entries) < of_study:
            raise IncompleteError(
                f"{self.kind} at {self._host}: found {counted(len(entries), 'instance')} of a study, expected "
                f"{of_study} as the server counts (tried once); "
                "its lists and its counts contradict each other: have it count again",
                host=self._host,
            )
        return entries

    def _counted(self, path: str, tag: str, expected: int | None) -> Found:
        """List the members of a study or series until there are as many as the server counts."""

        def ask() -> Found:
            return self._find(path, {}, tag, expected=expected)

        if expected is None:
            return confirmed(ask, source=self.kind, host=self._host)
        return persist(lambda: enough(ask(), expected), source=self.kind, host=self._host)

    def _find(
        self, path: str, query: Mapping[str, str], tag: str, *, expected: int | None = None, page: int = 0
    ) -> Found:
        """Return everything that one QIDO-RS query finds, in the order of UIDs, page by page."""
        page = page or self.page
        filters = "".join(f"&{quote(k)}={_encoded(v)}" for k, v in sorted(query.items()))
        found: Found = {}
        received = 0
        for _ in range(PAGE_LIMIT):
            results = self._page(f"{path}?limit={page}&offset={received}{filters}", tag)
            new = {uid: item for uid, item in results if uid not in found}
            if not results or (not new and len(results) != page):
                break  # the end, or a server that ignores the limit and sends everything
            if not new:
                raise SourceError(
                    f"{self.kind} at {self._host}: the server repeats a page: it does not honour offset; raise page",
                    host=self._host,
                )
            found.update(new)
            received += len(results)  # a server may send fewer than were asked for, and have more
            if len(results) > page or (expected is not None and len(found) >= expected):
                break  # the server ignores the limit, or this was everything
        return dict(sorted(found.items()))

    def _page(self, path: str, tag: str) -> Sequence[tuple[str, dict[str, Any]]]:
        def read(answer: Answer) -> Sequence[tuple[str, dict[str, Any]]]:
            return [(uid_of(item, tag), item) for item in json_list(answer)]

        return _server(self).get(path, read, accept=_JSON)

    def _check_encoded_filters(self, found: Mapping[str, Any]) -> None:
        """Refuse an empty result if the server may just not have decoded the query (Orthanc does not)."""
        odd = [name for name, value in self.query.items() if not _PLAIN.fullmatch(value)]
        if odd and not found:
            raise SourceError(
                f"{self.kind} at {self._host}: nothing found by {', '.join(sorted(odd))}, whose value had to be "
                "percent-encoded, which some servers do not decode; filter by dates, UIDs or ids without spaces and "
                "special characters",
                host=self._host,
            )

    def _metadata(self, path: str, wanted: Collection[str]) -> Found:
        """Return the metadata of a series by SOP Instance UID, with those of all ``wanted`` instances."""

        def read(answer: Answer) -> Found:
            found = {uid_of(item, _INSTANCE): item for item in json_list(answer)}
            there = sum(instance in found for instance in wanted)
            if there < len(wanted):
                raise Fault(
                    f"found metadata of {counted(there, 'instance')} of a series, expected {len(wanted)} as were listed"
                )
            return found

        return _server(self).get(path, read, accept=_JSON)

    def _describe_series(self, members: Sequence[Entry]) -> Sequence[Description | CaseError]:
        """Describe instances of one series."""
        (study, *series), looked = members[0].path.split("/")[:2], ""
        wanted = [entry.path.rpartition("/")[2] for entry in members]
        if not series:
            return [CaseError(Reason.SOURCE_INCOMPLETE, "the source did not list the study whole after all tries")]
        if members[0].stamp == _OBJECT_STAMP:
            return [self._object(entry) for entry in members]
        path = f"studies/{study}/series/{series[0]}"
        try:
            found = self._metadata(f"{path}/metadata", wanted)
            if not all(syntax_of(found[instance]) for instance in wanted):
                looked = self._look(f"{path}/instances/{wanted[0]}")
        except IncompleteError as error:
            return [self._left_out(error)] * len(wanted)
        files = HeaderFiles()
        return [files.of(found[name], syntax_of(found[name]) or looked) for name in wanted]

    def _object(self, entry: Entry) -> Description | CaseError:
        """Return a whole object."""
        try:
            return Description(self.read(entry), whole=True)
        except CaseError as error:
            return error

    def _look(self, path: str) -> str:
        """Return the transfer syntax of an instance, read from its start. Raises IncompleteError, SourceError."""

        def read(answer: Answer) -> str:
            start, found, length = b"", None, answer.headers.get("content-length", "")
            while found is None and len(start) < LOOK_BYTES and (chunk := next(answer.chunks, b"")):
                start += chunk
                found = _SYNTAX.search(start)
            if found is None:
                raise Fault("found an object that is not DICOM, or states no transfer syntax")
            if length.isdigit() and int(length) <= 4 * LOOK_BYTES:
                for _ in answer.chunks:  # so little more that the connection is better kept
                    pass
            return found[1].decode()

        return _server(self).get(path, read, accept=_OBJECT)

    def _take_series(self, path: str, series: tuple[str, ...], contents: Contents) -> None:
        """Keep what one answer brings of a series. Some servers refuse, and some answers break off.

        A short answer is cut up once it is there, when the server has the next request already; a long one while it
        arrives. Each instance that does not come so is asked for alone, with all patience.
        """
        held: list[bytes] = []
        kind = ""

        def keep(chunks: Iterable[bytes]) -> None:
            with contents.pack(place_of(series)) as put:
                for _, data in parts(chunks, kind):
                    put(place_of(series, _identified(data)), data)

        def read(answer: Answer) -> None:
            nonlocal held, kind
            kind, size = answer.headers.get("content-type", ""), 0
            for chunk in answer.chunks:
                held.append(chunk)
                size += len(chunk)
                if size > IN_FLIGHT // self.at_once:
                    begun, held = held, []
                    keep(chain(begun, answer.chunks))

        with suppress(Fault, CaseError):
            _server(self).once(path, read, accept=_OBJECT)
        with suppress(Fault, CaseError):
            if held:
                keep(held)


def _server(source: DicomWeb) -> Server:
    return server(source.url, source.sign_in, source=source.kind, gate=source.gate(host_of(source.url)))


def _only_object(answer: Answer, instance: str) -> bytes:
    found = [data for _, data in parts(answer.chunks, answer.headers.get("content-type", ""))]
    if len(found) != 1:
        raise Fault(f"found {len(found)} objects in an answer, expected one")
    if _identified(found[0]) != instance:
        raise Fault("found another object than the one asked for")
    return found[0]


def _identified(data: bytes) -> str:
    """Return the UID of an object that came. Raises Fault when it is no DICOM object."""
    try:
        uid = sop_instance_uid(data)
    except CaseError:
        uid = ""
    if not UID.fullmatch(uid):
        raise Fault("found an object that is not DICOM, or has no UID")
    return uid


def _encoded(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else quote(value, safe="*^,")
