"""Statistics of merged tallies, each between bounds that hold whatever the sites hide and bands leave open.

The pooled number, computed from the rows of all sites, lies between ``low`` and ``high``. Values beyond the edges of a
quantity are taken to lie on the edge.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from builder.federation.tables import ANY, Integers, Pattern
from builder.federation.tallies import Tally
from builder.report.association import corrected_v
from builder.report.bias import wilson
from builder.report.power import detectable_difference, half_width

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number that lies between two bounds; ``math.inf`` where there is none above."""

    low: float
    high: float

    @property
    def value(self) -> float:
        """The middle of the bounds."""
        return (self.low + self.high) / 2

    @property
    def bound(self) -> float:
        """How far the pooled number can be from ``value``."""
        return (self.high - self.low) / 2


def mean(histogram: Tally, edges: Sequence[float]) -> Estimate:
    """Return the mean of a quantity whose bands are the only column."""
    lower, upper = np.asarray(edges[:-1], dtype=float), np.asarray(edges[1:], dtype=float)
    return Estimate(
        -_most(histogram, -lower) / histogram.total,
        _most(histogram, upper) / histogram.total,
    )


def quantile(histogram: Tally, edges: Sequence[float], q: float) -> Estimate:
    """Return a quantile, by linear interpolation between the values around it (numpy's default)."""
    at = (histogram.total - 1) * q
    numbers = np.arange(len(edges) - 1, dtype=float)
    fewest, most = (np.cumsum(_filled(histogram, sign * numbers)) for sign in (-1, 1))
    low = int(np.searchsorted(fewest, math.floor(at), side="right"))
    high = int(np.searchsorted(most, math.ceil(at), side="right"))
    return Estimate(float(edges[low]), float(edges[high + 1]))


def mean_of_known(histogram: Tally, edges: Sequence[float]) -> Estimate:
    """Return the mean of the values that are known, where the last band also holds whoever has none.

    Whoever has none counts as little as the mean can be, which is found by turns, or as much as a value can be.
    """
    lower = np.asarray(edges[:-1], dtype=float)
    low = lower[0]
    for _ in range(20):
        worth = np.append(lower[:-1], min(lower[-1], low))
        low = -_most(histogram, -worth) / histogram.total
    return Estimate(low, mean(histogram, edges).high)


def quantile_of_known(histogram: Tally, edges: Sequence[float], q: float) -> Estimate:
    """Return a quantile of the values that are known, where the last band also holds whoever has none."""
    at = math.floor((histogram.total - 1) * q)
    first = np.append(np.arange(1, len(edges) - 1, dtype=float), 0.0)  # without a value: below all others
    counts = _filled(histogram, -first)
    place = int(np.searchsorted(np.cumsum(np.roll(counts, 1)), at, side="right"))
    return Estimate(float(edges[max(place - 1, 0)]), quantile(histogram, edges, q).high)


def median_bands(histogram: Tally) -> tuple[int, int, int]:
    """Return the first and last band in which the median person can lie, of two the lower one, and a likely one.

    The last band also holds whoever has no value, who is in no median. In the likely band the median lies if those
    whom sites hide are shared out evenly over the bands that they can be in.
    """
    width = len(histogram.columns[0].levels)
    order = np.arange(width, dtype=float)
    without = _filled(histogram, np.append(-order[1:], 0.0))  # in the last band as many as can be
    fewest = np.cumsum(np.roll(without, 1))
    most = np.cumsum(_filled(histogram, order))
    at = (histogram.total - 1) // 2
    first, last = (int(np.searchsorted(counts, at, side="right")) for counts in (fewest, most))
    low, high = _ends(histogram)
    room = np.maximum(high - low, 0)
    evenly = np.cumsum(low + room * ((histogram.total - low.sum()) / max(1, room.sum())))
    likely = int(np.searchsorted(evenly, at + 1e-6, side="right"))
    return max(first - 1, 0), last, min(max(likely, first - 1, 0), last)


def difference(one: Estimate, other: Estimate) -> Estimate:
    """Return a difference of two numbers."""
    return Estimate(one.low - other.high, one.high - other.low)


def variance(histogram: Tally, edges: Sequence[float]) -> Estimate:
    """Return the variance with one degree of freedom less than values."""
    middle = mean(histogram, edges)
    lower, upper = np.asarray(edges[:-1], dtype=float), np.asarray(edges[1:], dtype=float)
    ends = np.stack([(lower - middle.value) ** 2, (upper - middle.value) ** 2])
    nearest = np.where((lower <= middle.value) & (middle.value <= upper), 0.0, ends.min(axis=0))
    n = histogram.total
    most = _most(histogram, ends.max(axis=0)) / n
    least = -_most(histogram, -nearest) / n - middle.bound**2
    scale = n / (n - 1) if n > 1 else math.nan
    return Estimate(max(0.0, least) * scale, most * scale)


