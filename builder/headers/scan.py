"""Compiled scan that locates the wanted values in many plain DICOM headers at once.

It accepts only unambiguous files: a preamble, explicit or implicit VR little endian, strictly ascending tags, known
VRs, values inside the file, and plain text and numbers in the wanted attributes. pydicom reads all other files.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from builder.headers.plain import are_numbers, is_known, text_kind, trim, u16, u32
from builder.model.compiled import compiled

DONE: Final = 0
ODD: Final = 1
SHORT: Final = 2
"""Outcome for one file: DONE when everything was found, ODD when pydicom must read it, SHORT when the head given is too
short."""

TEXT_KIND: Final = 0
DECIMAL_KIND: Final = 1
WHOLE_KIND: Final = 2
US_KIND: Final = 3
FD_KIND: Final = 4
PADDING_KIND: Final = 5
LOCAL_KIND: Final = 6
FL_KIND: Final = 7
"""How a wanted value is encoded; LOCAL_KIND is text in the Specific Character Set."""

DEPTH_LIMIT: Final = 32
TEXT_LIMIT: Final = 4096
_UNDEFINED = 0xFFFFFFFF
_SHORT_TYPES = "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"
_LONG_TYPES = "OB OD OF OL OV OW SV UC UR UT UV"
_LOCAL_TYPES = "LO LT PN SH ST UC UT"
_BINARY_TYPES = "US SS UL SL FD FL AT SV UV OB OW OD OF OL OV SQ UN"


def _pair(name: str) -> Any:
    return ord(name[0]) | ord(name[1]) << 8


def _vr_table() -> NDArray[np.uint8]:
    """Return the kind of VR for each pair of letters (PS3.5 section 7.1.2).

    0 is unknown, 1 a VR with a 2-byte length, 2 a VR with a 4-byte length, 3 is SQ and 4 is UN.
    """
    table = np.zeros(65536, np.uint8)
    for name in _SHORT_TYPES.split():
        table[_pair(name)] = 1
    for name in _LONG_TYPES.split():
        table[_pair(name)] = 2
    table[_pair("SQ")] = 3
    table[_pair("UN")] = 4
    return table


_VRS = _vr_table()
_US, _SS, _FD, _FL = _pair("US"), _pair("SS"), _pair("FD"), _pair("FL")


def _is_binary_table() -> NDArray[np.uint8]:
    table = np.zeros(65536, np.uint8)
    for name in _BINARY_TYPES.split():
        table[_pair(name)] = 1
    return table


_IS_BINARY = _is_binary_table()
_LOCAL_PAIRS = np.array([0, *(_pair(name) for name in _LOCAL_TYPES.split())], np.int64)


@compiled
def _skip_undefined(data: Any, at: int, end: int, implicit: bool, vrs: Any) -> Any:
    """Return the position after the sequence of undefined length whose first item starts at ``at``.

    Return -1 when the sequence is odd and -2 when it reaches beyond ``end``.
    """
    inside = 1  # nesting level: odd inside a sequence (items follow), even inside an item (elements follow)
    while inside > 0:
        if inside > 2 * DEPTH_LIMIT:
            return -1
        if at + 8 > end:
            return -2
        group, element, length = u16(data, at), u16(data, at + 2), u32(data, at + 4)
        if group == 0xFFFE:
            at += 8
            if inside % 2 == 1 and element == 0xE000:
                if length == _UNDEFINED:
                    inside += 1
                else:
                    at += length
            elif (inside % 2 == 1 and element == 0xE0DD and length == 0) or (
                inside % 2 == 0 and element == 0xE00D and length == 0
            ):
                inside -= 1
            else:
                return -1
            continue
        if inside % 2 == 1:
            return -1
        at += 8
        if not implicit:
            kind = vrs[u16(data, at - 4)]
            if kind == 0:
                return -1
            if kind == 1:
                length = u16(data, at - 2)
            else:
                if at + 4 > end:
                    return -2
                length = u32(data, at)
                at += 4
                if length == _UNDEFINED and kind != 3:
                    return -1
        if length == _UNDEFINED:
            inside += 1
        else:
            at += length
    return at


@compiled
def _scan_meta(data: Any, begin: int, end: int, vrs: Any) -> Any:
    """Return the status, the start of the data set and the bounds of the Transfer Syntax UID."""
    at = begin + 132
    first = last = 0
    previous = -1
    while True:
        if at + 12 > end:
            return SHORT, at, first, last
        if u16(data, at) != 2:
            return DONE, at, first, last
        tag = u16(data, at + 2)
        if tag <= previous:
            return ODD, at, first, last
        previous = tag
        kind = vrs[u16(data, at + 4)]
        if kind == 1:
            length = u16(data, at + 6)
            at += 8
        elif kind == 2:
            length = u32(data, at + 8)
            at += 12
        else:
            return ODD, at, first, last
        if tag == 0 and (length != 4 or at + 4 > end):
            return ODD, at, first, last
        if tag == 0x10:
            first, last = at, at + length
        at += length


@compiled
def _grade(data: Any, at: int, length: int, pair: int, kind: int, most: int, signed: bool) -> Any:
    """Return 0 when a wanted value can be used as it is, 1 when it is text to be decoded, 2 when it is odd.

    ``pair`` is the encoded VR of the value, 0 in implicit VR.
    """
    if US_KIND <= kind <= PADDING_KIND or kind == FL_KIND:
        wanted = _FD if kind == FD_KIND else _FL if kind == FL_KIND else _US
        size = 8 if kind == FD_KIND else 4 if kind == FL_KIND else 2
        if pair not in (0, wanted) and not (kind == PADDING_KIND and pair == _SS and signed):
            return 2
        return 0 if length == size or length == 0 else 2
    if _IS_BINARY[pair] or length > TEXT_LIMIT:
        return 2
    text = text_kind(data, at, at + length)
    if text == 1:
        return 1 if kind == LOCAL_KIND and np.any(pair == _LOCAL_PAIRS) else 2
    first, last = trim(data, at, at + length)
    if text == 2 or first == last or kind in (TEXT_KIND, LOCAL_KIND):
        return text
    return 0 if are_numbers(data, first, last, most, kind == WHOLE_KIND) else 2


@compiled
def _element(data: Any, at: int, end: int, implicit: bool) -> Any:
    """Return VR pair, VR kind, value length and value position of an element.

    The pair is 0 in implicit VR, -1 for an odd element and -2 for one that reaches beyond ``end``.
    """
    if at + 8 > end:
        return -2, 0, 0, at
    if implicit:
        return 0, 0, u32(data, at + 4), at + 8
    pair = u16(data, at + 4)
    kind = np.int64(_VRS[pair])
    if kind == 0:
        return -1, 0, 0, at
    if kind == 1:
        return pair, kind, u16(data, at + 6), at + 8
    if at + 12 > end:
        return -2, 0, 0, at
    return pair, kind, u32(data, at + 8), at + 12


@compiled
def _is_sequence(data: Any, at: int, end: int, kind: int, implicit: bool) -> Any:
    """Return whether a value of undefined length is a sequence, by its VR, or by its first item in implicit VR."""
    if not implicit:
        return kind == 3
    return at + 4 <= end and u16(data, at) == 0xFFFE and u16(data, at + 2) in (0xE000, 0xE0DD)


@compiled
def _looks_explicit(data: Any, at: int, end: int) -> Any:
    """Return whether the element at ``at`` has two capital letters where a VR would be."""
    return at + 6 <= end and 0x40 < data[at + 4] < 0x5B and 0x40 < data[at + 5] < 0x5B


@compiled
def _scan_elements(
    data: Any, at: int, begin: int, end: int, size: int, implicit: bool, wanted: Any, charsets: Any,
    places: Any, lengths: Any, facts: Any,
) -> Any:  # fmt: skip
    """Walk the top level of one file up to Pixel Data, fill its output rows, and return the status."""
    tags, kinds, mosts = wanted
    previous = np.int64(-1)
    next_wanted = 0
    signed = False
    if implicit and _looks_explicit(data, at, end):
        return ODD
    while at != begin + size:
        pair, kind, length, value = _element(data, at, end, implicit)
        if pair < 0:
            facts[2] = at - begin
            return ODD if pair == -1 else SHORT
        tag = u16(data, at) << 16 | u16(data, at + 2)
        if tag <= previous or tag < 0x00080000 or tag > 0x7FE00010:
            return ODD
        previous = tag
        if tag >= 0x7FE00008:
            return _pixels(tag, kind, length, at - begin, value - begin, size, implicit, facts)
        while next_wanted < tags.shape[0] and tags[next_wanted] < tag:
            next_wanted += 1
        is_wanted = next_wanted < tags.shape[0] and tags[next_wanted] == tag
        if length == _UNDEFINED:
            if is_wanted or not _is_sequence(data, value, end, kind, implicit):
                return ODD if value + 4 <= end else SHORT
            at = _skip_undefined(data, value, end, implicit, _VRS)
            if at < 0:
                facts[2] = end - begin
                return ODD if at == -1 else SHORT
            continue
        at = value + length
        if at > begin + size:
            return ODD
        if is_wanted or tag == 0x00080005:
            if at > end:
                facts[2] = at - begin
                return SHORT
            if tag == 0x00080005:
                facts[5] = is_known(data, value, at, charsets) - 1
                if facts[5] < 0:
                    return ODD
                continue
            grade = _grade(data, value, length, pair, kinds[next_wanted], mosts[next_wanted], signed)
            if grade == 2:
                return ODD
            if grade == 1:
                facts[6] = 1
            first, last = value, at
            if kinds[next_wanted] < US_KIND or kinds[next_wanted] == LOCAL_KIND:
                first, last = trim(data, value, at)
            if last > first:
                places[next_wanted] = first
                lengths[next_wanted] = last - first
            if tag == 0x00280103:
                signed = length == 2 and u16(data, value) == 1
    facts[2] = size
    return DONE if begin + size <= end else SHORT


@compiled
def _pixels(
    tag: int, kind: int, length: int, at: int, value: int, size: int, implicit: bool, facts: Any
) -> Any:  # fmt: skip
    """Return the status at the Pixel Data element, and store its position in ``facts``."""
    facts[2] = at
    if not implicit and kind != 2:
        return ODD
    if length != _UNDEFINED:
        if value + length > size:
            return ODD
        if tag == 0x7FE00010:
            facts[3] = value
            facts[4] = length
    return DONE


@compiled
def scan(
    data: Any, begins: Any, ends: Any, sizes: Any, wanted: Any, syntaxes: Any, charsets: Any,
    places: Any, lengths: Any, facts: Any,
) -> None:  # fmt: skip
    """Find the wanted values in many heads.

    Parameters
    ----------
    data
        The concatenated heads (uint8).
    begins, ends, sizes
        Bounds of each head in ``data``, and the length of the whole file.
    wanted
        Tags in ascending order, how each is encoded, and how many values each may have.
    syntaxes, charsets
        Rows of zero-padded bytes: the transfer syntaxes (row 0 is implicit VR), and the Specific Character Sets in
        which ASCII bytes mean ASCII.
    places, lengths
        Output (file, tag), filled with -1 by the caller: position in ``data`` and length of each trimmed value found.
    facts
        Output (file, 7), filled with -1 by the caller: status, row of the transfer syntax, end of the header (or how
        far it was read), offset and length of native Pixel Data (from the start of the file), row of the Specific
        Character Set, and 1 when some text is not ASCII.
    """
    for file in range(begins.shape[0]):
        begin, end = begins[file], ends[file]
        row = facts[file]
        status, at, first, last = _scan_meta(data, begin, end, _VRS)
        if status == DONE:
            row[1] = is_known(data, first, last, syntaxes) - 1
            status = ODD
            if row[1] >= 0:
                status = _scan_elements(
                    data, at, begin, end, sizes[file], row[1] == 0, wanted, charsets, places[file], lengths[file], row
                )
        if status == SHORT and end - begin >= sizes[file]:
            status = ODD
        row[0] = status


@compiled
def gather(data: Any, places: Any, lengths: Any, offsets: Any, out: Any) -> None:
    """Copy the values at ``places`` one after the other to ``out``; ``offsets`` receives each start and the end."""
    at = 0
    for file in range(places.shape[0]):
        offsets[file] = at
        for i in range(lengths[file] if places[file] >= 0 else 0):
            out[at] = data[places[file] + i]
            at += 1
    offsets[places.shape[0]] = at
