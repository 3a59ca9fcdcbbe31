"""Cells of 3 mm along the patient's axes: one grid for every image of a frame of reference, and sets of its cells."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builder.model.geometry import Geometry

CELL_MM: Final = 3.0

Bools: TypeAlias = NDArray[np.bool_]
Triple: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Cells:
    """A set of cells. ``held`` is (z, y, x) bool, and ``start`` the number of its first cell along each.

    Cell (k, j, i) has its centre at LPS (3 i, 3 j, 3 k) mm. Sets of two images of one frame of reference fit together
    without resampling.
    """

    start: Triple
    held: Bools

    def within(self, geometry: Geometry) -> Bools:
        """Return (slice, row, column) bool: the voxels of a grid whose centres lie in one of the cells."""
        found = np.zeros(geometry.shape, np.bool_)
        for number, plane in enumerate(found):
            places = _cells_at(geometry, number)
            inside = np.ones(plane.shape, np.bool_)
            for place, first, length in zip(places, self.start, self.held.shape, strict=True):
                inside &= (place >= first) & (place < first + length)
            if inside.any():
                z, y, x = (place[inside] - first for place, first in zip(places, self.start, strict=True))
                plane[inside] = self.held[z, y, x]
        return found

    def to_bytes(self) -> bytes:
        """Return the set as a file of numpy; ``parse_cells`` is the inverse, and the same set gives the same bytes."""
        buffer = io.BytesIO()
        np.save(buffer, np.array([*self.start, *self.held.shape], np.int64), allow_pickle=False)
        np.save(buffer, np.packbits(self.held), allow_pickle=False)
        return buffer.getvalue()


NOTHING: Final = Cells((0, 0, 0), np.zeros((0, 0, 0), np.bool_))


def parse_cells(data: bytes) -> Cells:
    """Read what ``Cells.to_bytes`` wrote. Raises ValueError if it is something else."""
    buffer = io.BytesIO(data)
    z, y, x, *shape = (int(n) for n in np.load(buffer, allow_pickle=False))
    bits = np.load(buffer, allow_pickle=False)
    count = int(np.prod(shape))
    return Cells((z, y, x), np.unpackbits(bits, count=count).astype(np.bool_).reshape(shape))


def united(sets: Iterable[Cells]) -> Cells:
    """Return all cells that any of the sets holds."""
    parts = [cells for cells in sets if cells.held.any()]
    if not parts:
        return NOTHING
    low = np.min([cells.start for cells in parts], axis=0)
    high = np.max([np.add(cells.start, cells.held.shape) for cells in parts], axis=0)
    held = np.zeros(tuple(high - low), np.bool_)
    for cells in parts:
        held[_place(cells, low)] |= cells.held
    return Cells((int(low[0]), int(low[1]), int(low[2])), held)


def without(cells: Cells, others: Cells) -> Cells:
    """Return the cells that the other set does not hold."""
    return Cells(cells.start, cells.held & ~shown_on(others, cells.start, cells.held.shape))


def shown_on(cells: Cells, start: Triple, shape: tuple[int, ...]) -> Bools:
    """Return a set of cells on another box of cells; what lies outside of the box is left out."""
    found = np.zeros(shape, np.bool_)
    low = np.maximum(cells.start, start)
    high = np.minimum(np.add(cells.start, cells.held.shape), np.add(start, shape))
    if (high > low).all():
        to = tuple(slice(int(a - s), int(b - s)) for a, b, s in zip(low, high, start, strict=True))
        of = tuple(slice(int(a - s), int(b - s)) for a, b, s in zip(low, high, cells.start, strict=True))
        found[to] = cells.held[of]
    return found


def covering(geometry: Geometry) -> tuple[Triple, Triple]:
    """Return start and shape of the box of cells that holds every voxel of a grid, with a cell to spare around."""
    ends = [(-0.5, n - 0.5) for n in geometry.shape]
    corners = geometry.to_world([(s, r, c) for s in ends[0] for r in ends[1] for c in ends[2]])[:, ::-1] / CELL_MM
    low = np.floor(corners.min(axis=0)).astype(int) - 1
    shape = np.ceil(corners.max(axis=0)).astype(int) + 2 - low
    return (int(low[0]), int(low[1]), int(low[2])), (int(shape[0]), int(shape[1]), int(shape[2]))


def sampled(
    voxels: NDArray[Any], geometry: Geometry, start: Triple, shape: Triple
) -> tuple[NDArray[np.float32], Bools]:
    """Return the mean of an image around the centre of each cell, and which cells lie in its field of view.

    ``voxels`` is (slice, row, column). Voxels that are smaller than a cell are averaged in blocks first.
    """
    means, grid = _coarser(voxels, geometry)
    back = np.linalg.inv(grid.affine)
    z, y, x = (np.arange(n, dtype=np.float64) + s for n, s in zip(shape, start, strict=True))
    values = np.zeros(shape, np.float32)
    seen = np.zeros(shape, np.bool_)
    for k in range(shape[0]):
        inside = np.ones(shape[1:], np.bool_)
        places = []
        for axis, length in enumerate(grid.shape):
            step = back[axis, :3] * CELL_MM
            place = step[2] * z[k] + step[1] * y[:, None] + step[0] * x[None, :] + back[axis, 3]
            index = np.floor(place + 0.5).astype(np.int64)
            inside &= (index >= 0) & (index < length)
            places.append(index)
        if inside.any():
            s, r, c = (index[inside] for index in places)
            values[k][inside] = means[s, r, c]
        seen[k] = inside
    return values, seen


def cells_of(mask: Bools, geometry: Geometry, start: Triple, shape: Triple) -> Bools:
    """Return the cells in which a voxel of a mask has its centre, and those whose own centres lie in such a voxel."""
    near, _ = sampled(mask, geometry, start, shape)
    found = near >= 0.5
    for number in np.flatnonzero(mask.any(axis=(1, 2))).tolist():
        places = np.stack([place[mask[number]] for place in _cells_at(geometry, number)]) - np.asarray(start)[:, None]
        places = places[:, ((places >= 0) & (places < np.asarray(shape)[:, None])).all(axis=0)]
        found[tuple(places)] = True
    return found


def _cells_at(geometry: Geometry, number: int) -> list[NDArray[np.int64]]:
    """Return the cell (z, y, x) of every voxel centre of a slice: three arrays (row, column).

    Sets of cells are made and looked up by this one sum, so that a voxel is in the same cell both times.
    """
    affine = geometry.affine
    rows = np.arange(geometry.shape[1], dtype=np.float64)[:, None]
    columns = np.arange(geometry.shape[2], dtype=np.float64)[None, :]
    places = []
    for axis in (2, 1, 0):
        mm = affine[axis, 0] * number + affine[axis, 1] * rows + affine[axis, 2] * columns + affine[axis, 3]
        places.append(np.floor(mm / CELL_MM + 0.5).astype(np.int64))
    return places


def _coarser(voxels: NDArray[Any], geometry: Geometry) -> tuple[NDArray[np.float32], Geometry]:
    """Return means of blocks of voxels that are about as large as a cell; what is left at the far ends stays out."""
    factors = [max(1, int(CELL_MM / mm)) for mm in geometry.spacing_mm]
    shape = [max(1, n // f) for n, f in zip(geometry.shape, factors, strict=True)]
    factors = [min(f, n) for f, n in zip(factors, geometry.shape, strict=True)]
    means = np.zeros(shape, np.float32)
    for number in range(shape[0]):
        for one in voxels[number * factors[0] : (number + 1) * factors[0]]:
            part = one[: shape[1] * factors[1], : shape[2] * factors[2]].astype(np.float32)
            means[number] += part.reshape(shape[1], factors[1], shape[2], factors[2]).mean(axis=(1, 3))
    means /= np.float32(factors[0])
    affine = geometry.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ ((np.asarray(factors) - 1) / 2)
    affine[:3, :3] = affine[:3, :3] * np.asarray(factors)
    return means, Geometry((shape[0], shape[1], shape[2]), affine, geometry.frame_of_reference)


def _place(cells: Cells, low: NDArray[np.int64]) -> tuple[slice, ...]:
    return tuple(slice(int(s - a), int(s - a + n)) for s, a, n in zip(cells.start, low, cells.held.shape, strict=True))
