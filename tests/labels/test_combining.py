"""Contours of one plane that repeat, overlap or hold each other; shapely is the oracle."""

import itertools
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.labels import combining
from builder.labels.combining import area_of, combine, cover_combined
from builder.labels.contours import Rules, fill_contours
from builder.labels.raster import AREA_LINES
from builder.model.geometry import Geometry

SHAPE = (48, 48)
TOLERANCE = 0.15
Polygon = NDArray[np.float64]


def rectangle(low: tuple[float, float], high: tuple[float, float]) -> Polygon:
    return np.array([low, (low[0], high[1]), high, (high[0], low[1])], dtype=np.float64)


def star(centre: tuple[float, float], radius: float, *, points: int = 24, dents: float = 0.0) -> Polygon:
    angle = np.arange(points) * 2 * np.pi / points
    reach = radius * (1 - dents * (np.arange(points) % 2))
    return np.array(centre) + np.stack([reach * np.sin(angle), reach * np.cos(angle)], axis=1)


SQUARE = rectangle((10.3, 12.3), (30.3, 34.3))

REPEATS = {
    "point for point": SQUARE,
    "rotated start": np.roll(SQUARE, 2, axis=0),
    "reversed": SQUARE[::-1],
    "reversed and rotated": np.roll(SQUARE[::-1], 1, axis=0),
    "closed by its first point": np.concatenate([SQUARE, SQUARE[:1]]),
    "with every point three times": np.repeat(SQUARE, 3, axis=0),
    "rounded to tenths": np.round(SQUARE + 0.049, 1),
    "shrunk by rounding": SQUARE + np.sign(SQUARE.mean(axis=0) - SQUARE) * 0.06,
    "grown by rounding": SQUARE - np.sign(SQUARE.mean(axis=0) - SQUARE) * 0.06,
    "shifted by rounding": SQUARE + np.array([0.05, -0.07]),
    "midpoints added": np.stack([SQUARE, (SQUARE + np.roll(SQUARE, -1, axis=0)) / 2], axis=1).reshape(-1, 2),
}


@pytest.mark.parametrize("again", REPEATS.values(), ids=REPEATS.keys())
@pytest.mark.parametrize("how", ["even_odd", "union"])
@pytest.mark.parametrize("lines", [1, AREA_LINES])
def test_a_repeated_contour_counts_once(again: Polygon, how: Any, lines: int) -> None:
    once = combine([SQUARE], how, tolerance=TOLERANCE)
    twice = combine([SQUARE, again], how, tolerance=TOLERANCE)
    thrice = combine([SQUARE, again, SQUARE], how, tolerance=TOLERANCE)
    assert (once.repeated, twice.repeated, thrice.repeated) == (0, 1, 2)
    assert twice.overlapping == twice.nested == 0
    expected = cover_combined(once, SHAPE, lines=lines)
    assert np.count_nonzero(expected) == 20 * 22
    for combined in (twice, thrice):
        assert np.array_equal(cover_combined(combined, SHAPE, lines=lines), expected)
        assert area_of(combined, how) == pytest.approx(440)


def test_a_repeated_hole_is_still_a_hole() -> None:
    hole = rectangle((15.5, 15.5), (20.5, 20.5))
    combined = combine([SQUARE, hole, hole[::-1], SQUARE], "even_odd", tolerance=TOLERANCE)
    assert (combined.repeated, combined.nested, combined.overlapping) == (2, 1, 0)
    assert np.count_nonzero(cover_combined(combined, SHAPE, lines=1)) == 440 - 25
    assert area_of(combined, "even_odd") == pytest.approx(440 - 25)


def test_a_thin_wall_is_no_repeat() -> None:
    outer, inner = star((24, 24), 15, points=200), star((24, 24), 14.5, points=200)
    combined = combine([outer, inner], "even_odd", tolerance=TOLERANCE)
    assert (combined.repeated, combined.nested) == (0, 1)
    ring = np.pi * (15**2 - 14.5**2)
    assert area_of(combined, "even_odd") == pytest.approx(ring, rel=0.01)


@pytest.mark.parametrize(("how", "voxels"), [("even_odd", 164), ("union", 164), ("xor", 128)])
def test_overlaps_add_up_unless_they_toggle(how: Any, voxels: int) -> None:
    one, other = rectangle((5.5, 5.5), (15.5, 15.5)), rectangle((9.5, 9.5), (19.5, 19.5))
    combined = combine([one, other], how, tolerance=TOLERANCE)
    assert combined.overlapping == (0 if how == "xor" else 2)
    for lines in (1, AREA_LINES):
        assert np.count_nonzero(cover_combined(combined, SHAPE, lines=lines)) == voxels
    assert area_of(combined, how) == pytest.approx(voxels, rel=0.01)


