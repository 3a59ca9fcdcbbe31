"""Parse bodies of type multipart/related (RFC 2387), in which DICOMweb sends objects, while they arrive."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from builder.sources.patience import Fault

PART_LIMIT: Final = 100_000
HEADER_LIMIT: Final = 16 * 2**10
SIZE_LIMIT: Final = 4 * 2**30
"""Most bytes of one part; the largest whole-slide instances are about 2 GiB."""

_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)


def parts(chunks: Iterable[bytes], content_type: str) -> Iterator[tuple[Mapping[str, str], bytes]]:
    """Yield headers (names in lower case) and content of each part as soon as it has arrived whole.

    If a part states its Content-Length, that decides where it ends, because its content may contain the boundary. One
    part is held in memory at a time.

    Raises
    ------
    Fault
        When the body does not match its type, is cut off, or exceeds a limit.
    """
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/") or not found:
        shown = content_type.partition(";")[0][:40] or "no type"
        raise Fault(f"found an answer of type {shown}, expected multipart/related with a boundary")
    stream = _Stream(chunks)
    delimiter = b"--" + (found[1] or found[2]).encode("latin-1", errors="replace")
    if stream.has(delimiter):
        stream.take(len(delimiter))
    else:
        stream.until(b"\r\n" + delimiter, limit=HEADER_LIMIT)
    for _ in range(PART_LIMIT):
        if stream.take(2) == b"--":
            return
        headers = _headers(stream.until(b"\r\n\r\n", limit=HEADER_LIMIT))
        yield headers, _content(stream, b"\r\n" + delimiter, headers.get("content-length", ""))
    raise Fault(f"found more than {PART_LIMIT} parts in an answer")


class _Stream:
    """Bytes that arrive in pieces. What was taken is forgotten."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._held = bytearray()

    def fill(self, count: int) -> bool:
        """Hold at least ``count`` bytes; return False when the body ends before."""
        while len(self._held) < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._held += chunk
        return True

    def take(self, count: int) -> bytes:
        if not self.fill(count):
            raise Fault("found a multipart answer that is cut off")
        taken = bytes(memoryview(self._held)[:count])
        del self._held[:count]
        return taken

    def has(self, text: bytes, *, at: int = 0) -> bool:
        return self.fill(at + len(text)) and self._held[at : at + len(text)] == text

    def until(self, text: bytes, *, limit: int) -> bytes:
        """Take what comes before ``text``, and ``text`` itself."""
        searched = 0
        while (at := self._held.find(text, searched)) < 0:
            searched = max(0, len(self._held) - len(text) + 1)
            if searched > limit:
                raise Fault(f"found a part of a multipart answer with more than {limit} bytes")
            if not self.fill(len(self._held) + 1):
                raise Fault("found a multipart answer that is cut off")
        taken = self.take(at)
        self.take(len(text))
        return taken


def _headers(data: bytes) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in data.decode("latin-1").split("\r\n") if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in pairs}


def _content(stream: _Stream, closing: bytes, length: str) -> bytes:
    """Take a part's content and the boundary behind it."""
    if length.isascii() and length.isdigit() and int(length) <= SIZE_LIMIT:
        size = int(length)
        if stream.has(closing, at=size):
            content = stream.take(size)
            stream.take(len(closing))
            return content
    return stream.until(closing, limit=SIZE_LIMIT)
