"""Faces taken out of the images of one person: what the search before the plan found, less what labels draw there."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from builder.decode.format import BIG_ENDIAN, PixelFormat, pixel_format
from builder.defacers.cells import CELL_MM, NOTHING, Bools, Cells, united
from builder.defacers.defacing import MOST_KEPT, emptied
from builder.defacers.found import check_face
from builder.defacers.removal import Removal, parse_removal
from builder.errors import CaseError, Reason
from builder.headers.boundary import elements_as
from builder.imaging.multiframe import functional_group
from builder.model.geometry import Geometry
from builder.release.blanking import rewrite

DRAWING = ("SEG", "RTSTRUCT")
"""Kinds of objects whose structures stay in the images."""
Read = Callable[[Mapping[str, Any]], Dataset]


@dataclass(frozen=True, eq=False)
class Faces:
    """By what the plan says of an image: what goes out of it. What labels draw stays."""

    removals: Mapping[str, Removal] = field(default_factory=dict)
    drawn: Cells = NOTHING

    def take_out_of(self, clean: Dataset, face: str) -> bool:
        """Take the face out of an image, in place; return whether any pixel changed.

        Raises
        ------
        CaseError
            FACE_SHOWN if the plan says that it does not leave, or labels cover its face.
        """
        check_face(face)
        if not face:
            return False
        removal = self.removals[face]
        if removal.kept_by(self.drawn) > MOST_KEPT:
            detail = "found labels over the surface of a face, expected it free of them: leave their objects out"
            raise CaseError(Reason.FACE_SHOWN, detail)
        return take_out(clean, removal, self.drawn)


def faces_of(removals: Mapping[str, bytes], labels: Sequence[Mapping[str, Any]], read: Read) -> Faces:
    """Return what goes out of the images of a person.

    ``removals`` is what the plan names by digest, ``labels`` are rows of objects of ``DRAWING``, which
    ``read`` reads.
    """
    if not removals:
        return Faces()
    parsed = {digest: parse_removal(data) for digest, data in removals.items()}
    return Faces(parsed, united(_drawn(row, read) for row in labels))


def take_out(clean: Dataset, removal: Removal, drawn: Cells) -> bool:
    """Give the pixels of an image whose centres lie in some cells the smallest value of their frame, in place.

    No other pixel changes, and an image without such pixels stays as it is. Return whether any changed.

    Raises
    ------
    CaseError
        FACE_SHOWN if the image says not where it lies, or its pixels cannot be changed.
    """
    form = pixel_format(clean)
    if form.samples != 1 or form.syntax == BIG_ENDIAN or form.bits_allocated not in (8, 16):
        raise CaseError(Reason.FACE_SHOWN, "found pixels of a head that cannot be changed, expected 8 or 16 bits")
    gone = np.stack([removal.gone_in(grid)[0] & ~drawn.within(grid)[0] for grid in _grids(clean, form)])
    if not gone.any():
        return False

    rewrite(clean, form, lambda frames, _: emptied(frames, gone))
    return True


def _grids(source: Dataset, form: PixelFormat) -> Iterator[Geometry]:
    """Yield the grid of each frame: one slice, at its place in the patient (PS3.3 C.7.6.2, C.7.6.16.2)."""
    with elements_as(Reason.FACE_SHOWN):
        for frame in range(form.frames):
            groups = [
                functional_group(source, frame, keyword) or source
                for keyword in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
            ]
            position, orientation, spacing = (
                [float(v) for v in group.get(keyword) or ()]
                for group, keyword in zip(
                    groups, ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"), strict=True
                )
            )
            if (len(position), len(orientation), len(spacing)) != (3, 6, 2):
                detail = "found a frame that says not where it lies in the patient, expected position and orientation"
                raise CaseError(Reason.FACE_SHOWN, detail)
            across, down = np.array(orientation[:3]), np.array(orientation[3:])
            affine = np.eye(4)
            affine[:3, 0] = np.cross(across, down)
            affine[:3, 1], affine[:3, 2], affine[:3, 3] = down * spacing[0], across * spacing[1], position
            yield Geometry((1, form.rows, form.columns), affine)


def _drawn(row: Mapping[str, Any], read: Read) -> Cells:
    """Return the cells around what a structure set or segmentation draws: the box of each contour and each frame.

    An object that cannot be read draws nothing: it does not leave either.
    """
    try:
        label = read(row)
        with elements_as(Reason.UNREADABLE):
            places = _contours(label) if label.get("Modality") == "RTSTRUCT" else _segments(label)
            return united(_box(corners) for corners in places)
    except CaseError:
        return NOTHING


def _contours(label: Dataset) -> Iterator[NDArray[np.float64]]:
    """Yield the points of each contour, without the outline of the whole body (RT ROI Interpreted Type EXTERNAL)."""
    outlines = {
        item.get("ReferencedROINumber")
        for item in label.get("RTROIObservationsSequence") or ()
        if str(item.get("RTROIInterpretedType") or "").upper() == "EXTERNAL"
    }
    for roi in label.get("ROIContourSequence") or ():
        if roi.get("ReferencedROINumber") not in outlines:
            for contour in roi.get("ContourSequence") or ():
                yield np.array([float(v) for v in contour.get("ContourData") or ()]).reshape(-1, 3)


def _segments(label: Dataset) -> Iterator[NDArray[np.float64]]:
    """Yield the corners of what each frame of a segmentation marks."""
    if label.get("Modality") != "SEG" or "PixelData" not in label:
        return
    form = pixel_format(label)
    frames = label.pixel_array.reshape(form.frames, form.rows, form.columns)
    for frame, grid in zip(frames, _grids(label, form), strict=True):
        rows, columns = np.nonzero(frame)
        if rows.size:
            yield grid.to_world([(0, r, c) for r in (rows.min(), rows.max()) for c in (columns.min(), columns.max())])


def _box(places: NDArray[np.float64]) -> Cells:
    if not places.size:
        return NOTHING
    cells = np.floor(places[:, ::-1] / CELL_MM + 0.5).astype(int)
    low, high = cells.min(axis=0), cells.max(axis=0) + 1
    held: Bools = np.ones(tuple(int(n) for n in high - low), np.bool_)
    return Cells((int(low[0]), int(low[1]), int(low[2])), held)
