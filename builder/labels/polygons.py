"""Reader for masks from polygons and run lengths in label tables (COCO, CSV, TSV, JSON)."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from builder.errors import CaseError, Reason
from builder.labels.coco import Outline, read_outline
from builder.labels.contours import Filled, Gaps, Holes, Inclusion, Rules, fill_contours
from builder.labels.label import MaskLabel
from builder.labels.layers import Empty, LayerRules, Pattern, Structure, layer
from builder.labels.points import Axes, Space, check_axes, locate, slice_of
from builder.labels.rows import Row, is_blank, load_rows
from builder.labels.runs import Runs
from builder.labels.tables import TableLabel
from builder.model.case import Annotation, Evidence
from builder.model.geometry import Geometry
from builder.model.patterns import occurs
from builder.protocols import ImageFacts, LabelObject


class PolygonTable(TableLabel, MaskLabel):
    """Masks from outlines in a table.

    Parameters
    ----------
    space
        Coordinate space of the numbers; see ``builder.labels.points.Space``. COCO uses ``pixel_corner``.
    outline
        Column that holds whole outlines, like COCO's ``segmentation``; see ``builder.labels.coco.read_outline``.
    runs
        How ``outline`` holds the pairs of start and length that challenges publish; see ``builder.labels.runs.Runs``.
    vertex, polygon
        The alternative to ``outline``, for tables with one row per vertex: the columns of the coordinates, and the
        column whose equal values form a polygon, in the order of the table.
    label
        Column of the class. Without it, every outline has the class ``name``.
    structures
        Maps the name of a structure to a regular expression that is searched in the class.
    inclusion, holes, gaps, max_step_mm
        How polygons become voxels; see ``builder.labels.contours.Rules``. In pixel coordinates, a polygon fills only
        its own slice. In patient space and in ``voxel``, planes reach half-way to each other, as the contours of an
        RTSTRUCT do. The default of ``holes`` is ``union`` because the parts of a COCO polygon add up.

    A row, even one without coordinates, means that somebody looked at the image. Structures without an outline are then
    empty.
    """

    VERSION: ClassVar[int] = 2

    kind: Literal["polygons"] = "polygons"
    space: Space
    outline: str | None = None
    runs: Runs | None = None
    vertex: Axes | None = None
    polygon: str | None = None
    label: str | None = None
    name: str = "lesion"
    """Class of every outline when there is no ``label`` column."""
    structures: dict[str, Pattern] = Field(min_length=1)
    inclusion: Inclusion = "centre"
    holes: Holes = "union"
    gaps: Gaps = "leave"
    max_step_mm: float = Field(default=10.0, gt=0)
    empty: Empty = "exclude"
    """What an image without any outline means: ``exclude`` its case, or ``keep`` it with empty masks."""

    @model_validator(mode="after")
    def _one_form(self) -> "PolygonTable":
        if (self.outline is None) == (self.vertex is None):
            raise ValueError("found outline and vertex both set or both missing, expected one of them")
        if (self.vertex is None) != (self.polygon is None):
            raise ValueError("found vertex or polygon without the other, expected both or neither")
        if self.runs is not None and self.outline is None:
            raise ValueError("found runs without outline, expected outline: the column that holds them")
        if self.vertex is not None:
            check_axes(self.vertex, self.space)
        elif self.space not in ("pixel_corner", "pixel_centre"):
            raise ValueError(f"found outlines in space {self.space}, expected pixel_corner or pixel_centre")
        return self

    @property
    def declared(self) -> tuple[str, ...]:
        """The structures that the spec names, in order."""
        return tuple(self.structures)

    @property
    def columns(self) -> list[str]:
        """The columns that ``read`` needs."""
        return [c for c in [*self._marks, self.polygon, self.label] if c]

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return one mask called ``name`` with a segment for each structure.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_EMPTY, LABEL_UNREADABLE or LABEL_OFF_GRID.
        """
        rows = [row for row in load_rows(objects) if not self._is_blank(row)]
        measures: dict[str, float] = {"outlines": 0.0, "outlines_unmatched": 0.0}
        groups = self._outlines(rows)
        matched = {part: [g for g in groups if occurs(p, self._class(g))] for part, p in self.structures.items()}
        measures["outlines"] = float(len(groups))
        known = {id(group) for mine in matched.values() for group in mine}
        measures["outlines_unmatched"] = float(len(groups) - len(known))
        structures = [self._fill(part, mine, image, measures) for part, mine in matched.items()]
        return (
            layer(
                name,
                structures,
                image.geometry,
                rules=LayerRules(self.layout, self.empty),
                evidence=Evidence(tier=self.tier),
                measures=measures,
            ),
        )

    @property
    def _marks(self) -> list[str]:
        """The columns that hold coordinates or outlines."""
        return [self.outline] if self.outline else self.vertex.columns if self.vertex else []

    def _is_blank(self, row: Row) -> bool:
        if self.runs is not None and self.outline is not None:
            return self.runs.says_nothing(row.get(self.outline))
        return is_blank(row, self._marks)

    def _outlines(self, rows: Sequence[Row]) -> list[list[Row]]:
        """Group the rows that form one outline, in the order of the table."""
        if self.outline is not None:
            return [[row] for row in rows]
        assert self.polygon is not None
        groups: dict[tuple[str, str, str], list[Row]] = {}
        for row in rows:
            key = (str(row.get(self.polygon)), str(row.get("instance", "")), self._class([row]))
            groups.setdefault(key, []).append(row)
        return list(groups.values())

    def _class(self, rows: Sequence[Row]) -> str:
        return str(rows[0].get(self.label) or self.name) if self.label else self.name

    def _fill(
        self, part: str, groups: Sequence[Sequence[Row]], image: ImageFacts, measures: dict[str, float]
    ) -> Structure:
        """Fill one structure on the grid, and add its figures to ``measures`` under ``<part>/``."""
        inside = np.zeros(image.geometry.shape, dtype=np.bool_)
        if self.space in ("pixel_corner", "pixel_centre"):
            volume = self._fill_slices(groups, image, inside)
        else:
            volume = self._fill_space(groups, image, inside)
        voxel_volume = float(np.count_nonzero(inside)) * image.geometry.voxel_volume_mm3
        measures[f"{part}/outlines"] = float(len(groups))
        measures[f"{part}/contour_volume_mm3"] = volume
        measures[f"{part}/voxel_volume_mm3"] = voxel_volume
        return Structure(part, inside)

    def _fill_slices(self, groups: Sequence[Sequence[Row]], image: ImageFacts, inside: NDArray[np.bool_]) -> float:
        """Fill outlines on the slices of their instances, and return their volume with each one slice thick."""
        by_slice: dict[int, list[Outline]] = {}
        for group in groups:
            index = slice_of(group[0], image)
            by_slice.setdefault(index, []).append(self._outline(group, index, image))
        total = 0.0
        for index, outlines in sorted(by_slice.items()):
            plane = image.geometry.box((index, 0, 0), (1, *image.geometry.shape[1:]))
            polygons = [p for outline in outlines for p in outline.polygons if len(np.unique(p, axis=0)) > 2]
            if polygons:
                filled = self._filled([_on_plane(polygon, plane) for polygon in polygons], plane)
                inside[index] |= filled.inside[0]
                total += filled.contour_volume_mm3
            for outline in outlines:
                if outline.pixels is not None:
                    inside[index] |= outline.pixels
                    total += float(np.count_nonzero(outline.pixels)) * plane.voxel_volume_mm3
        return total

    def _outline(self, group: Sequence[Row], index: int, image: ImageFacts) -> Outline:
        """Return an outline whose polygons are (x, y), with (0, 0) at the centre of the first pixel."""
        if self.outline is not None:
            cell, shape = group[0].get(self.outline), (image.geometry.shape[1], image.geometry.shape[2])
            if self.runs is not None:
                return Outline(pixels=self.runs.decode(cell, shape))
            found = read_outline(cell, shape)
            shift = 0.5 if self.space == "pixel_corner" else 0.0
            return Outline(tuple(polygon - shift for polygon in found.polygons), found.pixels)
        assert self.vertex is not None
        voxels = np.stack([locate(row, self.vertex, self.space, image) for row in group])
        return Outline((voxels[:, [2, 1]],))

    def _fill_space(self, groups: Sequence[Sequence[Row]], image: ImageFacts, inside: NDArray[np.bool_]) -> float:
        """Fill closed planar polygons in patient space, and return their volume."""
        assert self.vertex is not None
        contours = [
            image.geometry.to_world([locate(row, self.vertex, self.space, image) for row in group]) for group in groups
        ]
        drawn = [contour for contour in contours if len(np.unique(contour, axis=0)) > 2]
        if not drawn:
            return 0.0
        filled = self._filled(drawn, image.geometry)
        if filled.planes_outside == filled.planes:
            raise CaseError(Reason.LABEL_OFF_GRID, f"found all {filled.planes} planes beyond the image's slices")
        inside |= filled.inside
        return filled.contour_volume_mm3

    def _filled(self, contours: Sequence[NDArray[np.float64]], geometry: Geometry) -> Filled:
        return fill_contours(contours, geometry, Rules(self.inclusion, self.holes, self.gaps, self.max_step_mm))


def _on_plane(polygon: NDArray[np.float64], plane: Geometry) -> NDArray[np.float64]:
    """Return (k, 3) LPS mm of (x, y) pixel centres on a grid with one slice."""
    return plane.to_world(np.column_stack([np.zeros(len(polygon)), polygon[:, ::-1]]))
