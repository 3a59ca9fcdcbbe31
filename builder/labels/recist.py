"""Long-axis lines that readers drew (RECIST), as in the Crowds-Cure table: lines, lengths and their consensus."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from builder.labels.consensus import fuse_lines
from builder.labels.linking import ImageRow, Mentions, Selection
from builder.labels.points import Axes, locate
from builder.labels.rows import Row, Table, load_rows, number
from builder.model.case import Annotation, Evidence, Landmarks, Measurement, Measurements
from builder.protocols import ImageFacts, LabelObject


class Recist(BaseModel):
    """Lines from a table with a row a line.

    Parameters
    ----------
    table
        Where the table lies and which rows are the image's; one of its columns must name the instance.
    start, end
        Columns of the two ends, (column, row) in pixels.
    pixel
        Whether (0, 0) is the upper left ``corner`` of the first pixel, as in Cornerstone, or its ``centre``.
    length
        Column of the length the tool stated, in mm; kept beside ours, never instead of it.
    reader
        Column of who drew the line; readers become ``reader1``, ``reader2`` in order of their names.
    consensus
        ``all``: every line; ``fused``: one line a case, by slice first and then by ends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    VERSION: ClassVar[int] = 1

    kind: Literal["recist"] = "recist"
    table: Table
    start: Axes
    end: Axes
    pixel: Literal["corner", "centre"] = "corner"
    length: str | None = None
    reader: str | None = None
    consensus: Literal["all", "fused"] = "all"
    tier: str = "crowd"

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Tables whose path fits the pattern."""
        return self.table.select(image, candidates)

    def mentions(self, content: bytes) -> Mentions:
        """Which images the table has a row of."""
        return self.table.mentions(content)

    def cut(self, content: bytes, image: ImageRow, *, map_uid: Callable[[str], str]) -> bytes:
        """The image's rows of a fetched table, for ``read``."""
        columns = [c for c in [*self.start.columns, *self.end.columns, self.length, self.reader] if c]
        return self.table.cut(content, image, columns=columns, map_uid=map_uid)

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Landmarks ``name`` (two a line, joined by group) and Measurements ``name/length`` in mm.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_UNREADABLE or LABEL_OFF_GRID.
        """
        rows = load_rows(objects)
        lines = np.stack([self._line(row, image) for row in rows])
        drawn_by = self._readers(rows)
        tier = self.tier
        if self.consensus == "fused":
            lines = fuse_lines(lines, spacing_mm=image.geometry.spacing_mm)[None]
            stated: list[float | None] = [None]
            tier = "consensus" if len(set(drawn_by)) > 1 else self.tier
        else:
            stated = [number(row, self.length) if self.length else None for row in rows]
        ends = np.stack([image.geometry.to_world(line) for line in lines])
        items = []
        for line, said in zip(ends, stated, strict=True):
            items.append(Measurement("long_axis", float(np.linalg.norm(line[1] - line[0])), "mm"))
            if said is not None:
                items.append(Measurement("long_axis_stated", said, "mm"))
        evidence = Evidence(tier=tier, readers=tuple(sorted(set(drawn_by))))
        groups = tuple(str(index) for index in range(len(ends)) for _ in (0, 1))
        names = ("start", "end") * len(ends)
        return (
            Landmarks(name, ends.reshape(-1, 3), names, groups, evidence),
            Measurements(f"{name}/length", tuple(items), evidence),
        )

    def _line(self, row: Row, image: ImageFacts) -> NDArray[np.float64]:
        """(2, 3) voxel coordinates of the two ends."""
        space: Literal["pixel_corner", "pixel_centre"] = "pixel_corner" if self.pixel == "corner" else "pixel_centre"
        return np.stack([locate(row, self.start, space, image), locate(row, self.end, space, image)])

    def _readers(self, rows: Sequence[Row]) -> list[str]:
        """A number for each reader of the case: nicknames of annotators stay behind."""
        if self.reader is None:
            return ["reader1"] * len(rows)
        names = [str(row.get(self.reader)) for row in rows]
        numbers = {name: f"reader{index}" for index, name in enumerate(sorted(set(names)), 1)}
        return [numbers[name] for name in names]
