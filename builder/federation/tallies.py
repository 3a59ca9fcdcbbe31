"""Tallies of several sites that add up: what each number is at least and at most, given what the sites hide."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from builder.errors import LayoutError, SpecError
from builder.federation.tables import ANY, Column, Disclosed, Pattern


@dataclass(frozen=True)
class Tally:
    """Numbers of one or several sites, each between two bounds that are equal where every site has told it.

    Parameters
    ----------
    columns
        Of the tables.
    ranges
        Pattern to the fewest and the most persons (or cases) in it.
    """

    columns: tuple[Column, ...]
    ranges: Mapping[Pattern, tuple[int, int]]

    @property
    def total(self) -> int:
        """Everybody; the sites whose total is hidden are in no tally."""
        return self.ranges[(ANY,) * len(self.columns)][0]


def tally(told: Disclosed) -> Tally | None:
    """Return the numbers of one site; None if not even its total is told.

    A hidden number is at least 0 and at most what each margin told leaves beside the numbers told inside it.
    """
    everybody = (ANY,) * len(told.columns)
    if everybody not in told.shown:
        return None
    highs = dict(told.shown)
    for pattern in told.hidden:
        highs[pattern] = min(n - _others(told.shown, m, pattern) for m, n in told.shown.items() if _holds(m, pattern))
    ranges = {pattern: (n, n) for pattern, n in told.shown.items()}
    for pattern in told.hidden:
        wider = [(m, told.shown[m]) for m in _one_wider(pattern) if m in told.shown]
        ranges[pattern] = (max([0, *[n - _others(highs, m, pattern) for m, n in wider]]), highs[pattern])
    return Tally(told.columns, ranges)


def merge(tallies: Iterable[Tally | None]) -> Tally:
    """Return the sum of tallies, in whatever order they come; a site that told no total (None) adds nothing.

    Raises
    ------
    LayoutError
        If there are none, or their columns or patterns differ.
    """
    found = [one for one in tallies if one is not None]
    if not found:
        raise LayoutError("found no tally that tells a total, expected one of at least one site")
    return functools.reduce(_added, found)


def part(whole: Tally, level: str) -> Tally | None:
    """Return the tally of a level of the first column; None where it is not known how many persons are there."""
    ranges = {pattern[1:]: ends for pattern, ends in whole.ranges.items() if pattern[0] == level}
    low, high = ranges.get((ANY,) * (len(whole.columns) - 1), (0, 1))
    return Tally(whole.columns[1:], ranges) if low == high else None


def bands(name: str, edges: Sequence[float]) -> Column:
    """Return the column of a quantity between fixed edges, which say nothing of the values in the archive."""
    if len(edges) < 2 or list(edges) != sorted(set(edges)):
        raise SpecError(f"{name}: found the edges {list(edges)}, expected two or more that ascend")
    levels = tuple(f"{low:g} to {high:g}" for low, high in pairwise(edges))
    return Column(name, levels, "edges " + " ".join(f"{edge:g}" for edge in edges))


def band_of(value: float, column: Column, edges: Sequence[float]) -> str:
    """Return the level of a value: from the lower edge up to, but without, the upper one; the end bands are open."""
    place = int(np.searchsorted(np.asarray(edges), value, side="right")) - 1
    return column.levels[min(max(place, 0), len(column.levels) - 1)]


def _added(one: Tally, other: Tally) -> Tally:
    if one.columns != other.columns or set(one.ranges) != set(other.ranges):
        raise LayoutError("found tallies of other columns, levels or margins, expected those of the other sites")
    ranges = {p: (low + other.ranges[p][0], high + other.ranges[p][1]) for p, (low, high) in one.ranges.items()}
    return Tally(one.columns, ranges)


def _holds(margin: Pattern, pattern: Pattern) -> bool:
    return all(wide in (ANY, level) for wide, level in zip(margin, pattern, strict=True))


def _one_wider(pattern: Pattern) -> list[Pattern]:
    return [(*pattern[:n], ANY, *pattern[n + 1 :]) for n, level in enumerate(pattern) if level != ANY]


def _others(numbers: Mapping[Pattern, int], margin: Pattern, pattern: Pattern) -> int:
    """Return the sum of the siblings of a pattern inside a margin that is one column wider; 0 for other margins."""
    wider = [place for place, (wide, level) in enumerate(zip(margin, pattern, strict=True)) if wide != level]
    if len(wider) != 1:
        return 0
    (place,) = wider
    return sum(
        n
        for told, n in numbers.items()
        if told[place] not in (ANY, pattern[place])
        and all(told[i] == margin[i] for i in range(len(margin)) if i != place)
    )
