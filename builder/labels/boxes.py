"""Reader for boxes in label tables (CSV, TSV, JSON, COCO). The spec declares the coordinate space of the numbers."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from builder.errors import CaseError, Reason
from builder.labels.points import Axes, Space, check_axes, locate
from builder.labels.rows import Row, is_blank, load_rows, number
from builder.labels.tables import TableLabel
from builder.model.case import Annotation, Boxes, Evidence
from builder.protocols import ImageFacts, LabelObject


class BoxTable(TableLabel):
    """Boxes from a table.

    Parameters
    ----------
    space
        Coordinate space of the numbers; see ``builder.labels.points.Space``.
    corner
        Columns of the lower corner, or of the centre if ``anchor`` is ``centre``.
    size
        Columns of the extent along the same axes, in the unit of the space. Without ``z``, a box on one slice is as
        thick as the slice. Two options replace it: ``opposite`` names the columns of the other end (``x_max``,
        ``y_max``), and ``diameter`` names one column for all three axes (the sphere of a nodule).
    anchor
        Whether ``corner`` holds the corner or the centre.
    label
        Column of the class. Without it, every box has the class ``name``.

    A row whose coordinates are all empty means that somebody looked and found nothing. An image with only such rows has
    no boxes, whereas an image without any row has no label.
    """

    VERSION: ClassVar[int] = 2

    kind: Literal["boxes"] = "boxes"
    space: Space
    corner: Axes
    anchor: Literal["corner", "centre"] = "corner"
    size: Axes | None = None
    opposite: Axes | None = None
    """Columns of the corner opposite to ``corner``."""
    diameter: str | None = None
    """Column of one extent for all axes."""
    label: str | None = None
    name: str = "lesion"
    """Class of every box when there is no ``label`` column."""

    @model_validator(mode="after")
    def _one_extent(self) -> "BoxTable":
        check_axes(self.corner, self.space)
        given = [option for option in (self.size, self.opposite, self.diameter) if option is not None]
        if len(given) != 1:
            raise ValueError(f"found {len(given)} of size, opposite and diameter, expected one of them")
        extent = self.size or self.opposite
        if extent is not None and (extent.z is None) != (self.corner.z is None):
            raise ValueError("found corner and extent of different dimension, expected z in both or in neither")
        if self.opposite is not None and self.anchor == "centre":
            raise ValueError("found opposite with anchor centre, expected anchor corner")
        return self

    @property
    def columns(self) -> list[str]:
        """Return the columns of the table that ``read`` needs."""
        axes = self.size or self.opposite
        extent = axes.columns if axes else [self.diameter]
        return [c for c in [*self.corner.columns, *extent, self.label] if c]

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return boxes called ``name`` in patient space, in the order of the table.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_UNREADABLE or LABEL_OFF_GRID.
        """
        marks = [c for c in self.columns if c != self.label]
        rows = [row for row in load_rows(objects) if not is_blank(row, marks)]
        found = [image.geometry.to_world(_corners(*self._ends(row, image))) for row in rows]
        corners = np.asarray(found, dtype=np.float64).reshape(-1, 8, 3)
        classes = tuple(str(row.get(self.label) or self.name) if self.label else self.name for row in rows)
        return (Boxes(name, corners, classes, Evidence(tier=self.tier)),)

    def _ends(self, row: Row, image: ImageFacts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the lowest and the highest corner in voxel coordinates."""
        anchor = locate(row, self.corner, self.space, image)
        extent = self._extent(row)
        if min(extent) < 0:
            raise CaseError(Reason.LABEL_UNREADABLE, "found a box of negative size")
        spacing = np.asarray(image.geometry.spacing_mm)
        if self.diameter is not None and self.space in ("LPS", "RAS"):
            extent_voxels = np.full(3, extent[0]) / spacing
        elif self.space in ("LPS", "RAS"):
            return self._patient_ends(anchor, np.asarray(extent), image)
        else:
            extent_voxels = np.array([extent[2], extent[1], extent[0]])
        low = anchor - extent_voxels / 2 if self.anchor == "centre" else anchor
        high = low + extent_voxels
        if self.corner.z is None:
            low[0], high[0] = anchor[0] - 0.5, anchor[0] + 0.5
        return low, high

    def _patient_ends(
        self, anchor: NDArray[np.float64], extent: NDArray[np.float64], image: ImageFacts
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the box along the image's grid axes that encloses a box along the patient's axes."""
        first = image.geometry.to_world(anchor)[0]
        if self.anchor == "centre":
            first, reach = first - extent / 2, extent
        else:
            reach = extent * (np.array([-1.0, -1.0, 1.0]) if self.space == "RAS" else 1.0)
        corners = np.array([first + reach * [a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
        voxels = image.geometry.to_voxel(corners)
        return voxels.min(axis=0), voxels.max(axis=0)

    def _extent(self, row: Row) -> tuple[float, float, float]:
        if self.diameter is not None:
            width = number(row, self.diameter)
            return (width, width, width)
        axes = self.size or self.opposite
        assert axes is not None
        ends = [number(row, column) for column in axes.columns]
        if self.opposite is not None:
            ends = [end - number(row, column) for end, column in zip(ends, self.corner.columns, strict=True)]
        return (ends[0], ends[1], ends[2] if axes.z else 0.0)


def _corners(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (8, 3) corners in the order of ``builder.model.geometry.corner_voxels``."""
    ends = np.stack([low, high])
    return np.array([[ends[a, 0], ends[b, 1], ends[c, 2]] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
