"""Reader for long-axis lines (RECIST) as in the Crowds-Cure table: lines, lengths, and who drew which."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from builder.labels.points import Axes, locate
from builder.labels.rows import Row, load_rows, number, reader_of
from builder.labels.tables import TableLabel
from builder.model.case import Annotation, Evidence, Landmarks, Measurement, Measurements, Reading, Tier
from builder.protocols import ImageFacts, LabelObject


class Recist(TableLabel):
    """Lines from a table with one row per line.

    Parameters
    ----------
    table
        Where the table lies and which rows are the image's. One of its columns must name the instance.
    start, end
        Columns of the two ends, (column, row) in pixels.
    pixel
        Whether (0, 0) is the upper left ``corner`` of the first pixel, as in Cornerstone, or its ``centre``.
    length
        Column of the length stated by the drawing tool, in mm. It is kept beside the measured length and never replaces
        it.
    reader
        Column with the name of the reader who drew the line. It becomes a keyed name, which is the same in every case.
    """

    VERSION: ClassVar[int] = 2
    FUSED_BY: ClassVar[tuple[str, ...]] = ("lines",)
    TIER: ClassVar[Tier] = "crowd"

    kind: Literal["recist"] = "recist"
    start: Axes
    end: Axes
    pixel: Literal["corner", "centre"] = "corner"
    length: str | None = None
    reader: str | None = None

    @property
    def columns(self) -> list[str]:
        """The columns that ``read`` needs."""
        return [c for c in [*self.start.columns, *self.end.columns, self.length] if c]

    @property
    def reader_column(self) -> str | None:
        """The column that names the reader of a row."""
        return self.reader

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return landmarks ``name`` (two per line, joined by group) and measurements ``name/length`` in mm.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_UNREADABLE or LABEL_OFF_GRID.
        """
        rows = load_rows(objects)
        ends = image.geometry.to_world(np.concatenate([self._line(row, image) for row in rows])).reshape(-1, 2, 3)
        items, readings = [], []
        for line, row in zip(ends, rows, strict=True):
            length = float(np.linalg.norm(line[1] - line[0]))
            items.append(Measurement("long_axis", length, "mm"))
            readings.append(Reading(reader_of(row), "long_axis", length))
            if self.length:
                items.append(Measurement("long_axis_stated", number(row, self.length), "mm"))
        evidence = Evidence(tier=self.tier, readers=tuple(sorted({r.reader for r in readings} - {""})))
        groups = tuple(str(index) for index in range(len(ends)) for _ in (0, 1))
        return (
            Landmarks(name, ends.reshape(-1, 3), ("start", "end") * len(ends), groups, evidence),
            Measurements(f"{name}/length", tuple(items), evidence, tuple(readings)),
        )

    def _line(self, row: Row, image: ImageFacts) -> NDArray[np.float64]:
        """Return (2, 3) voxel coordinates of the two ends."""
        space: Literal["pixel_corner", "pixel_centre"] = "pixel_corner" if self.pixel == "corner" else "pixel_centre"
        return np.stack([locate(row, self.start, space, image), locate(row, self.end, space, image)])