def test_a_cross_of_bars_overlaps_although_no_corner_lies_in_the_other() -> None:
    upright, across = rectangle((2.5, 20.5), (40.5, 22.5)), rectangle((20.5, 2.5), (22.5, 40.5))
    combined = combine([upright, across], "even_odd", tolerance=TOLERANCE)
    assert combined.overlapping == 2
    assert np.count_nonzero(cover_combined(combined, SHAPE, lines=1)) == 2 * 76 - 4


def test_neighbours_that_share_an_edge_do_not_overlap() -> None:
    left, right = rectangle((5.5, 5.5), (15.5, 10.25)), rectangle((5.5, 10.25), (15.5, 15.5))
    for how in ("even_odd", "union"):
        combined = combine([left, right], how, tolerance=TOLERANCE)
        assert (combined.overlapping, combined.nested) == (0, 0)
        assert np.count_nonzero(cover_combined(combined, SHAPE, lines=AREA_LINES)) == 100


def test_a_hole_in_the_common_part_of_two_contours_is_one_level_deep() -> None:
    one, other = rectangle((5.5, 5.5), (25.5, 25.5)), rectangle((10.5, 10.5), (30.5, 30.5))
    hole, island = rectangle((12.5, 12.5), (22.5, 22.5)), rectangle((15.5, 15.5), (18.5, 18.5))
    combined = combine([one, other, hole, island], "even_odd", tolerance=TOLERANCE)
    assert combined.depths == (0, 0, 1, 2)
    for lines in (1, AREA_LINES):
        assert np.count_nonzero(cover_combined(combined, SHAPE, lines=lines)) == 575 - 100 + 9
    assert area_of(combined, "even_odd") == pytest.approx(575 - 100 + 9, rel=0.01)
    united = combine([one, other, hole, island], "union", tolerance=TOLERANCE)
    assert (united.nested, len(united.polygons)) == (2, 2)
    assert np.count_nonzero(cover_combined(united, SHAPE, lines=1)) == 575


def test_xor_toggles_what_is_there_twice() -> None:
    combined = combine([SQUARE, SQUARE], "xor", tolerance=TOLERANCE)
    assert not cover_combined(combined, SHAPE, lines=1).any()
    assert area_of(combined, "xor") == pytest.approx(0, abs=1e-6)


def test_more_comparisons_than_the_limit_refuse_the_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combining, "MAX_COMPARED", 1000)
    with pytest.raises(CaseError) as error:
        combine([star((24, 24), 20 - n) for n in range(5)], "even_odd", tolerance=TOLERANCE)
    assert error.value.reason is Reason.LABEL_UNREADABLE


def region(polygons: list[Polygon]) -> shapely.Geometry:
    """What the contours mean, by shapely: from the outermost in, those that overlap in part being one."""
    shapes = [shapely.Polygon(p) for p in polygons]
    kept: list[shapely.Polygon] = []
    for shape in shapes:
        if not any(shape.hausdorff_distance(other) < TOLERANCE for other in kept):
            kept.append(shape)
    depths = []
    for shape in kept:
        around = [other for other in kept if other is not shape and other.contains(shape)]
        holds = 0
        if around:
            groups = [[o] for o in around]
            for a, b in itertools.combinations(around, 2):
                if a.overlaps(b):
                    first, second = (next(g for g in groups if x in g) for x in (a, b))
                    if first is not second:
                        first.extend(second)
                        groups.remove(second)
            holds = len(groups)
        depths.append(holds)
    found: shapely.Geometry = shapely.Polygon()
    for depth in sorted(set(depths)):
        layer = shapely.union_all([s for s, own in zip(kept, depths, strict=True) if own == depth])
        found = found.difference(layer) if depth % 2 else found.union(layer)
    return found


@st.composite
def plane(draw: st.DrawFn) -> list[Polygon]:
    """Discs and stars of drawn places, some of them there twice."""
    number = st.floats(8, 38)
    shapes = [
        star(
            (draw(number), draw(number)),
            draw(st.sampled_from([2.3, 4.1, 6.7, 9.4])),
            points=draw(st.sampled_from([4, 8, 24])),
            dents=draw(st.sampled_from([0.0, 0.3])),
        )
        for _ in range(draw(st.integers(1, 6)))
    ]
    again = draw(st.lists(st.sampled_from(range(len(shapes))), max_size=2))
    return shapes + [np.roll(shapes[k], draw(st.integers(0, 9)), axis=0)[::-1] for k in again]


