"""The fast path: read the headers of many plain files at once into Arrow columns."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydicom.charset import convert_encodings

from builder.headers import scan as scanning
from builder.headers.references import ANNOTATION_PATTERN
from builder.headers.values import CHARSETS, LOCAL_TYPES, WANTED, Wanted
from builder.headers.views import CODED_CLASSES
from builder.model.tables import IDENTITY, IDENTITY_COLUMNS, REAL, REALS, TEXT

SYNTAXES: Final = (
    "1.2.840.10008.1.2",  # implicit VR little endian: must be first
    "1.2.840.10008.1.2.1",
    *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91, 92, 93, *range(100, 109))),
    *(f"1.2.840.10008.1.2.4.{n}" for n in (110, 111, 112, 201, 202, 203)),
    "1.2.840.10008.1.2.5",
)
"""Transfer syntaxes whose data set is plain little endian: neither deflated, big endian, nor by reference (JPIP)."""

_REQUIRED = ("sop_class_uid", "sop_instance_uid", "study_uid", "series_uid")
_MANY = 64
_FLOATS: Final = {"FD": "<f8", "FL": "<f4"}
_BINARY_KINDS: Final = {"US": scanning.US_KIND, "FD": scanning.FD_KIND, "FL": scanning.FL_KIND}
_SORTED = sorted(WANTED, key=lambda wanted: wanted.tag)


@dataclass(frozen=True, eq=False)
class Walked:
    """The result of the fast path for a batch of heads.

    Parameters
    ----------
    done
        Positions of the files that were read, ascending.
    short
        Positions of the files that need a longer head. Files in neither list must go to ``attributes.read_header``.
    columns
        Maps names to Arrow arrays with one value for each file in ``done``: the header columns,
        ``transfer_syntax_uid``, ``header_sha256``, ``pixel_offset`` and ``pixel_length``.
    """

    done: NDArray[np.int64]
    short: NDArray[np.int64]
    columns: dict[str, Any]


def walk(heads: Sequence[bytes], sizes: Sequence[int]) -> Walked:
    """Read the headers of plain DICOM images, given the first bytes and the size of each file.

    Annotation objects are left to pydicom, because their references lie in sequences, and so are radiographs that leave
    View Position out, because its code lies in one. So are all files that are not plain (``builder.headers.scan``). The
    values are equal to those of ``attributes.read_header``.
    """
    data = np.frombuffer(b"".join(heads), np.uint8)
    ends = np.cumsum([len(head) for head in heads], dtype=np.int64)
    begins = ends - np.fromiter((len(head) for head in heads), np.int64, len(heads))
    places = np.full((len(heads), len(_SORTED)), -1, np.int64)
    lengths = np.full_like(places, -1)
    facts = np.full((len(heads), 7), -1, np.int64)
    sized = np.asarray(sizes, np.int64)
    scanning.scan(data, begins, ends, sized, _WANTED_ARRAYS, SYNTAX_ROWS, CHARSET_ROWS, places, lengths, facts)
    short = np.flatnonzero(facts[:, 0] == scanning.SHORT)
    keep = _kept(data, places, lengths, facts)
    foreign = _foreign_texts(data, places, lengths, facts, keep)
    rows = np.cumsum(keep) - 1
    done, facts = np.flatnonzero(keep), facts[keep]
    columns = _columns(data, places[keep], lengths[keep], [{rows[file]: t for file, t in f.items()} for f in foreign])
    columns["transfer_syntax_uid"] = pa.array(SYNTAXES).take(pa.array(facts[:, 1]))
    headers = zip(done.tolist(), facts[:, 2].tolist(), strict=True)
    hashes = [hashlib.sha256(memoryview(heads[file])[:end]).hexdigest() for file, end in headers]
    columns["header_sha256"] = pa.array(hashes, pa.string())
    columns["pixel_offset"] = pa.array(facts[:, 3], mask=facts[:, 3] < 0)
    columns["pixel_length"] = pa.array(facts[:, 4], mask=facts[:, 4] < 0)
    return Walked(done, short, columns)


def _kept(data: Any, places: Any, lengths: Any, facts: Any) -> NDArray[np.bool_]:
    """Select the files that were read, have all required attributes, and need no look into sequences."""
    names = [wanted.column.name for wanted in _SORTED]
    keep: NDArray[np.bool_] = facts[:, 0] == scanning.DONE
    for name in _REQUIRED:
        keep &= places[:, names.index(name)] >= 0
    place = names.index("sop_class_uid")
    classes = _strings(data, places[:, place], lengths[:, place])
    annotating = pc.fill_null(pc.match_substring_regex(classes, ANNOTATION_PATTERN), False)
    keep &= ~np.asarray(annotating)
    view = names.index("view_position")
    coded = pc.fill_null(pc.match_substring_regex(classes, CODED_CLASSES), False)
    keep &= ~(np.asarray(coded) & ((places[:, view] < 0) | (lengths[:, view] <= 0)))
    for place, wanted in enumerate(_SORTED):
        if wanted.vr in _FLOATS:
            finite = np.isfinite(_floats(data, places[:, place], _FLOATS[wanted.vr]))
            keep &= finite | (places[:, place] < 0)
    return keep


def _foreign_texts(data: Any, places: Any, lengths: Any, facts: Any, keep: Any) -> list[dict[int, str]]:
    """Decode the texts of the files that have non-ASCII text; return a map from file to text for each wanted tag.

    Files that do not decode are removed from ``keep``, so that pydicom reads them.
    """
    texts: list[dict[int, str]] = [{} for _ in _SORTED]
    for file in np.flatnonzero(keep & (facts[:, 6] == 1)).tolist():
        codec = _CODECS[max(facts[file, 5], 0)]
        try:
            for place, wanted in enumerate(_SORTED):
                if places[file, place] >= 0 and wanted.vr in LOCAL_TYPES:
                    start = places[file, place]
                    texts[place][file] = data[start : start + lengths[file, place]].tobytes().decode(codec)
        except UnicodeError:
            keep[file] = False
    return [{file: text for file, text in found.items() if keep[file]} for found in texts]


def _columns(data: Any, places: Any, lengths: Any, foreign: Sequence[Mapping[int, str]]) -> dict[str, Any]:
    columns = {}
    signed = np.zeros(len(places), np.bool_)
    stated = (places >= 0).any(axis=0).tolist()
    absent = {kind: pa.nulls(len(places), kind) for kind in {wanted.column.type for wanted in _SORTED}}
    for place, wanted in enumerate(_SORTED):
        where = places[:, place]
        if not stated[place]:
            array = absent[wanted.column.type]
        elif wanted.vr == "US":
            values = data[where].astype(np.int32) | data[where + 1].astype(np.int32) << 8
            if wanted.column.name == "pixel_representation":
                signed = (where >= 0) & (values == 1)
            if wanted.column.name.startswith("pixel_padding"):
                values = np.where(signed, values.astype(np.int16), values)
            array = pa.array(values, mask=where < 0).cast(wanted.column.type)
        elif wanted.vr in _FLOATS:
            array = pa.array(_floats(data, where, _FLOATS[wanted.vr]), mask=where < 0)
        elif foreign[place]:
            array = _mixed(data, where, lengths[:, place], foreign[place])
        else:
            array = _typed(_strings(data, where, lengths[:, place]), wanted)
        columns[wanted.column.name] = array
    columns[IDENTITY.name] = _identity([columns.pop(column.name) for column in IDENTITY_COLUMNS])
    return columns


def _identity(parts: Sequence[Any]) -> Any:
    """Join the texts of each file, one per line; null for a file that has none."""
    lines = pc.binary_join_element_wise(*parts, "\n", null_handling="replace", null_replacement="")
    return pc.if_else(pc.equal(lines, "\n" * (len(parts) - 1)), pa.scalar(None, pa.string()), lines)


def _mixed(data: Any, places: Any, lengths: Any, foreign: Mapping[int, str]) -> Any:
    """Return the strings at ``places``, with the decoded texts in ``foreign`` in place of theirs."""
    places = places.copy()
    places[list(foreign)] = -1
    texts = _strings(data, places, lengths).to_pylist()
    for row, text in foreign.items():
        texts[row] = text.strip(" \0") or None
    return pa.array(texts, pa.string())


def _typed(texts: Any, wanted: Wanted) -> Any:
    """Cast strings to the column's type; the scan has already checked that they are numbers."""
    if wanted.column.type == TEXT:
        return texts
    if wanted.column.type != REALS:
        return pc.ascii_ltrim(texts, "+").cast(wanted.column.type)
    lists = pc.split_pattern(texts, "\\")
    numbers = pc.ascii_ltrim(pc.ascii_trim(lists.values, " \0"), "+").cast(REAL)
    return pa.ListArray.from_arrays(lists.offsets, numbers, mask=pc.is_null(lists))


