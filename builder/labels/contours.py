"""Closed planar contours of one structure to voxels: planes, the slabs between them, and the figures that prove it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builder.labels.raster import AREA_LINES, SNAP, cover, cover_prisms, edges_of
from builder.model.geometry import Geometry

Inclusion: TypeAlias = Literal["centre", "area"]
Holes: TypeAlias = Literal["even_odd", "union"]
Gaps: TypeAlias = Literal["leave", "fill"]
Points: TypeAlias = NDArray[np.float64]

IN_SLICE = 0.25
"""A contour lies in the image's slices when its points spread over at most this part of a slice spacing."""

SAME_PLANE = 0.05
"""Contours whose planes differ by at most this part of a slice spacing share a plane."""

ON_SLICE = 0.25
"""A plane found a slice when it is at most this part of a slice spacing away from the slice's centre."""

OBLIQUE_STEPS = (-1 / 3, 0.0, 1 / 3)
"""Sub-voxel offsets of area mode for contours across slices: 27 points a voxel."""


@dataclass(frozen=True)
class Rules:
    """How contours become voxels; each is declared in the spec.

    Parameters
    ----------
    inclusion
        ``centre``: a voxel is inside when its centre is; ``area``: when at least half of it is.
    holes
        ``even_odd``: contours of one plane toggle inside and outside, so a contour in a contour is a hole
        (CLOSED_PLANAR_XOR of PS3.3 C.8.8.6.3 and what most writers of CLOSED_PLANAR mean); ``union``: they add up.
    gaps
        Between two planes of one structure further apart than its usual step: ``leave`` them empty, or ``fill``
        them with the nearer plane.
    max_step_mm
        Planes further apart than this are never joined as neighbours of one step.
    """

    inclusion: Inclusion = "centre"
    holes: Holes = "even_odd"
    gaps: Gaps = "leave"
    max_step_mm: float = 10.0


@dataclass(frozen=True)
class Plane:
    """The contours of one plane: ``offset`` along the stack in its unit, (k, 2) in-plane vertices, area in mm2."""

    offset: float
    polygons: tuple[Points, ...]
    area_mm2: float


@dataclass(frozen=True)
class Filled:
    """A structure on the grid: (slice, row, column) bool and how it got there."""

    inside: NDArray[np.bool_]
    planes: int
    planes_on_slice: int
    planes_outside: int
    oblique_contours: int
    contour_volume_mm3: float
    farthest_plane_mm: float


def fill_contours(contours: Sequence[Points], geometry: Geometry, rules: Rules) -> Filled:
    """Voxels inside a structure given by closed planar contours.

    Contours parallel to the slices are filled slice by slice in pixel coordinates (a gantry tilt's sheared grid
    included); contours in other planes become prisms that reach half-way to their neighbours, and voxels are tested
    against them.

    Parameters
    ----------
    contours
        (k, 3) vertices in LPS mm, each with at least three distinct points.
    """
    inside = np.zeros(geometry.shape, dtype=np.bool_)
    flat, oblique = _sort_contours(contours, geometry)
    facts = [_fill_slices(flat, geometry, rules, inside)] if flat else []
    for normal, group in _group_by_normal(oblique):
        facts.append(_fill_prisms(normal, group, geometry, rules, inside))
    planes, on_slice, outside, volume, farthest = (sum(f[i] for f in facts) for i in range(5))
    return Filled(
        inside, int(planes), int(on_slice), int(outside), len(oblique), float(volume),
        max((f[4] for f in facts), default=0.0) if facts else float(farthest),
    )  # fmt: skip


def contour_area_mm2(points_mm: Points) -> float:
    """Area of a closed planar contour: half the length of its vector area (Newell); a keyhole's hole is taken off."""
    return float(np.linalg.norm(_vector_area(points_mm)))


