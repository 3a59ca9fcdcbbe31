"""Read rigid registrations out of DICOM Spatial Registration objects.

Source: PS3.3 C.20.2.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing

Matrix: TypeAlias = NDArray[np.float64]
"""(4, 4) float64: maps points (x, y, z, 1) in LPS mm of one frame of reference to those of another."""

SPATIAL_REGISTRATION: Final = "1.2.840.10008.5.1.4.1.1.66.1"

ORTHONORMAL: Final = 5e-4
"""Largest deviation of a rotation from an orthonormal one: matrices are decimal text, sometimes with four digits."""

AGREE_MM: Final = 0.1
"""Largest distance by which two registrations of the same frames may place a point differently."""

REACH_MM: Final = 500.0
"""How far from the origin of the frame registrations are compared; bodies lie within this distance."""

_MOST_ITEMS: Final = 64


@dataclass(frozen=True, eq=False)
class Registration:
    """What one object states: the frame that others are registered to, and a matrix from each of them to it."""

    registered: str
    sources: Mapping[str, Matrix]

    def between(self, moving: str, reference: str) -> Matrix | None:
        """Return the matrix from one frame of reference to another; None if the object does not relate both.

        Two source frames are related through the registered one (PS3.3 Equation C.20.2-3).
        """
        to_common = {self.registered: np.eye(4), **self.sources}
        if moving == reference or moving not in to_common or reference not in to_common:
            return None
        return check_rigid(np.linalg.solve(to_common[reference], to_common[moving]))


def read_registration(dataset: Dataset) -> Registration:
    """Read a Spatial Registration object.

    Raises
    ------
    CaseError
        IMAGE_NOT_ALIGNED if the object is of another kind, or if its matrices are absent, not rigid or contradictory.
    """
    with parsing(Reason.IMAGE_NOT_ALIGNED, "found a registration object that cannot be read"):
        return _registration(dataset)


def _registration(dataset: Dataset) -> Registration:
    if str(dataset.get("SOPClassUID", "")) != SPATIAL_REGISTRATION:
        raise refused("found a deformable or other registration object", "one with rigid matrices")
    registered = str(dataset.get("FrameOfReferenceUID") or "")
    items = list(dataset.get("RegistrationSequence") or ())
    if not registered or not items or len(items) > _MOST_ITEMS:
        raise refused(f"found {len(items)} registrations to the frame {'' if registered else 'nobody states'}", "some")
    found: dict[str, Matrix] = {}
    for item in items:
        frame = str(item.get("FrameOfReferenceUID") or "")
        if not frame:
            continue  # such an item names images alone, which are found by their frame here
        matrix = _matrix_of(item)
        before = found.setdefault(frame, matrix)
        if not agree([before, matrix]):
            raise refused("found two matrices for one frame of reference", "one")
    if registered in found and not agree([found[registered], np.eye(4)]):
        raise refused("found a matrix that moves the registered frame of reference itself", "the identity")
    return Registration(registered, found)


def _matrix_of(item: Dataset) -> Matrix:
    """Return the matrix of an item; of several, the product, unless the order of multiplication would matter."""
    matrices = []
    for block in item.get("MatrixRegistrationSequence") or ():
        for step in block.get("MatrixSequence") or ():
            kind = str(step.get("FrameOfReferenceTransformationMatrixType") or "")
            if kind != "RIGID":
                raise refused(f"found a matrix of type {kind if kind.isidentifier() else '?'}", "RIGID")
            matrices.append(check_rigid([float(v) for v in step.get("FrameOfReferenceTransformationMatrix") or ()]))
    if not matrices or len(matrices) > _MOST_ITEMS:
        raise refused(f"found {len(matrices)} matrices for a frame of reference", "one")
    forward, backward = np.eye(4), np.eye(4)
    for matrix in matrices:
        forward, backward = forward @ matrix, matrix @ backward
    if not agree([forward, backward]):
        # tools disagree about the order that PS3.3 Equation C.20.2-2 gives
        raise refused("found several matrices whose order matters", "one matrix")
    return forward


def check_rigid(values: ArrayLike) -> Matrix:
    """Return 16 numbers, row by row, as a matrix if it only turns and moves points. Raises CaseError."""
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.size != 16 or not np.isfinite(matrix).all():
        raise refused(f"found a matrix of {matrix.size} numbers", "16 finite numbers")
    matrix = matrix.reshape(4, 4)
    if not np.array_equal(matrix[3], (0, 0, 0, 1)):
        raise refused("found a matrix whose last row is not 0, 0, 0, 1", "that row (PS3.3 C.20.2.1.2)")
    turn = matrix[:3, :3]
    if np.abs(turn.T @ turn - np.eye(3)).max() > ORTHONORMAL or np.linalg.det(turn) < 0:
        raise refused("found a matrix that scales, shears or mirrors", "one that only turns and moves")
    return matrix


def agree(matrices: Sequence[Matrix]) -> bool:
    """Return whether matrices place points of a body alike, within ``AGREE_MM``."""
    corners = np.array([(x, y, z, 1.0) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    corners[:, :3] *= REACH_MM
    placed = [corners @ matrix.T for matrix in matrices]
    return all(float(np.linalg.norm(other - placed[0], axis=1).max()) <= AGREE_MM for other in placed[1:])


def first_of(matrices: Iterable[Matrix]) -> Matrix:
    """Return the first of several matrices for the same frames. Raises CaseError if they contradict each other."""
    found = list(matrices)
    if not agree(found):
        raise refused(f"found {len(found)} registrations of the same frames that contradict each other", "one")
    return found[0]


def refused(found: str, expected: str) -> CaseError:
    """Return the error of a registration that cannot place an image."""
    return CaseError(Reason.IMAGE_NOT_ALIGNED, f"registration: {found}, expected {expected}")
