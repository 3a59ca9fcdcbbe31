"""Reader for named points in label tables (CSV, TSV, JSON). The spec declares the coordinate space of the numbers."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import model_validator

from builder.labels.points import Axes, Space, check_axes, locate
from builder.labels.rows import is_blank, load_rows
from builder.labels.tables import TableLabel
from builder.model.case import Annotation, Evidence, Landmarks
from builder.protocols import ImageFacts, LabelObject


class LandmarkTable(TableLabel):
    """Points from a table.

    Parameters
    ----------
    space
        Coordinate space of the numbers; see ``builder.labels.points.Space``.
    point
        Columns of the coordinates.
    label
        Column of the point's name. Without it, every point is called ``name``.
    group
        Column whose equal values join points, such as the two ends of a line.

    A row whose coordinates are all empty means that somebody looked and found nothing.
    """

    VERSION: ClassVar[int] = 2

    kind: Literal["landmarks"] = "landmarks"
    space: Space
    point: Axes
    label: str | None = None
    group: str | None = None
    name: str = "point"
    """Name of every point when there is no ``label`` column."""

    @model_validator(mode="after")
    def _point_fits_space(self) -> "LandmarkTable":
        check_axes(self.point, self.space)
        return self

    @property
    def columns(self) -> list[str]:
        """Return the columns that ``read`` needs."""
        return [c for c in [*self.point.columns, self.label, self.group] if c]

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return landmarks called ``name`` in patient space. Points and group numbers follow the order of the table.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_UNREADABLE or LABEL_OFF_GRID.
        """
        rows = [row for row in load_rows(objects) if not is_blank(row, self.point.columns)]
        points = image.geometry.to_world([locate(row, self.point, self.space, image) for row in rows])
        classes = tuple(str(row.get(self.label) or self.name) if self.label else self.name for row in rows)
        groups: tuple[str, ...] = ()
        if self.group is not None:
            keys = [str(row.get(self.group)) for row in rows]
            numbers = {key: str(index) for index, key in enumerate(dict.fromkeys(keys))}
            groups = tuple(numbers[key] for key in keys)
        return (Landmarks(name, points, classes, groups, Evidence(tier=self.tier)),)
