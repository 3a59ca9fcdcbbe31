"""Whether an image shows a head, and whether its face side lies open: from the surface between air and skin alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from builder.defacers.cells import CELL_MM, Bools, Triple, covering, sampled
from builder.model.case import ValueDomain, Volume

AIR_HU: Final = -300.0
BONE_HU: Final = 250.0
WIDTHS_MM: Final = (90.0, 215.0)
"""Least and most width of a head from ear to ear."""
DEPTHS_MM: Final = (115.0, 275.0)
"""Least and most depth of a head from nose to back."""
LONGER: Final = 0.85
"""A head is at least this much as deep as wide; a trunk is not."""
LEAST_MM: Final = 45.0
"""Height over which sections must look like a head's."""
SHOWN: Final = 0.25
"""Share of the face side that must lie open for a face to be shown."""
RECESSED: Final = 0.24
"""A surface so far behind the front of the head, in depths of the head, is no face: it was cut off."""
FLAT: Final = 0.65
"""A face side of which so much lies in one plane is no face: it was cut off. Nose, eyes and mouth lie in none."""
_REACHES: Final = (8.0, 4.0, 2.0, 1.0, 1.0, 1.0)
"""Cells from a plane, nearer with each fit."""
ENCLOSED: Final = 0.75
"""Share of the inside of a head's section that bone surrounds on all four sides."""
SKIN_MM: Final = 6.0
"""Depth of the skin with what lies right below it."""
RIM_MM: Final = 4.3
"""Nothing that lies no deeper than this below the surface is brain."""
_LOW: Final = 6
"""Cells of the lower end of the field of view, through which throat and nose are open to no outside."""


class Verdict(StrEnum):
    """What an image shows."""

    FACE = "shows a face"
    FACELESS = "head without face"
    NO_HEAD = "no head"


@dataclass(frozen=True, eq=False)
class Scene:
    """An image on cells: (z, y, x) arrays of one box of cells.

    Parameters
    ----------
    values
        Means of the first channel.
    seen
        Cells in the field of view.
    body
        The largest connected part that is no air.
    outside
        Air that is open to the front, the back, the sides or the top of the field of view.
    hull_mm
        How deep each cell lies below the surface when nostrils and the like are closed; 0 outside.
    """

    start: Triple
    domain: ValueDomain
    values: NDArray[np.float32]
    seen: Bools
    body: Bools
    outside: Bools
    hull_mm: NDArray[np.float64]

    @property
    def skin(self) -> Bools:
        """The cells at the surface and right below it."""
        return np.asarray(self.below_mm <= SKIN_MM)

    @cached_property
    def below_mm(self) -> NDArray[np.float64]:
        """How deep each cell lies below a surface that can be seen from the front or a side, hollows included."""
        clear = ~np.maximum.accumulate(self.body, axis=1)
        clear |= ~np.maximum.accumulate(self.body, axis=2)
        clear |= ~np.flip(np.maximum.accumulate(np.flip(self.body, axis=2), axis=2), axis=2)
        visible = (clear & self.seen & ~self.body) | (self.hull_mm == 0)
        return depth_mm(visible)


@dataclass(frozen=True, eq=False)
class Head:
    """Where the head is, in cells of its scene.

    Parameters
    ----------
    top
        The uppermost cell of the head, plus one; the end of the field of view where the top is cut off.
    bottom
        The lowest section that still looks like a head's.
    front, back
        Of the largest section.
    middle
        From ear to ear, the middle of the sections.
    whole_top
        Whether air lies above the head.
    """

    top: int
    bottom: int
    front: int
    back: int
    middle: int
    whole_top: bool

    @property
    def depth(self) -> int:
        """Cells from front to back: the measure of all other places."""
        return self.back - self.front


@dataclass(frozen=True, eq=False)
class Found:
    """The verdict with its figures, and the head if there is one."""

    verdict: Verdict
    scene: Scene
    head: Head | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    """``width_mm``, ``depth_mm`` and ``height_mm`` of the head; ``bone``: share of its inside that bone surrounds (CT);
    ``face_side``: share of the face side that lies open and is not cut back; ``flat``: share of that which lies in
    one plane."""


def find_head(volume: Volume, *, told: bool = False) -> Found:
    """Judge an image. ``told`` says whether its header calls it an image of the head.

    A head is a stack of sections of a head's size, deeper than wide, whose sides do not touch the field of view's,
    with one of: air above its top, a ring of bone around its inside (CT), or a header that says so.
    """
    scene = scene_of(volume)
    sections = _sections(scene)
    run = _longest(sections)
    if run is None:
        return Found(Verdict.NO_HEAD, scene)
    head, figures = _head(scene, run)
    bone = _enclosed(scene, run) if volume.domain == ValueDomain.HOUNSFIELD else 0.0
    figures |= {"bone": round(bone, 3)} if volume.domain == ValueDomain.HOUNSFIELD else {}
    if volume.domain == ValueDomain.HOUNSFIELD:
        is_head = bone >= ENCLOSED
    else:
        is_head = head.whole_top or told
    if not is_head:
        return Found(Verdict.NO_HEAD, scene, None, figures)
    shown, flat = face_side(scene, head)
    figures |= {"face_side": round(shown, 3), "flat": round(flat, 3)}
    is_face = shown >= SHOWN and flat < FLAT
    return Found(Verdict.FACE if is_face else Verdict.FACELESS, scene, head, figures)


