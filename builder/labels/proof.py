"""Evidence that labels landed where they were drawn: figures for every mask and box, and thresholds that exclude."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from builder.errors import CaseError, Reason
from builder.labels.contours import Rules, fill_contours
from builder.model.case import Annotation, Boxes, Landmarks, Mask, Segment, ValueDomain, Volume
from builder.model.geometry import Geometry

BODY_HU = -400.0
"""Above it a CT voxel is body; cavities that body encloses in a slice count as body too."""

BODY_SHARE = 0.05
"""Without Hounsfield units a voxel is body above this share of the 99th percentile of the image."""

ROUND_TRIP_SLICES = 64
"""Slices of a structure that make the round trip at most, evenly chosen: enough to prove the geometry."""


class Proof(BaseModel):
    """Figures and thresholds; what has no threshold is measured and kept, and excludes nothing.

    Parameters
    ----------
    volume_ratio
        Smallest and largest ratio of voxel volume to contour volume (or to the volume on the label's own grid).
    planes_on_slice
        Smallest share of contour planes that found a slice.
    round_trip_dice
        Smallest Dice of the structure with itself after voxels -> outlines in patient space -> voxels.
    body_overlap
        Smallest share of a structure's voxels (or a box's) inside the body.
    border_mm
        Smallest distance of a structure from the image's border.
    side
        Structure name to the side of the patient it must lie on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    VERSION: ClassVar[int] = 1

    volume_ratio: tuple[float, float] | None = None
    planes_on_slice: float | None = Field(default=None, ge=0, le=1)
    round_trip_dice: float | None = Field(default=None, ge=0, le=1)
    body_overlap: float | None = Field(default=None, ge=0, le=1)
    border_mm: float | None = Field(default=None, ge=0)
    side: dict[str, Literal["left", "right"]] = {}

    def prove(self, annotations: Sequence[Annotation], volume: Volume) -> tuple[Annotation, ...]:
        """The annotations, masks with the figures added to their ``measures`` as ``<segment>/<figure>``.

        Raises
        ------
        CaseError
            LABEL_UNPROVEN with the first figure beyond its threshold.
        """
        body: NDArray[np.bool_] | None = None
        proven: list[Annotation] = []
        for annotation in annotations:
            if isinstance(annotation, Mask | Boxes) and body is None:
                body = find_body(volume)
            if isinstance(annotation, Mask):
                assert body is not None
                proven.append(self._prove_mask(annotation, body))
            elif isinstance(annotation, Boxes):
                assert body is not None
                self._prove_boxes(annotation, body, volume.geometry)
                proven.append(annotation)
            else:
                if isinstance(annotation, Landmarks):
                    _check_inside(annotation, volume.geometry)
                proven.append(annotation)
        return tuple(proven)

    def _prove_mask(self, mask: Mask, body: NDArray[np.bool_]) -> Mask:
        measures = dict(mask.measures)
        for segment in mask.segments:
            inside = mask.inside(segment)
            if not inside.any():
                continue
            figures = _measure(segment, inside, mask.geometry, body)
            ratio = _volume_ratio(segment, measures)
            if ratio is not None:
                figures["volume_ratio"] = ratio
            if f"{segment.name}/planes_on_slice_fraction" in measures:
                figures["planes_on_slice_fraction"] = measures[f"{segment.name}/planes_on_slice_fraction"]
            self._check(segment.name, figures)
            measures.update({f"{segment.name}/{name}": value for name, value in figures.items()})
        return replace(mask, measures=measures)

    def _check(self, part: str, figures: dict[str, float]) -> None:
        if self.volume_ratio is not None and "volume_ratio" in figures:
            low, high = self.volume_ratio
            if not low <= figures["volume_ratio"] <= high:
                raise _unproven(part, "volume ratio", figures["volume_ratio"], f"{low} to {high}")
        for name, limit in (
            ("planes_on_slice_fraction", self.planes_on_slice),
            ("round_trip_dice", self.round_trip_dice),
            ("body_overlap", self.body_overlap),
            ("border_mm", self.border_mm),
        ):
            if limit is not None and name in figures and figures[name] < limit:
                raise _unproven(part, name, figures[name], f"at least {limit}")
        if part in self.side and figures["left_share"] != 0.5:
            on_left = figures["left_share"] > 0.5
            if on_left != (self.side[part] == "left"):
                raise _unproven(part, "share on the left", figures["left_share"], f"the {self.side[part]} side")

    def _prove_boxes(self, boxes: Boxes, body: NDArray[np.bool_], geometry: Geometry) -> None:
        for corners in boxes.corners_mm:
            voxels = geometry.to_voxel(corners)
            first = np.clip(np.round(voxels.min(axis=0)), 0, geometry.shape).astype(int)
            last = np.clip(np.round(voxels.max(axis=0)) + 1, 0, geometry.shape).astype(int)
            part = body[first[0] : last[0], first[1] : last[1], first[2] : last[2]]
            if not part.size:
                raise _unproven(boxes.name, "voxels of a box in the image", 0, "at least 1")
            overlap = float(part.mean())
            if self.body_overlap is not None and overlap < self.body_overlap:
                raise _unproven(boxes.name, "body_overlap", overlap, f"at least {self.body_overlap}")


