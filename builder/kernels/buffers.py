"""Memory of large arrays that is used again: fresh pages cost as much as the arithmetic that fills them.

An array from ``borrow`` is like one of ``numpy.empty``. When it and all its views are gone its memory is kept, and the
next array of about that size gets it. A few are kept at most, and whenever an array is asked for, those that do not
serve are let go of.
"""

import math
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

SMALLEST = 4 << 20
"""Bytes from which the allocator takes whole pages for an array, and gives them back at once."""
LARGEST = 1 << 30
"""Bytes that may be kept in one piece."""
MOST = 3
"""Pieces that are kept, of which the next array chooses: what a case read, what it made, what it needed between."""
LOOSE = 1.25
"""A piece may be so many times as large as what is asked for."""

_idle: "deque[NDArray[np.uint8]]" = deque(maxlen=MOST)
# appended to and popped from without a lock: an array may end inside any statement, whatever lock its thread holds


class _Loan:
    """Owner of an array's memory: ends with the last view of it, and puts the memory back."""

    def __init__(self, piece: NDArray[np.uint8]) -> None:
        self._piece = piece
        self.__array_interface__ = piece.__array_interface__

    def __del__(self, idle: "deque[NDArray[np.uint8]]" = _idle, largest: int = LARGEST) -> None:
        if self._piece.size <= largest:
            idle.append(self._piece)


def borrow(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """A C-contiguous array of any content."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < SMALLEST:
        return np.empty(shape, dtype=dtype)
    piece = _take(size)
    if piece is None:
        piece = np.empty(size, dtype=np.uint8)
    return np.asarray(_Loan(piece))[:size].view(dtype).reshape(shape)


def let_go() -> None:
    """Keep nothing."""
    _idle.clear()


def _take(size: int) -> NDArray[np.uint8] | None:
    """A kept piece that fits; the others are kept no more."""
    found = None
    while True:
        try:
            piece = _idle.popleft()
        except IndexError:
            return found
        if size <= piece.size <= LOOSE * size:
            found = piece
