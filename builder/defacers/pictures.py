"""A picture of a head for the person who decides: its face as found and as it would leave, and a section."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from builder.defacers.cells import Bools, Cells, shown_on
from builder.defacers.heads import Scene

PIXELS: Final = 4
"""Of a cell."""
GONE: Final = (230, 60, 60)

Picture = NDArray[np.uint8]


def picture_of(scene: Scene, gone: Cells) -> Picture:
    """Return (row, column, 3) uint8: the surface seen from the front, then without ``gone``, and the middle section.

    Cells that go are red in the section.
    """
    out = shown_on(gone, scene.start, scene.body.shape)
    panels = [_surface(scene.body), _surface(scene.body & ~out), _section(scene, out)]
    height = len(scene.body)
    gap = np.zeros((height, 1, 3), np.uint8)
    row = np.concatenate([part for panel in panels for part in (panel, gap)], axis=1)
    return np.ascontiguousarray(row[::-1].repeat(PIXELS, axis=0).repeat(PIXELS, axis=1))


def _surface(body: Bools) -> Picture:
    """Return (z, x, 3): the surface that is seen from the front, dark where it falls away."""
    first = body.argmax(axis=1).astype(np.float64)
    steep = np.hypot(*np.gradient(first))
    shade = 255.0 / np.sqrt(1.0 + 0.5 * steep**2)
    return _grey(np.where(body.any(axis=1), np.maximum(shade, 30.0), 0.0))


def _section(scene: Scene, out: Bools) -> Picture:
    columns = np.flatnonzero(scene.body.any(axis=(0, 1)))
    middle = int(columns.mean()) if columns.size else scene.body.shape[2] // 2
    plane, seen = scene.values[:, :, middle], scene.seen[:, :, middle]
    low, high = np.percentile(plane[seen], (2.0, 98.0)) if seen.any() else (0.0, 1.0)
    picture = _grey(np.clip((plane - low) / max(high - low, 1e-6), 0.0, 1.0) * 255.0)
    marked = out[:, :, middle]
    picture[marked] = (picture[marked] // 2 + np.array(GONE) // 2).astype(np.uint8)
    return picture


def _grey(values: NDArray[np.float64]) -> Picture:
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)
