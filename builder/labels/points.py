"""Conversion of points in label tables to voxel coordinates, from any space and convention that the spec declares."""

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from builder.errors import CaseError, Reason
from builder.labels.rows import Row, number
from builder.protocols import ImageFacts

Space: TypeAlias = Literal["LPS", "RAS", "pixel_centre", "pixel_corner", "voxel"]
"""``LPS``, ``RAS``: patient space in mm. ``pixel_centre``, ``pixel_corner``: (column, row) on the slice of the row's
instance, with (0, 0) at the centre or the upper left corner of the first pixel. ``voxel``: (column, row, slice) indices
of the image as built, with 0 at the centre of the first voxel."""


class Axes(BaseModel):
    """Columns of a point: ``x``, ``y`` and, unless an instance names the slice, ``z``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    x: str
    """Column of the coordinate along a row: column index, or millimetres to the left."""
    y: str
    """Column of the coordinate along a column: row index, or millimetres to posterior."""
    z: str | None = None
    """Column of the coordinate across slices: slice index, or millimetres to superior."""

    @property
    def columns(self) -> list[str]:
        """The columns that hold the coordinates."""
        return [column for column in (self.x, self.y, self.z) if column]


def locate(row: Row, axes: Axes, space: Space, image: ImageFacts) -> NDArray[np.float64]:
    """Return (3,) voxel coordinates (slice, row, column) of a row's point.

    Raises
    ------
    CaseError
        LABEL_UNREADABLE for cells that are not numbers, LABEL_OFF_GRID if the instance does not belong to the image.
    """
    x, y = number(row, axes.x), number(row, axes.y)
    if space in ("LPS", "RAS"):
        sign = -1.0 if space == "RAS" else 1.0
        return np.asarray(image.geometry.to_voxel([[sign * x, sign * y, number(row, _third(axes))]])[0])
    if space == "voxel":
        return np.array([number(row, _third(axes)), y, x])
    shift = 0.5 if space == "pixel_corner" else 0.0
    return np.array([float(slice_of(row, image)), y - shift, x - shift])


def slice_of(row: Row, image: ImageFacts) -> int:
    """Return the slice of the instance that a row names, or the only one there is. Raises CaseError LABEL_OFF_GRID."""
    if "instance" not in row and image.geometry.shape[0] == 1:  # a picture, which the table names by its file
        return 0
    index = image.uid_to_slice.get(str(row.get("instance", "")))
    if index is None:
        raise CaseError(Reason.LABEL_OFF_GRID, "found a row of a label table whose instance is none of the image's")
    return index


def check_axes(axes: Axes, space: Space) -> None:
    """Raise ValueError if ``space`` needs a third column that is missing, or has one that it does not need."""
    if (space in ("LPS", "RAS", "voxel")) != (axes.z is not None):
        raise ValueError(f"z: found {axes.z!r}, expected {'none' if axes.z else 'a column'} with space {space}")


def _third(axes: Axes) -> str:
    assert axes.z is not None
    return axes.z
