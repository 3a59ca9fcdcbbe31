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
        counts = [np.count_nonzero(level) for level in self.numbers]  # four times as fast as with an axis
        return int(np.argmax(counts)) if any(counts) else len(counts) // 2

    def voxels(self) -> tuple[int, ...]:
        """Return how many voxels are drawn for each name."""
        counts = np.zeros(MOST + 1, np.int64)
        for level in self.numbers:
            if level.any():
                counts += np.bincount(level[level > 0], minlength=len(counts))
        return tuple(int(counts[min(number, MOST)]) for number in range(1, len(self.names) + 1))


def overlay_of(dataset: Dataset, position: int, field: str) -> Overlay:
    """Return what lies over one field of images of a sample: masks on its grid, and on the first grid boxes and points.

    Only the masks are read. Where several things lie on one voxel, that of the later channel, field or point is drawn.
    """
    grid = dataset.layout(field).grid
    masks = [f for f in dataset.manifest.fields if not f.is_image and f.grid == grid and f.name in dataset.fields]
    shape = dataset.shape(int(dataset.rows[position]), field)[1:]
    item = replace(dataset, fields=tuple(mask.name for mask in masks))[position]
    numbers, names = np.zeros(shape, np.uint8), _Names()
    for mask in masks:
        voxels = item.arrays[mask.name]
        tables: dict[int, dict[int, int]] = {}
        for segment, (channel, value) in mask.segments.items():
            label = segment if segment == mask.name else f"{mask.name}/{segment}"
            tables.setdefault(channel, {})[value] = names.number(label)
        for channel, table in tables.items():
            _put(numbers, voxels[channel], table)
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


def _put(numbers: Voxels, voxels: NDArray[Any], table: Mapping[int, int]) -> None:
    """Draw the number of each value of a table, in the slices that hold anything."""
    if voxels.dtype not in (np.uint8, np.uint16):
        for value, number in table.items():
            numbers[voxels == value] = number
        return
    known = np.zeros(1 << 8 * voxels.itemsize, np.uint8)  # as quick for a hundred values as for one
    for value, number in table.items():
        if 0 <= value < len(known):
            known[value] = number
    for level, drawn in zip(voxels, numbers, strict=True):
        if level.any():
            found = known.take(level)
            np.copyto(drawn, found, where=found > 0)


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