def scene_of(volume: Volume) -> Scene:
    """Return an image on cells, with body and outside."""
    from scipy import ndimage

    start, shape = covering(volume.geometry)
    values, seen = sampled(volume.voxels[0], volume.geometry, start, shape)
    tissue = seen & (values > _threshold(values[seen], volume.domain))
    # a table touches the head of a CT; the dark skull of an MR parts a thin scalp from the rest
    thick = int(volume.domain == ValueDomain.HOUNSFIELD)
    solid = ndimage.binary_opening(tissue) if thick else tissue
    parts, count = ndimage.label(solid)
    if not count:
        return Scene(start, volume.domain, values, seen, solid, seen, depth_mm(seen))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    body = parts == int(sizes.argmax())
    body = ndimage.binary_dilation(body, iterations=1, mask=tissue) if thick else body
    closed = ndimage.binary_closing(np.pad(body, 3), iterations=2)[3:-3, 3:-3, 3:-3]
    hull_mm = depth_mm(_outside(seen & ~closed, seen))
    return Scene(start, volume.domain, values, seen, body, _outside(seen & ~body, seen), hull_mm)


def depth_mm(outside: Bools) -> NDArray[np.float64]:
    """Return the distance in mm of every cell to the nearest one outside; 0 for these."""
    from scipy import ndimage

    return np.asarray(ndimage.distance_transform_edt(~outside) * CELL_MM)


def face_side(scene: Scene, head: Head) -> tuple[float, float]:
    """Return the share of the face side that lies open, and how much of that is flat.

    Open are columns from front to back that meet skin after air. The face side is as wide as half the depth of the head
    and reaches from half a depth below the top to 1.1 depths; where the top is cut off, from there on.
    """
    high, low = face_band(head)
    half = int(0.22 * head.depth)
    left, right = max(0, head.middle - half), head.middle + half + 1
    body, outside = (part[max(0, low) : high, :, left:right] for part in (scene.body, scene.outside))
    if not body.size:
        return 0.0, 0.0
    first = np.where(body.any(axis=1), body.argmax(axis=1), body.shape[1])
    before = np.maximum(first - 1, 0)
    open_ = np.take_along_axis(outside, before[:, None, :], axis=1)[:, 0, :] & (first > 0)
    found = open_ & (first <= head.front + RECESSED * head.depth)
    return float(found.sum() / ((high - low) * (2 * half + 1))), _flat(first, found)


def _flat(first: NDArray[np.int64], found: Bools) -> float:
    """Return the share of the surface (z, x) of some columns that lies in one plane, as after a cut."""
    z, x = np.nonzero(found)
    depth = first[found].astype(np.float64)
    terms = np.stack([np.ones(z.size), z, x], axis=1)
    near = np.ones(z.size, np.bool_)
    for reach in _REACHES:  # each time nearer to the plane of those that were near before
        if near.sum() < 10:
            return 0.0
        away = abs(depth - terms @ np.linalg.lstsq(terms[near], depth[near], rcond=None)[0])
        near = away <= reach
    return float(near.mean())


def face_band(head: Head) -> tuple[int, int]:
    """Return the cells between which a face lies from top to bottom, upper end first. They may lie below the box."""
    if not head.whole_top:
        return head.top, head.top - max(1, int(0.6 * head.depth))
    return head.top - int(0.5 * head.depth), head.top - int(1.1 * head.depth)


def _threshold(values: NDArray[np.float32], domain: ValueDomain) -> float:
    """Return the value above which there is tissue."""
    if domain == ValueDomain.HOUNSFIELD:
        return AIR_HU
    if not values.size:
        return 0.0
    top = float(np.percentile(values, 99.5))
    if domain in (ValueDomain.SUV_BW, ValueDomain.ACTIVITY):
        return 0.02 * top
    return 0.5 * _otsu(np.clip(values, 0.0, float(np.percentile(values, 98.0))))


