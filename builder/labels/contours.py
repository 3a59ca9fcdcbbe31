"""Conversion of one structure's closed planar contours to voxels, with the figures that check the result."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.labels.combining import MAX_COMPARED, Combine, Combined, area_of, combine, cover_combined
from builder.labels.raster import AREA_LINES, SNAP, cover_prisms, edges_of
from builder.model.geometry import Geometry

Inclusion: TypeAlias = Literal["centre", "area"]
Holes: TypeAlias = Literal["even_odd", "union"]
Gaps: TypeAlias = Literal["leave", "fill"]
Points: TypeAlias = NDArray[np.float64]

IN_SLICE = 0.25
"""A contour lies in the slice plane if its points spread over at most this fraction of a slice spacing."""

SAME_PLANE = 0.25
"""Contours share a plane if their heights differ by at most this fraction of the usual step and of a slice spacing."""

ALMOST_SAME = 0.05
"""Contours that all lie within this fraction of a slice spacing form one plane, however many there are."""

NOT_PLANAR = 0.5
"""A closed planar contour strays from its plane by at most this fraction of a slice spacing."""

REPEAT_MM, REPEAT_PIXELS = 0.15, 0.25
"""A contour repeats another if the two outlines stay this close together. The limits allow for rounding to a tenth of a
millimetre and are far below the thinnest wall that anybody draws."""

ON_SLICE = 0.25
"""A plane matches a slice if it is at most this fraction of a slice spacing away from the slice's centre."""

OBLIQUE_STEPS = (-1 / 3, 0.0, 1 / 3)
"""Sub-voxel offsets that area mode tests for contours across slices: 27 points per voxel."""


@dataclass(frozen=True)
class Rules:
    """How contours become voxels. The spec declares each rule.

    Parameters
    ----------
    inclusion
        ``centre``: a voxel is inside if its centre is. ``area``: a voxel is inside if at least half of it is.
    holes
        What a contour wholly inside another means. ``even_odd``: a hole, and a contour inside that hole is an island;
        most writers of CLOSED_PLANAR mean this. ``union``: nothing, because the area is already covered. ``xor``:
        contours toggle the area they cover, repeated contours included (CLOSEDPLANAR_XOR of PS3.3 C.8.8.6.3). With the
        first two, a repeated contour counts once and partly overlapping contours add up.
    gaps
        What to do between two planes of one structure that are further apart than its usual step: ``leave`` the gap
        empty, or ``fill`` it from the nearer plane.
    max_step_mm
        Planes further apart than this do not count as neighbours when the usual step is measured.
    """

    inclusion: Inclusion = "centre"
    holes: Combine = "even_odd"
    gaps: Gaps = "leave"
    max_step_mm: float = 10.0


@dataclass(frozen=True)
class Plane:
    """The contours of one plane: ``offset`` along the stack in its unit, and how they combine.

    ``unit_area_mm2`` is the area in mm2 of a square of one unit of the vertices.
    """

    offset: float
    combined: Combined
    how: Combine
    unit_area_mm2: float

    @property
    def area_mm2(self) -> float:
        """Return the area inside the contours."""
        return area_of(self.combined, self.how) * self.unit_area_mm2


@dataclass(frozen=True)
class _Stack:
    """Result of filling one stack of parallel planes. ``slabs`` are the planes' extents, in units of ``step_mm``."""

    planes: Sequence[Plane]
    slabs: Sequence[tuple[float, float]]
    step_mm: float
    on_slice: int
    outside: int
    farthest_mm: float

    @property
    def volume_mm3(self) -> float:
        """Return the volume of the planes, each as thick as its slab."""
        volume = 0.0
        for plane, (low, high) in zip(self.planes, self.slabs, strict=True):
            volume += plane.area_mm2 * (high - low) * self.step_mm
        return volume


@dataclass(frozen=True)
class Filled:
    """A structure on the grid, (slice, row, column) bool, with figures on how it was filled."""

    inside: NDArray[np.bool_]
    stacks: Sequence[_Stack]
    planes: int
    planes_on_slice: int
    planes_outside: int
    oblique_contours: int
    farthest_plane_mm: float
    repeated_contours: int = 0
    overlapping_contours: int = 0
    nested_contours: int = 0

    @property
    def contour_volume_mm3(self) -> float:
        """Return the volume that the contours enclose. Measured when asked: it can take longer than filling."""
        return float(sum(stack.volume_mm3 for stack in self.stacks))


