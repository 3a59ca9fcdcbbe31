"""Figures that show whether labels landed where they were drawn, and thresholds that exclude a case."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from builder.errors import CaseError, Reason
from builder.labels.contours import Rules, fill_contours
from builder.model.case import Annotation, Boxes, Landmarks, Mask, Segment, ValueDomain, Volume
from builder.model.geometry import Geometry

BODY_HU = -400.0
"""A CT voxel above this value is body. Cavities that the body encloses in a slice count as body too."""

BODY_SHARE = 0.05
"""In images without Hounsfield units, a voxel above this fraction of the 99th percentile of the image is body."""

ROUND_TRIP_SLICES = 16
"""Maximum number of evenly chosen slices of a structure that make the round trip; enough to test the geometry."""

BODY_SLICES = 16
"""Number of evenly chosen slices from which the middle of the body is computed."""

_PART = "all"
"""Stands for the segment's name in the figures of boxes and points."""


class Proof(BaseModel):
    """Thresholds that exclude a case. Figures are measured for every label and only recorded where no threshold is set.

    Parameters
    ----------
    volume_ratio
        Smallest and largest ratio of voxel volume to contour volume, or to the volume on the label's own grid.
    planes_on_slice
        Smallest fraction of contour planes that match a slice.
    round_trip_dice
        Smallest Dice between the structure and its copy after voxels -> outlines in patient space -> voxels.
    body_overlap
        Smallest fraction of the voxels of a structure (or a box) that lie inside the body.
    border_mm
        Smallest distance between a structure and the image's border.
    gap_mm
        Widest gap along the slices inside a structure. Contours on every third slice, for example, leave it striped.
    inside
        Smallest fraction of a label's boxes or points that lie in the image.
    side
        Maps the name of a structure, or of a label of boxes or points, to the side of the patient on which it must lie.
    coded_side
        Whether a structure whose own code says left or right must lie on that side.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    VERSION: ClassVar[int] = 2

    volume_ratio: tuple[float, float] | None = None
    planes_on_slice: float | None = Field(default=None, ge=0, le=1)
    round_trip_dice: float | None = Field(default=None, ge=0, le=1)
    body_overlap: float | None = Field(default=None, ge=0, le=1)
    border_mm: float | None = Field(default=None, ge=0)
    gap_mm: float | None = Field(default=None, ge=0)
    inside: float | None = Field(default=None, ge=0, le=1)
    side: dict[str, Literal["left", "right"]] = {}
    coded_side: Literal["measured", "required"] = "measured"

    def prove(
        self, annotations: Sequence[Annotation], volume: Volume, *, body: "Body | None" = None
    ) -> tuple[Annotation, ...]:
        """Return the annotations, with figures added to the ``measures`` of masks, boxes and landmarks.

        Parameters
        ----------
        body
            The body in the volume, if it has already been computed.

        Raises
        ------
        CaseError
            LABEL_UNPROVEN with every figure that misses its threshold.
        """
        found = body or Body(volume)
        proven = tuple(_measured(annotation, found) for annotation in annotations)
        faults = [fault for annotation in proven for fault in self._faults(annotation)]
        if faults:
            raise CaseError(Reason.LABEL_UNPROVEN, "; ".join(faults))
        return proven

    def _faults(self, annotation: Annotation) -> Iterator[str]:
        if not isinstance(annotation, Mask | Boxes | Landmarks):
            return
        parts = [s.name for s in annotation.segments] if isinstance(annotation, Mask) else [_PART]
        for part in parts:
            mark = f"{part}/"
            figures = {n.removeprefix(mark): v for n, v in annotation.measures.items() if n.startswith(mark)}
            of_mask = isinstance(annotation, Mask)
            for fault in self._beyond(part if of_mask else annotation.name, figures):
                yield f"{annotation.name}/{part}: {fault}" if of_mask else f"{annotation.name}: {fault}"

    def _beyond(self, part: str, figures: Mapping[str, float]) -> Iterator[str]:
        if self.volume_ratio is not None and "volume_ratio" in figures:
            low, high = self.volume_ratio
            if not low <= figures["volume_ratio"] <= high:
                yield _fault("volume ratio", figures["volume_ratio"], f"{low} to {high}")
        for name, limit in (
            ("planes_on_slice_fraction", self.planes_on_slice),
            ("round_trip_dice", self.round_trip_dice),
            ("body_overlap", self.body_overlap),
            ("border_mm", self.border_mm),
            ("inside_fraction", self.inside),
        ):
            if limit is not None and name in figures and figures[name] < limit:
                yield _fault(name, figures[name], f"at least {limit}")
        if self.gap_mm is not None and figures.get("widest_gap_mm", 0.0) > self.gap_mm:
            yield _fault("widest_gap_mm", figures["widest_gap_mm"], f"at most {self.gap_mm}")
        share = figures.get("left_share", 0.5)
        if part in self.side and share != 0.5 and (share > 0.5) != (self.side[part] == "left"):
            yield _fault("share on the left", share, f"the {self.side[part]} side")
        if self.coded_side == "required" and figures.get("on_coded_side", 1.0) < 0.5:
            yield _fault("share on the coded side", figures["on_coded_side"], "at least 0.5")


class Body:
    """The body in a volume: voxels above a threshold, with cavities filled. Slices are computed on demand."""

    def __init__(self, volume: Volume) -> None:
        self.geometry = volume.geometry
        self._image = volume.voxels[0]
        self._planes: dict[int, NDArray[np.bool_]] = {}
        self._threshold = BODY_HU
        if volume.domain is not ValueDomain.HOUNSFIELD:
            self._threshold = BODY_SHARE * float(np.percentile(self._image[::2, ::2, ::2], 99))

    def plane(self, index: int) -> NDArray[np.bool_]:
        """Return (row, column) bool of one slice, True inside the body."""
        if index not in self._planes:
            self._planes[index] = _filled(np.asarray(self._image[index] > self._threshold))
        return self._planes[index]

    @cached_property
    def middle_mm(self) -> float:
        """LPS x of the body's centre of mass, over evenly chosen slices, or of the grid's centre without a body."""
        count = self.geometry.shape[0]
        total, weight = np.zeros(3), 0
        for index in np.unique(np.linspace(0, count - 1, min(count, BODY_SLICES)).astype(int)):
            rows, columns = np.nonzero(self.plane(int(index)))
            total += [index * len(rows), rows.sum(), columns.sum()]
            weight += len(rows)
        centre = total / weight if weight else (np.asarray(self.geometry.shape) - 1) / 2
        return float(self.geometry.to_world(centre)[0, 0])


def _filled(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the plane with its cavities filled: all air that is not connected to the border."""
    from scipy.ndimage import label

    regions, count = label(~plane)
    outside = np.zeros(count + 1, bool)
    for rim in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
        outside[rim] = True
    outside[0] = False
    return np.asarray(~outside[regions])


