"""Permute and flip the axes of the image to a named orientation, without interpolation."""

from dataclasses import replace
from itertools import permutations
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from builder.model.case import Annotation, Boxes, Case, Mask
from builder.model.geometry import Geometry
from builder.transforms.parts import move_parts, require_one_grid
from builder.transforms.step import Step

AXES = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
"""World axis of LPS for each letter, and the sign of the direction along it."""

Turn = tuple[tuple[int, int, int], tuple[int, int, int]]
"""Source axis of each new axis, and +1 or -1 for its direction."""


class Orient(Step):
    """Permute and flip the axes to the named orientation.

    ``to`` is the usual x-y-z code. Its letters give the directions in which column, row and slice indices grow. In
    ``LPS`` columns grow to the patient's left, rows to posterior and slices to superior, so an array in the order
    (slice, row, column) grows S, P, L. An oblique or sheared grid gets the nearest orientation, and its directions are
    kept exactly. No voxel value changes.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["orient"]
    to: str = "LPS"
    """Directions in which columns, rows and slices grow, e.g. ``LPS`` or ``RAS``."""

    @field_validator("to")
    @classmethod
    def _is_a_code(cls, value: str) -> str:
        if len(value) != 3 or not set(value) <= set(AXES) or len({AXES[letter][0] for letter in value}) != 3:
            raise ValueError(f"found {value!r}, expected one letter each of L/R, P/A and S/I, e.g. 'LPS' or 'RAS'")
        return value

    def __call__(self, case: Case) -> Case:
        """Turn the case to the orientation. Raises CaseError if a mask is on another grid."""
        require_one_grid(case)
        turn = find_turn(case.volume.geometry, self.to)
        if turn == ((0, 1, 2), (1, 1, 1)):
            return case
        geometry = turn_geometry(case.volume.geometry, turn)
        padding = case.volume.padding
        volume = replace(
            case.volume,
            voxels=turn_array(case.volume.voxels, turn),
            geometry=geometry,
            padding=None if padding is None else turn_array(padding, turn),
        )

        def move(annotation: Annotation) -> Annotation:
            if isinstance(annotation, Mask):
                return replace(annotation, voxels=turn_array(annotation.voxels, turn), geometry=geometry)
            if isinstance(annotation, Boxes):
                return replace(annotation, corners_mm=_turn_corners(annotation.corners_mm, turn))
            return annotation

        return move_parts(case, volume, move)


def find_turn(geometry: Geometry, code: str) -> Turn:
    """Return the source axis and direction of each new axis (slice, row, column) for an x-y-z ``code``.

    The permutation with the largest sum of cosines is chosen, so that every axis is used once, even on an oblique grid.
    """
    cosines = geometry.directions
    wanted = [AXES[letter] for letter in reversed(code)]  # slice, row, column
    best = max(
        permutations((0, 1, 2)),
        key=lambda order: round(sum(abs(cosines[wanted[new][0], order[new]]) for new in range(3)), 9),
    )
    signs = [1 if cosines[wanted[new][0], best[new]] * wanted[new][1] > 0 else -1 for new in range(3)]
    return (best[0], best[1], best[2]), (signs[0], signs[1], signs[2])


def turn_geometry(geometry: Geometry, turn: Turn) -> Geometry:
    """Return the turned grid, which has the same voxel centres in another order."""
    order, signs = turn
    affine = geometry.affine.copy()
    for new, (old, sign) in enumerate(zip(order, signs, strict=True)):
        affine[:3, new] = sign * geometry.affine[:3, old]
        if sign < 0:
            affine[:3, 3] += geometry.affine[:3, old] * (geometry.shape[old] - 1)
    shape = (geometry.shape[order[0]], geometry.shape[order[1]], geometry.shape[order[2]])
    return Geometry(shape, affine, geometry.frame_of_reference)


def turn_array(array: NDArray[Any], turn: Turn) -> NDArray[Any]:
    """Return a turned, C-contiguous copy of a ([channel,] slice, row, column) array."""
    order, signs = turn
    lead = array.ndim - 3
    turned = array.transpose(*range(lead), *(lead + axis for axis in order))
    steps = (slice(None),) * lead + tuple(slice(None, None, sign) for sign in signs)
    return np.ascontiguousarray(turned[steps])


def _turn_corners(corners_mm: NDArray[np.float64], turn: Turn) -> NDArray[np.float64]:
    """Return the same corners in the order of the new axes."""
    order, signs = turn
    cube = corners_mm.reshape(-1, 2, 2, 2, 3).transpose(0, 1 + order[0], 1 + order[1], 1 + order[2], 4)
    steps = (slice(None), *(slice(None, None, sign) for sign in signs))
    return np.ascontiguousarray(cube[steps]).reshape(-1, 8, 3)
