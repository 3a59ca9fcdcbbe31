"""The web server of ``builder view``: on this machine only, and only for who has the address with its token."""

import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from builder.errors import BuilderError, SpecError
from builder.library.view.marks import Marks
from builder.library.view.samples import Look, Samples

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


class Site(Protocol):
    """What a server shows: its files, what is known, and what a person may change."""

    files: Mapping[str, tuple[str, str, str]]
    """As ``FILES``."""
    most_posted: int
    """Bytes of the longest change."""

    def get(self, words: list[str], asked: dict[str, str]) -> "Answer":
        """Answer a request by the parts of its path and its query. Raises Refused or SpecError."""

    def post(self, path: str, document: Any) -> "Answer":
        """Change something. Raises Refused or SpecError."""


class Loopback(ThreadingHTTPServer):
    """Serves one site to one person."""

    daemon_threads = True

    def __init__(self, site: Site, *, port: int = 0) -> None:
        """Listen on a port of the loopback interface; 0 takes a free one. Raises OSError if it is taken."""
        super().__init__((LOOPBACK, port), Handler)
        self.site = site
        self.token = secrets.token_urlsafe(24)
        self.reading = threading.Lock()  # one sample is decoded at a time, so that memory is bounded

    @property
    def address(self) -> str:
        """The address to open, with its token."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"


class Server(Loopback):
    """Serves one dataset to one person."""

    def __init__(self, samples: Samples, marks: Marks, *, port: int = 0) -> None:
        """Listen as ``Loopback``."""
        super().__init__(_DatasetSite(samples, marks), port=port)
        self.samples, self.marks = samples, marks


@dataclass
class Answer:
    """What a request gets."""

    data: bytes
    kind: str = "application/json"
    encoding: str = ""
    status: HTTPStatus = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """A request that is not answered."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """Answers whoever knows the token."""

    server: Loopback
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

    def _answer(self, make: Callable[[str], Answer]) -> None:
        try:
            answer = make(self._path())
        except Refused as refused:
            answer = told(str(refused), refused.status)
        except SpecError as error:
            answer = told(str(error), HTTPStatus.BAD_REQUEST)
        except BuilderError as error:
            answer = told(str(error), HTTPStatus.INTERNAL_SERVER_ERROR)
        if answer.status != HTTPStatus.OK:
            self.close_connection = True  # what was sent and not read is not taken for a request
        self.send_response(answer.status)
        encoding = {"Content-Encoding": answer.encoding} if answer.encoding else {}
        closing = {"Connection": "close"} if self.close_connection else {}
        sizes = {"Content-Type": answer.kind, "Content-Length": str(len(answer.data))}
        for name, value in {**HEADERS, **sizes, **encoding, **closing, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.data)

    def _path(self) -> str:
        """Return the path below the token, if the request may be answered at all."""
        try:
            host, place = urlsplit(f"//{self.headers.get('Host', '')}").hostname, urlsplit(self.path).path
        except ValueError:
            raise Refused(
                HTTPStatus.BAD_REQUEST, "found no address that can be read, expected one of this page"
            ) from None
        if host not in HOSTS:
            raise Refused(HTTPStatus.FORBIDDEN, "found another host in the request, expected 127.0.0.1 or localhost")
        token, _, path = place.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "found another token, expected the address that builder view printed")
        return path

    def _get(self, path: str) -> Answer:
        if path in self.server.site.files:
            name, kind, encoding = self.server.site.files[path]
            return Answer((PAGE / name).read_bytes(), kind, encoding)
        asked = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
        words = path.split("/")
        with self.server.reading:
            return self.server.site.get(words, asked)

    def _post(self, path: str) -> Answer:
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers["Host"]:
            raise Refused(HTTPStatus.FORBIDDEN, "found a request from another page, expected one from this page")
        size, most = self.headers.get("Content-Length", ""), self.server.site.most_posted
        if self.headers.get("Content-Type") != "application/json" or not size.isdecimal() or int(size) > most:
            raise Refused(HTTPStatus.BAD_REQUEST, "found no JSON, or more than a page sends, expected a change in JSON")
        return self.server.site.post(path, _parsed(self.rfile.read(int(size))))


@dataclass
class _DatasetSite:
    samples: Samples
    marks: Marks
    files: Mapping[str, tuple[str, str, str]] = field(default_factory=lambda: FILES)
    most_posted: int = 4096

    def get(self, words: list[str], asked: dict[str, str]) -> Answer:
        """Answer with what is known, or voxels."""
        samples = self.samples
        match words:
            case ["api", "dataset"]:
                file = self.marks.place.name
                return as_json({**samples.facts(), "leave_out": file, "marked": sorted(self.marks.names())})
            case ["api", "samples"]:
                per_case = asked.get("per_case") == "1"
                chosen = samples.chosen(asked.get("where", ""), asked.get("split", ""), per_case=per_case)
                return as_json({"positions": chosen})
            case ["api", "sample", position, name]:
                return as_json(samples.about(number_in(position), name))
            case ["volume", position, name, channel]:
                return Answer(samples.volume(number_in(position), name, number_in(channel)), _NIFTI)
            case ["overlay", position, name]:
                return Answer(samples.overlay(number_in(position), name), _NIFTI)
            case ["picture", position, name, channel]:
                share, number = _share(asked.get("opacity", "")), asked.get("slice")
                level = None if number is None else number_in(number)
                look = Look(asked.get("plane", ""), asked.get("window", ""), share, level)
                png, limits = samples.picture(number_in(position), name, number_in(channel), look)
                return Answer(png, "image/png", headers={LIMITS: json.dumps(limits)})
        raise Refused(HTTPStatus.NOT_FOUND, "found nothing there")

    def post(self, path: str, document: Any) -> Answer:
        """Write or take back a mark."""
        if path != "api/mark":
            raise Refused(HTTPStatus.NOT_FOUND, "found nothing there")
        match document:
            case {"name": str(name), "marked": bool(marked)}:
                if marked and name not in self.samples.names:
                    raise Refused(HTTPStatus.BAD_REQUEST, "found a name of no case or person of this dataset")
                return as_json({"marked": sorted(self.marks.set(name, marked=marked))})
        raise Refused(HTTPStatus.BAD_REQUEST, "found no mark, expected JSON with a name and whether it is marked")


_NIFTI = "application/octet-stream"
LIMITS = "X-Limits"
"""Header of a picture: the lowest and highest value shown, with which the viewer goes on."""


def as_json(document: Any) -> Answer:
    """Answer with a document."""
    return Answer(json.dumps(document).encode())


def told(message: str, status: HTTPStatus) -> Answer:
    """Answer with what is wrong."""
    return Answer(json.dumps({"error": message}).encode(), status=status)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def number_in(text: str) -> int:
    """Return a position of the address. Raises SpecError for anything else."""
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise SpecError("view: found no number in the address, expected the position of a sample")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise SpecError("view: found no opacity in the address, expected a number from 0 to 1")
    return share
