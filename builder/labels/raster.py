"""Rasterises polygons in exact row spans under the even-odd rule, by pixel centre or by covered area."""

import numpy as np
from numpy.typing import NDArray

AREA_LINES = 16
"""Scan lines per pixel row in area mode. Spans are exact along a row, so the covered area is right to 1/16 at worst."""

SNAP = float(2**20)
"""Vertices are rounded to 1/2**20 of a voxel. A vertex on a pixel centre then stays on it whatever the last bits of the
affine, and the half-open rule (left and upper edge in, right and lower edge out) gives the same result on every
machine."""


def edges_of(polygons: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return (n, 4) edges (a0, b0, a1, b1) of polygons given as (k, 2) vertices. The last vertex joins the first."""
    snapped = [np.round(p * SNAP) / SNAP for p in polygons]
    if not snapped:
        return np.empty((0, 4))
    return np.concatenate([np.hstack([p, np.roll(p, -1, axis=0)]) for p in snapped])


def cover(polygons: list[NDArray[np.float64]], shape: tuple[int, int], *, lines: int) -> NDArray[np.float32]:
    """Return the share of each pixel that lies inside ``polygons`` under the even-odd rule.

    Parameters
    ----------
    polygons
        (k, 2) vertices (row, column) in pixel indices; pixel (0, 0) is centred at (0, 0).
    shape
        Rows and columns.
    lines
        Scan lines per pixel row. 1 tests pixel centres (result 0 or 1); more lines give the covered share of the area.

    Returns
    -------
    NDArray
        (row, column) float32, 0 to 1.
    """
    from builder.kernels.polygons import fill_spans

    out = np.zeros(shape, dtype=np.float32)
    edges = edges_of(polygons)
    if len(edges):
        fill_spans(edges, lines, out)
    return out


def cover_prisms(
    points: NDArray[np.float64], edges: NDArray[np.float64], starts: NDArray[np.int64], slabs: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return whether points lie inside a stack of polygon prisms, under the even-odd rule in each plane.

    Parameters
    ----------
    points
        (n, 3): two in-plane coordinates and the offset along the stack's normal.
    edges
        (m, 4) edges of all planes, one plane after another.
    starts
        (p + 1) index of the first edge of each plane, and the total.
    slabs
        (p, 2) lower and upper offset of each plane's prism, in ascending order. The lower end belongs to the prism.
    """
    from builder.kernels.polygons import find_in_prisms

    out = np.zeros(len(points), dtype=np.bool_)
    find_in_prisms(np.ascontiguousarray(points), edges, starts, slabs, out)
    return out