def mean_difference(one: Tally, other: Tally, edges: Sequence[float]) -> Estimate:
    """Return the standardised difference of two groups' means, as ``builder.report.bias.difference_of_means`` does."""
    first, second = mean(one, edges), mean(other, edges)
    spreads = variance(one, edges), variance(other, edges)
    narrow, wide = (math.sqrt(sum(end) / 2) for end in zip(*[(s.low, s.high) for s in spreads], strict=True))
    apart = max(first.low - second.high, second.low - first.high, 0.0)
    farthest = max(first.high - second.low, second.high - first.low)
    return Estimate(apart / wide if wide else 0.0, farthest / narrow if narrow else math.inf)


def share(table: Tally, pattern: Pattern) -> tuple[Estimate, Estimate]:
    """Return a share of everybody, and the ends that its 95 % Wilson interval has at least: (share, interval).

    The interval's bounds contain that of the pooled number.
    """
    low, high = table.ranges[pattern]
    ends = [wilson(n, table.total) for n in (low, high)]
    total = table.total or 1
    interval = Estimate(ends[0][0], ends[1][1]) if ends[0] and ends[1] else Estimate(0.0, 1.0)
    return Estimate(low / total, high / total), interval


def association(table: Tally) -> Estimate:
    """Return Cramer's V, with the correction of ``builder.report.association``, of a table of two columns.

    With the total n, V grows with ``n * (sum(c * c / (row * column)) - 1)`` over the cells c; each term is bounded by
    itself, and both by how many rows and columns may hold somebody.
    """
    rows, columns = (_line(table, axis) for axis in range(2))
    least = most = 0.0
    for (row, a), (column, b) in product(rows.items(), columns.items()):
        low, high = table.ranges[row, column]
        least += low**2 / (a[1] * b[1]) if low else 0.0
        most += min(1.0, high**2 / max(1, a[0] * b[0])) if high else 0.0
    n = table.total
    ways = [_held(line) for line in (rows, columns)]
    found = []
    for r, c in product(*ways):
        for phi in (least - 1, most - 1):
            phi = min(max(phi, 0.0), min(r, c) - 1.0)
            found.append(corrected_v(phi * n, n, (r, c)))
    return Estimate(min(found, default=0.0), max(found, default=0.0))


def precision(table: Tally, pattern: Pattern, assumed: float) -> Estimate:
    """Return half the width of the 95 % interval around an assumed share among the persons of a pattern."""
    low, high = table.ranges[pattern]
    return _bounds(lambda n: half_width(assumed, n), high, low)


def detectable(table: Tally, pattern: Pattern, base: float) -> Estimate:
    """Return the smallest drop from ``base`` in a group that shows against all others with 80 % power."""
    low, high = table.ranges[pattern]
    total = table.total
    best = detectable_difference(base, high, total - low)
    worst = detectable_difference(base, low, total - high)
    return Estimate(math.inf if best is None else best, math.inf if worst is None else worst)


def off_ratio(splits: Mapping[str, tuple[int, int]], ratios: Mapping[str, float]) -> Estimate:
    """Return the persons by which the worst split of a stratum is off its ratio, from fewest and most of each split."""
    lows, highs = [], []
    fewest, most = (sum(splits[name][end] for name in ratios) for end in range(2))
    for name, ratio in ratios.items():
        low, high = splits[name]
        # split - ratio * everybody = (1 - ratio) * split - ratio * others
        above = (1 - ratio) * high - ratio * (fewest - low)
        below = (1 - ratio) * low - ratio * (most - high)
        lows.append(max(below, -above, 0.0))
        highs.append(max(above, -below))
    return Estimate(max(lows, default=0.0), max(highs, default=0.0))


def _bounds(function: Callable[[int], float | None], first: int, last: int) -> Estimate:
    low, high = function(first), function(last)
    return Estimate(math.inf if low is None else low, math.inf if high is None else high)


def _ends(histogram: Tally) -> tuple[Integers, Integers]:
    ranges = [histogram.ranges[(level,)] for level in histogram.columns[0].levels]
    low, high = np.array(ranges, dtype=np.int64).reshape(-1, 2).T
    return low, high


def _filled(histogram: Tally, worth: Floats) -> Integers:
    """Return the counts of bands within their ranges, of all values together, that are worth most."""
    counts, high = (end.copy() for end in _ends(histogram))
    left = histogram.total - int(counts.sum())
    for band in np.argsort(-worth, kind="stable").tolist():
        more = min(left, int(high[band] - counts[band]))
        counts[band] += more
        left -= more
    return counts


def _most(histogram: Tally, worth: Floats) -> float:
    return float(_filled(histogram, worth) @ worth)


def _line(table: Tally, axis: int) -> dict[str, tuple[int, int]]:
    """Return the ranges of the rows (0) or columns (1), without those that hold nobody for sure."""
    found = {level: table.ranges[(level, ANY) if axis == 0 else (ANY, level)] for level in table.columns[axis].levels}
    return {level: ends for level, ends in found.items() if ends[1]}


def _held(line: Mapping[str, tuple[int, int]]) -> range:
    """Return how many lines may hold somebody."""
    sure = sum(low > 0 for low, _ in line.values())
    return range(max(1, sure), max(1, len(line)) + 1)