def fill_contours(contours: Sequence[Points], geometry: Geometry, rules: Rules) -> Filled:
    """Return the voxels inside a structure that closed planar contours outline.

    Contours parallel to the slices are filled slice by slice in pixel coordinates, which also handles the sheared grid
    of a tilted gantry. Contours in other planes become prisms that reach half-way to their neighbours, and each voxel
    is tested against the prisms.

    Parameters
    ----------
    contours
        (k, 3) vertices in LPS mm, with at least three distinct points in each contour.
    """
    inside = np.zeros(geometry.shape, dtype=np.bool_)
    flat, oblique = _sort_contours(contours, geometry)
    facts = [_fill_slices(flat, geometry, rules, inside)] if flat else []
    for normal, group in _group_by_normal(oblique):
        facts.append(_fill_prisms(normal, group, geometry, rules, inside))
    combined = [plane.combined for fact in facts for plane in fact.planes]
    return Filled(
        inside,
        facts,
        planes=len(combined),
        planes_on_slice=sum(f.on_slice for f in facts),
        planes_outside=sum(f.outside for f in facts),
        oblique_contours=len(oblique),
        farthest_plane_mm=max((f.farthest_mm for f in facts), default=0.0),
        repeated_contours=sum(c.repeated for c in combined),
        overlapping_contours=sum(c.overlapping for c in combined),
        nested_contours=sum(c.nested for c in combined),
    )


def contour_area_mm2(points_mm: Points) -> float:
    """Return the area of a closed planar contour as half the length of its vector area (Newell).

    The hole of a keyhole contour is subtracted, because the contour runs round it the other way.
    """
    return float(np.linalg.norm(_vector_area(points_mm)))


