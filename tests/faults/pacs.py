"""A PACS that answers badly on request, over C-FIND and C-GET."""

import contextlib
import gc
import io
import socket
import struct
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pydicom
from pydicom.dataset import Dataset

STALL_S = 2.8
"""How long a slow answer stalls."""

FIND_FAULTS = ("cut", "busy", "failed", "rejected", "reset", "slow", "short list", "empty list")
GET_FAULTS = ("cut", "busy", "failed", "rejected", "reset", "slow", "short get", "empty get", "partly failed")

_STATUS = {"busy": 0xA700, "failed": 0xC001}
_LEVELS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


@dataclass
class Pacs:
    """What a PACS holds, and what it does wrong.

    Parameters
    ----------
    fault
        What goes wrong with ``operation``; empty while the PACS is healthy.
    persistent
        Whether it goes wrong each time, or only the first time.
    """

    files: dict[str, bytes]
    fault: str = ""
    operation: str = ""
    persistent: bool = False
    spoiled: int = 0
    sent: list[str] = field(default_factory=list)
    associations: list[int] = field(default_factory=lambda: [0, 0])
    lock: Any = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.held = {uid: pydicom.dcmread(io.BytesIO(data)) for uid, data in self.files.items()}

    def next_fault(self, operation: str) -> str:
        """The fault of this operation, "" for none."""
        with self.lock:
            if self.operation != operation or not self.fault or (self.spoiled and not self.persistent):
                return ""
            self.spoiled += 1
            return self.fault

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        """Answer a C-FIND."""
        fault = self.next_fault("find")
        found = _found(self.held.values(), event.identifier)
        if fault in ("short list", "empty list"):
            found = found[:-1] if fault == "short list" else []
        if fault in _STATUS:
            yield _STATUS[fault], None
            return
        for number, item in enumerate(found):
            if _breaks(event, fault):
                return
            if fault == "slow" and not number:
                time.sleep(STALL_S)
            yield 0xFF00, item

    def get(self, event: Any) -> Iterator[Any]:
        """Answer a C-GET."""
        fault = self.next_fault("get")
        wanted = [item for item in self.held.values() if _matches(item, event.identifier)]
        if fault in _STATUS:
            yield 0
            yield _STATUS[fault], None
            return
        if fault == "empty get":
            yield 0
            return
        yield len(wanted)
        for number, item in enumerate(wanted):
            if number == 1 or len(wanted) == 1:
                if _breaks(event, fault):
                    return
                if fault == "slow":
                    time.sleep(STALL_S)
                if fault == "short get":
                    yield 0x0000, None
                    return
            if fault == "partly failed" and number == len(wanted) - 1:
                yield 0xFF00, _unsendable(item)
                continue
            self.sent.append(str(item.SOPInstanceUID))
            yield 0xFF00, item


def _breaks(event: Any, fault: str) -> bool:
    """Break the connection off, if that is the fault."""
    if fault not in ("cut", "reset"):
        return False
    connection = event.assoc.dul.socket.socket
    if fault == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    else:
        connection.shutdown(socket.SHUT_RDWR)
    return True


def _unsendable(item: Dataset) -> Dataset:
    """An instance of a class for which no context was agreed."""
    other = Dataset()
    other.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    other.SOPInstanceUID = item.SOPInstanceUID
    other.file_meta = item.file_meta
    return other


def _matches(item: Dataset, query: Dataset) -> bool:
    return all(not query.get(name) or query.get(name) == item.get(name) for name in _LEVELS.values())


def _found(held: Any, query: Dataset) -> list[Dataset]:
    level = _LEVELS[query.QueryRetrieveLevel]
    held = list(held)
    items = [item for item in held if _matches(item, query)]
    found = {}
    for item in items:
        own = [each for each in items if each.get(level) == item.get(level)]
        answer = Dataset()
        answer.QueryRetrieveLevel = query.QueryRetrieveLevel
        setattr(answer, level, item.get(level))
        answer.Modality, answer.SOPClassUID = item.Modality, item.SOPClassUID
        answer.PatientID = item.PatientID
        studies = {each.StudyInstanceUID for each in held if each.PatientID == item.PatientID}
        answer.NumberOfPatientRelatedStudies = len(studies)
        answer.NumberOfStudyRelatedSeries = len({each.SeriesInstanceUID for each in own})
        answer.NumberOfStudyRelatedInstances = answer.NumberOfSeriesRelatedInstances = len(own)
        found[item.get(level)] = answer
    return list(found.values())


@contextlib.contextmanager
def served(pacs: Pacs, *, port: int = 0, tls: Any = None) -> Iterator[int]:
    """Serve; gives the port."""
    server = start(pacs, port=port, tls=tls)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        collect_sockets()


def collect_sockets() -> None:
    """Collect the sockets that pynetdicom leaves open when a fault ends an association, or a later test is blamed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def start(pacs: Pacs, *, port: int = 0, tls: Any = None) -> Any:
    """Start a server; its ``shutdown`` ends it."""
    import pynetdicom
    from pynetdicom.sop_class import (
        CTImageStorage,
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelGet,
    )

    def opened(event: Any) -> None:
        with pacs.lock:
            now = sum(each.is_established for each in ae.active_associations)
            pacs.associations[:] = [pacs.associations[0] + 1, max(pacs.associations[1], now)]

    def requested(event: Any) -> None:
        asked = {context.abstract_syntax for context in event.assoc.requestor.requested_contexts}
        getting = StudyRootQueryRetrieveInformationModelGet in asked
        fault = pacs.fault if pacs.operation == ("get" if getting else "find") else ""
        if fault == "rejected" and pacs.next_fault(pacs.operation):
            event.assoc.acse.send_reject(0x02, 0x03, 0x02)  # transient, local limit exceeded
            event.assoc.kill()

    ae = pynetdicom.AE(ae_title="PACS")
    ae.maximum_associations = 50
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    ae.add_supported_context(CTImageStorage, pynetdicom.ALL_TRANSFER_SYNTAXES, scu_role=True, scp_role=True)
    events = pynetdicom.evt
    handlers = [
        (events.EVT_C_FIND, pacs.find), (events.EVT_C_GET, pacs.get),
        (events.EVT_ESTABLISHED, opened), (events.EVT_REQUESTED, requested),
    ]  # fmt: skip
    return ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=tls)