def plane_slabs(
    offsets: Sequence[float], default_step: float, *, max_step: float, gaps: Gaps
) -> list[tuple[float, float]]:
    """The reach of each plane along its stack, ascending and without overlap.

    The usual step is the median distance between neighbours no further apart than ``max_step``, or ``default_step``
    when there are none. A plane reaches half the usual step each way, but never past the middle to its neighbour;
    with ``gaps="fill"`` it always reaches that middle.

    Parameters
    ----------
    offsets
        Ascending offsets of the planes.
    """
    steps = np.diff(offsets)
    usual = float(np.median(steps[steps <= max_step])) if (steps <= max_step).any() else default_step
    slabs = []
    for k, offset in enumerate(offsets):
        below = steps[k - 1] / 2 if k > 0 else np.inf
        above = steps[k] / 2 if k < len(steps) else np.inf
        half = usual / 2
        reach_below = below if gaps == "fill" and np.isfinite(below) else min(below, half)
        reach_above = above if gaps == "fill" and np.isfinite(above) else min(above, half)
        slabs.append((float(offset - reach_below), float(offset + reach_above)))
    # neighbours that touch share one bound exactly: no voxel falls between two roundings
    for k in range(len(slabs) - 1):
        if abs(slabs[k][1] - slabs[k + 1][0]) < 1e-6 * max(usual, 1e-6):
            slabs[k] = (slabs[k][0], slabs[k + 1][0])
    return slabs


def _sort_contours(contours: Sequence[Points], geometry: Geometry) -> tuple[list[Points], list[Points]]:
    """Contours in the slices, as (k, 3) voxel coordinates, and those across them, as LPS mm."""
    flat, oblique = [], []
    for points in contours:
        voxels = geometry.to_voxel(points)
        if np.ptp(voxels[:, 0]) <= IN_SLICE:
            flat.append(voxels)
        else:
            oblique.append(points)
    return flat, oblique


def _fill_slices(
    contours: Sequence[Points], geometry: Geometry, rules: Rules, inside: NDArray[np.bool_]
) -> tuple[int, int, int, float, float]:
    """Fill contours parallel to the slices into ``inside``; counts, contour volume, farthest plane."""
    a = geometry.affine[:3, :3]
    pixel_area = float(np.linalg.norm(np.cross(a[:, 1], a[:, 2])))
    step_mm = geometry.voxel_volume_mm3 / pixel_area
    planes = _planes([(float(v[:, 0].mean()), v[:, 1:]) for v in contours], SAME_PLANE, pixel_area, rules.holes)
    offsets = [p.offset for p in planes]
    slabs = plane_slabs(offsets, 1.0, max_step=max(rules.max_step_mm / step_mm, 1.0), gaps=rules.gaps)
    slices, rows, columns = geometry.shape
    volume = 0.0
    for plane, (low, high) in zip(planes, slabs, strict=True):
        volume += plane.area_mm2 * (high - low) * step_mm
        # offsets are rounded like vertices: a plane half-way between slices belongs to the upper one on every machine
        first, last = (int(np.ceil(round(bound * SNAP) / SNAP)) for bound in (low, high))
        for index in range(max(0, first), min(slices, last)):
            inside[index] |= _cover_plane(plane.polygons, (rows, columns), rules)
    nearest = np.clip(np.round(offsets), 0, slices - 1)
    distance = np.abs(np.asarray(offsets) - nearest)
    outside = int(np.count_nonzero(distance > 0.5))
    return len(planes), int(np.count_nonzero(distance <= ON_SLICE)), outside, volume, float(distance.max() * step_mm)


def _cover_plane(polygons: Sequence[Points], shape: tuple[int, int], rules: Rules) -> NDArray[np.bool_]:
    lines = AREA_LINES if rules.inclusion == "area" else 1
    # a share is a sum of float32 sixteenths: the slack keeps exact halves inside whatever their order
    threshold = 0.5 - 1e-5
    if rules.holes == "even_odd":
        return np.asarray(cover(list(polygons), shape, lines=lines) >= threshold)
    parts = [cover([polygon], shape, lines=lines) >= threshold for polygon in polygons]
    return np.asarray(np.logical_or.reduce(parts))


