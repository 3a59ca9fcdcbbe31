"""From the bytes of one file to a data set, within limits: inflated size, nesting, malformed structure."""

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
from builder.headers.attributes import READ_LIMIT, check_items, count_items, too_many_elements
from builder.headers.boundary import parsing

DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
"""The transfer syntax of a deflated data set. Deflated Image Frame Compression deflates frames, not the data set."""

INFLATED_LIMIT: Final = 2 * 2**30
"""Bytes that a deflated data set may inflate to."""

INFLATION_LIMIT: Final = 50
INFLATED_FREE: Final = 256 * 2**20
"""A deflated data set may be at most ``INFLATION_LIMIT`` times as long as its file, or ``INFLATED_FREE`` bytes."""

PIECE: Final = 2**16
_COUNTED_FROM: Final = 2**20
"""A shorter file cannot hold more elements than may be read: pydicom reads it without being counted."""


def parse_instance(content: bytes, *, inflated_limit: int = INFLATED_LIMIT) -> Dataset:
    """Parse the bytes of a DICOM file, or of its part before Pixel Data.

    Raises
    ------
    CaseError
        TOO_LARGE for a file with too many items or elements, or that inflates beyond the limits; UNREADABLE when it
        does not parse.
    """
    check_items(count_items(content))
    _check_inflated(content, min(inflated_limit, max(INFLATED_FREE, INFLATION_LIMIT * len(content))))
    stream = io.BytesIO(content) if len(content) <= _COUNTED_FROM else _Counted(content)
    with leniently(), parsing(Reason.UNREADABLE, "pydicom cannot parse the file"):
        dataset = dcmread(stream, force=True)
    if len(dataset) == 0:
        raise CaseError(Reason.UNREADABLE, "the file ends before its data set does")
    dataset.buffer = None  # the whole file once more, for elements that are read later: none is
    return dataset


class _Counted(io.BytesIO):
    """The stream that pydicom reads a long file from; it raises CaseError TOO_LARGE when it is asked too often."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > READ_LIMIT:
            raise too_many_elements()
        return super().read(size)


@contextmanager
def leniently() -> Iterator[None]:
    """Read elements as they come: pydicom warns of odd values when they are first looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_inflated(content: bytes, limit: int) -> None:
    """Inflate a deflated data set piece by piece, only to learn its size. Raises CaseError TOO_LARGE."""
    if DEFLATED not in content[:2048]:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total = items = 0
    try:
        for start in range(_end_of_meta(content), len(content), PIECE):
            rest = content[start : start + PIECE]
            while rest and not inflater.eof:
                inflated = inflater.decompress(rest, 16 * PIECE)
                rest = inflater.unconsumed_tail
                total += len(inflated)
                items += count_items(inflated)
                check_items(items)
                if total > limit:
                    raise CaseError(Reason.TOO_LARGE, f"a deflated data set of more than {limit} bytes")
    except zlib.error:
        raise CaseError(Reason.UNREADABLE, "the deflated data set is damaged") from None


def _end_of_meta(content: bytes) -> int:
    """Where the data set starts: after File Meta Information (PS3.10 7.1), whose group length is stated first."""
    start = 132 if content[128:132] == b"DICM" else 0
    if content[start : start + 6] == b"\x02\x00\x00\x00UL":
        (length,) = struct.unpack_from("<I", content, start + 8)
        return int(start + 12 + length)
    return start
