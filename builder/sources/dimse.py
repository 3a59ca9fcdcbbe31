"""Read from a PACS by DIMSE: C-FIND lists, C-GET or C-MOVE fetches a series (PS3.4 annex C)."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, model_validator
from pydicom.dataset import Dataset

from builder.errors import CaseError, MissingExtra, SourceError
from builder.protocols import Description, Entry
from builder.sources.described import Described
from builder.sources.series_cache import SeriesFolder, series_cache

TIMEOUT_S: Final = 60.0
"""Longest wait for an answer and for the connection."""

_TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
)
_CONTEXTS = 126
"""Presentation contexts that an association may propose (128), less those of the query."""

_COMMON_CLASSES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "128", "481.3", "66.4", "2.1", "4.1", "1.1", "88.33")
)
_LEVELS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
_PENDING = (0xFF00, 0xFF01)
_SUCCESS, _WARNING = 0x0000, 0xB000


class Dimse(Described):
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

    VERSION: ClassVar[int] = 1

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
        """List every instance of the matching studies by study, series and instance UID. Raises SourceError."""
        for study in self._find("STUDY", self.query, ""):
            for series, found in self._find("SERIES", {"StudyInstanceUID": study}, "Modality").items():
                if self.modalities and found not in self.modalities:
                    continue
                keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
                for instance, sop_class in self._find("IMAGE", keys, "SOPClassUID").items():
                    yield Entry(f"{study}/{series}/{instance}", 0, sop_class)

    def describe(self, entries: Sequence[Entry]) -> Iterator[Description | CaseError]:
        """Yield each instance in full, because C-FIND returns too little to index it."""
        for entry in entries:
            try:
                yield Description(self.read(entry), whole=True)
            except CaseError as error:
                yield error

    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """Read bytes of an instance as a DICOM file, fetched with its series. Raises CaseError, SourceError."""
        study, series, instance = entry.path.split("/")
        name = ("dimse", self.host, str(self.port), self.called_ae, study, series)

        def fetch(folder: SeriesFolder) -> None:
            self._fetch(study, series, entry.stamp, folder)

        return series_cache().read(name, instance, fetch, start=start, length=length)

    def _find(self, level: str, keys: Mapping[str, str], wanted: str) -> dict[str, str]:
        """Return the ``wanted`` attribute by UID for everything one C-FIND finds, in the order of UIDs."""
        net = _pynetdicom()
        model = net.sop_class.StudyRootQueryRetrieveInformationModelFind
        query = Dataset()
        query.QueryRetrieveLevel = level
        for name in (_LEVELS[level], *filter(None, (wanted,))):
            setattr(query, name, "")
        for name, value in keys.items():
            setattr(query, name, value)
        found: dict[str, str] = {}
        with self._association([(model, None)]) as association:
            for status, item in association.send_c_find(query, model):
                if self._checked(status, "C-FIND") in _PENDING and item is not None:
                    uid = str(item.get(_LEVELS[level]) or "")
                    if uid:
                        found[uid] = str(item.get(wanted) or "") if wanted else ""
        return dict(sorted(found.items()))

    def _fetch(self, study: str, series: str, sop_class: str, folder: SeriesFolder) -> None:
        """Have the PACS send one series to ``folder``."""
        query = Dataset()
        query.QueryRetrieveLevel = "SERIES"
        query.StudyInstanceUID, query.SeriesInstanceUID = study, series
        receiver = _Receiver(folder)
        run = self._get if self.retrieve == "get" else self._move
        last = run(query, receiver, (sop_class,) if sop_class else _COMMON_CLASSES)
        if receiver.error is not None:
            raise receiver.error
        if last not in (_SUCCESS, _WARNING):  # a warning means missing instances, each reported when it is read
            raise SourceError(f"the PACS ended the retrieval with status {last:#06x}", host=self.host)

    def _get(self, query: Dataset, receiver: "_Receiver", classes: Sequence[str]) -> int:
        net = _pynetdicom()
        model = net.sop_class.StudyRootQueryRetrieveInformationModelGet
        # one context per syntax: from a shared one the PACS picks one syntax and cannot send what is stored in another
        pairs = [(name, syntax) for name in classes for syntax in _TRANSFER_SYNTAXES][:_CONTEXTS]
        roles = [net.build_role(name, scp_role=True) for name in dict.fromkeys(name for name, _ in pairs)]
        handlers = [(net.evt.EVT_C_STORE, receiver)]
        last = -1
        with self._association([(model, None), *pairs], roles, handlers) as association:
            for status, _ in association.send_c_get(query, model):
                last = self._checked(status, "C-GET")
        return last

    def _move(self, query: Dataset, receiver: "_Receiver", classes: Sequence[str]) -> int:
        net = _pynetdicom()
        model = net.sop_class.StudyRootQueryRetrieveInformationModelMove
        store = net.AE(ae_title=self.calling_ae)
        for context in net.AllStoragePresentationContexts:
            store.add_supported_context(context.abstract_syntax, [*_TRANSFER_SYNTAXES])
        handlers = [(net.evt.EVT_C_STORE, receiver)]
        try:
            server = store.start_server(("", self.store_port), block=False, evt_handlers=handlers)
        except OSError as error:
            raise SourceError(f"store_port cannot be opened ({error.strerror})", host=self.host) from None
        last = -1
        try:
            with self._association([(model, None)]) as association:
                for status, _ in association.send_c_move(query, self.calling_ae, model):
                    last = self._checked(status, "C-MOVE")
        finally:
            server.shutdown()
        return last

    @contextlib.contextmanager
    def _association(
        self, contexts: Sequence[tuple[str, str | None]], roles: Sequence[Any] = (), handlers: Sequence[Any] = ()
    ) -> Iterator[Any]:
        """Open an association with the PACS and release it at the end. Raises SourceError when that fails."""
        ae = _pynetdicom().AE(ae_title=self.calling_ae)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = TIMEOUT_S
        # add_requested_context merges the syntaxes of a class; contexts that we build ourselves stay separate
        proposed = [
            _pynetdicom().build_context(name, *(() if syntax is None else (syntax,))) for name, syntax in contexts
        ]
        association = ae.associate(
            self.host,
            self.port,
            contexts=proposed,
            ae_title=self.called_ae,
            ext_neg=list(roles),
            evt_handlers=list(handlers),
        )
        if not association.is_established:
            raise SourceError(
                "the PACS did not accept the association; check host, port, called_ae and calling_ae", host=self.host
            )
        try:
            yield association
        finally:
            association.release()

    def _checked(self, status: Dataset, operation: str) -> int:
        """Return the status of an answer. An empty status means that the connection was lost or timed out."""
        if "Status" not in status:
            raise SourceError(f"the PACS stopped answering during {operation}", host=self.host)
        code = int(status.Status)
        if code not in (*_PENDING, _SUCCESS, _WARNING):
            raise SourceError(f"the PACS answered {operation} with status {code:#06x}", host=self.host)
        return code


class _Receiver:
    """Takes C-STORE requests into a folder. It records the first failure, because handlers cannot raise."""

    def __init__(self, folder: SeriesFolder) -> None:
        self.error: CaseError | None = None
        self._folder = folder

    def __call__(self, event: Any) -> int:
        try:
            self._folder.put(str(event.request.AffectedSOPInstanceUID), event.encoded_dataset())
        except CaseError as error:
            self.error = self.error or error
            return 0xA700  # out of resources
        return _SUCCESS


def _pynetdicom() -> Any:
    try:
        import pynetdicom
        import pynetdicom.sop_class
    except ImportError as error:
        raise MissingExtra("pynetdicom", "dimse") from error
    return pynetdicom
