"""A regular voxel grid in patient space: LPS millimetres, axes (slice, row, column)."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Affine: TypeAlias = NDArray[np.float64]
"""(4, 4) float64: maps homogeneous (slice, row, column, 1) voxel indices to (x, y, z, 1) in LPS mm. Indices address
voxel centres, as ImagePositionPatient does (PS3.3 C.7.6.2.1.1)."""

ORTHOGONAL_TOLERANCE = 1e-4
"""Largest absolute cosine between two axis directions that still counts as orthogonal."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """A grid of voxels in patient space.

    Parameters
    ----------
    shape
        Number of voxels along (slice, row, column).
    affine
        (4, 4) float64, voxel (slice, row, column) to LPS mm.
    frame_of_reference
        FrameOfReferenceUID (0020,0052) the coordinates belong to, already de-identified or the source's own; None
        when the source states none. Two grids can be compared only within one frame of reference.
    """

    shape: tuple[int, int, int]
    affine: Affine
    frame_of_reference: str | None = None

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError(f"affine: found shape {affine.shape}, expected a finite (4, 4) matrix")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"shape: found {self.shape}, expected three positive counts (slice, row, column)")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise ValueError("affine: found a singular matrix, expected three independent axes")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along (slice, row, column), in mm."""
        lengths = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return (float(lengths[0]), float(lengths[1]), float(lengths[2]))

    @property
    def directions(self) -> NDArray[np.float64]:
        """(3, 3) unit vectors as columns: where (slice, row, column) indices grow, in LPS."""
        return np.asarray(self.affine[:3, :3] / np.asarray(self.spacing_mm))

    @property
    def origin_mm(self) -> tuple[float, float, float]:
        """Position of the centre of voxel (0, 0, 0), LPS mm."""
        x, y, z = self.affine[:3, 3]
        return (float(x), float(y), float(z))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm3, correct for sheared grids too."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def is_orthogonal(self) -> bool:
        """Whether the three axes are perpendicular (a tilted gantry gives a sheared grid, which is not)."""
        gram = self.directions.T @ self.directions
        return bool(np.abs(gram - np.eye(3)).max() <= ORTHOGONAL_TOLERANCE)

    @property
    def orientation(self) -> str:
        """Three letters of L/R, P/A, S/I: the patient direction in which (slice, row, column) grow, e.g. ``SPL``.

        Read column, row, slice (reversed) this is the usual x-y-z code: ``SPL`` here is LPS there.
        """
        letters = []
        for axis in range(3):
            direction = self.directions[:, axis]
            world = int(np.argmax(np.abs(direction)))
            letters.append(("LR", "PA", "SI")[world][0 if direction[world] > 0 else 1])
        return "".join(letters)

    def to_world(self, voxels: ArrayLike) -> NDArray[np.float64]:
        """Map (n, 3) voxel coordinates (slice, row, column) to (n, 3) LPS mm."""
        points = np.asarray(voxels, dtype=np.float64).reshape(-1, 3)
        return np.asarray(points @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_voxel(self, world_mm: ArrayLike) -> NDArray[np.float64]:
        """Map (n, 3) LPS mm to (n, 3) continuous voxel coordinates (slice, row, column)."""
        points = np.asarray(world_mm, dtype=np.float64).reshape(-1, 3)
        return np.asarray(np.linalg.solve(self.affine[:3, :3], (points - self.affine[:3, 3]).T).T)

    def box(self, start: tuple[int, int, int], shape: tuple[int, int, int]) -> "Geometry":
        """Return the grid of a box of this one. ``start`` may lie outside (padding)."""
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ np.asarray(start, dtype=np.float64)
        return Geometry(shape, affine, self.frame_of_reference)

    def same_grid(self, other: "Geometry", *, tolerance_voxels: float = 0.01) -> bool:
        """Return whether both grids have one shape and all corners differ by at most ``tolerance_voxels`` of a voxel.

        Frames of reference are not compared: the caller knows whether they may differ.
        """
        if self.shape != other.shape:
            return False
        corners = corner_voxels(self.shape)
        return bool(np.abs(self.to_voxel(other.to_world(corners)) - corners).max() <= tolerance_voxels)


def corner_voxels(shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return (8, 3) voxel coordinates of the centres of the corner voxels of a grid."""
    ends = [(0.0, float(n - 1)) for n in shape]
    return np.array([(s, r, c) for s in ends[0] for r in ends[1] for c in ends[2]])
