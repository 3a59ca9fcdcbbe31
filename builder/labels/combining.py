"""Combination of closed contours in one plane: repeats count once, overlaps add up, and nested contours make holes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.labels.raster import AREA_LINES, SNAP, cover, cover_prisms, edges_of

Combine: TypeAlias = Literal["even_odd", "union", "xor"]
"""``even_odd``: a contour wholly inside another is a hole, a contour inside that hole is an island, and so on.
``union``: all contours add up. ``xor``: every contour toggles the area it covers (CLOSEDPLANAR_XOR, PS3.3 C.8.8.6.3).
"""

Points: TypeAlias = NDArray[np.float64]

SAMPLES = 20_000
"""Maximum number of points sampled along one contour when two contours are compared."""

MAX_COMPARED = 10**10
"""Maximum number of point-against-edge tests for the contours of one structure; about ten seconds of work."""

MAX_CELLS = 2048
"""Maximum number of cells per side of the raster that measures the area of overlapping contours."""


@dataclass(frozen=True)
class Combined:
    """The contours of one plane and how they combine.

    Parameters
    ----------
    polygons
        (k, 2) vertices, without repeats. A union also leaves out contours inside another.
    depths
        Number of other contours that each one lies in. Contours of odd depth are holes.
    plain
        Whether the even-odd rule over all polygons gives the region. False when contours partly overlap.
    repeated, overlapping, nested
        Number of contours that repeat an earlier one, that partly overlap another, and that lie wholly inside another.
    compared
        Number of tests that the comparison took, which counts towards the limit of a structure.
    """

    polygons: tuple[Points, ...]
    depths: tuple[int, ...]
    plain: bool = True
    repeated: int = 0
    overlapping: int = 0
    nested: int = 0
    compared: int = 0

    @property
    def layers(self) -> Iterator[tuple[tuple[Points, ...], bool]]:
        """Yield contours from the outermost in, each with whether it adds to the region or cuts from it."""
        for depth in sorted(set(self.depths)):
            same = tuple(p for p, own in zip(self.polygons, self.depths, strict=True) if own == depth)
            yield same, depth % 2 == 0


def combine(polygons: Sequence[Points], how: Combine, *, tolerance: float) -> Combined:
    """Separate repeated, overlapping and nested contours.

    Parameters
    ----------
    tolerance
        Outlines that stay this close together count as the same outline; in the unit of the vertices.

    Raises
    ------
    CaseError
        LABEL_UNREADABLE when comparing the overlapping contours would exceed the limit.
    """
    if how == "xor" or len(polygons) == 1:
        return Combined(tuple(polygons), (0,) * len(polygons))
    pairs = _Pairs(polygons, tolerance)
    kept = pairs.without_repeats()
    near = {k: pairs.neighbours(k, kept) for k in kept}
    inside = {k: [j for j in near[k] if pairs.contains(j, k)] for k in kept}
    crossing = {k: {j for j in near[k] if pairs.cross(j, k)} for k in kept}
    nested = sum(bool(around) for around in inside.values())
    if how == "union":
        kept = [k for k in kept if not inside[k]]
        depths = [0] * len(kept)
    else:
        depths = [_groups(inside[k], crossing) for k in kept]
    return Combined(
        tuple(polygons[k] for k in kept),
        tuple(depths),
        plain=not any(crossing[k] & set(kept) for k in kept),
        repeated=len(polygons) - len(inside),
        overlapping=sum(bool(others) for others in crossing.values()),
        nested=nested,
        compared=pairs.compared,
    )


def cover_combined(combined: Combined, shape: tuple[int, int], *, lines: int) -> NDArray[np.bool_]:
    """Return (row, column) bool: whether the centre or, with ``lines`` above 1, half the area of a pixel is inside.

    Where contours partly overlap, the area is counted on 16 x 16 points per pixel.
    """
    # A share is a sum of float32 sixteenths. The slack keeps exact halves inside in whatever order they are added.
    threshold = 0.5 - 1e-5
    if combined.plain:
        return np.asarray(cover(list(combined.polygons), shape, lines=lines) >= threshold)
    if lines == 1:
        return _paint(combined, shape)
    out = np.zeros(shape, dtype=np.bool_)
    low, high = _bounds(combined.polygons)
    first = np.clip(np.floor(low + 0.5), 0, shape).astype(int)
    last = np.clip(np.floor(high + 0.5) + 1, 0, shape).astype(int)
    width = int(last[1] - first[1])
    for row in range(int(first[0]), int(last[0])):
        start = np.array([row, first[1]]) - 0.5
        fine = _paint(combined, (lines, width * lines), start=start, cells=float(lines))
        out[row, first[1] : last[1]] = fine.reshape(lines, width, lines).mean(axis=(0, 2)) >= threshold
    return out


def area_of(combined: Combined, how: Combine) -> float:
    """Return the area inside, in squared units of the vertices. It is exact unless contours partly overlap."""
    if how != "xor" and combined.plain:
        signs = (1 if depth % 2 == 0 else -1 for depth in combined.depths)
        return float(sum(sign * shoelace(p) for sign, p in zip(signs, combined.polygons, strict=True)))
    low, high = _bounds(combined.polygons)
    cells = min(float(AREA_LINES), MAX_CELLS / max(float((high - low).max()), 1e-9))
    rows, columns = (int(n) for n in np.ceil((high - low) * cells) + 1)
    if not combined.plain:
        return float(np.count_nonzero(_paint(combined, (rows, columns), start=low, cells=cells))) / cells**2
    placed = [_placed(p, low, cells) for p in combined.polygons]
    return float(cover(placed, (rows, columns), lines=AREA_LINES).sum(dtype=np.float64)) / cells**2


def shoelace(polygon: Points) -> float:
    """Return the area of one closed polygon."""
    a, b = polygon[:, 0], polygon[:, 1]
    return float(abs(np.sum(a * np.roll(b, -1) - np.roll(a, -1) * b)) / 2)


class _Pairs:
    """Relations between the contours of one plane, computed on demand and cached."""

    def __init__(self, polygons: Sequence[Points], tolerance: float) -> None:
        self._polygons = polygons
        self._tolerance = tolerance
        self._low, self._high = (np.stack([end(p, axis=0) for p in polygons]) for end in (np.min, np.max))
        self._sides: dict[tuple[int, int], tuple[bool, bool]] = {}
        self._traced: dict[int, Points] = {}
        self.compared = 0

    def without_repeats(self) -> list[int]:
        """Return the contours that do not repeat an earlier one."""
        kept: list[int] = []
        for k in range(len(self._polygons)):
            apart = np.maximum(np.abs(self._low[kept] - self._low[k]), np.abs(self._high[kept] - self._high[k]))
            same = np.flatnonzero((apart <= self._tolerance).all(axis=1))
            self._count(len(kept))
            if not any(self.contains(kept[int(n)], k) and self.contains(k, kept[int(n)]) for n in same):
                kept.append(k)
        return kept

    def neighbours(self, k: int, kept: Sequence[int]) -> list[int]:
        """Return those of ``kept`` whose bounding box touches that of ``k``."""
        self._count(len(kept))
        meets = (self._low[kept] <= self._high[k] + self._tolerance) & (
            self._high[kept] >= self._low[k] - self._tolerance
        )
        return [kept[int(n)] for n in np.flatnonzero(meets.all(axis=1)) if kept[int(n)] != k]

    def contains(self, outer: int, inner: int) -> bool:
        """Return whether ``inner`` lies wholly inside ``outer``, within the tolerance."""
        slack = self._tolerance
        fits = (self._low[inner] >= self._low[outer] - slack) & (self._high[inner] <= self._high[outer] + slack)
        return bool(fits.all()) and not self._side(outer, inner)[0]

    def cross(self, one: int, other: int) -> bool:
        """Return whether the two share area and neither lies inside the other."""
        apart = (self._low[one] >= self._high[other]) | (self._low[other] >= self._high[one])
        if apart.any() or self.contains(one, other) or self.contains(other, one):
            return False
        return self._side(one, other)[1] or self._side(other, one)[1]

    def _side(self, outer: int, inner: int) -> tuple[bool, bool]:
        """Return whether ``inner``'s outline leaves ``outer``, and whether it enters it, beyond the tolerance."""
        if (outer, inner) not in self._sides:
            points, polygon = self._trace(inner), self._polygons[outer]
            self._count(len(points) * len(polygon))
            held = _inside(points, polygon)
            self._sides[outer, inner] = (
                _any_farther(points[~held], polygon, self._tolerance),
                _any_farther(points[held], polygon, self._tolerance),
            )
        return self._sides[outer, inner]

    def _count(self, tests: int) -> None:
        self.compared += tests
        if self.compared > MAX_COMPARED:
            raise CaseError(
                Reason.LABEL_UNREADABLE,
                f"found {len(self._polygons)} contours in one plane that overlap, expected fewer or simpler ones",
            )

    def _trace(self, k: int) -> Points:
        """Return points along a contour, half a unit apart or, to limit the work, further apart on a long one."""
        if k not in self._traced:
            starts = self._polygons[k]
            steps = np.roll(starts, -1, axis=0) - starts
            lengths = np.linalg.norm(steps, axis=1)
            gap = max(0.5, float(lengths.sum()) / SAMPLES)
            counts = np.maximum(np.ceil(lengths / gap), 1).astype(int)
            places = np.concatenate([np.arange(n) / n for n in counts])
            self._traced[k] = np.repeat(starts, counts, axis=0) + places[:, None] * np.repeat(steps, counts, axis=0)
        return self._traced[k]


