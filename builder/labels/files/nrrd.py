"""Decoder for NRRD (teem.sourceforge.net/nrrd/format.html) with attached header and 3D Slicer's segment fields."""

import bz2
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.labels.files.grid import (
    MAX_LAYERS,
    FileSegment,
    LabelGrid,
    check_size,
    geometry_of,
    inflate,
    unreadable,
)
from builder.model.case import Code

MAX_HEADER_BYTES = 4 * 2**20

TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}

SPACES = {
    "left-posterior-superior": (1.0, 1.0, 1.0),
    "lps": (1.0, 1.0, 1.0),
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "ras": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
    "las": (1.0, -1.0, 1.0),
}
"""Sign that each axis needs to become LPS."""

MILLIMETRES = {
    "": 1.0,
    "mm": 1.0,
    "millimeter": 1.0,
    "millimetre": 1.0,
    "cm": 10.0,
    "centimeter": 10.0,
    "centimetre": 10.0,
    "m": 1000.0,
    "meter": 1000.0,
    "metre": 1000.0,
    "um": 1e-3,
    "\u00b5m": 1e-3,
    "\u03bcm": 1e-3,
    "micron": 1e-3,
    "micrometer": 1e-3,
    "micrometre": 1e-3,
}
"""Millimetres per unit that writers state, without the plural s. A missing unit means mm, as in Slicer."""


def read_nrrd(content: bytes) -> LabelGrid:
    """Read an NRRD with an attached header. The list axis of a .seg.nrrd becomes layers.

    A detached header (``data file``) is refused, because it could name any file on this machine.
    """
    fields, pairs, start = _header(content)
    if "data file" in fields or "datafile" in fields:
        raise unreadable("an NRRD with a detached data file, expected the voxels in the same file")
    try:
        sizes = [int(n) for n in fields["sizes"].split()]
        code = next(c for c, names in TYPES.items() if fields["type"].lower() in names)
        order = {"little": "<", "big": ">"}[fields.get("endian", "little").lower()]
        directions, origin = _vectors(fields["space directions"]), _vectors(fields["space origin"])
        scales: NDArray[np.float64] = np.asarray(SPACES[fields["space"].lower()]) * _units(fields)
    except (KeyError, StopIteration, ValueError) as error:
        raise unreadable("an NRRD header without type, sizes, space, directions or origin that can be used") from error
    check_size(sizes)
    axes = [n for n, vector in enumerate(directions) if vector is not None]
    if len(axes) != 3 or len(directions) != len(sizes) or len(origin) != 1 or origin[0] is None or len(sizes) > 4:
        raise CaseError(
            Reason.LABEL_GEOMETRY, f"found {len(axes)} spatial axes of {len(sizes)}, expected three of at most four"
        )
    array = _voxels(content[start:], fields, np.dtype(order + code), sizes)
    lists = [n for n in range(len(sizes)) if n not in axes]
    array = array.transpose((*lists, *reversed(axes)))
    layers = array if lists else array[None]
    if layers.shape[0] > MAX_LAYERS:
        raise unreadable(f"{layers.shape[0]} layers, expected at most {MAX_LAYERS}")
    matrix = np.stack([vector for vector in directions if vector is not None], axis=1)
    geometry = geometry_of([sizes[n] for n in axes], scales[:, None] * matrix, scales * origin[0])
    return LabelGrid(layers, geometry, _segments(pairs))


def _header(content: bytes) -> tuple[dict[str, str], dict[str, str], int]:
    """Return fields, key/value pairs and the offset of the voxels."""
    match = re.search(rb"\r?\n\r?\n", content[:MAX_HEADER_BYTES])
    if match is None:
        raise unreadable("an NRRD whose header does not end, or has no voxels in the same file")
    fields, pairs = {}, {}
    for line in content[: match.start()].decode("utf-8", "replace").splitlines()[1:]:
        if line.startswith("#"):
            continue
        if ":=" in line:
            key, _, value = line.partition(":=")
            pairs[key.strip()] = value.strip()
        elif ":" in line:
            key, _, value = line.partition(":")
            fields[key.strip().lower()] = value.strip()
    return fields, pairs, match.end()