def plane_slabs(
    offsets: Sequence[float], default_step: float, *, max_step: float, gaps: Gaps
) -> list[tuple[float, float]]:
    """Return the extent of each plane along its stack, in ascending order and without overlap.

    The usual step is the median distance between neighbours no further apart than ``max_step``, or ``default_step`` if
    there are none. A plane reaches half the usual step each way, but never past the midpoint to its neighbour. With
    ``gaps="fill"`` it always reaches that midpoint.

    Parameters
    ----------
    offsets
        Offsets of the planes in ascending order.
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
    # Slabs that touch share exactly one bound, so that rounding cannot leave a voxel between them.
    for k in range(len(slabs) - 1):
        if abs(slabs[k][1] - slabs[k + 1][0]) < 1e-6 * max(usual, 1e-6):
            slabs[k] = (slabs[k][0], slabs[k + 1][0])
    return slabs


def _sort_contours(contours: Sequence[Points], geometry: Geometry) -> tuple[list[Points], list[Points]]:
    """Split contours into those in the slice plane, as (k, 3) voxel coordinates, and the others, as LPS mm."""
    flat, oblique = [], []
    for points in contours:
        voxels = geometry.to_voxel(points)
        if np.ptp(voxels[:, 0]) <= IN_SLICE:
            flat.append(voxels)
        else:
            oblique.append(points)
    return flat, oblique


def _fill_slices(contours: Sequence[Points], geometry: Geometry, rules: Rules, inside: NDArray[np.bool_]) -> _Stack:
    """Fill contours parallel to the slices into ``inside``."""
    a = geometry.affine[:3, :3]
    pixel_area = float(np.linalg.norm(np.cross(a[:, 1], a[:, 2])))
    step_mm = geometry.voxel_volume_mm3 / pixel_area
    max_step = max(rules.max_step_mm / step_mm, 1.0)
    groups = _by_plane([(float(v[:, 0].mean()), v[:, 1:]) for v in contours], slice_step=1.0, max_step=max_step)
    tolerance = min(REPEAT_PIXELS, REPEAT_MM / max(geometry.spacing_mm[1:]))
    planes = _planes(groups, tolerance=tolerance, unit_area_mm2=pixel_area, how=rules.holes)
    offsets = [p.offset for p in planes]
    slabs = plane_slabs(offsets, 1.0, max_step=max_step, gaps=rules.gaps)
    slices, rows, columns = geometry.shape
    lines = AREA_LINES if rules.inclusion == "area" else 1
    for plane, (low, high) in zip(planes, slabs, strict=True):
        # Offsets are rounded like vertices, so that a plane half-way between slices goes to the upper one on any
        # machine.
        first, last = (int(np.ceil(round(bound * SNAP) / SNAP)) for bound in (low, high))
        for index in range(max(0, first), min(slices, last)):
            inside[index] |= cover_combined(plane.combined, (rows, columns), lines=lines)
    nearest = np.clip(np.round(offsets), 0, slices - 1)
    distance = np.abs(np.asarray(offsets) - nearest)
    outside = int(np.count_nonzero(distance > 0.5))
    on_slice = int(np.count_nonzero(distance <= ON_SLICE))
    return _Stack(planes, slabs, step_mm, on_slice, outside, float(distance.max() * step_mm))


def _fill_prisms(
    normal: Points, contours: Sequence[Points], geometry: Geometry, rules: Rules, inside: NDArray[np.bool_]
) -> _Stack:
    """Fill the contours of one oblique stack into ``inside``. Every plane counts as one that matched a slice."""
    frame = _frame(normal)
    local = [points @ frame.T for points in contours]
    default = float(1 / np.linalg.norm(np.linalg.inv(geometry.affine[:3, :3]) @ normal))
    if max(float(np.ptp(p[:, 2])) for p in local) > NOT_PLANAR * default * 2:
        raise CaseError(Reason.LABEL_GEOMETRY, "found a closed planar contour whose points do not lie in one plane")
    max_step = max(rules.max_step_mm, default)
    groups = _by_plane([(float(p[:, 2].mean()), p[:, :2]) for p in local], slice_step=default, max_step=max_step)
    planes = _planes(groups, tolerance=REPEAT_MM, unit_area_mm2=1.0, how=rules.holes)
    offsets = [p.offset for p in planes]
    slabs = plane_slabs(offsets, default, max_step=max_step, gaps=rules.gaps)
    low_corner, high_corner = _reach(local, slabs, frame, geometry)
    prisms = _prism_layers(planes, slabs)
    for index in range(low_corner[0], high_corner[0]):
        block = inside[index, low_corner[1] : high_corner[1], low_corner[2] : high_corner[2]]
        if block.size:
            block |= _cover_block(index, low_corner, block.shape, prisms, frame, geometry, rules)
    return _Stack(planes, slabs, 1.0, len(planes), 0, 0.0)


def _cover_block(
    index: int,
    corner: NDArray[np.int64],
    shape: tuple[int, ...],
    prisms: Sequence[tuple[bool, Points, NDArray[np.int64], Points]],
    frame: Points,
    geometry: Geometry,
    rules: Rules,
) -> NDArray[np.bool_]:
    """Return (row, column) bool of one slice's box: centres inside a prism, or at least half of 27 points per voxel."""
    rows, columns = np.meshgrid(np.arange(shape[0]) + corner[1], np.arange(shape[1]) + corner[2], indexing="ij")
    centres = np.stack([np.full(rows.size, index), rows.ravel(), columns.ravel()], axis=1).astype(np.float64)
    steps = OBLIQUE_STEPS if rules.inclusion == "area" else (0.0,)
    hits = np.zeros(len(centres), dtype=np.int64)
    for s in steps:
        for r in steps:
            for c in steps:
                points = geometry.to_world(centres + np.array([s, r, c])) @ frame.T
                found = np.zeros(len(points), dtype=np.bool_)
                for adds, edges, starts, reach in prisms:
                    covered = cover_prisms(points, edges, starts, reach)
                    found = found | covered if adds else found & ~covered
                hits += found
    return np.asarray((2 * hits >= len(steps) ** 3).reshape(shape))


def _prism_layers(
    planes: Sequence[Plane], slabs: Sequence[tuple[float, float]]
) -> list[tuple[bool, Points, NDArray[np.int64], Points]]:
    """Return layers from the outermost in: whether each adds, and edges, starts and slabs for ``cover_prisms``.

    A single layer holds all planes with one prism per plane. If contours overlap anywhere, each contour gets a prism of
    its own.
    """
    if all(plane.combined.plain for plane in planes):
        return [(True, *_prisms([(list(p.combined.polygons), slab) for p, slab in zip(planes, slabs, strict=True)]))]
    layers: dict[int, list[tuple[list[Points], tuple[float, float]]]] = {}
    for plane, slab in zip(planes, slabs, strict=True):
        for polygon, depth in zip(plane.combined.polygons, plane.combined.depths, strict=True):
            layers.setdefault(depth, []).append(([polygon], slab))
    return [(depth % 2 == 0, *_prisms(layers[depth])) for depth in sorted(layers)]


