"""Read from a PACS by DIMSE: C-FIND lists, C-GET or C-MOVE fetches a series (PS3.4 annex C)."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from builder.errors import CaseError, IncompleteError, Reason
from builder.protocols import Description, Entry
from builder.sources.associations import Found, Peer, Session
from builder.sources.contents import place_of
from builder.sources.counted import UNLISTED, confirmed, enough
from builder.sources.described import Remote
from builder.sources.patience import Fault, persist

_COUNTS = ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
_COUNT = "NumberOfSeriesRelatedInstances"


class Dimse(Remote):
    """Instances of a PACS that speaks the DICOM upper layer protocol.

    Parameters
    ----------
    host, port, called_ae
        Address and Application Entity Title of the PACS.
    calling_ae
        Our Application Entity Title; the PACS must know it, with ``store_port`` for C-MOVE.
    retrieve
        ``get`` sends instances over our connection. ``move`` makes the PACS connect to ``store_port`` on this machine,
        so that only one process per machine can retrieve at a time.
    query
        Study-level keys by keyword, e.g. ``{StudyDate: 20200101-20201231}``.
    modalities
        Modalities of the series wanted; empty means all.

    Notes
    -----
    The connection is not encrypted: use it inside a trusted network or through a tunnel. An entry's path is
    ``study/series/instance``. Its stamp is the SOP class, if the PACS reports it. Indexing fetches every series once.
    """

    VERSION: ClassVar[int] = 2

    kind: Literal["dimse"] = "dimse"
    host: str
    port: int = Field(default=104, ge=1, le=65535)
    called_ae: str = Field(min_length=1, max_length=16)
    calling_ae: str = Field(default="BUILDER", min_length=1, max_length=16)
    retrieve: Literal["get", "move"] = "get"
    store_port: int | None = Field(default=None, ge=1, le=65535)
    """Port on this machine that the PACS sends to with ``retrieve: move``."""
    query: Mapping[str, str] = Field(default_factory=dict)
    modalities: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _move_has_a_port(self) -> "Dimse":
        if self.retrieve == "move" and self.store_port is None:
            raise ValueError("retrieve: move needs store_port, the port the PACS knows for calling_ae")
        return self

    @property
    def lane(self) -> str:
        """Return one queue per PACS."""
        return f"net:dimse:{self.host}:{self.port}"

    def list(self) -> Iterator[Entry]:
        """List every instance of the matching studies by study, series and instance UID, over one association.

        The PACS's own counts, where it states them, decide whether a list is whole. Raises SourceError.
        """
        with Session(self._peer) as session:

            def ask() -> Found:
                find = partial(session.find, "STUDY", self.query, wanted=_COUNTS)
                return persist(find, source=self.kind, host=self._peer.name)

            studies = confirmed(ask, source=self.kind, host=self._peer.name)
            for study, facts in studies.items():
                try:
                    entries = self._list_study(session, study, facts)
                except IncompleteError as error:
                    self._left_out(error)
                    entries = [Entry(study, 0, UNLISTED)]
                yield from entries

    def describe(self, entries: Sequence[Entry]) -> Iterator[Description | CaseError]:
        """Yield each instance in full, because C-FIND returns too little to index it."""
        for path, group in groupby(entries, key=lambda entry: entry.path.rpartition("/")[0]):
            members = tuple(group)
            if members[0].stamp == UNLISTED:
                yield CaseError(Reason.SOURCE_INCOMPLETE, "the source did not list the study whole after all tries")
                continue
            study, series = path.split("/")
            try:
                self._bring(study, series, members)
            except IncompleteError as error:
                reason = self._left_out(error)
                yield from (reason for _ in members)
                continue
            for entry in members:
                try:
                    yield Description(self.read(entry), whole=True)
                except CaseError as error:
                    yield error

    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """Read bytes of an instance as a DICOM file, fetched with its series. Raises CaseError, SourceError."""
        study, series, instance = entry.path.split("/")
        place, contents = place_of(self._series(study, series), instance), self._contents()
        while (data := contents.read(place, start=start, length=length)) is None:  # others may remove what is old
            try:
                self._bring(study, series, (entry,))
            except IncompleteError as error:
                raise self._left_out(error) from None
        return data

    @property
    def _peer(self) -> Peer:
        return Peer(self.host, self.port, self.called_ae, self.calling_ae, self.store_port, self.retrieve)

    def _series(self, study: str, series: str) -> tuple[str, ...]:
        return ("dimse", self.host, str(self.port), self.called_ae, study, series)

    def _list_study(self, session: Session, study: str, facts: Mapping[str, str]) -> Sequence[Entry]:
        """List the instances of a study. Raises IncompleteError when there are fewer than the PACS counts."""

        def counted(level: str, keys: Mapping[str, str], wanted: Sequence[str], expected: int | None) -> Found:
            def ask() -> Found:
                return enough(session.find(level, keys, wanted=wanted), expected)

            return persist(ask, source=self.kind, host=self._peer.name)

        entries = []
        keys = {"StudyInstanceUID": study}
        found = counted("SERIES", keys, ("Modality", _COUNT), _number(facts, _COUNTS[0]))
        for series, own in found.items():
            if not self.modalities or own["Modality"] in self.modalities:
                named = keys | {"SeriesInstanceUID": series}
                members = counted("IMAGE", named, ("SOPClassUID",), _number(own, _COUNT))
                entries += [Entry(f"{study}/{series}/{uid}", 0, each["SOPClassUID"]) for uid, each in members.items()]
        of_study = _number(facts, _COUNTS[1])
        if not self.modalities and of_study is not None and len(entries) < of_study:
            raise IncompleteError(
                f"{self.kind} at {self._peer.name}: found {len(entries)} instances of a study, expected {of_study} as "
                "the PACS counts (tried once); its lists and its counts contradict each other: have it count again",
                host=self.host,
            )
        return entries

    def _bring(self, study: str, series: str, entries: Sequence[Entry]) -> None:
        """Have the PACS send the wanted instances of a series that are not here yet.

        A series of which nothing is here is asked for whole; after that each missing instance alone, so that nothing
        comes twice. Raises IncompleteError, SourceError.
        """
        contents, name = self._contents(), self._series(study, series)
        places = {entry.path.rpartition("/")[2]: place_of(name, entry.path.rpartition("/")[2]) for entry in entries}
        classes = tuple(sorted({entry.stamp for entry in entries if entry.stamp}))

        def keep(uid: str, data: bytes) -> None:
            contents.put(place_of(name, uid), data)

        def attempt() -> None:
            missing = [uid for uid, place in places.items() if not contents.holds(place)]
            if not missing:
                return
            with Session(self._peer, classes=classes, keep=keep) as session:
                if contents.begin(place_of(name)) and not contents.holds_any(place_of(name)):
                    session.retrieve(study, series)
                else:
                    for uid in missing:
                        session.retrieve(study, series, uid)
            left = sum(not contents.holds(place) for place in places.values())
            if left:
                raise Fault(f"{left} of {len(places)} instances of a series did not come{session.told()}")

        persist(attempt, source=self.kind, host=self._peer.name)


def _number(facts: Mapping[str, str], name: str) -> int | None:
    """Return a count that the PACS states; None when it states none."""
    text = facts.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() else None
