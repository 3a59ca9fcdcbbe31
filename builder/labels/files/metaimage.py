"""Decoder for MetaImage (.mha, or .mhd with its raw file; itk.org/Wiki/ITK/MetaIO/Documentation)."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.labels.files.grid import LabelGrid, check_size, geometry_of, inflate, unreadable

MAX_HEADER_BYTES = 2**20

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


def read_metaimage(content: bytes, companion: bytes | None = None) -> LabelGrid:
    """Read the voxels of a MetaImage. ``companion`` holds them if the header names another file.

    The file named in ElementDataFile is never opened, because it could be any file on this machine.
    """
    fields, start = _header(content)
    try:
        sizes = [int(n) for n in fields["DimSize"].split()]
        big = fields.get("ElementByteOrderMSB", fields.get("BinaryDataByteOrderMSB", "False")).lower() == "true"
        dtype = np.dtype((">" if big else "<") + TYPES[fields["ElementType"]])
        matrix = np.array([float(v) for v in _first(fields, "TransformMatrix", "Rotation", "Orientation").split()])
        origin = np.array([float(v) for v in _first(fields, "Offset", "Position", "Origin").split()])
        spacing = np.array([float(v) for v in _first(fields, "ElementSpacing", "ElementSize").split()])
    except (KeyError, ValueError) as error:
        raise unreadable("a MetaImage header without size, type, matrix, offset or spacing that can be used") from error
    if len(sizes) != 3 or matrix.size != 9 or origin.size != 3 or spacing.size != 3:
        raise CaseError(Reason.LABEL_GEOMETRY, f"found {len(sizes)} axes in a MetaImage, expected three")
    check_size(sizes)
    local = fields["ElementDataFile"].upper() == "LOCAL"
    if local == (companion is not None):
        raise unreadable("a MetaImage header and voxels that do not belong together (.mhd needs its raw file)")
    data = content[start:] if companion is None else companion
    voxels = _voxels(data, fields, dtype, sizes)
    # Each line of three numbers is the direction of one axis (ITK's convention), hence a column here.
    geometry = geometry_of(sizes, matrix.reshape(3, 3).T * spacing, origin)
    return LabelGrid(voxels.transpose(2, 1, 0)[None], geometry)


def _header(content: bytes) -> tuple[dict[str, str], int]:
    fields: dict[str, str] = {}
    position = 0
    head = content[:MAX_HEADER_BYTES]
    while "ElementDataFile" not in fields:
        end = head.find(b"\n", position)
        if end < 0:
            end = len(head)
        key, _, value = head[position:end].decode("ascii", "replace").partition("=")
        fields[key.strip()] = value.strip()
        position = end + 1
        if position >= len(head) and "ElementDataFile" not in fields:
            raise unreadable("a MetaImage header without ElementDataFile")
    return fields, position


def _first(fields: dict[str, str], *names: str) -> str:
    return fields[next((name for name in names if name in fields), names[0])]


def _voxels(data: bytes, fields: dict[str, str], dtype: np.dtype[Any], sizes: list[int]) -> NDArray[Any]:
    if int(fields.get("ElementNumberOfChannels", "1")) != 1 or fields.get("BinaryData", "True").lower() != "true":
        raise unreadable("a MetaImage of several channels or in text, expected one binary channel")
    expected = dtype.itemsize * int(np.prod(sizes))
    if fields.get("CompressedData", "False").lower() == "true":
        data = inflate(data, expected, wbits=15)
    if len(data) < expected:
        raise unreadable(f"{len(data)} bytes of voxels, expected {expected}")
    return np.frombuffer(data, dtype, count=expected // dtype.itemsize).reshape(sizes, order="F")
