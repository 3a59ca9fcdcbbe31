"""Parsing the bytes of one file into a data set, within limits on items, elements and inflated size."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pydicom import dcmread
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.headers.attributes import READ_LIMIT, ItemCount, too_many_elements
from builder.headers.boundary import parsing

DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
"""Transfer syntax of a deflated data set. Deflated Image Frame Compression is another one: it deflates only frames."""

INFLATED_LIMIT: Final = 2 * 2**30
"""Maximum number of bytes that a deflated data set may inflate to."""

INFLATION_LIMIT: Final = 50
INFLATED_FREE: Final = 256 * 2**20
"""A deflated data set may inflate to ``INFLATION_LIMIT`` times its file's size, or to ``INFLATED_FREE`` bytes if that
is more."""

PIECE: Final = 2**16
_COUNTED_FROM: Final = 2**20
"""File size above which reads are counted. A shorter file cannot hold more elements than the limit allows."""


def parse_instance(content: bytes, *, inflated_limit: int = INFLATED_LIMIT) -> Dataset:
    """Parse the bytes of a DICOM file, or of the part before its Pixel Data.

    Raises
    ------
    CaseError
        TOO_LARGE when the file has too many items or elements or inflates beyond the limits; UNREADABLE when it does
        not parse.
    """
    ItemCount().add(content)
    _check_inflated(content, min(inflated_limit, max(INFLATED_FREE, INFLATION_LIMIT * len(content))))
    stream = io.BytesIO(content) if len(content) <= _COUNTED_FROM else _Counted(content)
    with leniently(), parsing(Reason.UNREADABLE, "pydicom cannot parse the file"):
        dataset = dcmread(stream, force=True)
    if len(dataset) == 0:
        raise CaseError(Reason.UNREADABLE, "the file ends before its data set does")
    dataset.buffer = None  # frees the copy of the file that pydicom keeps for deferred reads, which are not used
    return dataset


class _Counted(io.BytesIO):
    """A stream for long files that counts pydicom's reads and raises CaseError TOO_LARGE when there are too many."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > READ_LIMIT:
            raise too_many_elements()
        return super().read(size)


@contextmanager
def leniently() -> Iterator[None]:
    """Silence the warnings that pydicom raises when an odd value is first accessed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_inflated(content: bytes, limit: int) -> None:
    """Inflate a deflated data set piece by piece to check its size before pydicom inflates it. May raise CaseError."""
    if DEFLATED not in content[:2048]:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total, items = 0, ItemCount()
    try:
        for start in range(_end_of_meta(content), len(content), PIECE):
            rest = content[start : start + PIECE]
            while rest and not inflater.eof:
                inflated = inflater.decompress(rest, 16 * PIECE)
                rest = inflater.unconsumed_tail
                total += len(inflated)
                items.add(inflated)
                if total > limit:
                    raise CaseError(Reason.TOO_LARGE, f"a deflated data set of more than {limit:,} bytes")
    except zlib.error:
        raise CaseError(Reason.UNREADABLE, "the deflated data set is damaged") from None


def _end_of_meta(content: bytes) -> int:
    """Return the start of the data set, from the group length of the File Meta Information (PS3.10 7.1)."""
    start = 132 if content[128:132] == b"DICM" else 0
    if content[start : start + 6] == b"\x02\x00\x00\x00UL":
        (length,) = struct.unpack_from("<I", content, start + 8)
        return int(start + 12 + length)
    return start
