"""Headers of NRRD files (teem.sourceforge.net/nrrd/format.html), with 3D Slicer's segment fields."""

import re

import numpy as np
from numpy.typing import NDArray

from builder.files.facts import FileFacts, FileFault, Matrix, check_size, grid_of, misplaced, unreadable
from builder.files.grid import FileSegment
from builder.model.case import Code

MAX_LAYERS = 512
PACKINGS = {"raw": "", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
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

FIELDS = frozenset(
    {
        "type", "dimension", "block size", "blocksize", "encoding", "endian", "content", "min", "max", "old min",
        "oldmin", "old max", "oldmax", "data file", "datafile", "line skip", "lineskip", "byte skip", "byteskip",
        "number", "sample units", "sampleunits", "sizes", "spacings", "thicknesses", "axis mins", "axismins",
        "axis maxs", "axismaxs", "centers", "centerings", "labels", "units", "kinds", "space", "space dimension",
        "space units", "space origin", "space directions", "measurement frame",
    }
)  # fmt: skip
"""Names of fields (section 4 of the format's definition)."""

KINDS = frozenset(
    {
        "domain", "space", "time", "list", "point", "vector", "covariant-vector", "normal", "stub", "scalar",
        "complex", "2-vector", "3-color", "rgb-color", "hsv-color", "xyz-color", "4-color", "rgba-color", "3-vector",
        "3-gradient", "3-normal", "4-vector", "quaternion", "2d-symmetric-matrix", "2d-masked-symmetric-matrix",
        "2d-matrix", "2d-masked-matrix", "3d-symmetric-matrix", "3d-masked-symmetric-matrix", "3d-matrix",
        "3d-masked-matrix", "???", "none",
    }
)  # fmt: skip
"""Kinds of axes (section 5 of the definition)."""

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


def nrrd_facts(content: bytes) -> FileFacts:
    """Return what an NRRD header says; ``content`` is the file or its beginning. Other axes than space are layers.

    Raises
    ------
    FileFault
        ``unreadable``. A grid that is refused is a ``fault`` of the result instead.
    """
    fields, _, start = _header(content)
    try:
        sizes = [int(n) for n in fields["sizes"].split()]
        code = next(c for c, names in TYPES.items() if fields["type"].lower() in names)
        order = {"little": "<", "big": ">"}[fields.get("endian", "little").lower()]
        if np.dtype(code).itemsize > 1 and "endian" not in fields:
            raise KeyError("endian")  # required (section 4 of the definition): readers would guess
        skip, lines = int(fields.get("byte skip", "0")), int(fields.get("line skip", "0"))
    except (KeyError, StopIteration, ValueError) as error:
        raise unreadable("an NRRD header without type, endian or sizes that can be used") from error
    check_size(sizes)
    encoding = fields.get("encoding", "").lower()
    packing = PACKINGS.get(encoding)
    companion = _companion(fields)
    if packing is None:
        raise unreadable("an NRRD encoding other than raw, gzip and bzip2")
    if lines or (skip and (packing or not companion)) or skip < -1:
        raise unreadable("an NRRD that skips lines or bytes, expected voxels right after the header")
    axes, lists = _axes(fields, sizes)
    columns, rows, slices = (*(sizes[n] for n in axes), 1, 1)[:3]
    affine, fault = _placed(fields, sizes, axes)
    kinds = fields.get("kinds", "").lower().split()
    moving = not lists or (len(kinds) == len(sizes) and kinds[lists[0]] in ("time", "list"))
    return FileFacts(
        shape=(slices, rows, columns), dtype=np.dtype(order + code).str, layers=sizes[lists[0]] if lists else 1,
        layer_kind="" if not lists else "volumes" if moving else "vector", layers_first=lists == [0],
        affine=affine, fault=fault, offset=skip if companion else start, packing=packing, companion=companion,
    )  # fmt: skip


def nrrd_segments(content: bytes) -> tuple[FileSegment, ...]:
    """Return the segments that a .seg.nrrd names. Raises FileFault."""
    return _segments(_header(content)[1])


def _axes(fields: dict[str, str], sizes: list[int]) -> tuple[list[int], list[int]]:
    """Return the axes of space, fastest first, and the one other axis, which may only be the first or the last."""
    try:
        directions = _vectors(fields.get("space directions", ""))
    except ValueError:
        raise unreadable("an NRRD whose directions are no numbers, expected three each") from None
    if len(directions) != len(sizes):
        directions = [np.zeros(3)] * len(sizes) if len(sizes) < 4 else [None, *[np.zeros(3)] * (len(sizes) - 1)]
    axes = [n for n, vector in enumerate(directions) if vector is not None]
    lists = [n for n in range(len(sizes)) if n not in axes]
    if len(axes) not in (2, 3) or len(lists) > 1 or (lists and lists[0] not in (0, len(sizes) - 1)):
        found = f"{len(axes)} of {len(sizes)} axes with a direction in space"
        raise misplaced(f"{found}, expected three, and at most one other axis before or behind them")
    if lists and sizes[lists[0]] > MAX_LAYERS:
        raise unreadable(f"{sizes[lists[0]]} layers, expected at most {MAX_LAYERS}")
    return axes, lists


def _placed(fields: dict[str, str], sizes: list[int], axes: list[int]) -> tuple[Matrix | None, str]:
    try:
        directions, origin = _vectors(fields["space directions"]), _vectors(fields["space origin"])
        scales: NDArray[np.float64] = np.asarray(SPACES[fields["space"].lower()]) * _units(fields)
    except (KeyError, ValueError):
        return None, "found an NRRD without space, directions or origin that can be used, expected all three"
    except FileFault as fault:
        return None, fault.detail
    if len(axes) != 3 or len(directions) != len(sizes) or len(origin) != 1 or origin[0] is None:
        return None, f"found {len(axes)} spatial axes of {len(sizes)}, expected three"
    matrix = np.stack([vector for vector in directions if vector is not None], axis=1)
    return grid_of([sizes[n] for n in axes], scales[:, None] * matrix, scales * origin[0])


def _companion(fields: dict[str, str]) -> str:
    """Return the name of the detached file with the voxels; "" if they follow the header. May raise FileFault."""
    stated = fields.get("data file", fields.get("datafile", ""))
    if not stated:
        return ""
    if "/" in stated.removeprefix("./") or "\\" in stated or "%" in stated or stated.upper().startswith("LIST"):
        raise unreadable("a detached NRRD whose voxels lie in several files or another folder, expected one beside it")
    return stated.removeprefix("./")


def _header(content: bytes) -> tuple[dict[str, str], dict[str, str], int]:
    """Return fields, key/value pairs and the offset of the voxels."""
    match = re.search(rb"\r?\n\r?\n", content[:MAX_HEADER_BYTES])
    head = content[:MAX_HEADER_BYTES]
    detached = b"data file:" in head or b"datafile:" in head  # such a header may end where its file ends
    if match is None and not detached:
        raise unreadable("an NRRD whose header does not end")
    start, end = (len(head), len(head)) if match is None else match.span()
    fields, pairs = {}, {}
    magic, *lines = content[:start].decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
    if re.fullmatch(r"NRRD000[1-5]", magic) is None:
        raise unreadable("a first line that is no NRRD0001 to NRRD0005")
    for line in lines:
        if line.startswith("#") or not line.strip():
            continue
        if ":=" in line:
            key, _, value = line.partition(":=")
            pairs[key.strip()] = value.strip()
            continue
        key, _, value = line.partition(": ")  # without the space it is no field (teem.sourceforge.net/nrrd/format.html)
        name = key.strip().lower()
        if name not in FIELDS or name in fields or not line.replace("\t", " ").isprintable():
            raise unreadable("an NRRD header with a line that is no field of the format, or a field twice")
        fields[name] = value.strip()
    _check_fields(fields)
    return fields, pairs, end


def _check_fields(fields: dict[str, str]) -> None:
    """Refuse fields that contradict each other or hold words that the format does not have."""
    count = len(fields.get("sizes", "").split())
    kinds = fields.get("kinds", "").lower().split()
    if fields.get("dimension", str(count)) != str(count) or not {*kinds} <= KINDS or len(kinds) not in (0, count):
        raise unreadable("an NRRD whose dimension, sizes and kinds do not agree")


def _vectors(text: str) -> list[NDArray[np.float64] | None]:
    """Parse ``none`` and ``(x,y,z)`` entries in order."""
    vectors: list[NDArray[np.float64] | None] = []
    if re.sub(r"none|\([^()]*\)", "", text).strip():
        raise ValueError("vectors with other text between them")
    for entry in re.findall(r"none|\([^()]*\)", text):
        if entry == "none":
            vectors.append(None)
            continue
        vector = np.array([float(v) for v in entry[1:-1].split(",")])
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
    raise misplaced("an NRRD in units that are not known, expected mm, cm, m or microns")


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
