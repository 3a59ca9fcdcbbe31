"""Servers for the tests of remote sources: a DICOMweb server with the faults real ones have, and Orthanc."""

import base64
import contextlib
import functools
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pydicom
from pydicom.filebase import DicomBytesIO

PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
Reply = tuple[int, dict[str, str], bytes]


@contextlib.contextmanager
def http_server(answer: Callable[[str, dict[str, str]], Reply]) -> Iterator[str]:
    """Serve ``answer(target, headers)``; gives the server's URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = answer(self.path, {k.lower(): v for k, v in self.headers.items()})
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class FakePacs:
    """QIDO-RS and WADO-RS over some files; ``faults`` switches on what real servers do wrong."""

    files: dict[str, bytes]
    faults: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def __call__(self, target: str, headers: dict[str, str]) -> Reply:
        self.asked.append(target)
        if "busy" in self.faults and len(self.asked) % 2:
            return 503, {"Retry-After": "0"}, b""
        if "auth" in self.faults and headers.get("authorization") != "Bearer secret-token":
            return 401, {}, b""
        split = urlsplit(target)
        words = split.path.strip("/").split("/")
        if words[-1] == "metadata":
            return self._metadata(words)
        if len(words) == 6:
            return self._instance(words[5])
        if len(words) == 4:
            return (404, {}, b"") if "no series" in self.faults else self._series(words)
        return self._find(words, parse_qs(split.query))

    def _headers(self) -> list[tuple[str, Any]]:
        return [(u, _parsed(b)) for u, b in self.files.items()]

    def _find(self, words: list[str], query: dict[str, list[str]]) -> Reply:
        level = {1: "StudyInstanceUID", 3: "SeriesInstanceUID", 5: "SOPInstanceUID"}[len(words)]
        results: dict[str, Any] = {}
        for _, dataset in self._headers():
            if self._within(dataset, words) and dataset.get("PatientID") in query.get("PatientID", [dataset.PatientID]):
                item = pydicom.Dataset()
                item.Modality = dataset.Modality
                setattr(item, level, dataset[level].value)
                if "no counts" not in self.faults:
                    self._count(item, dataset, level)
                results[dataset[level].value] = json.loads(item.to_json())
        found = [results[uid] for uid in sorted(results, reverse=True)]
        limit, offset = int(query["limit"][0]), int(query["offset"][0])
        if "no offset" in self.faults:
            offset = 0
        if "no paging" not in self.faults:
            found = found[offset : offset + limit]
        if not found:
            return 204, {}, b""
        return 200, {"Content-Type": "application/dicom+json"}, json.dumps(found).encode()

    def _count(self, item: Any, dataset: Any, level: str) -> None:
        """State the counts that PS3.18 10.6.3 requires of each level."""
        own = [each for _, each in self._headers() if each.StudyInstanceUID == dataset.StudyInstanceUID]
        if level == "StudyInstanceUID":
            item.NumberOfStudyRelatedSeries = len({each.SeriesInstanceUID for each in own})
            item.NumberOfStudyRelatedInstances = len(own)
        if level == "SeriesInstanceUID":
            item.NumberOfSeriesRelatedInstances = sum(e.SeriesInstanceUID == dataset.SeriesInstanceUID for e in own)

    def _series(self, words: list[str]) -> Reply:
        body = b""
        for uid, dataset in self._headers():
            if self._within(dataset, words):
                body += b"--b\r\nContent-Type: application/dicom\r\n\r\n" + self.files[uid] + b"\r\n"
        return 200, {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}, body + b"--b--\r\n"

    def _within(self, dataset: Any, words: list[str]) -> bool:
        uids = [dataset.StudyInstanceUID, dataset.SeriesInstanceUID]
        return all(a == b for a, b in zip(words[1::2], uids, strict=False))

    def _metadata(self, words: list[str]) -> Reply:
        found = []
        for _, dataset in self._headers():
            if self._within(dataset, words):
                item = json.loads(dataset.to_json(1024, lambda element: "http://elsewhere/bulk"))
                found.append(item)
        return 200, {"Content-Type": "application/dicom+json"}, json.dumps(found).encode()

    def _instance(self, uid: str) -> Reply:
        if uid not in self.files:
            return 404, {}, b""
        data = self.files[uid]
        if "swap" in self.faults:
            data = next(b for u, b in self.files.items() if u != uid)
        body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--b--\r\n"
        if "cut" in self.faults:
            body = body[: len(body) // 2]
        return 200, {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}, body


@functools.lru_cache(maxsize=64)
def _parsed(data: bytes) -> Any:
    return pydicom.dcmread(DicomBytesIO(data))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc: its HTTP root and DICOM port."""

    url: str
    port: int


def find_orthanc() -> str | None:
    return shutil.which("Orthanc") or next((p for p in ("/usr/sbin/Orthanc",) if Path(p).is_file()), None)


@contextlib.contextmanager
def orthanc(
    folder: Path, files: dict[str, bytes], *, move_to: int, user: tuple[str, str] | None = None
) -> Iterator[Orthanc]:
    """Orthanc with its DICOMweb plug-in, holding ``files``; C-MOVE may go to AE ``BUILDER`` at port ``move_to``.

    With ``user``, a name and a password, whoever asks over HTTP must sign in.
    """
    http, dicom = free_port(), free_port()
    config = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [PLUGIN],
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": user is not None,
        "RegisteredUsers": dict([user] if user else []),
        "DicomAet": "ORTHANC",
        "DicomPort": dicom,
        "DicomAlwaysAllowMove": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowFind": True,
        "DicomModalities": {"builder": {"AET": "BUILDER", "Host": "127.0.0.1", "Port": move_to}},
        "SyncStorageArea": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "SeriesMetadata": "Full", "Host": f"127.0.0.1:{http}"},
    }
    folder.mkdir(parents=True)
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([find_orthanc() or "", str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        pair = base64.b64encode(":".join(user or ("", "")).encode()).decode()
        headers = {"Authorization": f"Basic {pair}"} if user else {}
        _wait(f"http://127.0.0.1:{http}/system", headers)
        for data in files.values():
            address = f"http://127.0.0.1:{http}/instances"
            request = urllib.request.Request(address, data=data, headers=headers, method="POST")
            with urllib.request.urlopen(request) as reply:
                assert reply.status == 200
        yield Orthanc(f"http://127.0.0.1:{http}/dicom-web", dicom)
    finally:
        process.kill()
        process.wait()


def _wait(url: str, headers: dict[str, str]) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), urllib.request.urlopen(urllib.request.Request(url, headers=headers)):
            return
        time.sleep(0.1)
    raise AssertionError("the server did not start")


ORTHANC_MISSING = find_orthanc() is None or not Path(PLUGIN).is_file()
