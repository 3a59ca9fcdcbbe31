"""Compiled functions that read little-endian words, text and numbers from the bytes of a header."""

from typing import Any

import numpy as np

from builder.model.compiled import compiled


@compiled
def u16(data: Any, at: int) -> Any:
    return np.int64(data[at]) | np.int64(data[at + 1]) << 8


@compiled
def u32(data: Any, at: int) -> Any:
    return u16(data, at) | u16(data, at + 2) << 16


@compiled
def trim(data: Any, start: int, end: int) -> Any:
    """Return the bounds without the spaces and zero bytes at either end."""
    while start < end and (data[start] == 0x20 or data[start] == 0):
        start += 1
    while end > start and (data[end - 1] == 0x20 or data[end - 1] == 0):
        end -= 1
    return start, end


@compiled
def text_kind(data: Any, start: int, end: int) -> Any:
    """Return 0 for ASCII text, 1 for text with other bytes, 2 for bytes with control characters or escapes."""
    kind = 0
    for i in range(start, end):
        if (data[i] < 0x20 and data[i] != 0) or data[i] == 0x7F:
            return 2
        if data[i] > 0x7F:
            kind = 1
    return kind


@compiled
def is_number(data: Any, start: int, end: int, whole: bool) -> Any:
    """Return whether the bytes are one number.

    A whole number is an optional sign and up to nine digits. A decimal may also have a point and an exponent.
    """
    if end - start > 40:
        return False
    at = start
    if at < end and (data[at] == 0x2D or data[at] == 0x2B):
        at += 1
    digits = 0
    while at < end and 0x30 <= data[at] <= 0x39:
        at += 1
        digits += 1
    if whole:
        return at == end and 0 < digits <= 9
    if at < end and data[at] == 0x2E:
        at += 1
        while at < end and 0x30 <= data[at] <= 0x39:
            at += 1
            digits += 1
    if digits == 0:
        return False
    if at < end and (data[at] == 0x65 or data[at] == 0x45):
        at += 1
        if at < end and (data[at] == 0x2D or data[at] == 0x2B):
            at += 1
        if end - at < 1 or end - at > 3 or (end - at == 3 and data[at] != 0x30):
            return False  # an exponent of more than two digits may overflow
        while at < end and 0x30 <= data[at] <= 0x39:
            at += 1
    return at == end


@compiled
def are_numbers(data: Any, start: int, end: int, most: int, whole: bool) -> Any:
    """Return whether the bytes are one to ``most`` numbers separated by backslashes."""
    at = start
    count = 0
    for i in range(start, end + 1):
        if i == end or data[i] == 0x5C:
            first, last = trim(data, at, i)
            count += 1
            if count > most or not is_number(data, first, last, whole):
                return False
            at = i + 1
    return True


@compiled
def is_known(data: Any, first: int, last: int, known: Any) -> Any:
    """Return the number (from 1) of the row of ``known`` that equals the trimmed bytes, or 0 when none does."""
    first, last = trim(data, first, last)
    for row in range(known.shape[0]):
        if last - first >= known.shape[1] or known[row, last - first] != 0:
            continue
        same = True
        for i in range(last - first):
            same = same and data[first + i] == known[row, i]
        if same:
            return row + 1
    return 0