def _vectors(text: str) -> list[NDArray[np.float64] | None]:
    """Parse ``none`` and ``(x,y,z)`` entries in order."""
    vectors: list[NDArray[np.float64] | None] = []
    for entry in re.findall(r"none|\([^)]*\)", text):
        if entry == "none":
            vectors.append(None)
            continue
        vector = np.array([float(v) for v in entry.strip("()").split(",")])
        if vector.shape != (3,) or np.isnan(vector).any():
            vectors.append(None)
        else:
            vectors.append(vector)
    return vectors


def _units(fields: dict[str, str]) -> NDArray[np.float64]:
    """Return mm per unit of each axis of the space (``space units``). ``units`` must not contradict mm."""
    of_space = "space units" in fields
    text = fields.get("space units", fields.get("units", ""))
    named = [unit.strip().lower() for unit in re.findall(r'"([^"]*)"', text)] or text.lower().split()
    if not named:
        return np.ones(3)
    factors = [MILLIMETRES.get(unit, MILLIMETRES.get(unit.removesuffix("s"))) for unit in named]
    if of_space and len(factors) == 3 and all(f is not None for f in factors):
        return np.array(factors, dtype=np.float64)
    if not of_space and all(f in (None, 1.0) for f in factors):
        return np.ones(3)  # the other units belong to a list axis
    raise CaseError(Reason.LABEL_GEOMETRY, "found an NRRD in units that are not known, expected mm, cm, m or microns")


def _voxels(data: bytes, fields: dict[str, str], dtype: np.dtype[Any], sizes: list[int]) -> NDArray[Any]:
    expected = dtype.itemsize * int(np.prod(sizes))
    if int(fields.get("line skip", "0")) or int(fields.get("byte skip", "0")):
        raise unreadable("an NRRD that skips lines or bytes, expected voxels right after the header")
    encoding = fields.get("encoding", "").lower()
    if encoding in ("gzip", "gz"):
        data = inflate(data, expected, wbits=31)
    elif encoding in ("bzip2", "bz2"):
        try:
            data = bz2.BZ2Decompressor().decompress(data, expected)
        except OSError as error:
            raise unreadable("compressed voxels that do not decompress") from error
    elif encoding != "raw":
        raise unreadable("an NRRD encoding other than raw, gzip and bzip2")
    if len(data) < expected:
        raise unreadable(f"{len(data)} bytes of voxels, expected {expected}")
    return np.frombuffer(data, dtype, count=expected // dtype.itemsize).reshape(sizes, order="F")


def _segments(pairs: dict[str, str]) -> tuple[FileSegment, ...]:
    """Read the segments of a .seg.nrrd (Slicer's Segment<n>_Name, _LabelValue, _Layer, _Tags)."""
    segments = []
    for number in sorted(int(m.group(1)) for k in pairs if (m := re.fullmatch(r"Segment(\d{1,4})_ID", k))):
        prefix = f"Segment{number}_"
        try:
            layer, value = int(pairs.get(prefix + "Layer", "0")), int(pairs.get(prefix + "LabelValue", "1"))
        except ValueError as error:
            raise unreadable("a .seg.nrrd whose layers or label values are not whole numbers") from error
        category, type_ = _terminology(pairs.get(prefix + "Tags", ""))
        segments.append(FileSegment(pairs.get(prefix + "Name", ""), layer, value, category, type_))
    return tuple(segments)


def _terminology(tags: str) -> tuple[Code | None, Code | None]:
    """Read category and type from Slicer's ``TerminologyEntry:context~scheme^value^meaning~scheme^value^meaning``."""
    match = re.search(r"TerminologyEntry:([^|]*)", tags)
    if match is None:
        return None, None
    codes = []
    for part in [*match.group(1).split("~"), "", ""][1:3]:
        pieces = part.split("^")
        codes.append(Code(pieces[1], pieces[0], pieces[2]) if len(pieces) == 3 and pieces[1] else None)
    return codes[0], codes[1]
