"""Read from a PACS by DIMSE: C-FIND lists, C-GET or C-MOVE fetches a series (PS3.4 annex C)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from builder.errors import CaseError, IncompleteError, Reason, counted
from builder.protocols import Description, Entry
from builder.sources.associations import Found, Peer, Session
from builder.sources.contents import place_of
from builder.sources.counted import UNLISTED, confirmed, enough, enough_studies
from builder.sources.described import Remote
from builder.sources.patience import Fault, persist
from builder.sources.politeness import Turn
from builder.sources.tls import Tls
from builder.sources.together import in_order

_COUNTS = ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
_OF_PATIENT = ("PatientID", "NumberOfPatientRelatedStudies")
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
    tls
        Encrypts the connection. Without it, use the connection inside a trusted network or through a tunnel.

    Notes
    -----
    An entry's path is ``study/series/instance``. Its stamp is the SOP class, if the PACS reports it. Indexing fetches
    every series once.
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
    tls: Tls | None = None

    @model_validator(mode="after")
    def _move_has_a_port(self) -> "Dimse":
        if self.retrieve == "move" and self.store_port is None:
            raise ValueError("retrieve: move needs store_port, the port the PACS knows for calling_ae")
        return self

    @property
    def lane(self) -> str:
        """Return one queue per PACS."""
        return self._queue(f"net:dimse:{self.host}:{self.port}")

    def list(self) -> Iterator[Entry]:
        """List every instance of the matching studies by study, series and instance UID.

        The PACS's own counts, where it states them, decide whether a list is whole. Where it states none, the same list
        must come twice in a row, that of the studies three times. Raises SourceError.
        """

        def ask() -> Found:
            found = self._find("STUDY", self.query, (*_COUNTS, *_OF_PATIENT))
            patients = [(facts.get(_OF_PATIENT[0], ""), _number(facts, _OF_PATIENT[1])) for facts in found.values()]
            return enough_studies(found, patients, self.query)

        studies = confirmed(
            lambda: persist(ask, source=self.kind, host=self._peer.name),
            source=self.kind, host=self._peer.name, times=3,
        )  # fmt: skip
        for entries in in_order(lambda item: self._listed(*item), studies.items(), width=self.at_once):
            yield from entries

    def describe(self, entries: Sequence[Entry]) -> Iterator[Description | CaseError]:
        """Yield each instance in full, because C-FIND returns too little to index it."""
        groups = (tuple(group) for _, group in groupby(entries, key=lambda entry: entry.path.rpartition("/")[0]))
        for members, fault in in_order(self._brought, groups, width=self.at_once):
            for entry in members:
                try:
                    yield fault or Description(self.read(entry), whole=True)
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
    def connections(self) -> int:
        """Return the number of associations: with C-MOVE one, because there is one port to send to."""
        return 1 if self.retrieve == "move" else super().connections

    @property
    def at_once(self) -> int:
        """Return the number of associations, for objects are kept while the PACS sends them."""
        return self.connections

    @property
    def _peer(self) -> Peer:
        return Peer(self.host, self.port, self.called_ae, self.calling_ae, self.store_port, self.retrieve, self.tls)

    def _turn(self) -> AbstractContextManager[Turn]:
        return self.gate(self._peer.name).turn()

    def _series(self, study: str, series: str) -> tuple[str, ...]:
        return ("dimse", self.host, str(self.port), self.called_ae, study, series)

    def _find(
        self, level: str, keys: Mapping[str, str], wanted: Sequence[str], *, expected: int | None = None
    ) -> Found:
        """Return what one C-FIND finds, once it is as much as the PACS counts."""

        name, recording = self._peer.name, self._recording
        request = ("find", name, self.called_ae, level, repr(sorted(keys.items())))
        if recording is not None and recording.replays:
            replayed: Found = json.loads(recording.get(request, source=self.kind, host=name))
            return replayed

        def attempt() -> Found:
            with self._turn() as turn:
                return enough(Session(self._peer, turn).find(level, keys, wanted=wanted), expected)

        found = persist(attempt, source=self.kind, host=name)
        if recording is not None:
            recording.put(request, json.dumps(found).encode())
        return found

    def _brought(self, members: Sequence[Entry]) -> tuple[Sequence[Entry], CaseError | None]:
        """Fetch instances of one series; return them, and why they did not come."""
        if members[0].stamp == UNLISTED:
            why = "the source did not list the study whole after all tries"
            return members, CaseError(Reason.SOURCE_INCOMPLETE, why)
        study, series = members[0].path.split("/")[:2]
        try:
            self._bring(study, series, members)
        except IncompleteError as error:
            return members, self._left_out(error)
        return members, None

    def _rounds(self, entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
        """Yield one instance of each series, which brings the others."""
        yield tuple({entry.path.rpartition("/")[0]: entry for entry in reversed(entries)}.values())

    def _listed(self, study: str, facts: Mapping[str, str]) -> Sequence[Entry]:
        try:
            return self._list_study(study, facts)
        except IncompleteError as error:
            self._left_out(error)
            return [Entry(study, 0, UNLISTED)]

    def _list_study(self, study: str, facts: Mapping[str, str]) -> Sequence[Entry]:
        """List the instances of a study. Raises IncompleteError when there are fewer than the PACS counts."""
        entries = []
        keys = {"StudyInstanceUID": study}
        found = self._members("SERIES", keys, ("Modality", _COUNT), expected=_number(facts, _COUNTS[0]))
        for series, own in found.items():
            if not self.modalities or own["Modality"] in self.modalities:
                named = keys | {"SeriesInstanceUID": series}
                members = self._members("IMAGE", named, ("SOPClassUID",), expected=_number(own, _COUNT))
                entries += [Entry(f"{study}/{series}/{uid}", 0, each["SOPClassUID"]) for uid, each in members.items()]
        of_study = _number(facts, _COUNTS[1])
        if not self.modalities and of_study is not None and len(entries) < of_study:
            raise IncompleteError(
                f"{self.kind} at {self._peer.name}: found {counted(len(entries), 'instance')} of a study, expected "
                f"{of_study} as the PACS counts (tried once); "
                "its lists and its counts contradict each other: have it count again",
                host=self.host,
            )
        return entries

    def _members(self, level: str, keys: Mapping[str, str], wanted: Sequence[str], *, expected: int | None) -> Found:
        """Return what one C-FIND finds. Where the PACS states no count (dcmqrscp), it must find it twice in a row.

        dcmqrscp leaves an answer out now and then while it answers others, and reports success.
        """

        def ask() -> Found:
            return self._find(level, keys, wanted, expected=expected)

        if expected is not None:
            return ask()
        return confirmed(ask, source=self.kind, host=self._peer.name)

    def _bring(self, study: str, series: str, entries: Sequence[Entry]) -> None:
        """Have the PACS send the wanted instances of a series that are not here yet.

        A series of which nothing is here is asked for whole; after that each missing instance alone, so that nothing
        comes twice. Raises IncompleteError, SourceError.
        """
        contents, name = self._contents(), self._series(study, series)
        places = {entry.path.rpartition("/")[2]: place_of(name, entry.path.rpartition("/")[2]) for entry in entries}
        classes = tuple(sorted({entry.stamp for entry in entries if entry.stamp}))

        recording = self._recording

        def keep(uid: str, data: bytes) -> None:
            if recording is not None:
                recording.put((*name, uid), data)
            contents.put(place_of(name, uid), data)

        if recording is not None and recording.replays:
            for uid, place in places.items():
                if not contents.holds(place):
                    contents.put(place, recording.get((*name, uid), source=self.kind, host=self._peer.name))
            return

        def attempt() -> None:
            missing = [uid for uid, place in places.items() if not contents.holds(place)]
            if not missing:
                return
            told = []
            with self._turn() as turn:
                session = Session(self._peer, turn, classes=classes)
                whole = contents.begin(place_of(name)) and not contents.holds_any(place_of(name))
                for uid in [""] if whole else missing:
                    told.append(session.retrieve(study, series, uid, keep=keep).text())
            left = sum(not contents.holds(place) for place in places.values())
            if left:
                said = "; ".join(dict.fromkeys(text for text in told if text))
                raise Fault(
                    f"{left} of {counted(len(places), 'instance')} of a series did not come{'; ' if said else ''}{said}"
                )

        persist(attempt, source=self.kind, host=self._peer.name)


def _number(facts: Mapping[str, str], name: str) -> int | None:
    """Return a count that the PACS states; None when it states none."""
    text = facts.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() else None