@settings(max_examples=150, deadline=None)
@given(plane())
def test_any_plane_covers_what_shapely_says(polygons: list[Polygon]) -> None:
    shapes = [shapely.Polygon(p) for p in polygons]
    for a, b in itertools.combinations(shapes, 2):
        # outlines that graze each other within the tolerance may be judged either way
        grazes = a.buffer(TOLERANCE).contains(b) != a.buffer(-TOLERANCE).contains(b)
        grazes |= b.buffer(TOLERANCE).contains(a) != b.buffer(-TOLERANCE).contains(a)
        touches = a.intersects(b) and a.intersection(b).buffer(-TOLERANCE).is_empty
        if (grazes and a.hausdorff_distance(b) > 1e-6) or touches:
            return
    expected = region(polygons)
    combined = combine(polygons, "even_odd", tolerance=TOLERANCE)
    found = cover_combined(combined, SHAPE, lines=1)
    rows, columns = np.indices(SHAPE)
    centres = shapely.points(rows.ravel(), columns.ravel())
    inside = shapely.contains(expected, centres).reshape(SHAPE)
    edges = shapely.union_all([s.exterior for s in shapes])
    near = (shapely.distance(edges, centres) < 1e-3).reshape(SHAPE)
    assert not ((found != inside) & ~near).any()
    assert area_of(combined, "even_odd") == pytest.approx(expected.area, rel=0.02, abs=0.5)


def test_slightly_off_its_plane_a_contour_is_still_of_that_plane() -> None:
    geometry = Geometry((10, 48, 48), np.diag([5.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]])
    square = np.column_stack([SQUARE[:, ::-1], np.zeros(4)])
    planes = [square + np.array([0, 0, 5.0 * k]) for k in range(3, 7)]
    expected = fill_contours(planes, geometry, Rules())
    assert expected.contour_volume_mm3 == pytest.approx(4 * 5 * 440)
    for off in (0.01, 0.2, 0.9, -0.9):
        filled = fill_contours([*planes, planes[1] + np.array([0.02, 0, off])], geometry, Rules())
        assert (filled.planes, filled.repeated_contours) == (4, 1)
        assert np.array_equal(filled.inside, expected.inside)
        assert filled.contour_volume_mm3 == pytest.approx(expected.contour_volume_mm3, rel=0.03)
    # another lesion of the same slice, drawn a little off, is not lost between two slabs
    lesion = np.array([[38.5, 2.5, 20.7], [44.5, 2.5, 20.7], [44.5, 8.5, 20.7], [38.5, 8.5, 20.7]])
    filled = fill_contours([*planes, lesion], geometry, Rules())
    assert np.count_nonzero(filled.inside) == np.count_nonzero(expected.inside) + 36
    assert filled.inside[4, 5, 40]


def test_every_contour_twice_and_off_its_plane_leaves_the_steps_as_they_are() -> None:
    geometry = Geometry((10, 48, 48), np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]])
    square = np.column_stack([SQUARE[:, ::-1], np.zeros(4)])
    planes = [square + np.array([0, 0, float(k)]) for k in range(3, 7)]
    doubled = [p + np.array([0, 0, off]) for p in planes for off in (0.0, 0.1)]
    filled = fill_contours(doubled, geometry, Rules())
    assert (filled.planes, filled.repeated_contours) == (4, 4)
    assert np.any(filled.inside, axis=(1, 2)).nonzero()[0].tolist() == [3, 4, 5, 6]
    assert filled.contour_volume_mm3 == pytest.approx(4 * 440, rel=0.01)


def test_planes_finer_than_the_slices_stay_apart() -> None:
    geometry = Geometry((4, 48, 48), np.diag([5.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]])
    discs = [np.column_stack([star((24, 24), 4 + n / 2)[:, ::-1], np.full(24, 5.0 + n * 0.2)]) for n in range(20)]
    filled = fill_contours(discs, geometry, Rules())
    assert (filled.planes, filled.nested_contours) == (20, 0)


def test_a_closed_planar_contour_with_a_point_off_its_plane_is_refused() -> None:
    geometry = Geometry((10, 48, 48), np.diag([5.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]])
    bent = np.column_stack([star((24, 24), 9)[:, ::-1], np.full(24, 20.0)])
    bent[7, 2] = 45.0
    with pytest.raises(CaseError) as error:
        fill_contours([bent], geometry, Rules())
    assert error.value.reason is Reason.LABEL_GEOMETRY


@pytest.mark.parametrize("inclusion", ["centre", "area"])
def test_across_the_slices_repeats_overlaps_and_holes_mean_the_same(inclusion: Any) -> None:
    geometry = Geometry((48, 48, 48), np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]])

    def sagittal(low: tuple[float, float], high: tuple[float, float], x: float) -> Polygon:
        flat = rectangle(low, high)
        return np.column_stack([np.full(4, x), flat[:, 1], flat[:, 0]])

    contours = []
    for x in range(10, 15):
        one = sagittal((5.5, 5.5), (15.5, 15.5), x)
        contours += [one, one[::-1], sagittal((9.5, 9.5), (19.5, 19.5), x), sagittal((6.5, 6.5), (8.5, 8.5), x)]
    filled = fill_contours(contours, geometry, Rules(inclusion=inclusion))
    assert (filled.repeated_contours, filled.overlapping_contours, filled.nested_contours) == (5, 10, 5)
    assert np.count_nonzero(filled.inside) == 5 * (164 - 4)
    assert filled.contour_volume_mm3 == pytest.approx(5 * 160, rel=0.01)
