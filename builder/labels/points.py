"""Points of label tables in patient space, whichever space and convention the table states."""

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from builder.errors import CaseError, Reason
from builder.labels.rows import Row, number
from builder.protocols import ImageFacts

Space: TypeAlias = Literal["LPS", "RAS", "pixel_centre", "pixel_corner", "voxel"]
"""``LPS``, ``RAS``: patient space in mm. ``pixel_centre``, ``pixel_corner``: (column, row) of one slice, (0, 0) being
the centre or the upper left corner of the first pixel, and the slice is the row's instance. ``voxel``: (column, row,
slice) indices of the image as built, 0 in the middle of the first."""


class Axes(BaseModel):
    """Columns of a point: ``x``, ``y`` and, unless an instance names the slice, ``z``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    x: str
    y: str
    z: str | None = None

    @property
    def columns(self) -> list[str]:
        """The columns that hold them."""
        return [column for column in (self.x, self.y, self.z) if column]


def locate(row: Row, axes: Axes, space: Space, image: ImageFacts) -> NDArray[np.float64]:
    """(3,) voxel coordinates (slice, row, column) of a row's point.

    Raises
    ------
    CaseError
        LABEL_UNREADABLE for cells that are no numbers, LABEL_OFF_GRID when the instance is none of the image's.
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
    """The slice of the instance a row names. Raises CaseError LABEL_OFF_GRID."""
    index = image.uid_to_slice.get(str(row.get("instance", "")))
    if index is None:
        raise CaseError(Reason.LABEL_OFF_GRID, "found a row of a label table whose instance is none of the image's")
    return index


def check_axes(axes: Axes, space: Space) -> None:
    """Raise ValueError when ``space`` needs a third column and there is none, or the other way round."""
    if (space in ("LPS", "RAS", "voxel")) != (axes.z is not None):
        raise ValueError(f"z: found {axes.z!r}, expected {'none' if axes.z else 'a column'} with space {space}")


def _third(axes: Axes) -> str:
    assert axes.z is not None
    return axes.z