def _prisms(
    groups: Sequence[tuple[list[Points], tuple[float, float]]],
) -> tuple[Points, NDArray[np.int64], Points]:
    edges = [edges_of(polygons) for polygons, _ in groups]
    starts = np.concatenate([[0], np.cumsum([len(e) for e in edges])]).astype(np.int64)
    return np.concatenate(edges), starts, np.asarray([slab for _, slab in groups], dtype=np.float64)


def _reach(
    local: Sequence[Points], slabs: Sequence[tuple[float, float]], frame: Points, geometry: Geometry
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and past-the-last voxel of the box that encloses every prism, clipped to the grid."""
    vertices = np.concatenate(local)
    low = [vertices[:, 0].min(), vertices[:, 1].min(), slabs[0][0]]
    high = [vertices[:, 0].max(), vertices[:, 1].max(), slabs[-1][1]]
    corners = np.array([[u, v, w] for u in (low[0], high[0]) for v in (low[1], high[1]) for w in (low[2], high[2])])
    voxels = geometry.to_voxel(corners @ frame)
    limit = np.asarray(geometry.shape)
    first = np.clip(np.floor(voxels.min(axis=0)) - 1, 0, limit).astype(np.int64)
    last = np.clip(np.ceil(voxels.max(axis=0)) + 2, 0, limit).astype(np.int64)
    return first, last


def _by_plane(
    contours: Sequence[tuple[float, Points]], *, slice_step: float, max_step: float
) -> list[list[tuple[float, Points]]]:
    """Group contours (offset, in-plane vertices) by plane, in ascending order.

    Offsets that differ by less than ``SAME_PLANE`` of the usual step belong to the same plane: the writer rounded them,
    or somebody drew slightly off. The usual step is the gap that contains the middle of the stack's length when gaps
    are sorted, so that duplicated planes do not make it small.
    """
    ordered = sorted(contours, key=lambda c: (c[0], c[1].shape[0], c[1].tobytes()))
    offsets = np.array([offset for offset, _ in ordered])
    steps = np.sort(np.diff(offsets))
    steps = steps[steps <= max_step]
    usual = slice_step
    if offsets[-1] - offsets[0] > ALMOST_SAME * slice_step and steps.sum() > 0:
        usual = float(steps[np.searchsorted(np.cumsum(steps), steps.sum() / 2)])
    tolerance = SAME_PLANE * min(usual, slice_step)
    groups: list[list[tuple[float, Points]]] = []
    for contour in ordered:
        if groups and contour[0] - groups[-1][0][0] <= tolerance:
            groups[-1].append(contour)
        else:
            groups.append([contour])
    return groups


def _planes(
    groups: Sequence[Sequence[tuple[float, Points]]], *, tolerance: float, unit_area_mm2: float, how: Combine
) -> list[Plane]:
    planes = []
    compared = 0
    for group in groups:
        combined = combine([points for _, points in group], how, tolerance=tolerance)
        compared += combined.compared
        if compared > MAX_COMPARED:
            raise CaseError(
                Reason.LABEL_UNREADABLE,
                "found more overlapping contours than can be compared, expected fewer or simpler ones",
            )
        offset = float(np.mean([offset for offset, _ in group]))
        planes.append(Plane(offset, combined, how, unit_area_mm2))
    return planes


def _vector_area(points: Points) -> Points:
    centred = points - points.mean(axis=0)
    return np.asarray(np.cross(centred, np.roll(centred, -1, axis=0)).sum(axis=0) / 2)


def _group_by_normal(contours: Sequence[Points]) -> list[tuple[Points, list[Points]]]:
    """Group contours by the direction of their planes, within 1 degree, and return a unit normal with each group."""
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
    """Return (3, 3) rows: two in-plane unit vectors and the normal."""
    helper = np.eye(3)[int(np.argmin(np.abs(normal)))]
    first = np.cross(normal, helper)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(normal, first), normal])
