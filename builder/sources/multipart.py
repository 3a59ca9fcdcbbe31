"""Parse bodies of type multipart/related (RFC 2387), in which DICOMweb sends objects."""

import re
from collections.abc import Iterator
from typing import Final

from builder.errors import CaseError, Reason

PART_LIMIT: Final = 100_000
HEADER_LIMIT: Final = 16 * 2**10

_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)


def parts(body: bytes, content_type: str) -> Iterator[tuple[dict[str, str], bytes]]:
    """Yield headers (names in lower case) and content of each part.

    If a part states its Content-Length, that decides where it ends, because its content may contain the boundary.

    Raises
    ------
    CaseError
        UNREADABLE when the body does not match its type, or is cut off.
    """
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/") or not found:
        raise CaseError(Reason.UNREADABLE, "the answer is not multipart, or names no boundary")
    delimiter = b"--" + (found[1] or found[2]).encode("latin-1", errors="replace")
    at = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if at == 1:
        raise CaseError(Reason.UNREADABLE, "the multipart answer does not hold its boundary")
    for _ in range(PART_LIMIT):
        at += len(delimiter)
        if body[at : at + 2] == b"--":
            return
        headers, start = _headers(body, at)
        end = _end(body, start, delimiter, headers.get("content-length"))
        yield headers, body[start:end]
        at = end + 2
    raise CaseError(Reason.TOO_LARGE, f"the multipart answer has more than {PART_LIMIT} parts")


def _headers(body: bytes, at: int) -> tuple[dict[str, str], int]:
    """Return the headers of the part whose boundary ends at ``at``, and where its content starts."""
    end = body.find(b"\r\n\r\n", at, at + HEADER_LIMIT)
    if end < 0:
        raise CaseError(Reason.UNREADABLE, "a part of the multipart answer has no end of headers")
    lines = body[at:end].decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in pairs}, end + 4


def _end(body: bytes, start: int, delimiter: bytes, length: str | None) -> int:
    """Return where the content that starts at ``start`` ends."""
    closing = b"\r\n" + delimiter
    if length is not None and length.isdigit():
        end = start + int(length)
        if body[end : end + len(closing)] == closing:
            return end
    end = body.find(closing, start)
    if end < 0:
        raise CaseError(Reason.UNREADABLE, "the multipart answer is cut off")
    return end