def _otsu(values: NDArray[np.float32]) -> float:
    """Return the threshold that divides values into two groups that vary least (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(centres[int(np.nanargmax(np.nan_to_num(spread)))])


def _outside(air: Bools, seen: Bools) -> Bools:
    """Return the air that reaches the end of the field of view at the front, the back, a side or the top."""
    from scipy import ndimage

    low = np.zeros_like(air)  # near the lower end of the field of view, which may be tilted
    for shift in range(1, _LOW + 1):
        low |= ~np.roll(seen, shift, axis=0)
    edge = np.zeros_like(air)
    for axis, shift in ((0, -1), (1, -1), (1, 1), (2, -1), (2, 1)):
        edge |= ~np.roll(seen, shift, axis=axis)  # the box has a cell to spare around, so nothing comes round
    parts, _ = ndimage.label(air)
    wanted = np.unique(parts[edge & air & ~low])
    return np.asarray(np.isin(parts, wanted[wanted > 0]))


@dataclass(frozen=True)
class _Section:
    """A connected part of a level that has the size of a head: ranges of cells, half open."""

    level: int
    rows: tuple[int, int]
    columns: tuple[int, int]


def _sections(scene: Scene) -> list[list[_Section]]:
    """Return for each level the parts that could be sections of a head."""
    from scipy import ndimage

    found: list[list[_Section]] = []
    for level, plane in enumerate(scene.body):
        here: list[_Section] = []
        if plane.any():
            parts, _ = ndimage.label(plane)
            for rows, columns in ndimage.find_objects(parts):
                section = _Section(level, (rows.start, rows.stop), (columns.start, columns.stop))
                if _fits(section, scene.seen[level]):
                    here.append(section)
        found.append(here)
    return found


def _fits(section: _Section, seen: Bools) -> bool:
    depth, width = (CELL_MM * (b - a) for a, b in (section.rows, section.columns))
    if not (
        WIDTHS_MM[0] <= width <= WIDTHS_MM[1] and DEPTHS_MM[0] <= depth <= DEPTHS_MM[1] and depth >= LONGER * width
    ):
        return False
    left, right = section.columns
    beside = [seen[section.rows[0] : section.rows[1], column] for column in (left - 1, right)]
    return all(part.mean() > 0.4 for part in beside)  # air can be seen at both sides


def _longest(sections: list[list[_Section]]) -> list[_Section] | None:
    """Return the longest run of sections that lie above one another, from the top down; None if none is long enough."""
    runs: list[list[_Section]] = []
    alive: list[list[_Section]] = []
    for here in reversed(sections):
        after: list[list[_Section]] = []
        for section in here:
            run = next((r for r in alive if _near(r[-1], section)), None)
            if run is None:
                run = []
                runs.append(run)
            run.append(section)
            after.append(run)
        alive = after
    best = max(runs, key=len, default=[])
    return best if len(best) * CELL_MM >= LEAST_MM else None


def _near(one: _Section, other: _Section) -> bool:
    pairs = ((one.rows, other.rows), (one.columns, other.columns))
    return all(abs(sum(a) - sum(b)) / 2 * CELL_MM <= 20.0 for a, b in pairs)


def _head(scene: Scene, run: list[_Section]) -> tuple[Head, dict[str, float]]:
    """Return the head that a run of sections belongs to, and its size."""
    middle = int(np.median([sum(s.columns) / 2 for s in run]))
    upper = run[: max(1, int(120.0 / CELL_MM))]
    largest = max(upper, key=lambda s: s.rows[1] - s.rows[0])
    front, back = largest.rows
    reach = int(60.0 / CELL_MM)
    column = np.asarray(scene.body[:, front:back, max(0, middle - reach) : middle + reach + 1].any(axis=(1, 2)))
    top = run[0].level + 1
    while top < len(column) and column[top]:
        top += 1
    above = scene.outside[top, front:back, max(0, middle - reach) : middle + reach + 1] if top < len(column) else None
    whole = bool(above is not None and above.mean() > 0.5)
    head = Head(top, run[-1].level, front, back, middle, whole)
    figures = {
        "width_mm": CELL_MM * max(s.columns[1] - s.columns[0] for s in run),
        "depth_mm": CELL_MM * (back - front),
        "height_mm": CELL_MM * (top - run[-1].level),
    }
    return head, figures


def _enclosed(scene: Scene, run: list[_Section]) -> float:
    """Return the largest share of a section's inside, over ten levels, that has bone on all four sides."""
    shares = []
    for section in run:
        rows, columns = slice(*section.rows), slice(*section.columns)
        bone = scene.values[section.level, rows, columns] > BONE_HU
        inside = _inner(bone.shape)
        ways = [np.maximum.accumulate(bone, axis=axis) for axis in (0, 1)]
        ways += [np.flip(np.maximum.accumulate(np.flip(bone, axis), axis=axis), axis) for axis in (0, 1)]
        shares.append(float((np.logical_and.reduce(ways) & inside).sum() / max(1, inside.sum())))
    best = sorted(shares)[-10:]
    return float(np.mean(best)) if best else 0.0


def _inner(shape: tuple[int, ...]) -> Bools:
    """Return the inner part of a section: an ellipse of 70 % of its axes."""
    rows, columns = (np.linspace(-1, 1, n) for n in shape)
    return np.asarray(rows[:, None] ** 2 + columns[None, :] ** 2 <= 0.49)


def told_figures(found: Found) -> dict[str, Any]:
    """Return verdict and figures as a row of a table."""
    return {"verdict": found.verdict.value, **found.figures}
