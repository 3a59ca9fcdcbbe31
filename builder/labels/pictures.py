"""Draws slices as small PNG pictures, with outlines of the labels on them."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.model.case import Annotation, Boxes, Landmarks, Mask, Volume
from builder.model.geometry import Geometry

PIXELS = 160
"""Approximate length of a picture's longer edge. Whole pixels are repeated or averaged to reach it."""

PERCENTILES = (1.0, 99.5)
"""Percentiles of the slice that are drawn black and white."""

OUTLINE = (255, 196, 0)


def draw_slice(plane: NDArray[Any], *regions: NDArray[np.bool_]) -> bytes:
    """Draw a (row, column) slice as PNG, with the outline of each region."""
    from PIL import Image

    low, high = np.percentile(plane, PERCENTILES)
    grey = _resized(np.clip((plane - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8))
    picture = grey
    if any(inside.any() for inside in regions):
        picture = np.repeat(grey[..., None], 3, axis=2)
        for inside in regions:
            picture[_outline(_resized(inside.astype(np.uint8) * 255) > 127)] = OUTLINE
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, format="PNG")
    return sink.getvalue()


def draw_labels(volume: Volume, annotations: Sequence[Annotation]) -> bytes:
    """Draw the slice with the largest area of masks, boxes and points as PNG, or the middle slice if there are none."""
    inside = np.zeros(volume.geometry.shape, bool)
    for annotation in annotations:
        if isinstance(annotation, Mask):
            for segment in annotation.segments:
                inside |= annotation.inside(segment)
        elif isinstance(annotation, Boxes):
            for corners in annotation.corners_mm:
                inside[_window(volume.geometry.to_voxel(corners), volume.geometry, 0)] = True
        elif isinstance(annotation, Landmarks):
            for point in volume.geometry.to_voxel(annotation.points_mm):
                inside[_window(point[None], volume.geometry, 2)] = True
    counts = np.count_nonzero(inside, axis=(1, 2))
    level = int(np.argmax(counts)) if counts.any() else len(counts) // 2
    return draw_slice(volume.voxels[0, level].astype(np.float32), inside[level])


def data_uri(png: bytes) -> str:
    """Encode a PNG as text that can be embedded in a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _window(corners: NDArray[np.float64], geometry: Geometry, grown: int) -> tuple[slice, ...]:
    """Return the voxels from the first to the last corner, grown in the plane and clipped to the grid."""
    around = np.array([0, grown, grown])
    low = np.round(corners.min(axis=0)).astype(int) - around
    high = np.round(corners.max(axis=0)).astype(int) + around + 1
    bounds = zip(low, high, geometry.shape, strict=True)
    return tuple(slice(min(max(int(a), 0), n), min(max(int(b), 0), n)) for a, b, n in bounds)


def _resized(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average blocks if the plane is larger than a picture, or repeat pixels if it is smaller."""
    from PIL import Image

    longest = max(plane.shape)
    if longest > PIXELS:
        return np.asarray(Image.fromarray(plane).reduce(max(1, round(longest / PIXELS))))
    scale = max(1, PIXELS // longest)
    return np.kron(plane, np.ones((scale, scale), np.uint8))


def _outline(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a region that have a neighbour outside it."""
    padded = np.pad(region, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(region & ~inner)
