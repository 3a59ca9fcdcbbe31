"""The common form of volume files: voxels on a grid in LPS mm, and the segments that the file itself names."""

import bz2
import gzip
import io
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.files.facts import FileFacts, misplaced, unreadable
from builder.model.case import Code
from builder.model.geometry import Geometry

GZIP = b"\x1f\x8b"
MAX_TAIL = 2**20
"""Most bytes that may follow the voxels in a compressed stream. They are inflated only to reach its checksum."""


@dataclass(frozen=True)
class FileSegment:
    """A structure that the file names: the voxels of ``layer`` that equal ``value``."""

    name: str
    layer: int
    value: int
    category: Code | None = None
    type: Code | None = None


@dataclass(frozen=True, eq=False)
class FileGrid:
    """(layer, slice, row, column) values on ``geometry`` (LPS mm, no frame of reference); None for a picture."""

    layers: NDArray[Any]
    geometry: Geometry | None
    segments: tuple[FileSegment, ...] = ()


def geometry_of(facts: FileFacts) -> Geometry:
    """Return the grid that the header states. Raises FileFault of kind ``geometry``."""
    if facts.affine is None:
        raise misplaced(facts.fault.removeprefix("found ") or "no grid in patient space")
    return Geometry(facts.shape, np.array(facts.affine))


def stored_voxels(facts: FileFacts, data: bytes) -> NDArray[Any]:
    """Return (layer, slice, row, column) values as stored.

    Parameters
    ----------
    data
        The file that holds the voxels: the one that the facts come from, or its companion.

    Raises
    ------
    FileFault
        ``unreadable`` when voxels are missing or damaged.
    """
    dtype, size = np.dtype(facts.dtype), facts.stored_bytes
    start = len(data) - size if facts.offset < 0 else facts.offset
    if facts.whole_gzip:
        data = inflate(data, start + size, wbits=31)
    elif facts.packing:
        first = max(0, facts.offset)
        packed = data[first : first + facts.packed_bytes] if facts.packed_bytes else data[first:]
        if len(packed) < facts.packed_bytes:
            raise unreadable(f"{len(packed)} bytes of compressed voxels, expected {facts.packed_bytes}")
        data, start = _unpacked(packed, size, facts.packing), 0
    if start < 0 or len(data) - start < size:
        raise unreadable(f"{max(0, len(data) - max(0, start))} bytes of voxels, expected {size}")
    flat = np.frombuffer(data, dtype, count=size // dtype.itemsize, offset=start)
    if facts.layers_first:
        return flat.reshape((*facts.shape, facts.layers)).transpose(3, 0, 1, 2)
    return flat.reshape((facts.layers, *facts.shape))


def inflate(data: bytes, expected: int, *, wbits: int) -> bytes:
    """Decompress exactly ``expected`` bytes from a zlib (wbits 15) or gzip (wbits 31) stream, and check its checksum.

    A gzip file may have several members, as bgzip writes it, and zeros after them, as tapes pad it. Anything else after
    them is refused: such a file was joined or damaged.
    """
    try:
        if wbits == 15:
            found, ended = _one_stream(data, expected)
        else:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
                found, ended = stream.read(expected), len(stream.read(MAX_TAIL)) < MAX_TAIL
    except EOFError as error:
        raise unreadable(f"compressed voxels that break off, expected {expected} bytes") from error
    except (zlib.error, OSError) as error:
        raise unreadable("compressed voxels that do not decompress") from error
    if not ended:
        raise unreadable(f"more than {expected} bytes of voxels, expected as many as the header says")
    if len(found) < expected:
        raise unreadable(f"compressed voxels that break off after {len(found)} bytes, expected {expected}")
    return found


def _one_stream(data: bytes, expected: int) -> tuple[bytes, bool]:
    machine = zlib.decompressobj()
    found = machine.decompress(data, expected)
    tail = machine.decompress(machine.unconsumed_tail, MAX_TAIL) if len(found) == expected else b""
    if not machine.eof and len(tail) < MAX_TAIL:
        raise EOFError
    return found, machine.eof


def _unpacked(data: bytes, size: int, packing: str) -> bytes:
    if packing in ("gzip", "zlib"):
        return inflate(data, size, wbits=31 if packing == "gzip" else 15)
    if packing != "bzip2":
        return data
    try:
        return bz2.BZ2Decompressor().decompress(data, size)
    except (OSError, EOFError) as error:
        raise unreadable("compressed voxels that do not decompress") from error
