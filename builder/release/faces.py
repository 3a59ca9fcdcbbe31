"""Faces in the heads of one person: found in whole volumes, before any object of the person is written."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydicom import Dataset

from builder.decode.format import BIG_ENDIAN, PixelFormat, pixel_format
from builder.defacers.cells import CELL_MM, NOTHING, Bools, Cells, united, without
from builder.defacers.defacing import MOST_KEPT, Defacing, emptied, find_face
from builder.defacers.heads import Verdict
from builder.deid.pixels import shows_face
from builder.errors import CaseError, Reason
from builder.headers.boundary import elements_as
from builder.imaging.multiframe import functional_group
from builder.imaging.stacks.axes import stacks_for
from builder.imaging.stacks.options import admit
from builder.imaging.volume import assemble
from builder.model.geometry import Geometry
from builder.release.blanking import rewrite
from builder.spec import DatasetSpec

WITH_FACES = ("CT", "MR", "PT")
DRAWING = ("SEG", "RTSTRUCT")
"""Kinds of objects whose structures stay in the images."""
Read = Callable[[Mapping[str, Any]], Dataset]


@dataclass(frozen=True)
class Faces:
    """By keyed stack: what goes out of its images, and why a stack cannot leave."""

    gone: Mapping[str, Cells] = field(default_factory=dict)
    failed: Mapping[str, CaseError] = field(default_factory=dict)

    def out_of(self, stack: str) -> Cells:
        """Return what goes out of the images of a stack. Raises CaseError FACE_SHOWN."""
        if stack in self.failed:
            raise self.failed[stack]
        return self.gone.get(stack, NOTHING)


def faces_of(images: pa.Table, labels: Sequence[Mapping[str, Any]], spec: DatasetSpec, read: Read) -> Faces:
    """Find the faces of a person; nothing where ``deid.faces`` is keep.

    ``images`` are the rows of the images, with their keyed ``stack``, ``labels`` those of objects of ``DRAWING``, and
    ``read`` reads an object. All images of one frame
    of reference lose the same cells, without those of the brain in any of them and of the labels drawn there.
    """
    if spec.deid.faces == "keep":
        return Faces()
    found: dict[str, tuple[str, Defacing]] = {}
    failed: dict[str, CaseError] = {}
    for stack, frame, rows in _stacks(images):
        try:
            for one in _found(rows, spec, read):
                before = found.get(stack, (frame, one))[1]
                found[stack] = (frame, one if one.verdict == Verdict.FACE else before)
        except CaseError as error:
            failed[stack] = error
    if spec.deid.faces == "refuse":
        open_ = [stack for stack, (_, one) in found.items() if one.verdict == Verdict.FACE]
        refusal = CaseError(Reason.FACE_SHOWN, "found a head whose face is open, expected none (deid.faces: refuse)")
        return Faces({}, failed | dict.fromkeys(open_, refusal))
    shown = any(one.verdict == Verdict.FACE for _, one in found.values())
    drawn = united(_drawn(row, read) for row in labels) if shown else NOTHING
    gone: dict[str, Cells] = {}
    for frame in sorted({frame for frame, _ in found.values()}):
        parts = {stack: one for stack, (own, one) in found.items() if own == frame}
        kept = united([*(one.brain for one in parts.values()), drawn])
        cells = without(united(one.gone for one in parts.values()), kept)
        for stack, one in parts.items():
            gone[stack] = cells
            surface = int(one.surface.held.sum())
            if surface and int(without(one.surface, drawn).held.sum()) < (1 - MOST_KEPT) * surface:
                detail = "found labels over the surface of a face, expected it free of them: leave their objects out"
                failed[stack] = CaseError(Reason.FACE_SHOWN, detail)
    return Faces(gone, failed)


def take_out(clean: Dataset, cells: Cells) -> bool:
    """Give the pixels of an image whose centres lie in some cells the smallest value of their frame, in place.

    No other pixel changes, and an image without such pixels stays as it is. Return whether any changed.

    Raises
    ------
    CaseError
        FACE_SHOWN if the image says not where it lies, or its pixels cannot be changed.
    """
    if not cells.held.any():
        return False
    form = pixel_format(clean)
    if form.samples != 1 or form.syntax == BIG_ENDIAN or form.bits_allocated not in (8, 16):
        raise CaseError(Reason.FACE_SHOWN, "found pixels of a head that cannot be changed, expected 8 or 16 bits")
    gone = np.stack([cells.within(grid)[0] for grid in _grids(clean, form)])
    if not gone.any():
        return False

    rewrite(clean, form, lambda frames, _: emptied(frames, gone))
    return True


def _stacks(images: pa.Table) -> Iterator[tuple[str, str, pa.Table]]:
    """Yield the keyed name, the frame of reference and the rows of each stack that may show a face."""
    names = images.column("stack").to_pylist()
    for stack in sorted({name for name in names if name}):
        rows = images.filter(pa.array([name == stack for name in names]))
        first = rows.slice(0, 1).to_pylist()[0]
        if first["modality"] in WITH_FACES:
            frame = first["frame_of_reference_uid"]
            yield stack, f"{first['study_uid']} {frame}" if frame else stack, rows


def _found(rows: pa.Table, spec: DatasetSpec, read: Read) -> Iterator[Defacing]:
    datasets = [read(row) for row in rows.to_pylist()]
    told = any(shows_face(dataset) for dataset in datasets)
    for stack in stacks_for(rows, spec.volumes):
        for part in admit(stack, spec.volumes):
            yield find_face(assemble(part, datasets, spec.volumes), spec.deid.defacer, told=told)


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
