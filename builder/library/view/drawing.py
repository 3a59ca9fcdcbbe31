"""Pictures as PNG: grey values in a window, and what lies over them in colours."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLOURS = ((255, 196, 0), (0, 200, 255), (255, 90, 120), (90, 220, 110), (190, 130, 255), (255, 140, 40),
           (60, 130, 255), (240, 240, 90), (0, 220, 180), (255, 120, 220))  # fmt: skip
"""Colours of what is drawn over an image, in turn."""

THICKER = 600
"""Pixels of the longer edge for which the outlines on a picture are one pixel thicker on each side."""

Picture = NDArray[np.uint8]
"""(row, column, colour)"""


def grey(values: NDArray[Any], low: float, high: float) -> Picture:
    """Return (row, column) values from black for the lowest shown to white for the highest."""
    shown = (values.astype(np.float32) - low) * (255 / max(high - low, 1e-6))
    return np.repeat(np.clip(shown, 0, 255).astype(np.uint8)[..., np.newaxis], 3, axis=-1)


def with_fills(rgb: Picture, numbers: NDArray[np.uint8], opacity: float) -> Picture:
    """Return a picture with each region of a number filled in its colour, so far as the opacity (0 to 1) says."""
    drawn, inside = rgb.copy(), numbers > 0
    drawn[inside] = np.rint(rgb[inside] * (1 - opacity) + _colours(numbers[inside]) * opacity)
    return drawn


def with_outlines(rgb: Picture, numbers: NDArray[np.uint8]) -> Picture:
    """Return a picture with the outline of each region of a number in its colour."""
    padded = np.pad(numbers, 1, mode="edge")
    same = (padded[:-2, 1:-1] == numbers) & (padded[2:, 1:-1] == numbers)
    border = (numbers > 0) & ~(same & (padded[1:-1, :-2] == numbers) & (padded[1:-1, 2:] == numbers))
    lines = np.where(border, numbers, 0)
    for _ in range(max(rgb.shape) // THICKER):  # one pixel of a radiograph is too thin a line on a screen
        around = np.pad(lines, 1)
        beside = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
        lines = np.maximum.reduce([lines, *beside])
    drawn, border = rgb.copy(), lines > 0
    drawn[border] = _colours(lines[border])
    return drawn


def png(rgb: Picture) -> bytes:
    """Return a picture as a PNG file, made quickly rather than small."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(rgb).save(sink, format="PNG", compress_level=1)
    return sink.getvalue()


def _colours(numbers: NDArray[np.uint8]) -> Picture:
    return np.asarray(np.array(COLOURS, np.uint8)[(numbers.astype(int) - 1) % len(COLOURS)])
