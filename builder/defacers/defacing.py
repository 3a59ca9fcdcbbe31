"""Take a face out of a volume: judge, choose cells, check them, and give the voxels in them the value of air."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from builder.defacers.brain import brain_of
from builder.defacers.cells import NOTHING, Bools, Cells, cells_of, covering
from builder.defacers.defacer import DefacerBlock
from builder.defacers.heads import Head, Scene, Verdict, face_band, find_head
from builder.defacers.removal import Removal
from builder.errors import CaseError, Reason
from builder.model.case import Annotation, Boxes, Landmarks, Mask, Volume
from builder.model.geometry import Geometry

FACES_REMOVED: Final = "faces_removed"
"""Note on a volume out of which a face was taken (Clean Recognizable Visual Features, DCM 113102)."""
LEAST_REMOVED: Final = 0.95
"""Share of the open face side that must go, or the case does."""
MOST_KEPT: Final = 0.05
"""Share of the surface that labels may keep."""
LEAST_EXTENT_MM: Final = 30.0
"""An image that is thinner than this has no surface that could be rendered."""


@dataclass(frozen=True, eq=False)
class Defacing:
    """What an image shows, and what goes out of it and its like in the same frame of reference.

    Parameters
    ----------
    scene
        The image on cells; None if it is too thin to be looked at.
    gone
        Cells to take out; none unless the verdict says that a face is shown.
    surface
        Those of them that hold skin.
    brain
        The brain, of which nothing goes.
    figures
        Those of the verdict, and ``removed``: share of the open face side that goes.
    doubt
        Why nobody can say that no face is left; "" if nothing is doubtful.
    """

    verdict: Verdict
    scene: Scene | None = None
    gone: Cells = NOTHING
    surface: Cells = NOTHING
    brain: Cells = NOTHING
    figures: Mapping[str, float] = field(default_factory=dict)
    doubt: str = ""


def find_face(volume: Volume, method: DefacerBlock, *, told: bool) -> Defacing:
    """Judge an image and choose what goes. ``told``: its header calls it an image of the head.

    It is doubtful if the header says head and none is found, so that nobody knows what it shows, or if too little of
    the face side would go.
    """
    extents = [n * mm for n, mm in zip(volume.geometry.shape, volume.geometry.spacing_mm, strict=True)]
    if min(extents) < LEAST_EXTENT_MM and not told:
        return Defacing(Verdict.NO_HEAD)
    found = find_head(volume, told=told)
    if found.verdict == Verdict.NO_HEAD and told:
        doubt = "its header calls it an image of the head, and no head was found in it"
        return Defacing(found.verdict, found.scene, figures=found.figures, doubt=doubt)
    if found.verdict != Verdict.FACE or found.head is None:
        return Defacing(found.verdict, found.scene, figures=found.figures)
    scene = found.scene
    brain = brain_of(scene, found.head)
    gone = method(scene, found.head, brain) & ~brain
    removed = _removed(scene, found.head, gone)
    few = removed < LEAST_REMOVED
    doubt = f"{removed:.0%} of its face side would go, expected at least {LEAST_REMOVED:.0%}" if few else ""
    figures = {**found.figures, "removed": round(removed, 4)}
    cells, skin, inner = (Cells(scene.start, part) for part in (gone, gone & scene.body & scene.skin, brain))
    return Defacing(found.verdict, scene, cells, skin, inner, figures, doubt)


def without_face(volume: Volume, removal: Removal, annotations: Iterable[Annotation]) -> Volume:
    """Return the volume with air where the face was. Voxels of labels stay as they are.

    In each slice the smallest value that stays is that of air.

    Raises
    ------
    CaseError
        FACE_SHOWN if labels cover so much of the face's surface that it could still be recognised.
    """
    kept = drawn(annotations, volume.geometry)
    surface = removal.surface_in(volume.geometry)
    if (surface & kept).sum() > MOST_KEPT * surface.sum():
        raise CaseError(
            Reason.FACE_SHOWN,
            f"found labels over {(surface & kept).sum() / surface.sum():.0%} of the face's surface, expected at most "
            f"{MOST_KEPT:.0%}: an outline of the whole body, say, keeps the face; leave that label out",
        )
    gone = removal.gone_in(volume.geometry) & ~kept
    if not gone.any():
        return volume
    voxels = volume.voxels.copy()
    for channel in voxels:
        emptied(channel, gone)
    return replace(volume, voxels=voxels, notes=tuple(sorted({*volume.notes, FACES_REMOVED})))


def emptied(slices: np.ndarray, gone: Bools) -> None:
    """Give the voxels (slice, row, column) that are gone the smallest value that stays in their slice, in place."""
    least = slices[~gone].min() if not gone.all() else slices.min()
    for plane, out in zip(slices, gone, strict=True):
        if out.any():
            plane[out] = least if out.all() else plane[~out].min()


def drawn(annotations: Iterable[Annotation], grid: Geometry) -> Bools:
    """Return (slice, row, column) bool: the voxels of a grid that labels mark, by masks, boxes or points."""
    found = np.zeros(grid.shape, np.bool_)
    for note in annotations:
        if isinstance(note, Mask):
            marked = (note.voxels != 0).any(axis=0)
            if note.geometry.same_grid(grid):
                found |= marked
            elif marked.any():
                start, shape = covering(note.geometry)
                found |= Cells(start, cells_of(marked, note.geometry, start, shape)).within(grid)
        elif isinstance(note, Boxes):
            for corners in note.corners_mm:
                _mark(found, grid.to_voxel(corners))
        elif isinstance(note, Landmarks):
            for point in note.points_mm:
                _mark(found, grid.to_voxel(point[None]))
    return found


def _mark(found: Bools, places: np.ndarray) -> None:
    """Mark the box of voxels around some places."""
    low = np.maximum(np.floor(places.min(axis=0)), 0).astype(int)
    high = np.maximum(np.ceil(places.max(axis=0)) + 1, 0).astype(int)
    found[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))] = True


def _removed(scene: Scene, head: Head, gone: Bools) -> float:
    """Return the share of the skin that is seen from the front, over the face side, that goes."""
    high, low = face_band(head)
    half = int(0.22 * head.depth)
    part = (slice(max(0, low), high), slice(None), slice(max(0, head.middle - half), head.middle + half + 1))
    body, out = scene.body[part], gone[part]
    first = body.argmax(axis=1)
    before = np.maximum(first - 1, 0)[:, None, :]
    open_ = np.take_along_axis(scene.outside[part], before, axis=1)[:, 0, :] & (first > 0)
    return float(np.take_along_axis(out, first[:, None, :], axis=1)[:, 0, :][open_].mean()) if open_.any() else 0.0
