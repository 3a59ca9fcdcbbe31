"""Headers of MetaImage files (.mha, or .mhd with its raw file; itk.org/Wiki/ITK/MetaIO/Documentation)."""

import re

import numpy as np

from builder.files.facts import FileFacts, Layers, Matrix, check_size, grid_of, unreadable

MAX_HEADER_BYTES = 2**20
_FREE_TEXT = frozenset({"Comment", "Name"})
"""Fields that people write, in letters of any alphabet."""

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def is_metaimage(content: bytes) -> bool:
    """Return whether the first line belongs to a MetaImage header."""
    return re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", content[:64]) is not None


def metaimage_facts(content: bytes) -> FileFacts:
    """Return what a MetaImage header says; ``content`` is the file or its beginning.

    Raises
    ------
    FileFault
        ``unreadable``. A grid that is refused is a ``fault`` of the result instead.
    """
    fields, start = _header(content)
    try:
        sizes = [int(n) for n in fields["DimSize"].split()]
        big = _one_order(fields)
        dtype = np.dtype((">" if big else "<") + TYPES[fields["ElementType"]])
        channels = int(fields.get("ElementNumberOfChannels", "1"))
        skip = int(fields.get("HeaderSize", "0"))
        axes = int(fields["NDims"])
        packed_bytes = int(fields.get("CompressedDataSize", "0"))
        _check_numbers(fields)
    except (KeyError, ValueError) as error:
        raise unreadable("a MetaImage header without size, type or byte order that can be used") from error
    if fields.get("BinaryData", "True").lower() != "true":
        raise unreadable("a MetaImage whose voxels are text, expected binary")
    if not axes == len(sizes) in (2, 3) or channels < 1:
        raise unreadable(f"a MetaImage of {len(sizes)} axes, expected three; write one file for each time point")
    check_size((*sizes, channels))
    affine, fault = _placed(fields, sizes)
    columns, rows, slices = (*sizes, 1)[:3]
    kind: Layers = "" if channels == 1 else "vector"
    companion = "" if fields["ElementDataFile"].upper() == "LOCAL" else _companion(fields["ElementDataFile"])
    packed = fields.get("CompressedData", "False").lower() == "true"
    if packed and packed_bytes < 1:
        raise unreadable("compressed voxels without CompressedDataSize, which says where they end")
    if skip < -1 or (skip and packed) or (skip > 0 and not companion):
        raise unreadable("a MetaImage whose HeaderSize skips bytes of its own or of packed voxels, expected none")
    return FileFacts(
        shape=(slices, rows, columns), dtype=dtype.str, layers=channels, layer_kind=kind, layers_first=True,
        affine=affine, fault=fault, offset=skip or (0 if companion else start), packing="zlib" if packed else "",
        packed_bytes=packed_bytes if packed else 0,
        companion=companion,
    )  # fmt: skip


def _one_order(fields: dict[str, str]) -> bool:
    """Return whether the largest byte comes first. Raises ValueError if the two fields that say so disagree."""
    names = ("ElementByteOrderMSB", "BinaryDataByteOrderMSB")
    orders = {fields[name].lower() == "true" for name in names if name in fields}
    if len(orders) > 1:
        raise ValueError("two byte orders")
    return orders.pop() if orders else False


def _check_numbers(fields: dict[str, str]) -> None:
    """Refuse what readers pass over in silence, though it changes millimetres or values: units, slope and offset."""
    if fields.get("DistanceUnits", "mm").lower() not in ("mm", "?", ""):
        raise unreadable("a MetaImage whose DistanceUnits are not mm, expected mm")
    slope = fields.get("ElementToIntensityFunctionSlope", "1")
    if float(slope) != 1 or float(fields.get("ElementToIntensityFunctionOffset", "0")) != 0:
        raise unreadable("a MetaImage with an ElementToIntensityFunction, expected values that need none")


def _placed(fields: dict[str, str], sizes: list[int]) -> tuple[Matrix | None, str]:
    if len(sizes) != 3:
        return None, f"found {len(sizes)} axes in a MetaImage, expected three"
    try:
        matrix = np.array([float(v) for v in _first(fields, "TransformMatrix", "Rotation", "Orientation").split()])
        origin = np.array([float(v) for v in _first(fields, "Offset", "Position", "Origin").split()])
        spacing = np.array([float(v) for v in _first(fields, "ElementSpacing", "ElementSize").split()])
    except (KeyError, ValueError):
        return None, "found a MetaImage header without matrix, offset or spacing, expected all three"
    if matrix.size != 9 or origin.size != 3 or spacing.size != 3 or (spacing <= 0).any():
        return None, "found a MetaImage header whose matrix, offset or spacing is not of three axes, expected that"
    # Each line of three numbers is the direction of one axis (ITK's convention), hence a column here.
    return grid_of(sizes, matrix.reshape(3, 3).T * spacing, origin)


def _header(content: bytes) -> tuple[dict[str, str], int]:
    fields: dict[str, str] = {}
    position = 0
    head = content[:MAX_HEADER_BYTES]
    while "ElementDataFile" not in fields:
        end = head.find(b"\n", position)
        if end < 0:
            end = len(head)
        line = head[position:end].decode("utf-8", "replace").rstrip("\r")
        key, _, value = line.partition("=")
        comment = key.strip() in _FREE_TEXT
        clean = line.replace("\t", " ").isprintable() and (line.isascii() or comment)
        if "=" not in line or not clean or key.strip() in fields:
            raise unreadable("a MetaImage header with a line that is no text, or a field twice")
        fields[key.strip()] = value.strip()
        position = end + 1
        if position >= len(head) and "ElementDataFile" not in fields:
            raise unreadable("a MetaImage header without ElementDataFile")
    return fields, position


def _companion(stated: str) -> str:
    """Return the name of the file with the voxels. Raises FileFault if it is no plain name of one file."""
    stated = stated.removeprefix("./")
    if not stated or "/" in stated or "\\" in stated or "%" in stated or stated.upper().startswith("LIST"):
        raise unreadable("a MetaImage whose voxels lie in several files or another folder, expected one beside it")
    return stated


def _first(fields: dict[str, str], *names: str) -> str:
    return fields[next((name for name in names if name in fields), names[0])]
