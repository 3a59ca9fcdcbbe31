"""Speak to a PACS over associations: find, retrieve, and say exactly what went wrong (PS3.4 annex C, PS3.8)."""

import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydicom.dataset import Dataset

from builder.errors import CaseError, MissingExtra, SourceError
from builder.headers.identity import sop_instance_uid
from builder.sources.patience import Fault
from builder.sources.politeness import Turn
from builder.sources.tls import Tls, tls_context

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
_UID = re.compile(r"[0-9.]{1,64}")
_LEVELS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
_PENDING = (0xFF00, 0xFF01)
_SUCCESS, _WARNING = 0x0000, 0xB000
_UNKNOWN_DESTINATION = 0xA801
_NONE_SENT = 0xA702
"""All sub-operations failed."""

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
    tls: Tls | None = None

    @property
    def name(self) -> str:
        """Host and port, for messages."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Ledger:
    """What became of the sub-operations of one C-GET or C-MOVE (PS3.7 C.4.2 and 9.1.4).

    Parameters
    ----------
    status
        The last status.
    completed, failed, warned
        As the PACS counts them. A warning means that the PACS sent an instance and changed it.
    refused
        UIDs of instances that came damaged and were refused.
    """

    status: int
    completed: int
    failed: int
    warned: int
    refused: frozenset[str]

    def text(self) -> str:
        """Say what went wrong, for a message without UIDs; empty when nothing did."""
        parts = []
        if self.failed:
            parts.append(f"the PACS says that {self.failed} failed (status {self.status:#06x})")
        if self.refused:
            parts.append(f"{len(self.refused)} came damaged")
        return "; ".join(parts)


class Session:
    """Finds and retrieves over the association that a turn at the PACS keeps open, which opens on first use.

    Parameters
    ----------
    turn
        Right to talk to the PACS. Its association stays open for the next session with the same contexts.
    classes
        SOP classes of what will be retrieved; without them those that are common.
    """

    def __init__(self, peer: Peer, turn: Turn, *, classes: Sequence[str] = ()) -> None:
        self._peer = peer
        self._turn = turn
        self._classes = tuple(classes) or _COMMON_CLASSES

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
        opened = self._open(model)
        with self._in_step(opened):
            for status, item in opened.association.send_c_find(query, model):
                if self._checked(status, "C-FIND") in _PENDING:
                    if item is None:
                        raise Fault("found a result of C-FIND that cannot be decoded")
                    uid = str(item.get(_LEVELS[level]) or "")
                    if uid and not _UID.fullmatch(uid):  # it becomes part of paths
                        raise Fault("found a result of C-FIND whose UID has other characters than digits and dots")
                    if uid:
                        found[uid] = {name: _text(item, name) for name in wanted}
        return dict(sorted(found.items()))

    def retrieve(self, study: str, series: str, instance: str = "", *, keep: Keep) -> Ledger:
        """Have the PACS send a series, or one instance of it, and return what became of it.

        Parameters
        ----------
        keep
            Takes each instance that arrives.

        Raises
        ------
        Fault
            When the connection breaks or the PACS refuses.
        SourceError
            When another try cannot help.
        """
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE" if instance else "SERIES"
        query.StudyInstanceUID, query.SeriesInstanceUID = study, series
        if instance:
            query.SOPInstanceUID = instance
        net, last = _pynetdicom(), Dataset()
        get = self._peer.retrieve == "get"
        operation = f"C-{self._peer.retrieve.upper()}"
        root = "StudyRootQueryRetrieveInformationModel"
        model = getattr(net.sop_class, root + ("Get" if get else "Move"))
        opened = self._open(model, self._classes if get else ())
        receiver = opened.receiver
        receiver.begin(keep)
        try:
            if get:
                answers = opened.association.send_c_get(query, model)
            else:
                opened.listen(self._peer)
                answers = opened.association.send_c_move(query, self._peer.calling_ae, model)
            with self._in_step(opened):
                for status, _ in answers:
                    self._checked(status, operation)
                    last = status
        finally:
            error, refused, received = receiver.end()
            self._turn.received += received
        if error is not None:
            raise error
        counts = {
            name: int(last.get(f"NumberOf{kind}Suboperations") or 0)
            for name, kind in (("completed", "Completed"), ("failed", "Failed"), ("warned", "Warning"))
        }
        return Ledger(status=int(last.get("Status", _SUCCESS)), refused=refused, **counts)

    @contextmanager
    def _in_step(self, opened: "_Opened") -> Iterator[None]:
        """Abort the association if not all answers were taken, because the next operation would meet those left."""
        try:
            yield
        except BaseException:
            opened.broken = True
            self._turn.drop()
            raise

    def _open(self, model: str, classes: Sequence[str] = ()) -> "_Opened":
        """Return the association for an operation, opened with its contexts if none is open."""
        name = (self._peer, model, tuple(classes))
        opened = self._turn.connection(name, lambda: self._associate(model, classes))
        if not opened.association.is_established:  # the PACS closed it meanwhile
            self._turn.drop()
            opened = self._turn.connection(name, lambda: self._associate(model, classes))
        return opened

    def _associate(self, model: str, classes: Sequence[str]) -> "_Opened":
        net = _pynetdicom()
        # one context per syntax: from a shared one the PACS picks one syntax and cannot send what is stored in another;
        # add_requested_context would merge them, contexts that we build ourselves stay separate
        pairs = [(name, syntax) for name in classes for syntax in _TRANSFER_SYNTAXES][:_CONTEXTS]
        contexts = [net.build_context(model), *(net.build_context(name, syntax) for name, syntax in pairs)]
        roles = [net.build_role(name, scp_role=True) for name in dict.fromkeys(name for name, _ in pairs)]
        receiver = _Receiver()
        ae = net.AE(ae_title=self._peer.calling_ae)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = TIMEOUT_S
        tls = None if self._peer.tls is None else (tls_context(self._peer.tls), self._peer.host)
        association = ae.associate(
            self._peer.host,
            self._peer.port,
            contexts=contexts,
            ae_title=self._peer.called_ae,
            ext_neg=roles,
            evt_handlers=[(net.evt.EVT_C_STORE, receiver)] if classes else [],
            tls_args=tls,
        )
        if not association.is_established:
            raise self._refused(association)
        return _Opened(association, receiver)

    def _reach(self) -> None:
        """Raise Fault when nothing accepts connections there, which the library does not tell apart."""
        place = (self._peer.host, self._peer.port)
        try:
            with socket.create_connection(place, timeout=TIMEOUT_S) as connection:
                if self._peer.tls is not None:
                    tls_context(self._peer.tls).wrap_socket(connection, server_hostname=self._peer.host).close()
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or "no TLS is spoken there"
            raise SourceError(
                f"dimse at {self._peer.name}: no encrypted connection can be made ({why}); check the address, and "
                "tls.ca, tls.cert and tls.key",
                host=self._peer.host,
            ) from None
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
            self._turn.drop()
            raise Fault(f"the PACS stopped answering during {operation}", answered=False)
        code = int(status.Status)
        if code == _UNKNOWN_DESTINATION:
            raise SourceError(
                f"dimse at {self._peer.name}: the PACS does not know where {self._peer.calling_ae} is (status "
                f"{code:#06x}); enter calling_ae with this machine's address and store_port in the PACS",
                host=self._peer.host,
            )
        if code == _NONE_SENT and status.get("NumberOfFailedSuboperations"):
            return code  # the ledger says it; it is an answer about these instances, not a busy PACS
        if code not in (*_PENDING, _SUCCESS, _WARNING):
            busy = code in _OUT_OF_RESOURCES
            raise Fault(f"the PACS answered {operation} with status {code:#06x}", answered=not busy)
        return code


class _Opened:
    """An association, what it receives, and for C-MOVE the port on which that arrives."""

    def __init__(self, association: Any, receiver: "_Receiver") -> None:
        self.association = association
        self.receiver = receiver
        self.broken = False
        self._store: Any = None

    def listen(self, peer: Peer) -> None:
        """Open the port to which C-MOVE sends. Raises Fault when something else listens there."""
        if self._store is not None:
            return
        net = _pynetdicom()
        store = net.AE(ae_title=peer.calling_ae)
        for context in net.AllStoragePresentationContexts:
            store.add_supported_context(context.abstract_syntax, [*_TRANSFER_SYNTAXES])
        handlers = [(net.evt.EVT_C_STORE, self.receiver)]
        tls = None if peer.tls is None else tls_context(peer.tls, receiving=True)
        try:
            self._store = store.start_server(("", peer.store_port), block=False, evt_handlers=handlers, ssl_context=tls)
        except OSError as error:
            raise Fault(
                f"store_port {peer.store_port} of this machine cannot be opened ({error.strerror})",
                answered=False,
                advice="end what listens there, or give another store_port and tell the PACS",
            ) from None

    def close(self) -> None:
        """Say farewell and close the port."""
        if self.association.is_established and self.broken:
            self.association.abort()
        elif self.association.is_established:
            self.association.release()
        if self._store is not None:
            self._store.shutdown()
            self._store = None


class _Receiver:
    """Takes C-STORE requests. It records failures, because handlers cannot raise."""

    def __init__(self) -> None:
        self._keep: Keep | None = None
        self._error: OSError | None = None
        self._refused: set[str] = set()
        self._received = 0

    def begin(self, keep: Keep) -> None:
        """Take what comes from now on."""
        self._keep, self._error, self._refused, self._received = keep, None, set(), 0

    def end(self) -> tuple[OSError | None, frozenset[str], int]:
        """Return the first failure to keep an instance, what came damaged, and the bytes that came."""
        self._keep = None
        return self._error, frozenset(self._refused), self._received

    def __call__(self, event: Any) -> int:
        data, keep = event.encoded_dataset(), self._keep
        uid = str(event.request.AffectedSOPInstanceUID)
        self._received += len(data)
        if keep is None:
            return 0x0122  # nobody asked for it
        try:
            if sop_instance_uid(data) != uid:
                self._refused.add(uid)
                return 0xA900  # the data set does not match
            keep(uid, data)
        except CaseError:
            self._refused.add(uid)
            return 0xC000  # cannot be understood
        except OSError as error:
            self._error = self._error or error
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
