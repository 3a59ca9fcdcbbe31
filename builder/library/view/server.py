"""The web server of ``builder view``: on this machine only, and only for who has the address with its token."""

import contextlib
import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from builder.errors import BuilderError, SpecError
from builder.library.view.marks import Marks
from builder.library.view.samples import Samples

LOOPBACK = "127.0.0.1"
HOSTS = ("127.0.0.1", "localhost")
"""What the Host header may name, whatever the port: a tunnel has another one. Any other name may be an attacker's that
resolves to this machine (DNS rebinding)."""

PAGE = Path(__file__).parent / "page"
FILES = {
    "": ("index.html", "text/html; charset=utf-8", ""),
    "view.js": ("view.js", "text/javascript; charset=utf-8", ""),
    "view.css": ("view.css", "text/css; charset=utf-8", ""),
    "niivue.js": ("niivue.js.gz", "text/javascript; charset=utf-8", "gzip"),
    "LICENSES.txt": ("LICENSES.txt", "text/plain; charset=utf-8", ""),
}
"""Path below the token to the file, its type and its encoding. Nothing else is read from the disk."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",  # images of patients stay out of the browser's cache on disk
}
MOST_POSTED = 4096
"""Bytes of the longest mark."""


class Server(ThreadingHTTPServer):
    """Serves one dataset to one person."""

    daemon_threads = True

    def __init__(self, samples: Samples, marks: Marks, *, port: int = 0) -> None:
        """Listen on a port of the loopback interface; 0 takes a free one. Raises OSError if it is taken."""
        super().__init__((LOOPBACK, port), _Handler)
        self.samples, self.marks = samples, marks
        self.token = secrets.token_urlsafe(24)
        self.reading = threading.Lock()  # one sample is decoded at a time, so that memory is bounded

    @property
    def address(self) -> str:
        """The address to open, with its token."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"


@dataclass
class _Answer:
    data: bytes
    kind: str = "application/json"
    encoding: str = ""
    status: HTTPStatus = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds until a request that never ends is given up
    server_version, sys_version = "builder", ""

    def handle(self) -> None:
        """Answer what comes over one connection, until it ends or the page that asked is closed."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Answer with a file of the page, what is known, or voxels."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Write or take back a mark."""
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: addresses hold the token."""

    def _answer(self, make: Callable[[str], _Answer]) -> None:
        try:
            answer = make(self._path())
        except _Refused as refused:
            answer = _told(str(refused), refused.status)
        except SpecError as error:
            answer = _told(str(error), HTTPStatus.BAD_REQUEST)
        except BuilderError as error:
            answer = _told(str(error), HTTPStatus.INTERNAL_SERVER_ERROR)
        if answer.status != HTTPStatus.OK:
            self.close_connection = True  # what was sent and not read is not taken for a request
        self.send_response(answer.status)
        encoding = {"Content-Encoding": answer.encoding} if answer.encoding else {}
        closing = {"Connection": "close"} if self.close_connection else {}
        sizes = {"Content-Type": answer.kind, "Content-Length": str(len(answer.data))}
        for name, value in {**HEADERS, **sizes, **encoding, **closing}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.data)

    def _path(self) -> str:
        """Return the path below the token, if the request may be answered at all."""
        try:
            host, place = urlsplit(f"//{self.headers.get('Host', '')}").hostname, urlsplit(self.path).path
        except ValueError:
            raise _Refused(
                HTTPStatus.BAD_REQUEST, "found no address that can be read, expected one of this page"
            ) from None
        if host not in HOSTS:
            raise _Refused(HTTPStatus.FORBIDDEN, "found another host in the request, expected 127.0.0.1 or localhost")
        token, _, path = place.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise _Refused(HTTPStatus.FORBIDDEN, "found another token, expected the address that builder view printed")
        return path

    def _get(self, path: str) -> _Answer:
        if path in FILES:
            name, kind, encoding = FILES[path]
            return _Answer((PAGE / name).read_bytes(), kind, encoding)
        asked = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
        words = path.split("/")
        with self.server.reading:
            return self._of_dataset(words, asked)

    def _of_dataset(self, words: list[str], asked: dict[str, str]) -> _Answer:
        samples = self.server.samples
        match words:
            case ["api", "dataset"]:
                file = self.server.marks.place.name
                return _json({**samples.facts(), "leave_out": file, "marked": sorted(self.server.marks.names())})
            case ["api", "samples"]:
                per_case = asked.get("per_case") == "1"
                chosen = samples.chosen(asked.get("where", ""), asked.get("split", ""), per_case=per_case)
                return _json({"positions": chosen})
            case ["api", "sample", position]:
                return _json(samples.about(_number(position)))
            case ["volume", position, name, channel]:
                return _Answer(samples.volume(_number(position), name, _number(channel)), _NIFTI, "gzip")
            case ["overlay", position, name]:
                return _Answer(samples.overlay(_number(position), name), _NIFTI, "gzip")
            case ["picture", position, name, channel]:
                window = [_real(asked[limit]) for limit in ("low", "high") if limit in asked]
                limits = window if len(window) == 2 else []
                masks = asked.get("masks") == "1"
                png = samples.picture(_number(position), name, _number(channel), window=limits, masks=masks)
                return _Answer(png, "image/png")
        raise _Refused(HTTPStatus.NOT_FOUND, "found nothing there")

    def _post(self, path: str) -> _Answer:
        if path != "api/mark":
            raise _Refused(HTTPStatus.NOT_FOUND, "found nothing there")
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers["Host"]:
            raise _Refused(HTTPStatus.FORBIDDEN, "found a request from another page, expected one from this page")
        size = self.headers.get("Content-Length", "")
        if self.headers.get("Content-Type") != "application/json" or not size.isdecimal() or int(size) > MOST_POSTED:
            raise _Refused(HTTPStatus.BAD_REQUEST, "found no mark, expected JSON with a name and whether it is marked")
        match _parsed(self.rfile.read(int(size))):
            case {"name": str(name), "marked": bool(marked)}:
                if marked and name not in self.server.samples.names:
                    raise _Refused(HTTPStatus.BAD_REQUEST, "found a name of no case or person of this dataset")
                return _json({"marked": sorted(self.server.marks.set(name, marked=marked))})
        raise _Refused(HTTPStatus.BAD_REQUEST, "found no mark, expected JSON with a name and whether it is marked")


_NIFTI = "application/octet-stream"


def _json(document: Any) -> _Answer:
    return _Answer(json.dumps(document).encode())


def _told(message: str, status: HTTPStatus) -> _Answer:
    return _Answer(json.dumps({"error": message}).encode(), status=status)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise SpecError("view: found no number in the address, expected the position of a sample")
    return int(text)


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SpecError("view: found no number in the window, expected its lowest and highest value") from None