def _groups(members: Sequence[int], crossing: dict[int, set[int]]) -> int:
    """Count the regions that ``members`` form. Contours that partly overlap count as one region."""
    left, found = set(members), 0
    while left:
        found += 1
        reached = {left.pop()}
        while reached:
            reached = {other for one in reached for other in crossing[one] & left}
            left -= reached
    return found


def _inside(points: Points, polygon: Points) -> NDArray[np.bool_]:
    edges = edges_of([polygon])
    flat = np.column_stack([points, np.zeros(len(points))])
    return cover_prisms(flat, edges, np.array([0, len(edges)]), np.array([[-1.0, 1.0]]))


def _any_farther(points: Points, polygon: Points, tolerance: float) -> bool:
    """Return whether any of the points is farther than ``tolerance`` from the polygon's outline."""
    ends = np.roll(polygon, -1, axis=0) - polygon
    squared = np.maximum((ends**2).sum(axis=1), 1e-300)
    for block in np.array_split(points, max(1, len(points) // 64)):
        away = block[:, None] - polygon
        along = np.clip((away * ends).sum(axis=2) / squared, 0, 1)
        distances = ((away - along[..., None] * ends) ** 2).sum(axis=2).min(axis=1, initial=np.inf)
        if len(block) and (distances > tolerance**2).any():
            return True
    return False


def _paint(
    combined: Combined, shape: tuple[int, int], *, start: Points | None = None, cells: float = 1.0
) -> NDArray[np.bool_]:
    """Paint the layers in order on a raster that begins at ``start`` and has ``cells`` cells per unit."""
    out = np.zeros(shape, dtype=np.bool_)
    for polygons, adds in combined.layers:
        placed = polygons if start is None else [_placed(p, start, cells) for p in polygons]
        covered = np.logical_or.reduce([cover([p], shape, lines=1) > 0 for p in placed])
        out = out | covered if adds else out & ~covered
    return out


def _placed(polygon: Points, start: Points, cells: float) -> Points:
    return (polygon - start) * cells - 0.5


def _bounds(polygons: Sequence[Points]) -> tuple[Points, Points]:
    vertices = np.round(np.concatenate(polygons) * SNAP) / SNAP
    return vertices.min(axis=0), vertices.max(axis=0)
