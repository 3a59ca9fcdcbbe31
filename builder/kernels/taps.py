"""Choosing the source samples and weights that make up each target sample along one axis."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

FIELD_TOLERANCE = 1e-6
"""Fraction of a voxel by which a position may pass the outer edge of the field of view and still count as inside."""

TIE_TOLERANCE = 1e-9
"""Fraction of a voxel below the midpoint of two samples that still counts as the midpoint, to absorb rounding."""


class Method(StrEnum):
    """How a value between samples is computed."""

    NEAREST = "nearest"
    LINEAR = "linear"
    CUBIC = "cubic"
    MAJORITY = "majority"


class Antialias(StrEnum):
    """The filter applied along each axis that shrinks."""

    NONE = "none"
    LOWPASS = "lowpass"


@dataclass(frozen=True)
class Line:
    """Target samples along one source axis: sample ``i`` lies at source index ``start + i * step``."""

    size: int
    start: float
    step: float

    @property
    def positions(self) -> NDArray[np.float64]:
        """Return the (size,) continuous source indices."""
        return np.asarray(self.start + np.arange(self.size, dtype=np.float64) * self.step)

    def part(self, first: int, stop: int) -> "Line":
        """Return the line of target samples ``first`` to ``stop``."""
        return Line(stop - first, self.start + first * self.step, self.step)

    def inside(self, count: int) -> tuple[int, int]:
        """Return the first and past-the-last target sample within the field of view of ``count`` source samples.

        The field of view ends at the outer edges of the outermost voxels, half a voxel beyond their centres.
        """
        at = self.positions
        within = np.flatnonzero((at >= -0.5 - FIELD_TOLERANCE) & (at <= count - 0.5 + FIELD_TOLERANCE))
        return (int(within[0]), int(within[-1]) + 1) if within.size else (0, 0)


@dataclass(frozen=True, eq=False)
class Taps:
    """Weighted sums along one axis: ``out[i] = sum over t of weight[i, t] * in[index[i, t]]``.

    ``index`` is (size, taps) uint32, ``weight`` (size, taps) float64; ``spline`` says that the input must be cubic
    B-spline coefficients.
    """

    index: NDArray[np.uint32]
    weight: NDArray[np.float64]
    spline: bool = False


def nearest_index(line: Line, count: int) -> NDArray[np.uint32]:
    """Return the (size,) nearest source samples; a midpoint takes the higher index, as in ITK."""
    return np.asarray(np.clip(np.floor(line.positions + 0.5 + TIE_TOLERANCE), 0, count - 1), dtype=np.uint32)


def linear_pairs(line: Line, count: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float64]]:
    """Return the (size,) lower and upper neighbours and the weights of the upper.

    Beyond the outermost centres the edge value holds. When the upper weight is 0, the lower neighbour is named twice,
    because a float neighbour of weight 0 may be NaN and would spoil the sum.
    """
    at = np.clip(line.positions, 0, count - 1)
    low = np.floor(at)
    high = np.where(at > low, np.minimum(low + 1, count - 1), low)
    return low.astype(np.uint32), high.astype(np.uint32), at - low


def make_taps(line: Line, count: int, *, method: Method, antialias: Antialias) -> Taps:
    """Return the taps of one axis for ``linear`` or ``cubic``.

    With ``lowpass``, an axis that shrinks is weighted by a triangle (linear) or by Keys' cubic with a = -1/2 (cubic;
    Keys 1981, doi:10.1109/TASSP.1981.1163711), stretched to the target's spacing. Taps outside the field are left out
    and the other weights are normalised.
    """
    if antialias is Antialias.LOWPASS and abs(line.step) > 1 + TIE_TOLERANCE:
        return _stretch(line, count, _keys, 2.0) if method is Method.CUBIC else _stretch(line, count, _triangle, 1.0)
    if method is Method.CUBIC:
        return _spline(line, count)
    low, high, weight = linear_pairs(line, count)
    return Taps(np.stack([low, high], axis=1), np.stack([1 - weight, weight], axis=1))


def identity_taps(count: int) -> Taps:
    """Return taps that copy each sample: one tap of weight 1."""
    return Taps(np.arange(count, dtype=np.uint32)[:, None], np.ones((count, 1), dtype=np.float64))


def spline_weights(offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (n, 4) cubic B-spline weights of samples -1, 0, 1, 2 at ``offset`` in [0, 1) (Unser 1999)."""
    t = offset
    square, cube, rest = t * t, t * t * t, (1 - t) * (1 - t) * (1 - t)  # no power: numpy's differs between processors
    inner, outer = (3 * cube - 6 * square + 4) / 6, (1 + 3 * t + 3 * square - 3 * cube) / 6
    return np.stack([rest / 6, inner, outer, cube / 6], axis=1)


def _spline(line: Line, count: int) -> Taps:
    at = line.positions
    low = np.floor(at)
    index = low.astype(np.int64)[:, None] + np.arange(-1, 3)
    if count == 1:
        index[:] = 0
    else:  # mirrored about the outermost centres, as in ITK and scipy's "mirror"
        index = np.abs(index) % (2 * count - 2)
        index = np.where(index >= count, 2 * count - 2 - index, index)
    return Taps(index.astype(np.uint32), spline_weights(at - low), spline=True)


Window = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _stretch(line: Line, count: int, window: Window, radius: float) -> Taps:
    """Return the taps of a window that ends ``radius`` target samples away on both sides."""
    at, scale = line.positions, abs(line.step)
    reach = radius * scale
    first = np.ceil(at - reach).astype(np.int64)
    index = first[:, None] + np.arange(int(np.floor(2 * reach)) + 1)
    weight = window(np.abs(index - at[:, None]) / scale)
    weight = np.where((index >= 0) & (index < count), weight, 0.0)
    weight /= weight.sum(axis=1, keepdims=True)
    return Taps(np.clip(index, 0, count - 1).astype(np.uint32), weight)


def _triangle(d: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(0.0, 1.0 - d)


def _keys(d: NDArray[np.float64]) -> NDArray[np.float64]:
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))
