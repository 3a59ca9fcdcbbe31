"""What a person sees over an image: the masks, boxes and points of a sample as one array of numbers with names."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.reader.dataset import Dataset

POINT = 2
"""Voxels in the plane from a point to the ends of the square that is drawn for it."""

MOST = 255
"""Most names that one array of bytes tells apart; further ones share the last number."""

Voxels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Overlay:
    """Numbers over an image.

    Parameters
    ----------
    numbers
        (slice, row, column): 0 where nothing is drawn, else 1 + the place in ``names``.
    names
        What the numbers stand for: segments, and the classes of boxes and points.
    """

    numbers: Voxels
    names: tuple[str, ...]

    @property
    def fullest(self) -> int:
        """Return the slice with the most drawn voxels, the middle one if nothing is drawn."""
        counts = np.count_nonzero(self.numbers, axis=(1, 2))
        return int(np.argmax(counts)) if counts.any() else len(counts) // 2


def overlay_of(dataset: Dataset, position: int, field: str) -> Overlay:
    """Return what lies over one field of images of a sample: masks on its grid, and on the first grid boxes and points.

    Only the masks are read. Where several things lie on one voxel, the later one is drawn.
    """
    grid = dataset.layout(field).grid
    masks = [f for f in dataset.manifest.fields if not f.is_image and f.grid == grid and f.name in dataset.fields]
    shape = dataset.shape(int(dataset.rows[position]), field)[1:]
    item = replace(dataset, fields=tuple(mask.name for mask in masks))[position]
    numbers, names = np.zeros(shape, np.uint8), _Names()
    for mask in masks:
        voxels = item.arrays[mask.name]
        for segment, (channel, value) in mask.segments.items():
            label = segment if segment == mask.name else f"{mask.name}/{segment}"
            numbers[voxels[channel] == value] = names.number(label)
        if not mask.segments:
            numbers[(voxels > 0).any(axis=0)] = names.number(mask.name)
    if not grid:
        row = item.values(["box_names", "box_classes", "boxes", "landmark_names", "landmark_classes", "landmarks"])
        for name, corners in _drawn(row, "box", "boxes", 6):
            _outline(numbers, corners.reshape(2, 3), names.number(name))
        for name, point in _drawn(row, "landmark", "landmarks", 3):
            around = np.array([0, POINT, POINT])
            _outline(numbers, np.stack([point - around, point + around]), names.number(name))
    return Overlay(numbers, tuple(names.known))


class _Names:
    """Names in the order in which they are met."""

    def __init__(self) -> None:
        self.known: list[str] = []

    def number(self, name: str) -> int:
        """Return the number of a name, from 1."""
        if name not in self.known:
            self.known.append(name)
        return min(self.known.index(name) + 1, MOST)


def _drawn(row: Mapping[str, Any], kind: str, numbers: str, size: int) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield each box or point of a row with its class, or else its name."""
    names: Sequence[str] = row[f"{kind}_names"] or ()
    classes: Sequence[str | None] = row[f"{kind}_classes"] or [None] * len(names)
    places = np.reshape(np.asarray(row[numbers] or (), np.float64), (-1, size))
    for name, own, place in zip(names, classes, places, strict=True):
        yield own or name, place


def _outline(numbers: Voxels, corners: NDArray[np.float64], number: int) -> None:
    """Draw the border of a box in each of its slices; what lies outside the array is cut off."""
    top = np.array(numbers.shape) - 1
    if (corners[1] < -0.5).any() or (corners[0] > top + 0.5).any():
        return
    first, last = np.rint(np.clip(corners, 0, top)).astype(int)
    box = numbers[first[0] : last[0] + 1, first[1] : last[1] + 1, first[2] : last[2] + 1]
    box[:, [0, -1], :] = number
    box[:, :, [0, -1]] = number