def round_trip_dice(inside: NDArray[np.bool_], geometry: Geometry) -> float:
    """Return the Dice between a structure and its copy after voxels -> outlines in patient space -> voxels.

    Each run of voxels in a row becomes a rectangle that extends half a voxel beyond their centres. Together the
    rectangles are the exact outline, so a Dice below 1 means a fault in the geometry.
    """
    used = np.flatnonzero(inside.any(axis=(1, 2)))
    used = used[np.unique(np.linspace(0, len(used) - 1, min(len(used), ROUND_TRIP_SLICES)).astype(int))]
    outlines = [corners for index in used for corners in _runs(inside[index], int(index))]
    placed = geometry.to_world(np.concatenate(outlines)).reshape(-1, 4, 3)
    # ``xor`` skips the pairwise comparison of contours, which would be slow for so many disjoint rectangles.
    again = fill_contours(list(placed), geometry, Rules(holes="xor", max_step_mm=1e-3)).inside[used]
    chosen = inside[used]
    return float(2 * np.count_nonzero(chosen & again) / (np.count_nonzero(chosen) + np.count_nonzero(again)))


def _runs(plane: NDArray[np.bool_], index: int) -> list[NDArray[np.float64]]:
    """Return a rectangle (4, 3) in voxel coordinates for every run of True in a row."""
    padded = np.pad(plane, ((0, 0), (1, 1))).astype(np.int8)
    rows, starts = np.nonzero(np.diff(padded, axis=1) == 1)
    _, ends = np.nonzero(np.diff(padded, axis=1) == -1)
    shape = np.array([[0.0, -0.5, 0.0], [0.0, -0.5, 1.0], [0.0, 0.5, 1.0], [0.0, 0.5, 0.0]])
    return [
        np.array([index, row, start - 0.5]) + shape * [1, 1, end - start]
        for row, start, end in zip(rows, starts, ends, strict=True)
    ]


def _measured(annotation: Annotation, body: Body) -> Annotation:
    """Return the annotation with its figures added."""
    if isinstance(annotation, Mask):
        measures = dict(annotation.measures)
        for segment in annotation.segments:
            inside = annotation.inside(segment)
            if inside.any():
                figures = _of_structure(segment, inside, annotation.geometry, body)
                ratio = _volume_ratio(segment, measures)
                if ratio is not None:
                    figures["volume_ratio"] = ratio
                measures.update({f"{segment.name}/{name}": _settled(v) for name, v in figures.items()})
        return replace(annotation, measures=measures)
    if isinstance(annotation, Boxes):
        corners = [body.geometry.to_voxel(c) for c in annotation.corners_mm]
        figures = _of_boxes(corners, body) if corners else {}
    elif isinstance(annotation, Landmarks):
        figures = _of_points(body.geometry.to_voxel(annotation.points_mm), body) if len(annotation.points_mm) else {}
    else:
        return annotation
    found = {f"{_PART}/{name}": _settled(value) for name, value in figures.items()}
    return replace(annotation, measures={**annotation.measures, **found})


def _settled(value: float) -> float:
    """Keep nine digits, because later ones depend on how a machine's linear algebra rounds."""
    return round(float(f"{value:.9g}"), 9)


