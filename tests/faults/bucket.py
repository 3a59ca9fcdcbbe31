"""A small S3 server in a thread that misbehaves on purpose: one fault every so many requests."""

import hashlib
import http.server
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

FAULTS = ("500", "503", "429", "timeout", "slow", "reset", "short", "lost")


@dataclass
class Bucket:
    """Objects by key; every ``every``-th request meets ``fault``."""

    fault: str
    every: int
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: int = 0
    faults: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def strikes(self) -> bool:
        with self.lock:
            self.requests += 1
            hit = self.requests % self.every == 0
            self.faults += hit
            return hit


@contextmanager
def serve(fault: str, *, every: int) -> Iterator[tuple[Bucket, str]]:
    """The bucket and the address of its server."""
    bucket = Bucket(fault, every)
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield bucket, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    bucket: Bucket
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        path, query = self._key()
        if "list-type" in query:
            self._faulty(200, self._listing(query.get("prefix", "")))
            return
        data = self.bucket.objects.get(path)
        if data is None:
            self._faulty(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        bounds = self.headers.get("Range", "")
        if bounds:
            first, _, last = bounds.removeprefix("bytes=").partition("-")
            start, stop = (int(first), int(last) + 1) if first else (len(data) - int(last), len(data))
            stop = min(stop, len(data))
            more = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
            self._faulty(206, data[start:stop], more)
        else:
            self._faulty(200, data)

    def do_HEAD(self) -> None:
        data = self.bucket.objects.get(self._key()[0])
        self._faulty(404 if data is None else 200, data or b"", head=True)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.bucket.lock:
            taken = self.headers.get("If-None-Match") == "*" and self._key()[0] in self.bucket.objects
        strikes = self.bucket.strikes()
        if strikes and self.bucket.fault != "lost":
            self._misbehave(b"")
            return
        if not taken:
            self.bucket.objects[self._key()[0]] = body
        if strikes:
            self._hang_up()
        elif taken:
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        else:
            self._answer(200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def do_DELETE(self) -> None:
        self.bucket.objects.pop(self._key()[0], None)
        self._faulty(204, b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(501, b"")

    def _key(self) -> tuple[str, dict[str, str]]:
        parts = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(parts.path).lstrip("/").partition("/")[2]
        return path, dict(urllib.parse.parse_qsl(parts.query))

    def _listing(self, prefix: str) -> bytes:
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>&quot;x&quot;</ETag>"
            "<LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"
            for key, data in sorted(self.bucket.objects.items())
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()

    def _faulty(self, status: int, data: bytes, more: dict[str, str] | None = None, *, head: bool = False) -> None:
        if self.bucket.strikes():
            self._misbehave(data)
        else:
            self._answer(status, data, more, head=head)

    def _answer(self, status: int, data: bytes, more: dict[str, str] | None = None, *, head: bool = False) -> None:
        self.send_response(status)
        headers = {"Content-Length": str(len(data)), "Last-Modified": "Wed, 01 Jan 2020 00:00:00 GMT", "ETag": '"x"'}
        for name, value in {**headers, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if not head:
            self.wfile.write(data)

    def _misbehave(self, data: bytes) -> None:
        fault = self.bucket.fault
        if fault.isdigit():
            self._answer(int(fault), b"")
        elif fault == "slow":
            time.sleep(1.0)
            self._answer(503, b"")
        elif fault == "timeout":
            time.sleep(4.0)
            self._hang_up()
        elif fault == "short" and len(data) > 1:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self._hang_up()
        else:
            self._hang_up()

    def _hang_up(self) -> None:
        """Close the connection with a reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