def _fill_prisms(
    normal: Points, contours: Sequence[Points], geometry: Geometry, rules: Rules, inside: NDArray[np.bool_]
) -> tuple[int, int, int, float, float]:
    """Fill contours of one oblique stack into ``inside``; the same figures, in the stack's own planes."""
    frame = _frame(normal)
    local = [points @ frame.T for points in contours]
    planes = _planes([(float(p[:, 2].mean()), p[:, :2]) for p in local], 0.05, 1.0, rules.holes)
    offsets = [p.offset for p in planes]
    default = float(1 / np.linalg.norm(np.linalg.inv(geometry.affine[:3, :3]) @ normal))
    slabs = plane_slabs(offsets, default, max_step=max(rules.max_step_mm, default), gaps=rules.gaps)
    volume = sum(p.area_mm2 * (high - low) for p, (low, high) in zip(planes, slabs, strict=True))
    low_corner, high_corner = _reach(local, slabs, frame, geometry)
    for index in range(low_corner[0], high_corner[0]):
        block = inside[index, low_corner[1] : high_corner[1], low_corner[2] : high_corner[2]]
        if block.size:
            block |= _cover_block(index, low_corner, block.shape, planes, slabs, frame, geometry, rules)
    return len(planes), len(planes), 0, volume, 0.0


def _cover_block(
    index: int,
    corner: NDArray[np.int64],
    shape: tuple[int, ...],
    planes: Sequence[Plane],
    slabs: Sequence[tuple[float, float]],
    frame: Points,
    geometry: Geometry,
    rules: Rules,
) -> NDArray[np.bool_]:
    """(row, column) bool of one slice's box: centres inside a prism, or at least half of 27 points a voxel."""
    rows, columns = np.meshgrid(np.arange(shape[0]) + corner[1], np.arange(shape[1]) + corner[2], indexing="ij")
    centres = np.stack([np.full(rows.size, index), rows.ravel(), columns.ravel()], axis=1).astype(np.float64)
    steps = OBLIQUE_STEPS if rules.inclusion == "area" else (0.0,)
    prisms = _prism_layers(planes, slabs, rules.holes)
    hits = np.zeros(len(centres), dtype=np.int64)
    for s in steps:
        for r in steps:
            for c in steps:
                points = geometry.to_world(centres + np.array([s, r, c])) @ frame.T
                found = np.zeros(len(points), dtype=np.bool_)
                for edges, starts, reach in prisms:
                    found |= cover_prisms(points, edges, starts, reach)
                hits += found
    return np.asarray((2 * hits >= len(steps) ** 3).reshape(shape))


def _prism_layers(
    planes: Sequence[Plane], slabs: Sequence[tuple[float, float]], holes: Holes
) -> list[tuple[Points, NDArray[np.int64], Points]]:
    """Edges, starts and slabs for ``cover_prisms``: one prism a plane, or one a contour when contours add up."""
    if holes == "even_odd":
        groups = [list(p.polygons) for p in planes]
        reach = list(slabs)
    else:
        groups = [[polygon] for p in planes for polygon in p.polygons]
        reach = [slab for p, slab in zip(planes, slabs, strict=True) for _ in p.polygons]
    edges = [edges_of(group) for group in groups]
    starts = np.concatenate([[0], np.cumsum([len(e) for e in edges])]).astype(np.int64)
    return [(np.concatenate(edges), starts, np.asarray(reach, dtype=np.float64))]


