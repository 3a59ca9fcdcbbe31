"""Encode file names of arbitrary bytes as text that every table can hold, and decode them.

A file system takes any bytes but NUL and the slash; Arrow and JSON take Unicode. Names in UTF-8 do not change. Each
byte of another encoding becomes a NUL and two hexadecimal digits. This is unambiguous, as no file name has a NUL.
"""

import re

_ESCAPE = re.compile("\0([0-9a-f]{2})")
_SURROGATE = re.compile("[\udc80-\udcff]")


def name_text(name: bytes) -> str:
    """Encode a file's name or path as text."""
    text = name.decode("utf-8", "surrogateescape")
    if text.isascii():
        return text
    return _SURROGATE.sub(lambda found: f"\0{ord(found[0]) - 0xDC00:02x}", text)


def name_bytes(text: str) -> bytes:
    """Return the name or path that ``name_text`` encoded."""
    escaped = _ESCAPE.sub(lambda found: chr(0xDC00 + int(found[1], 16)), text)
    return escaped.encode("utf-8", "surrogateescape")