def find_body(volume: Volume) -> NDArray[np.bool_]:
    """(slice, row, column) bool, True in the body: a threshold, then cavities filled slice by slice."""
    from scipy.ndimage import binary_fill_holes

    image = volume.voxels[0]
    if volume.domain is ValueDomain.HOUNSFIELD:
        threshold = BODY_HU
    else:
        threshold = BODY_SHARE * float(np.percentile(image[::2, ::2, ::2], 99))
    body = np.asarray(image > threshold)
    return np.stack([binary_fill_holes(plane) for plane in body])


def round_trip_dice(inside: NDArray[np.bool_], geometry: Geometry) -> float:
    """Dice of a structure with itself after voxels -> outlines in patient space -> voxels.

    Each run of voxels in a row becomes a rectangle half a voxel larger; together they are the exact outline, so
    anything below 1 is a fault of the geometry.
    """
    used = np.flatnonzero(inside.any(axis=(1, 2)))
    used = used[np.unique(np.linspace(0, len(used) - 1, min(len(used), ROUND_TRIP_SLICES)).astype(int))]
    again = np.zeros_like(inside)
    for index in used:
        outlines = [geometry.to_world(corners) for corners in _runs(inside[index], int(index))]
        again |= fill_contours(outlines, geometry, Rules(max_step_mm=1e-3)).inside
    chosen = inside[used]
    return float(2 * np.count_nonzero(chosen & again[used]) / (np.count_nonzero(chosen) + np.count_nonzero(again)))


def _runs(plane: NDArray[np.bool_], index: int) -> list[NDArray[np.float64]]:
    """A rectangle (4, 3) in voxel coordinates for every run of True in a row."""
    padded = np.pad(plane, ((0, 0), (1, 1))).astype(np.int8)
    rows, starts = np.nonzero(np.diff(padded, axis=1) == 1)
    _, ends = np.nonzero(np.diff(padded, axis=1) == -1)
    shape = np.array([[0.0, -0.5, 0.0], [0.0, -0.5, 1.0], [0.0, 0.5, 1.0], [0.0, 0.5, 0.0]])
    return [
        np.array([index, row, start - 0.5]) + shape * [1, 1, end - start]
        for row, start, end in zip(rows, starts, ends, strict=True)
    ]


def _measure(
    segment: Segment, inside: NDArray[np.bool_], geometry: Geometry, body: NDArray[np.bool_]
) -> dict[str, float]:
    spots = np.argwhere(inside)
    low, high = spots.min(axis=0), spots.max(axis=0)
    rims = np.minimum(low, np.asarray(geometry.shape) - 1 - high) * np.asarray(geometry.spacing_mm)
    middle = (
        float(geometry.to_world(np.argwhere(body[:: max(1, body.shape[0] // 16)]).mean(axis=0))[0, 0])
        if body.any()
        else 0.0
    )
    left = geometry.to_world(spots)[:, 0] - middle
    return {
        "voxels": float(len(spots)),
        "body_overlap": float(body[inside].mean()),
        "border_mm": float(rims.min()),
        "border_in_plane_mm": float(rims[1:].min()),
        "left_share": float(np.mean(left > 0) + 0.5 * np.mean(left == 0)),
        "round_trip_dice": round_trip_dice(inside, geometry),
    }


def _volume_ratio(segment: Segment, measures: dict[str, float]) -> float | None:
    after = measures.get(f"{segment.name}/voxel_volume_mm3")
    before = measures.get(f"{segment.name}/contour_volume_mm3", measures.get(f"{segment.name}/own_grid_volume_mm3"))
    return after / before if after is not None and before else None


def _check_inside(landmarks: Landmarks, geometry: Geometry) -> None:
    voxels = geometry.to_voxel(landmarks.points_mm)
    outside = ((voxels < -0.5) | (voxels > np.asarray(geometry.shape) - 0.5)).any(axis=1)
    if outside.any():
        raise _unproven(landmarks.name, "points beyond the image", float(outside.sum()), "0")


def _unproven(part: str, figure: str, value: Any, expected: str) -> CaseError:
    return CaseError(Reason.LABEL_UNPROVEN, f"{part}: found {figure} {value:.4g}, expected {expected}")
