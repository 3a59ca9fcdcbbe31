"""What the header of a file says: its grid, the type of its voxels and where they lie."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builder.errors import BuilderError
from builder.model.geometry import Geometry

MAX_VOXELS = 2**31
"""Most voxels of one file, over all its layers."""

Matrix: TypeAlias = tuple[tuple[float, float, float, float], ...]
Layers: TypeAlias = Literal["", "volumes", "vector", "colour"]


class FileFault(BuilderError):
    """A file cannot be used. ``kind`` says whether its grid or its contents are to blame.

    ``detail`` says what was found and what was expected. It never holds a value of a text field of the file.
    """

    def __init__(self, kind: Literal["unreadable", "geometry"], detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


def unreadable(found: str) -> FileFault:
    """Return a fault that says the file is damaged or has a form that is not supported."""
    return FileFault("unreadable", f"found {found}")


def misplaced(found: str) -> FileFault:
    """Return a fault that says the file's grid cannot be trusted."""
    return FileFault("geometry", f"found {found}")


@dataclass(frozen=True)
class FileFacts:
    """What a header says. It is stored as JSON in the index, and guides the reading of the voxels.

    Parameters
    ----------
    shape
        Voxels along (slice, row, column).
    dtype
        NumPy type of the stored values, with byte order.
    layers, layer_kind
        Number of values at each place of the grid, and what they are: ``volumes`` (a fourth axis), ``vector`` or
        ``colour``; "" for one value.
    layers_first
        Whether the values of one voxel lie beside each other, instead of one volume after the other.
    slope, intercept
        What turns stored values into the meant ones.
    affine
        Maps (slice, row, column) to LPS mm; None for a picture, and where the header's grid is refused.
    fault
        Why the grid is refused; "" if it is not.
    offset
        Bytes before the voxels; -1 if the voxels end where the file ends.
    packing
        How the voxels are compressed: "", ``gzip``, ``zlib`` or ``bzip2``. A file that is compressed as a whole has
        ``whole_gzip`` instead, and ``offset`` counts the bytes inside.
    packed_bytes
        Length of the compressed voxels where the header states it, else 0.
    companion
        Name of the file beside this one that holds the voxels, or a suffix (``.img``) that replaces this file's own.
    notes
        Short codes for what was tolerated.
    """

    shape: tuple[int, int, int]
    dtype: str
    layers: int = 1
    layer_kind: Layers = ""
    layers_first: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    affine: Matrix | None = None
    fault: str = ""
    offset: int = 0
    packing: str = ""
    packed_bytes: int = 0
    whole_gzip: bool = False
    companion: str = ""
    notes: tuple[str, ...] = ()

    @property
    def stored_bytes(self) -> int:
        """Number of bytes of the voxels when nothing is compressed."""
        return math.prod(self.shape) * self.layers * np.dtype(self.dtype).itemsize

    @property
    def scaled(self) -> bool:
        """Whether slope and intercept change any value."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    def to_json(self) -> str:
        """Encode as JSON; ``facts_from_json`` is the inverse."""
        return json.dumps(asdict(self), sort_keys=True)


def facts_from_json(text: str) -> FileFacts:
    """Decode what ``FileFacts.to_json`` encoded."""
    found = json.loads(text)
    affine = found.pop("affine")
    return FileFacts(
        **found
        | {
            "shape": tuple(found["shape"]),
            "notes": tuple(found["notes"]),
            "affine": None if affine is None else tuple(tuple(row) for row in affine),
        }
    )


def check_size(shape: Sequence[int]) -> None:
    """Raise FileFault if the voxel counts are not positive or exceed the limits."""
    if not shape or min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
        raise unreadable(f"a file of shape {tuple(shape)}, expected positive counts and at most 2**31 voxels")


def grid_of(
    shape: Sequence[int], matrix: NDArray[np.float64], origin: NDArray[np.float64]
) -> tuple[Matrix | None, str]:
    """Return the affine of a file whose axes (i, j, k) run fastest first, and why it is refused, if it is.

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
        Geometry((int(shape[2]), int(shape[1]), int(shape[0])), affine)
    except ValueError as error:
        return None, f"found no usable grid: {error}"
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in affine), ""
