"""Views of a frame as 8-bit grey pictures, in at least one of which text that a person can see stands out."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""(row, column) grey values."""

FEW = 0.1
"""Share of the pixels that the values of an end may have for a view of their own: text is thin."""
END = 0.1
"""Part of the values that counts as the bright, or the dark, end."""


def views_of(frame: NDArray[Any], *, window: tuple[float, float] | None = None) -> Iterator[Picture]:
    """Yield distinct views of a frame, the likeliest first.

    Parameters
    ----------
    frame
        (row, column) stored values, or (row, column, 3) RGB of 8 bits.
    window
        Lowest and highest stored value that the header would show.

    Notes
    -----
    Programs write text with the largest or smallest value of the format or of the image. In an image of 12 or 16 bits
    it may lie far outside the values of the anatomy, where a window of the anatomy still shows it as white, or hardly
    above them, where only a narrow window does.
    """
    if frame.ndim == 3:
        yield from _distinct(_colours(frame))
        return
    values = frame.astype(np.float32)
    values[~np.isfinite(values)] = 0
    yield from _distinct(_greys(values, window))


def _colours(frame: NDArray[Any]) -> Iterator[Picture]:
    """The largest channel shows coloured text on black, the smallest on white."""
    yield frame.max(axis=-1).astype(np.uint8)
    smallest: Picture = frame.min(axis=-1).astype(np.uint8)
    if int(np.abs(frame.max(axis=-1).astype(int) - smallest).max()) > 64:
        yield smallest


def _greys(values: NDArray[np.float32], window: tuple[float, float] | None) -> Iterator[Picture]:
    lowest, highest = float(values.min()), float(values.max())
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.0)))
    yield _windowed(values, low, high)
    deep = highest - lowest > 255
    if deep or highest - low > 1.5 * (high - low):
        yield _windowed(values, lowest, highest)
    if window is not None and deep:
        yield _windowed(values, *window)


def ends_of(frame: NDArray[Any]) -> Iterator[Picture]:
    """Yield the brightest, and the darkest, values of a frame alone where they are few.

    Text over speckle has no other contrast, but parts of a body look like letters there, too: a reading must be surer.
    Only (row, column) frames whose values lie within 255 have such views; in others a window of ``views_of`` shows it.
    """
    if frame.ndim == 3:
        return
    values = frame.astype(np.float32)
    values[~np.isfinite(values)] = 0
    lowest, highest = float(values.min()), float(values.max())
    if not 0 < highest - lowest <= 255:
        return
    part = END * (highest - lowest)
    if (values >= highest - part).mean() <= FEW:
        yield _windowed(values, highest - 2 * part, highest)
    if (values <= lowest + part).mean() <= FEW:
        yield _windowed(values, lowest, lowest + 2 * part)


def _windowed(values: NDArray[np.float32], low: float, high: float) -> Picture:
    shown = (values - low) * (255 / max(high - low, 1e-6))
    picture: Picture = np.clip(shown, 0, 255).astype(np.uint8)
    return picture


def _distinct(pictures: Iterator[Picture]) -> Iterator[Picture]:
    """Leave out pictures that look like one before them."""
    seen: list[Picture] = []
    for picture in pictures:
        if not any(_alike(picture, other) for other in seen):
            seen.append(picture)
            yield picture


def _alike(one: Picture, other: Picture) -> bool:
    return float(np.percentile(np.abs(one.astype(np.int16) - other), 99.9)) < 24


def tiles_of(picture: Picture, *, largest: int, overlap: int) -> Iterator[tuple[int, int, Picture]]:
    """Yield (row, column, tile) of parts of a picture with no side longer than ``largest``, each over the next one."""
    rows, columns = (_starts(length, largest, overlap) for length in picture.shape)
    for top in rows:
        for left in columns:
            yield top, left, picture[top : top + largest, left : left + largest]


def _starts(length: int, largest: int, overlap: int) -> Sequence[int]:
    if length <= largest:
        return (0,)
    count = -(-(length - overlap) // (largest - overlap))
    return [round(n * (length - largest) / (count - 1)) for n in range(count)]