def _of_structure(segment: Segment, inside: NDArray[np.bool_], geometry: Geometry, body: Body) -> dict[str, float]:
    used = np.flatnonzero(inside.any(axis=(1, 2)))
    voxels = overlap = 0
    left = 0.0
    for index in used:
        rows, columns = np.nonzero(inside[index])
        spots = np.stack([np.full(len(rows), index), rows, columns], axis=1)
        voxels += len(rows)
        overlap += int(np.count_nonzero(body.plane(int(index))[rows, columns]))
        left += _left(geometry.to_world(spots)[:, 0], body)
    extent = [np.flatnonzero(inside.any(axis=axes))[[0, -1]] for axes in ((1, 2), (0, 2), (0, 1))]
    low, high = np.asarray(extent, dtype=np.float64).T
    start = (int(low[0]), int(low[1]), int(low[2]))
    window = tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    rims = _rims(low, high, geometry)
    gaps = np.diff(used) - 1
    figures = {
        "voxels": float(voxels),
        "empty_slices": float(gaps.sum()),
        "widest_gap_mm": float(gaps.max(initial=0)) * geometry.spacing_mm[0],
        "body_overlap": overlap / voxels,
        "border_mm": float(rims.min()),
        "border_in_plane_mm": float(rims[1:].min()),
        "left_share": left / voxels,
        "round_trip_dice": round_trip_dice(inside[window], geometry.box(start, inside[window].shape)),
    }
    side = coded_side(segment)
    if side is not None:
        figures["on_coded_side"] = figures["left_share"] if side == "left" else 1 - figures["left_share"]
    return figures


def coded_side(segment: Segment) -> Literal["left", "right"] | None:
    """Return the side named in the meaning of a structure's coded type, or None if it names none or both."""
    words = set(re.findall(r"[a-z]+", segment.type.meaning.lower())) if segment.type else set()
    if "left" in words and "right" not in words:
        return "left"
    return "right" if "right" in words and "left" not in words else None


def _of_boxes(boxes: Sequence[NDArray[np.float64]], body: Body) -> dict[str, float]:
    """Return the worst figures over some boxes, which are given by their corners in voxel coordinates."""
    shape = np.asarray(body.geometry.shape)
    overlaps, rims, left, inside = [], [], 0.0, 0
    for corners in boxes:
        low, high = corners.min(axis=0), corners.max(axis=0)
        # A voxel is in the box if its centre is. Every box holds at least one voxel.
        first = np.clip(np.ceil(low - 1e-6), 0, shape).astype(int)
        last = np.clip(np.maximum(np.floor(high + 1e-6), first) + 1, 0, shape).astype(int)
        inside += bool((low >= -0.5 - 1e-6).all() and (high <= shape - 0.5 + 1e-6).all())
        planes = [body.plane(i)[first[1] : last[1], first[2] : last[2]] for i in range(first[0], last[0])]
        held = sum(plane.size for plane in planes)
        overlaps.append(sum(int(np.count_nonzero(plane)) for plane in planes) / held if held else 0.0)
        rims.append(float(_rims(low + 0.5, high - 0.5, body.geometry).min()))
        left += _left(body.geometry.to_world((low + high) / 2)[:, 0], body)
    return {
        "boxes": float(len(boxes)),
        "body_overlap": min(overlaps),
        "border_mm": min(rims),
        "inside_fraction": inside / len(boxes),
        "left_share": left / len(boxes),
    }


def _of_points(points: NDArray[np.float64], body: Body) -> dict[str, float]:
    shape = np.asarray(body.geometry.shape)
    inside: NDArray[np.bool_] = np.all((points >= -0.5 - 1e-6) & (points <= shape - 0.5 + 1e-6), axis=1)
    near = np.clip(np.round(points), 0, shape - 1).astype(int)
    held = sum(bool(body.plane(int(s))[r, c]) for s, r, c in near[inside])
    return {
        "points": float(len(points)),
        "body_overlap": held / len(points),
        "inside_fraction": float(np.mean(inside)),
        "left_share": _left(body.geometry.to_world(points)[:, 0], body) / len(points),
    }


def _rims(low: NDArray[np.float64], high: NDArray[np.float64], geometry: Geometry) -> NDArray[np.float64]:
    """Return the distance in mm from an extent (first and last voxel) to the nearer border along each axis."""
    return np.asarray(np.minimum(low, np.asarray(geometry.shape) - 1 - high) * np.asarray(geometry.spacing_mm))


def _left(x_mm: NDArray[np.float64], body: Body) -> float:
    """Count the places on the left of the patient's midline. Places on the midline count half."""
    return float(np.count_nonzero(x_mm > body.middle_mm) + 0.5 * np.count_nonzero(x_mm == body.middle_mm))


def _volume_ratio(segment: Segment, measures: Mapping[str, float]) -> float | None:
    after = measures.get(f"{segment.name}/voxel_volume_mm3")
    before = measures.get(f"{segment.name}/contour_volume_mm3", measures.get(f"{segment.name}/own_grid_volume_mm3"))
    return after / before if after is not None and before else None


def _fault(figure: str, value: float, expected: str) -> str:
    return f"found {figure} {value:.4g}, expected {expected}"
