"""The common form of label files: voxels on a grid in LPS mm, and the segments that the file itself names."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.model.case import Code
from builder.model.geometry import Geometry

MAX_VOXELS = 2**31
"""Maximum number of voxels in a label file, over all layers."""

MAX_LAYERS = 512


@dataclass(frozen=True)
class FileSegment:
    """A structure that the file names: the voxels of ``layer`` that equal ``value``."""

    name: str
    layer: int
    value: int
    category: Code | None = None
    type: Code | None = None


@dataclass(frozen=True, eq=False)
class LabelGrid:
    """(layer, slice, row, column) values as stored, on ``geometry`` (LPS mm, no frame of reference)."""

    layers: NDArray[Any]
    geometry: Geometry
    segments: tuple[FileSegment, ...] = ()


def check_values(layers: NDArray[Any]) -> None:
    """Raise CaseError if voxels are not plain numbers, such as colours or complex numbers."""
    if layers.dtype.kind not in "biuf":
        raise unreadable(f"voxels of type {layers.dtype}, expected one number each")


def unreadable(found: str) -> CaseError:
    """Return a CaseError that says the label file is damaged or of an unsupported form."""
    return CaseError(Reason.LABEL_UNREADABLE, f"found {found}")


def check_size(shape: Sequence[int]) -> None:
    """Raise CaseError if the voxel counts are not positive or exceed the limits."""
    if not shape or min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
        raise unreadable(f"a label file of shape {tuple(shape)}, expected positive counts and at most 2**31 voxels")


def geometry_of(shape: Sequence[int], matrix: NDArray[np.float64], origin: NDArray[np.float64]) -> Geometry:
    """Return the grid of a file whose axes (i, j, k) run fastest first.

    Parameters
    ----------
    shape
        Voxels along (i, j, k).
    matrix
        (3, 3): column n is the step of axis n in LPS mm.
    origin
        LPS mm of the first voxel's centre.
    """
    affine = np.eye(4)
    affine[:3, :3] = matrix[:, ::-1]
    affine[:3, 3] = origin
    try:
        return Geometry((int(shape[2]), int(shape[1]), int(shape[0])), affine)
    except ValueError as error:
        raise CaseError(Reason.LABEL_GEOMETRY, f"found a label file without a usable grid: {error}") from error


def inflate(data: bytes, expected: int, *, wbits: int) -> bytes:
    """Decompress exactly ``expected`` bytes, never more, from a zlib (wbits 15) or gzip (wbits 31) stream."""
    machine = zlib.decompressobj(wbits)
    try:
        out = machine.decompress(data, expected)
    except zlib.error as error:
        raise unreadable("compressed voxels that do not decompress") from error
    if len(out) != expected:
        raise unreadable(f"{len(out)} bytes of voxels, expected {expected}")
    return out
