"""Axial, coronal and sagittal slices in the directions in which a person sees them, and in which the viewer draws them.

All voxels of a volume are turned here, before a slice is drawn and before the viewer gets them. The viewer gets no
matrix that it could turn them by, so that a picture and the viewer cannot differ in what is left, right, up and down.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.model.geometry import Affine, Geometry

PLANES = {"axial": 0, "coronal": 1, "sagittal": 2}
"""Each plane, and the turned axis across it."""

_FACING = {"axial": (-1, -1), "coronal": (-1, -1), "sagittal": (-1, 1)}
"""Which way rows and columns of a slice run: down from anterior or superior, and from the patient's right, or, in
sagittal slices, from posterior."""

LONGEST = 8192

Three = tuple[int, int, int]


@dataclass(frozen=True)
class Planes:
    """How the voxels of one grid are turned and cut.

    Turned axes are (superior, anterior, right): voxels with a larger index lie further there, or as nearly as the axes
    of the grid allow. They are not resampled: the slices of an oblique grid are shown as they are. The only slice of a
    flat image is shown in every plane, as it is stored.
    """

    geometry: Geometry

    @property
    def flat(self) -> bool:
        """Whether the grid has only one slice."""
        return self.geometry.shape[0] == 1

    @property
    def size(self) -> Three:
        """The number of voxels along the turned axes."""
        s, a, r = (self.geometry.shape[axis] for axis in self._axes)
        return s, a, r

    @property
    def affine(self) -> Affine:
        """(4, 4): turned (right, anterior, superior) voxels to mm, without rotation. For display only."""
        return np.diag([*self._spacing_mm[::-1], 1.0])

    def turned(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Return a view of (slice, row, column) voxels, of the grid or a box in it, as (superior, anterior, right)."""
        s, a, r = (slice(None, None, step) for step in self._steps)
        return voxels.transpose(self._axes)[s, a, r]

    def turned_place(self, voxel: Three) -> Three:
        """Return where a (slice, row, column) voxel is along the turned axes."""
        s, a, r = (
            voxel[axis] if step > 0 else self.geometry.shape[axis] - 1 - voxel[axis]
            for axis, step in zip(self._axes, self._steps, strict=True)
        )
        return s, a, r

    def moved(self, voxel: Three, plane: str, number: int) -> Three:
        """Return a (slice, row, column) voxel moved across a plane to the slice with a number along the turned axis."""
        across = self._axes[PLANES[plane]]
        there = number if self._steps[PLANES[plane]] > 0 else self.geometry.shape[across] - 1 - number
        s, r, c = (there if axis == across else index for axis, index in enumerate(voxel))
        return s, r, c

    def box(self, voxel: Three, plane: str) -> tuple[Three, Three]:
        """Return start and shape (slice, row, column) of the slice through a voxel."""
        across = 0 if self.flat else self._axes[PLANES[plane]]
        start, shape = [0, 0, 0], list(self.geometry.shape)
        start[across], shape[across] = voxel[across], 1
        return (start[0], start[1], start[2]), (shape[0], shape[1], shape[2])

    def part(self, voxel: Three, plane: str) -> tuple[slice, slice, slice]:
        """Return the slice through a voxel as an index of (slice, row, column) voxels."""
        start, shape = self.box(voxel, plane)
        s, r, c = (slice(first, first + n) for first, n in zip(start, shape, strict=True))
        return s, r, c

    def seen(self, box: NDArray[Any], plane: str) -> NDArray[Any]:
        """Return a slice that was cut as ``box`` says as (row, column) of a picture, one pixel a voxel."""
        if self.flat:
            return np.asarray(box[0])
        down, along = _FACING[plane]
        return np.asarray(self.turned(box).take(0, axis=PLANES[plane])[::down, ::along])

    def squared(self, picture: NDArray[Any], plane: str) -> NDArray[Any]:
        """Return a picture with square pixels: those of the longer side are repeated, none is left out.

        A spacing that no scanner has repeats them only until the picture has ``LONGEST`` pixels along a side.
        """
        sides = [mm for axis, mm in enumerate(self._spacing_mm) if axis != PLANES[plane]]
        lengths = zip(picture.shape[:2], sides, strict=True)
        wanted = (max(n, min(round(n * mm / min(sides)), LONGEST)) for n, mm in lengths)
        rows, columns = (
            ((np.arange(more) + 0.5) * n / more).astype(int) for n, more in zip(picture.shape[:2], wanted, strict=True)
        )
        return np.asarray(picture[rows[:, np.newaxis], columns])

    @cached_property
    def _towards(self) -> NDArray[np.float64]:
        """(3, 3): how far each voxel axis (columns) runs to superior, anterior and right (rows); from LPS."""
        return np.asarray(self.geometry.directions[::-1] * [[1.0], [-1.0], [-1.0]])

    @cached_property
    def _axes(self) -> Three:
        """The voxel axis of each turned axis: the assignment whose axes lie nearest to the patient's, all together."""
        ways = permutations(range(3))
        s, a, r = max(ways, key=lambda axes: float(np.abs(self._towards[[0, 1, 2], axes]).sum()))
        return s, a, r

    @property
    def _steps(self) -> Three:
        s, a, r = (1 if self._towards[way, axis] > 0 else -1 for way, axis in enumerate(self._axes))
        return s, a, r

    @property
    def _spacing_mm(self) -> tuple[float, float, float]:
        s, a, r = (self.geometry.spacing_mm[axis] for axis in self._axes)
        return s, a, r