def _reach(
    local: Sequence[Points], slabs: Sequence[tuple[float, float]], frame: Points, geometry: Geometry
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and past-the-last voxel of the box that holds every prism, cut to the grid."""
    vertices = np.concatenate(local)
    low = [vertices[:, 0].min(), vertices[:, 1].min(), slabs[0][0]]
    high = [vertices[:, 0].max(), vertices[:, 1].max(), slabs[-1][1]]
    corners = np.array([[u, v, w] for u in (low[0], high[0]) for v in (low[1], high[1]) for w in (low[2], high[2])])
    voxels = geometry.to_voxel(corners @ frame)
    limit = np.asarray(geometry.shape)
    first = np.clip(np.floor(voxels.min(axis=0)) - 1, 0, limit).astype(np.int64)
    last = np.clip(np.ceil(voxels.max(axis=0)) + 2, 0, limit).astype(np.int64)
    return first, last


def _planes(
    contours: Sequence[tuple[float, Points]], tolerance: float, unit_area_mm2: float, holes: Holes
) -> list[Plane]:
    """Contours gathered by plane, ascending; (offset, in-plane vertices) each."""
    ordered = sorted(contours, key=lambda c: (c[0], c[1].shape[0], c[1].tobytes()))
    groups: list[list[tuple[float, Points]]] = []
    for contour in ordered:
        if groups and contour[0] - groups[-1][0][0] <= tolerance:
            groups[-1].append(contour)
        else:
            groups.append([contour])
    return [
        Plane(
            float(np.mean([offset for offset, _ in group])),
            tuple(points for _, points in group),
            _area([points for _, points in group], holes) * unit_area_mm2,
        )
        for group in groups
    ]


def _area(polygons: Sequence[Points], holes: Holes) -> float:
    """Area of one plane's contours: a contour at odd depth inside others is a hole under the even-odd rule."""
    low, high = (np.stack([end(polygon, axis=0) for polygon in polygons]) for end in (np.min, np.max))
    total = 0.0
    for k, polygon in enumerate(polygons):
        near = np.flatnonzero(((low <= polygon[0]) & (polygon[0] <= high)).all(axis=1))
        depth = sum(_contains(polygons[int(j)], polygon[0]) for j in near if j != k)
        if holes == "union" and depth:
            continue
        total += -_shoelace(polygon) if holes == "even_odd" and depth % 2 else _shoelace(polygon)
    return total


def _shoelace(polygon: Points) -> float:
    a, b = polygon[:, 0], polygon[:, 1]
    return float(abs(np.sum(a * np.roll(b, -1) - np.roll(a, -1) * b)) / 2)


def _contains(polygon: Points, point: Points) -> bool:
    a, b = polygon[:, 0], polygon[:, 1]
    c, d = np.roll(a, -1), np.roll(b, -1)
    crosses = (a <= point[0]) != (c <= point[0])
    at = b[crosses] + (point[0] - a[crosses]) * (d[crosses] - b[crosses]) / (c[crosses] - a[crosses])
    return bool(np.count_nonzero(point[1] < at) % 2)


def _vector_area(points: Points) -> Points:
    centred = points - points.mean(axis=0)
    return np.asarray(np.cross(centred, np.roll(centred, -1, axis=0)).sum(axis=0) / 2)


def _group_by_normal(contours: Sequence[Points]) -> list[tuple[Points, list[Points]]]:
    """Contours by the direction of their planes (within 1 degree), each with a unit normal."""
    groups: list[tuple[Points, list[Points]]] = []
    for points in contours:
        area = _vector_area(points)
        length = float(np.linalg.norm(area))
        if length == 0:
            continue
        normal = area / length
        for known, members in groups:
            if abs(float(known @ normal)) > np.cos(np.radians(1.0)):
                members.append(points)
                break
        else:
            groups.append((normal, [points]))
    return groups


def _frame(normal: Points) -> Points:
    """(3, 3) rows: two in-plane unit vectors and the normal."""
    helper = np.eye(3)[int(np.argmin(np.abs(normal)))]
    first = np.cross(normal, helper)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(normal, first), normal])
