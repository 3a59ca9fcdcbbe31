"""Reader for presentation states (PS3.3 A.33): graphics drawn in a viewer, as weak boxes and points."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing
from builder.labels.content import datasets_of
from builder.labels.label import Label
from builder.labels.linking import PRESENTATION_STATES, select_references
from builder.model.case import Annotation, Boxes, Evidence, Landmarks
from builder.model.linking import ImageRow, Selection
from builder.protocols import ImageFacts, LabelObject

Drawing = tuple[str, NDArray[np.float64]]


class Presentation(Label):
    """Graphics saved by a viewer (PS3.3 C.10.5). They are weak labels because nothing says what they surround.

    Parameters
    ----------
    shapes
        ``boxes`` around closed graphics (circle, ellipse, closed polyline), ``points`` of all other graphics, or
        ``both``.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["presentation"] = "presentation"
    shapes: Literal["both", "boxes", "points"] = "both"

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Select the presentation states that refer to the image by instance or series."""
        return select_references(image, candidates, sop_classes=(PRESENTATION_STATES,))

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return boxes ``name`` and landmarks ``name/points`` for the graphics on this image.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_UNREADABLE, or LABEL_EMPTY if nothing is drawn on this image in image coordinates.
        """
        states = datasets_of(objects, "presentation state", sop_class=PRESENTATION_STATES)
        with parsing(Reason.LABEL_UNREADABLE, "found a presentation state that does not parse"):
            drawings = [drawing for dataset in states for drawing in _drawings(dataset, image)]
        evidence = Evidence(tier=self.tier, note="weak")
        closed = [points for shape, points in drawings if shape in ("circle", "ellipse", "polygon")]
        others = [(shape, points) for shape, points in drawings if shape in ("point", "polyline")]
        annotations: list[Annotation] = []
        if closed and self.shapes != "points":
            corners = np.stack([image.geometry.to_world(_box(points)) for points in closed])
            annotations.append(Boxes(name, corners, ("graphic",) * len(closed), evidence))
        if others and self.shapes != "boxes":
            spots = np.concatenate([image.geometry.to_world(points) for _, points in others])
            classes = tuple(shape for shape, points in others for _ in points)
            groups = tuple(str(index) for index, (_, points) in enumerate(others) for _ in points)
            annotations.append(Landmarks(f"{name}/points", spots, classes, groups, evidence))
        if not annotations:
            raise CaseError(Reason.LABEL_EMPTY, "found a presentation state without graphics on this image")
        return tuple(annotations)


def _drawings(dataset: Dataset, image: ImageFacts) -> list[Drawing]:
    """Return the shape and (n, 3) voxel coordinates of every graphic on this image that is in image coordinates."""
    found: list[Drawing] = []
    for annotation in dataset.get("GraphicAnnotationSequence") or []:
        uids = [str(r.get("ReferencedSOPInstanceUID") or "") for r in annotation.get("ReferencedImageSequence") or []]
        # An annotation without references applies to all images of the state (PS3.3 C.10.5).
        slices = [image.uid_to_slice[uid] for uid in uids if uid in image.uid_to_slice]
        slices = slices if uids else sorted(set(image.uid_to_slice.values()))
        for graphic in annotation.get("GraphicObjectSequence") or []:
            if str(graphic.get("GraphicAnnotationUnits") or "") != "PIXEL":
                continue
            shape, points = _shape(graphic)
            found.extend((shape, np.column_stack([np.full(len(points), k), points])) for k in slices)
    return found


def _shape(graphic: Dataset) -> Drawing:
    """Return the shape and (n, 2) points (row, column).

    The data's (0, 0) is the corner of the first pixel (PS3.3 C.10.5.1.2).
    """
    try:
        data = np.array(graphic.get("GraphicData"), dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise CaseError(Reason.LABEL_UNREADABLE, "found graphic data that are no points") from error
    if not len(data) or not np.isfinite(data).all():
        raise CaseError(Reason.LABEL_UNREADABLE, "found graphic data that are no finite points")
    points = data[:, ::-1] - 0.5
    form = str(graphic.get("GraphicType") or "").upper()
    if form == "CIRCLE" and len(points) == 2:
        radius = float(np.linalg.norm(points[1] - points[0]))
        return "circle", np.stack([points[0] - radius, points[0] + radius])
    if form == "ELLIPSE" and len(points) == 4:
        centre = points[:2].mean(axis=0)
        reach = np.hypot(points[1] - centre, points[3] - points[2:].mean(axis=0))
        return "ellipse", np.stack([centre - reach, centre + reach])
    if form in ("POLYLINE", "INTERPOLATED") and len(points) > 3 and np.allclose(points[0], points[-1]):
        return "polygon", points
    return ("point" if len(points) == 1 else "polyline"), points


def _box(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (8, 3) corners of a box around points on one slice. The box is one slice thick."""
    low, high = points.min(axis=0), points.max(axis=0)
    low[0], high[0] = low[0] - 0.5, high[0] + 0.5
    ends = (low, high)
    return np.array([[ends[a][0], ends[b][1], ends[c][2]] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
