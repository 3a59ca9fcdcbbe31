"""How well two structures agree: overlap and surface distance."""

import numpy as np
from numpy.typing import NDArray


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Dice coefficient of two structures; 1 when both are empty."""
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / total if total else 1.0


def surface_distances_mm(
    a: NDArray[np.bool_], b: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Distances from every surface voxel of either structure to the other's nearest, in mm.

    A surface voxel is inside and has a neighbour across one of its six faces that is not. Both structures must have
    voxels.
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
    """Percentile of the distances between two surfaces in mm; 100 is the Hausdorff distance."""
    return float(np.percentile(surface_distances_mm(a, b, spacing_mm), percentile))
