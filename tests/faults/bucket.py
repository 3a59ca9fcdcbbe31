"""A small S3 server in a thread that misbehaves on purpose: a fault in so many requests, at random."""

import base64
import hashlib
import http.server
import random
import re
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape, unescape

FAULTS = ("500", "503", "429", "timeout", "slow", "reset", "short", "hash", "lost")


@dataclass
class Bucket:
    """Objects by key; one of ``every`` requests meets ``fault``."""

    fault: str
    every: int
    objects: dict[str, bytes] = field(default_factory=dict)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    faults: int = 0
    dice: random.Random = field(default_factory=lambda: random.Random(8))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def strikes(self) -> bool:
        with self.lock:
            hit = self.dice.random() * self.every < 1
            self.faults += hit
            return hit


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _flipped(data: bytes) -> bytes:
    """The same with one bit in the middle another one."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :] if data else data


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
            self._faulty(200, self._listing(query.get("prefix", "")), damageable=False)
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
            self._faulty(206, data[start:stop], {**self._about(path), **more})
        else:
            self._faulty(200, data, self._about(path))

    def do_HEAD(self) -> None:
        path = self._key()[0]
        data = self.bucket.objects.get(path)
        self._faulty(404 if data is None else 200, data or b"", self._about(path), head=True)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self._key()[0]
        strikes = self.bucket.strikes()
        if strikes and self.bucket.fault == "hash":
            body = _flipped(body)
        elif strikes and self.bucket.fault != "lost":
            self._misbehave(b"")
            return
        stated = self.headers.get("x-amz-checksum-sha256")
        if stated != base64.b64encode(hashlib.sha256(body).digest()).decode():
            self._answer(400, b"<Error><Code>BadDigest</Code></Error>")
            return
        with self.bucket.lock:
            taken = not self._may_replace(path)
            if not taken:
                self.bucket.objects[path] = body
                names = [name for name in self.headers if name.lower().startswith("x-amz-meta-")]
                self.bucket.attributes[path] = {name: self.headers[name] for name in names}
        if strikes and self.bucket.fault == "lost":
            self._hang_up()
        elif taken:
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        else:
            self._answer(200, b"", {"ETag": _tag(body)})

    def _may_replace(self, path: str) -> bool:
        """Whether the conditions of a request hold."""
        known = self.bucket.objects.get(path)
        if self.headers.get("If-None-Match") == "*":
            return known is None
        expected = self.headers.get("If-Match")
        return expected is None or (known is not None and expected == _tag(known))

    def _about(self, path: str) -> dict[str, str]:
        """The headers that tell what is stored."""
        data = self.bucket.objects.get(path)
        return {} if data is None else {"ETag": _tag(data), **self.bucket.attributes.get(path, {})}

    def do_DELETE(self) -> None:
        self.bucket.objects.pop(self._key()[0], None)
        self._faulty(204, b"")

    def do_POST(self) -> None:
        """Deletion of several objects by name."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        keys = [unescape(key) for key in re.findall("<Key>(.*?)</Key>", body)]
        for key in keys:
            self.bucket.objects.pop(key, None)
        done = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        self._faulty(200, f"<DeleteResult>{done}</DeleteResult>".encode(), damageable=False)

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

    def _faulty(
        self,
        status: int,
        data: bytes,
        more: dict[str, str] | None = None,
        *,
        head: bool = False,
        damageable: bool = True,
    ) -> None:
        """Answer, or meet the fault; of listings nobody has a hash."""
        damages = self.bucket.fault == "hash"
        if (damages and not damageable) or not self.bucket.strikes():
            self._answer(status, data, more, head=head)
        elif damages:
            self._answer(status, _flipped(data), more, head=head)
        else:
            self._misbehave(data)

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
            time.sleep(0.5)
            self._answer(503, b"")
        elif fault == "timeout":
            time.sleep(2.0)
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
