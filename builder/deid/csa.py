"""Reduce Siemens' CSA image header to the two facts that geometry needs.

The header (0029,1010) holds the whole protocol, free text and names included, so it is never passed on. A mosaic cannot
be cut apart without it: what survives is a new header with the number of tiles and the normal of the slices.
The layout is described in nibabel's documentation ("Siemens format DICOM with CSA header").
"""

import re
import struct
from collections.abc import Iterator, Mapping

KEPT = ("NumberOfImagesInMosaic", "SliceNormalVector")
"""Names of the values that are kept."""

_TAGS_LIMIT = 1_000
_ITEMS_LIMIT = 10_000
_NUMBER = re.compile(rb"[+\-0-9.eE ]{1,32}")
_CHECK = 77


def reduce_csa(content: bytes) -> bytes | None:
    """Return a CSA header (type 2) that holds the numbers of ``KEPT`` and nothing else; None if there are none.

    Malformed input gives None, and the mosaic is then refused because it lacks the header.
    """
    try:
        found = {name: values for name, values in _read(content) if name in KEPT and values}
    except (struct.error, ValueError):
        return None
    kept = {n: v for n, v in found.items() if all(_NUMBER.fullmatch(value) for value in v)}
    return _write(kept) if kept else None


def _read(content: bytes) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    """Return names and values of a header of type 1 or 2. Every length is checked against the bytes that are there."""
    newer = content[:4] == b"SV10"
    offset = 8 if newer else 0
    (tags,) = struct.unpack_from("<I", content, offset)
    if not 0 < tags <= _TAGS_LIMIT:
        raise ValueError("number of tags")
    offset += 8
    first_items: int | None = None
    for _ in range(tags):
        name, _, _, _, items, _ = struct.unpack_from("<64sI4sIII", content, offset)
        offset += 84
        if items > _ITEMS_LIMIT:
            raise ValueError("number of items")
        first_items = items if first_items is None else first_items
        values = []
        for _ in range(items):
            lengths = struct.unpack_from("<4I", content, offset)
            offset += 16
            length = lengths[1] if newer else lengths[0] - first_items  # type 1 counts from the first tag's items
            if length < 0 or offset + length > len(content):
                raise ValueError("length of an item")
            values.append(content[offset : offset + length].split(b"\0", 1)[0].strip())
            offset += (length + 3) // 4 * 4
        yield name.split(b"\0", 1)[0].decode("latin-1"), tuple(value for value in values if value)


def _write(values: Mapping[str, tuple[bytes, ...]]) -> bytes:
    """Return a header of type 2."""
    parts = [b"SV10\4\3\2\1", struct.pack("<II", len(values), _CHECK)]
    for name in sorted(values):
        items = values[name]
        parts.append(struct.pack("<64sI4sIII", name.encode(), len(items), b"FD\0\0", 4, len(items), _CHECK))
        for item in items:
            text = item + b"\0"
            parts.append(struct.pack("<4I", len(text), len(text), _CHECK, len(text)))
            parts.append(text.ljust((len(text) + 3) // 4 * 4, b"\0"))
    return b"".join(parts)
