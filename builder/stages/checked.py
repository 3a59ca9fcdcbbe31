"""Bytes that tasks leave for each other and read in part, each part with its checksum.

A bucket states no hash of a range of an object, so what is damaged on its way would be believed.
"""

from typing import Final

from builder.errors import LayoutError
from builder.model.zarr_format import CHECKSUM_BYTES, checksum
from builder.storage import Store

READS: Final = 4
"""How often a part is read before it is taken to be damaged where it lies."""


def with_checksum(data: bytes) -> bytes:
    """Return bytes with their crc32c behind them."""
    return data + checksum(data)


def read_checked(store: Store, path: str, start: int, *, length: int) -> bytes:
    """Read bytes that ``with_checksum`` made, without their checksum. ``length`` is that of both.

    Raises
    ------
    LayoutError
        If they are other ones each time.
    """
    for _ in range(READS):
        data = store.read_range(path, start, length=length)
        if checksum(data[:-CHECKSUM_BYTES]) == data[-CHECKSUM_BYTES:]:
            return data[:-CHECKSUM_BYTES]
    raise LayoutError(
        f"{path} of the private workspace: found other bytes than were stored, {READS} times, expected those of its "
        "checksum; run the same command again"
    )
