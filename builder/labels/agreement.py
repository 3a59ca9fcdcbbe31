"""Measures of how well two structures agree: overlap and surface distance."""

import numpy as np
from numpy.typing import NDArray


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient of two structures. Two empty structures score 1."""
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / total if total else 1.0


def surface_distances_mm(
    a: NDArray[np.bool_], b: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Return the distance in mm from every surface voxel of each structure to the nearest surface voxel of the other.

    A surface voxel is a voxel of the structure with at least one of its six face neighbours outside it. Both structures
    must have voxels.
    """
    from scipy.ndimage import binary_erosion, distance_transform_edt

    borders = [mask & ~binary_erosion(mask) for mask in (a, b)]
    if not all(border.any() for border in borders):
        raise ValueError("surface distance: found an empty structure, expected voxels in both")
    apart = [distance_transform_edt(~border, sampling=spacing_mm) for border in borders]
    return np.concatenate([apart[1][borders[0]], apart[0][borders[1]]])


def hausdorff_mm(
    a: NDArray[np.bool_], b: NDArray[np.bool_], spacing_mm: tuple[float, float, float], *, percentile: float = 95
) -> float:
    """Return a percentile of the distances between two surfaces, in mm. The 100th is the Hausdorff distance."""
    return float(np.percentile(surface_distances_mm(a, b, spacing_mm), percentile))
