"""Blosc chunks that are read fast: planes of bytes that hardly compress are stored as they are.

Blosc's byte shuffle puts the first bytes of all numbers of a block together, then the second bytes, and compresses each
of these planes by itself. The low bytes of a CT are noise: LZ4 finds short matches in them, which save a few per cent
and take most of the time that a chunk takes to decode. What is made here is a chunk of Blosc's first format
(https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst), which every reader of Blosc decodes.
"""

import math
from typing import Any, Final

import numcodecs.blosc as blosc
import numpy as np
from numpy.typing import NDArray

PLANE_SAVES: Final = 20
"""Percent of a plane that compression must save, or the plane is stored as it is. A change moves stored bytes."""
BITS_SAVE: Final = 15
"""Percent of the array's bytes that shuffling bits must save, because bits take longer to put back than bytes. A change
moves stored bytes."""
BLOCK_BYTES: Final = 256 * 1024
"""Most bytes of a block, so that its planes lie in the processor's cache. A change moves stored bytes."""
LEAST_ELEMENTS: Final = 128
"""Blosc does not divide smaller blocks into planes (its MIN_BUFFERSIZE)."""
MOST_PLANES: Final = 16
"""Most bytes of a number whose planes Blosc compresses apart (its MAX_SPLITS)."""
_HEADER_BYTES: Final = 16
_VERSION, _LZ4_VERSION = 2, 1
_SHUFFLED, _LZ4 = 0x1, 1 << 5


def encode_planes(array: NDArray[Any], level: int) -> bytes:
    """Encode an array as a Blosc chunk, with LZ4HC of a level for the planes that it makes much smaller.

    Bits are shuffled instead of bytes where that makes the whole much smaller. Arrays that cannot be divided into
    blocks of equal size are compressed as Blosc does it.
    """
    array = np.ascontiguousarray(array)
    elements, size = array.size, array.itemsize
    numbers = range(math.ceil(array.nbytes / BLOCK_BYTES), elements // LEAST_ELEMENTS + 1)
    blocks = next((n for n in numbers if n and elements % n == 0), 0)
    if not blocks or size > MOST_PLANES:
        plain: bytes = blosc.compress(array, b"lz4hc", level, blosc.SHUFFLE, 0)
        return plain
    planes = array.view(np.uint8).reshape(blocks, -1, size).transpose(0, 2, 1)
    bodies = [b"".join(_stream(plane, level) for plane in block) for block in np.ascontiguousarray(planes)]
    starts = _HEADER_BYTES + 4 * blocks + np.cumsum([0, *(len(body) for body in bodies[:-1])])
    length = _HEADER_BYTES + 4 * blocks + sum(map(len, bodies))
    head = bytes((_VERSION, _LZ4_VERSION, _SHUFFLED | _LZ4, size))
    sizes = np.array([array.nbytes, array.nbytes // blocks, length, *starts], "<u4").tobytes()
    bits: bytes = blosc.compress(array, b"lz4", 9, blosc.BITSHUFFLE, 0)
    return bits if len(bits) + array.nbytes * BITS_SAVE // 100 <= length else head + sizes + b"".join(bodies)


def _stream(plane: NDArray[np.uint8], level: int) -> bytes:
    """Return a plane with its length in front, which tells Blosc whether it is compressed."""
    data = plane.tobytes()
    chunk: bytes = blosc.compress(data, b"lz4hc", level, blosc.NOSHUFFLE, len(data))  # with one block of one plane
    compressed = chunk[_HEADER_BYTES + 8 :]
    if len(chunk) >= len(data) or len(compressed) + len(data) * PLANE_SAVES // 100 > len(data):
        compressed = data
    return len(compressed).to_bytes(4, "little") + compressed
