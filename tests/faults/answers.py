"""A web server that answers badly on request, as proxies, load balancers and disks make real ones do."""

import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Reply = tuple[int, dict[str, str], bytes]
STALL_S = 2.5
"""How long a slow answer stalls."""

FAULTS = (
    "half",
    "half with its length",
    "empty",
    "html",
    "type",
    "404",
    "429",
    "429 with a date",
    "500",
    "503",
    "reset",
    "slow",
    "short list",
    "empty list",
)
STATED = ("flipped byte",)
"""Faults that show only where the server states a hash."""

STATUS = {"404": 404, "429": 429, "429 with a date": 429, "500": 500, "503": 503}


@dataclass
class Disturbed:
    """Answers of a healthy server, of which some are spoiled.

    Parameters
    ----------
    fault
        What goes wrong; empty while the server is healthy.
    persistent
        Whether it goes wrong each time, or the first time for each kind of request.
    only
        What the target must contain.
    """

    answer: Callable[[str, dict[str, str]], Reply]
    fault: str = ""
    persistent: bool = False
    only: str = ""
    asked: list[str] = field(default_factory=list)
    spoiled: set[str] = field(default_factory=set)
    lock: Any = field(default_factory=threading.Lock)

    def next_fault(self, target: str) -> str:
        """The fault of this request, "" for none."""
        with self.lock:
            self.asked.append(target)
            kind = kind_of(target)
            if not self.fault or self.only not in target or (kind in self.spoiled and not self.persistent):
                return ""
            self.spoiled.add(kind)
            return self.fault


def kind_of(target: str) -> str:
    """The kind of a request: its path without UIDs, or the kind of bucket request."""
    split = urlsplit(target)
    return re.sub(r"[0-9a-f.\-]{8,}|[0-9.]+", "N", split.path) + ("?list" if "list-type" in split.query else "")


def spoil(fault: str, reply: Reply) -> Reply:
    """Spoil an answer in a way that needs no trick of the connection."""
    status, headers, body = reply
    if fault in STATUS:
        dates = {"429": "0", "429 with a date": formatdate(time.time(), usegmt=True)}
        return STATUS[fault], {"Retry-After": dates[fault]} if fault in dates else {}, b""
    if fault == "half with its length":
        return status, headers, body[: len(body) // 2]
    if fault == "empty":
        return 200, headers, b""
    if fault == "html":
        return 200, {"Content-Type": "text/html"}, b"<html><body>Please sign in</body></html>"
    if fault == "type":
        return status, headers | {"Content-Type": "text/plain"}, body
    if fault == "flipped byte":
        return status, headers, body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1 :]
    if fault in ("short list", "empty list"):
        return status, headers, shortened(body, keep_some=fault == "short list")
    return reply


def shortened(body: bytes, *, keep_some: bool) -> bytes:
    """A list in JSON or XML without its last member, or without any; other bodies as they are."""
    if body.startswith(b"["):
        return json.dumps(json.loads(body)[:-1] if keep_some else []).encode()
    if b"<Contents>" in body:
        return re.sub(rb"<Contents>.*?</Contents>", b"", body, count=1 if keep_some else 0)
    return body


@contextlib.contextmanager
def disturbed_server(disturbed: Disturbed) -> Iterator[str]:
    """Serve; gives the server's URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            fault = disturbed.next_fault(self.path)
            if fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            reply = disturbed.answer(self.path, {k.lower(): v for k, v in self.headers.items()})
            status, headers, body = spoil(fault, reply)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body[: len(body) // 2])
                if fault == "half":
                    self.close_connection = True
                    return
                if fault == "slow":
                    time.sleep(STALL_S)
                self.wfile.write(body[len(body) // 2 :])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