def _strings(data: Any, places: Any, lengths: Any) -> Any:
    """Return an Arrow array of the values at ``places``, null where there is no value."""
    absent = places < 0
    offsets = np.empty(len(places) + 1, np.int32)
    out = np.empty(int(lengths[~absent].sum()), np.uint8)
    scanning.gather(data, places, lengths, offsets, out)
    validity = pa.py_buffer(np.packbits(~absent, bitorder="little"))
    buffers = [validity, pa.py_buffer(offsets), pa.py_buffer(out)]
    return pa.Array.from_buffers(pa.string(), len(places), buffers)


def _floats(data: Any, places: Any, dtype: str) -> NDArray[np.float64]:
    """Read the little-endian floats at ``places``; the result is 0 where there is no value."""
    width = np.dtype(dtype).itemsize
    found = np.zeros((len(places), width), np.uint8)
    there = places >= 0
    found[there] = data[places[there][:, None] + np.arange(width)]
    return found.view(dtype)[:, 0].astype(np.float64)


def _rows(names: Sequence[str]) -> NDArray[np.uint8]:
    """Encode names as rows of bytes, each padded with at least one zero."""
    rows = np.zeros((len(names), max(map(len, names)) + 1), np.uint8)
    for row, name in zip(rows, names, strict=True):
        row[: len(name)] = list(name.encode())
    return rows


def _kind(wanted: Wanted) -> int:
    if wanted.column.name.startswith("pixel_padding"):
        return scanning.PADDING_KIND
    if wanted.vr in _BINARY_KINDS:
        return _BINARY_KINDS[wanted.vr]
    if wanted.column.type == TEXT:
        return scanning.LOCAL_KIND if wanted.vr in LOCAL_TYPES else scanning.TEXT_KIND
    return scanning.DECIMAL_KIND if wanted.column.type in (REAL, REALS) else scanning.WHOLE_KIND


_WANTED_ARRAYS = (
    np.array([wanted.tag for wanted in _SORTED], np.int64),
    np.array([_kind(wanted) for wanted in _SORTED], np.int64),
    np.array([_MANY if wanted.column.type == REALS else 1 for wanted in _SORTED], np.int64),
)
SYNTAX_ROWS = _rows(SYNTAXES)
CHARSET_ROWS = _rows(CHARSETS)
_CODECS = [convert_encodings(name.split("\\"))[0] for name in CHARSETS]
