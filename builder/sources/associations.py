"""Speak to a PACS over associations: find, retrieve, and say exactly what went wrong (PS3.4 annex C, PS3.8)."""

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from pydicom.dataset import Dataset

from builder.errors import CaseError, MissingExtra, SourceError
from builder.headers.identity import sop_instance_uid
from builder.sources.patience import Fault

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
_UNKNOWN_DESTINATION = 0xA801
_OUT_OF_RESOURCES = (0xA700, 0xA701, 0xA702)
_PERMANENT = 1
"""Result of a rejection that another try does not change (PS3.8 9.3.4)."""

Keep = Callable[[str, bytes], None]
"""Takes the UID and the bytes of an instance that came and was checked."""


Found = dict[str, dict[str, str]]
"""Attributes by UID."""


@dataclass(frozen=True)
class Peer:
    """A PACS and how it knows us."""

    host: str
    port: int
    called_ae: str
    calling_ae: str
    store_port: int | None
    retrieve: Literal["get", "move"]

    @property
    def name(self) -> str:
        """Host and port, for messages."""
        return f"{self.host}:{self.port}"


class Session:
    """One association at a time with a PACS, opened on first use and again after it broke.

    Parameters
    ----------
    classes
        SOP classes of what will be retrieved; without them those that are common.
    keep
        Takes each instance that arrives. Without it the session can only find.
    """

    def __init__(self, peer: Peer, *, classes: Sequence[str] = (), keep: Keep | None = None) -> None:
        self._peer = peer
        self._classes = tuple(classes) or _COMMON_CLASSES
        self._receiver = None if keep is None else _Receiver(keep)
        self._association: Any = None
        self._store: Any = None
        self._failed = 0
        self._last = _SUCCESS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def find(self, level: str, keys: Mapping[str, str], *, wanted: Sequence[str]) -> Found:
        """Return the ``wanted`` attributes by UID for everything one C-FIND finds, in the order of UIDs.

        Raises Fault, SourceError.
        """
        model = _pynetdicom().sop_class.StudyRootQueryRetrieveInformationModelFind
        query = Dataset()
        query.QueryRetrieveLevel = level
        for name in (_LEVELS[level], *wanted):
            setattr(query, name, None)
        for name, value in keys.items():
            setattr(query, name, value)
        found: Found = {}
        for status, item in self._open([(model, None)]).send_c_find(query, model):
            if self._checked(status, "C-FIND") in _PENDING and item is not None:
                uid = str(item.get(_LEVELS[level]) or "")
                if uid:
                    found[uid] = {name: _text(item, name) for name in wanted}
        return dict(sorted(found.items()))

    def retrieve(self, study: str, series: str, instance: str = "") -> None:
        """Have the PACS send a series, or one instance of it. What came and what failed is counted.

        Raises Fault when the connection breaks or the PACS refuses, SourceError when another try cannot help.
        """
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE" if instance else "SERIES"
        query.StudyInstanceUID, query.SeriesInstanceUID = study, series
        if instance:
            query.SOPInstanceUID = instance
        answers = self._get(query) if self._peer.retrieve == "get" else self._move(query)
        operation = f"C-{self._peer.retrieve.upper()}"
        for status, _ in answers:
            self._last = self._checked(status, operation)
            self._failed += int(status.get("NumberOfFailedSuboperations") or 0) if self._last not in _PENDING else 0
        if self._receiver is not None and self._receiver.error is not None:
            raise self._receiver.error

    def told(self) -> str:
        """Return what the PACS said of instances that it could not send."""
        return f"; the PACS says that {self._failed} failed (status {self._last:#06x})" if self._failed else ""

    def _get(self, query: Dataset) -> Any:
        net = _pynetdicom()
        model = net.sop_class.StudyRootQueryRetrieveInformationModelGet
        # one context per syntax: from a shared one the PACS picks one syntax and cannot send what is stored in another
        pairs = [(name, syntax) for name in self._classes for syntax in _TRANSFER_SYNTAXES][:_CONTEXTS]
        roles = [net.build_role(name, scp_role=True) for name in dict.fromkeys(name for name, _ in pairs)]
        handlers = [(net.evt.EVT_C_STORE, self._receiver)]
        return self._open([(model, None), *pairs], roles, handlers).send_c_get(query, model)

    def _move(self, query: Dataset) -> Any:
        net = _pynetdicom()
        model = net.sop_class.StudyRootQueryRetrieveInformationModelMove
        if self._store is None:
            store = net.AE(ae_title=self._peer.calling_ae)
            for context in net.AllStoragePresentationContexts:
                store.add_supported_context(context.abstract_syntax, [*_TRANSFER_SYNTAXES])
            handlers = [(net.evt.EVT_C_STORE, self._receiver)]
            try:
                self._store = store.start_server(("", self._peer.store_port), block=False, evt_handlers=handlers)
            except OSError as error:
                raise Fault(
                    f"store_port {self._peer.store_port} of this machine cannot be opened ({error.strerror})",
                    answered=False,
                    advice="end what listens there, or give another store_port and tell the PACS",
                ) from None
        return self._open([(model, None)]).send_c_move(query, self._peer.calling_ae, model)

    def _open(
        self, contexts: Sequence[tuple[str, str | None]], roles: Sequence[Any] = (), handlers: Sequence[Any] = ()
    ) -> Any:
        """Return the association, opened with these contexts if none is open."""
        if self._association is not None and self._association.is_established:
            return self._association
        self._close_association()
        ae = _pynetdicom().AE(ae_title=self._peer.calling_ae)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = TIMEOUT_S
        # add_requested_context merges the syntaxes of a class; contexts that we build ourselves stay separate
        proposed = [
            _pynetdicom().build_context(name, *(() if syntax is None else (syntax,))) for name, syntax in contexts
        ]
        association = ae.associate(
            self._peer.host,
            self._peer.port,
            contexts=proposed,
            ae_title=self._peer.called_ae,
            ext_neg=list(roles),
            evt_handlers=list(handlers),
        )
        if not association.is_established:
            raise self._refused(association)
        self._association = association
        return association

    def _reach(self) -> None:
        """Raise Fault when nothing accepts connections there, which the library does not tell apart."""
        try:
            socket.create_connection((self._peer.host, self._peer.port), timeout=TIMEOUT_S).close()
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise Fault(
                f"no PACS accepts connections there ({why})",
                answered=False,
                advice="check that the PACS runs, that host and port are right, and that no firewall is between",
            ) from None

    def _refused(self, association: Any) -> Exception:
        answer = getattr(association.acceptor, "primitive", None)
        if association.is_rejected and answer is not None:
            what = f"the PACS rejects the association: {answer.reason_str}"
            advice = "check called_ae, and that the PACS knows calling_ae with this machine's address"
            if answer.result == _PERMANENT:
                return SourceError(f"dimse at {self._peer.name}: {what}; {advice}", host=self._peer.host)
            return Fault(what, answered=False, advice="wait until the PACS has fewer associations open")
        self._reach()
        return Fault("the PACS accepts the connection and then breaks it off", answered=False)

    def _checked(self, status: Dataset, operation: str) -> int:
        """Return the status of an answer. An empty status means that the connection was lost or timed out."""
        if "Status" not in status:
            self._close_association()
            raise Fault(f"the PACS stopped answering during {operation}", answered=False)
        code = int(status.Status)
        if code == _UNKNOWN_DESTINATION:
            raise SourceError(
                f"dimse at {self._peer.name}: the PACS does not know where {self._peer.calling_ae} is (status "
                f"{code:#06x}); enter calling_ae with this machine's address and store_port in the PACS",
                host=self._peer.host,
            )
        if code not in (*_PENDING, _SUCCESS, _WARNING):
            busy = code in _OUT_OF_RESOURCES
            raise Fault(f"the PACS answered {operation} with status {code:#06x}", answered=not busy)
        return code

    def _close(self) -> None:
        self._close_association()
        if self._store is not None:
            self._store.shutdown()
            self._store = None

    def _close_association(self) -> None:
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None


class _Receiver:
    """Takes C-STORE requests. It records the first failure, because handlers cannot raise."""

    def __init__(self, keep: Keep) -> None:
        self.error: OSError | None = None
        self._keep = keep

    def __call__(self, event: Any) -> int:
        data = event.encoded_dataset()
        uid = str(event.request.AffectedSOPInstanceUID)
        try:
            if sop_instance_uid(data) != uid:
                return 0xA900  # the data set does not match
            self._keep(uid, data)
        except CaseError:
            return 0xC000  # cannot be understood
        except OSError as error:
            self.error = self.error or error
            return 0xA700  # out of resources
        return _SUCCESS


def _text(item: Dataset, name: str) -> str:
    value = item.get(name)
    return "" if value is None else str(value)


def _pynetdicom() -> Any:
    try:
        import pynetdicom
        import pynetdicom.sop_class
    except ImportError as error:
        raise MissingExtra("pynetdicom", "dimse") from error
    return pynetdicom
