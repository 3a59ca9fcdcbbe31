"""Moves a label from its own grid to the image's: copies voxels if the grids agree, else resamples and records it."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.kernels.sampling import index_map, sample
from builder.model.geometry import Geometry, corner_voxels

OffGrid: TypeAlias = Literal["resample", "refuse"]
Interpolation: TypeAlias = Literal["nearest", "linear"]


@dataclass(frozen=True, eq=False)
class Placement:
    """How one grid lies relative to another.

    ``order``, ``flips`` and ``offset`` say which axes of the label run along (slice, row, column) of the image, which
    of them run backwards, and at which label index the image's first voxel lies. ``order`` is None if the grids do not
    agree. ``drift_voxels`` is the largest distance between voxel centres over the image's corners.
    """

    source: Geometry
    target: Geometry
    drift_voxels: float
    order: tuple[int, int, int] | None = None
    flips: tuple[bool, bool, bool] = (False, False, False)
    offset: tuple[int, int, int] = (0, 0, 0)

    @property
    def resampled(self) -> bool:
        """Whether voxels have to be interpolated."""
        return self.order is None


def place(source: Geometry, target: Geometry, *, tolerance_voxels: float) -> Placement:
    """Compare two grids. They agree if they differ only in axis order, direction and a shift by whole voxels.

    The rest may amount to ``tolerance_voxels``.

    Raises
    ------
    CaseError
        LABEL_OFF_GRID if the two boxes have no voxel in common.
    """
    _check_overlap(source, target)
    matrix = index_map(source, target)
    turns, shift = np.round(matrix[:, :3]), np.round(matrix[:, 3])
    corners = corner_voxels(target.shape)
    drift = float(np.abs(corners @ (matrix[:, :3] - turns).T + (matrix[:, 3] - shift)).max())
    permutes = (np.abs(turns).sum(axis=0) == 1).all() and (np.abs(turns).sum(axis=1) == 1).all()
    if not permutes or drift > tolerance_voxels:
        return Placement(source, target, drift)
    order = tuple(int(n) for n in np.abs(turns).argmax(axis=0))
    flips = tuple(bool(turns[s, t] < 0) for t, s in enumerate(order))
    offset = tuple(int(shift[s]) for s in order)
    return Placement(source, target, drift, order, flips, offset)  # type: ignore[arg-type]


def move(mask: NDArray[np.bool_], placement: Placement, *, interpolation: Interpolation) -> NDArray[np.bool_]:
    """Move a binary structure to the target grid: copy it if the grids agree, else interpolate and cut at one half."""
    if not placement.resampled:
        return np.asarray(_copy(mask, placement))
    if interpolation == "nearest":
        moved = sample(mask.astype(np.uint8), placement.source, placement.target, method="nearest", fill=0)
        return np.asarray(moved > 0)
    shares = sample(mask.astype(np.float32), placement.source, placement.target, method="linear", fill=0)
    return np.asarray(shares >= 0.5)


def move_shares(shares: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
    """Move a fractional structure (0..255) to the target grid: copy it, or interpolate linearly and round."""
    if not placement.resampled:
        return np.asarray(_copy(shares, placement))
    return np.asarray(sample(shares, placement.source, placement.target, method="linear", fill=0))


def _copy(array: NDArray[Any], placement: Placement) -> NDArray[Any]:
    assert placement.order is not None
    turned = array.transpose(placement.order)
    out = np.zeros(placement.target.shape, dtype=array.dtype)
    take, put = [], []
    for axis in range(3):
        count, size, start = turned.shape[axis], placement.target.shape[axis], placement.offset[axis]
        step = -1 if placement.flips[axis] else 1
        indices = start + step * np.arange(size)
        inside = np.flatnonzero((indices >= 0) & (indices < count))
        put.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0))
        take.append(indices[inside])
    out[tuple(put)] = turned[np.ix_(*take)]
    return out


def _check_overlap(source: Geometry, target: Geometry) -> None:
    """Raise CaseError if the label's box and the image's do not overlap, measured in voxels of the image."""
    low, high = np.full(3, -0.5), np.asarray(source.shape) - 0.5
    outer = np.array([[(low[0], high[0])[a], (low[1], high[1])[b], (low[2], high[2])[c]]
                      for a in (0, 1) for b in (0, 1) for c in (0, 1)])  # fmt: skip
    voxels = target.to_voxel(source.to_world(outer))
    if (voxels.max(axis=0) < -0.5).any() or (voxels.min(axis=0) > np.asarray(target.shape) - 0.5).any():
        raise CaseError(Reason.LABEL_OFF_GRID, "found a label whose grid has no voxel in common with the image's")
