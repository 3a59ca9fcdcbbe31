"""Model anatomy-like bodies as ellipsoids, whose volumes, centres and plane sections are known in closed form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from builder.model.geometry import Geometry

Triple = tuple[float, float, float]
APART_MM = 14.0
"""Least distance between lesions, so that they do not touch when they grow before the next visit."""
AIR = {"CT": -1000.0, "MR": 0.0, "PT": 0.0}


@dataclass(frozen=True)
class Ellipsoid:
    """A solid ellipsoid in patient space.

    Parameters
    ----------
    centre_mm
        LPS mm.
    semi_axes_mm
        Along the ellipsoid's own axes.
    axes
        The own axes as rows of a rotation matrix, in LPS.
    """

    centre_mm: Triple
    semi_axes_mm: Triple
    axes: tuple[Triple, Triple, Triple] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    @property
    def volume_mm3(self) -> float:
        """Four thirds of pi times the product of the semi-axes."""
        return float(4.0 / 3.0 * np.pi * np.prod(self.semi_axes_mm))

    @property
    def to_unit(self) -> NDArray[np.float64]:
        """Return the (3, 3) matrix that maps offsets from the centre, in LPS mm, to the unit ball."""
        return np.array(self.axes, dtype=np.float64) / np.array(self.semi_axes_mm, dtype=np.float64)[:, None]

    def moved(self, offset_mm: Triple) -> "Ellipsoid":
        """Return the same solid moved by an offset."""
        x, y, z = (float(a + b) for a, b in zip(self.centre_mm, offset_mm, strict=True))
        return replace(self, centre_mm=(x, y, z))

    def turned(self, rotation: NDArray[np.float64]) -> "Ellipsoid":
        """Return the same solid turned about the origin by a (3, 3) rotation matrix."""
        x, y, z = (float(v) for v in rotation @ np.asarray(self.centre_mm))
        first, second, third = ((float(r[0]), float(r[1]), float(r[2])) for r in np.asarray(self.axes) @ rotation.T)
        return replace(self, centre_mm=(x, y, z), axes=(first, second, third))

    def section(
        self, point_mm: NDArray[np.float64], across: NDArray[np.float64], down: NDArray[np.float64], *, points: int = 96
    ) -> NDArray[np.float64] | None:
        """Return the ellipse in which a plane meets the surface.

        Parameters
        ----------
        point_mm, across, down
            A point of the plane in LPS mm and two unit vectors that span it.
        points
            How many vertices, each exactly on the surface; the polygon's area falls short by (2 pi / points)^2 / 6.

        Returns
        -------
        array or None
            (points, 3) LPS mm; None when plane and solid do not meet.
        """
        unit = self.to_unit
        offset = unit @ (np.asarray(point_mm) - np.asarray(self.centre_mm))
        span = unit @ np.stack([across, down], axis=1)
        gram = span.T @ span
        middle = -np.linalg.solve(gram, span.T @ offset)
        inside = 1.0 - float(((offset + span @ middle) ** 2).sum())
        if inside <= 1e-9:
            return None
        angles = np.arange(points) * (2.0 * np.pi / points)
        circle = np.stack([np.cos(angles), np.sin(angles)]) * np.sqrt(inside)
        plane = middle[:, None] + np.linalg.solve(np.linalg.cholesky(gram).T, circle)
        return np.asarray(np.asarray(point_mm) + plane.T @ np.stack([across, down]))


@dataclass(frozen=True)
class Tissue:
    """A solid and its values in scanners: Hounsfield units, MR signal (arbitrary), SUV by body weight."""

    name: str
    solid: Ellipsoid
    hounsfield: float
    signal: float
    suv: float

    def value(self, modality: str) -> float:
        """Return the noise-free value in the unit of ``modality``."""
        return {"CT": self.hounsfield, "MR": self.signal, "PT": self.suv}[modality]


@dataclass(frozen=True)
class Body:
    """Tissues in painting order (a later one replaces an earlier one) and the lesions, painted last."""

    organs: tuple[Tissue, ...]
    lesions: tuple[Tissue, ...] = ()

    def organ(self, name: str) -> Tissue:
        """Return the organ of that name."""
        return next(tissue for tissue in self.organs if tissue.name == name)

    def moved(self, offset_mm: Triple) -> "Body":
        """Return the same body moved by an offset, as after another positioning on the table."""
        organs, lesions = (
            tuple(replace(tissue, solid=tissue.solid.moved(offset_mm)) for tissue in part)
            for part in (self.organs, self.lesions)
        )
        return Body(organs, lesions)


def make_body(*, sex: str, height_m: float, weight_kg: float) -> Body:
    """Make a trunk without lesions, with its origin between the lungs and the liver.

    Lengths scale with the height, widths with the square root of weight over height, relative to 1.70 m and 70 kg.
    """
    tall = height_m / 1.70
    wide = float(np.sqrt(weight_kg / height_m / (70.0 / 1.70)))
    rows = _TRUNK + (_BREASTS if sex == "F" else ())
    organs = []
    for name, centre, semi, hounsfield, signal, suv in rows:
        grow = (wide, wide, tall)
        cx, cy, cz = (float(c * g) for c, g in zip(centre, grow, strict=True))
        ax, ay, az = (float(a * g) for a, g in zip(semi, grow, strict=True))
        organs.append(Tissue(name, Ellipsoid((cx, cy, cz), (ax, ay, az)), hounsfield, signal, suv))
    return Body(tuple(organs))


def paint(body: Body, geometry: Geometry, modality: str) -> NDArray[np.float32]:
    """Return the noise-free image, in which each voxel has the value of the tissue that its centre lies in.

    Returns
    -------
    array
        (slice, row, column) float32 in HU, arbitrary units or SUVbw.
    """
    image = np.full(geometry.shape, AIR[modality], dtype=np.float32)
    for tissue in (*body.organs, *body.lesions):
        for where, inside in _slices_inside(tissue.solid, geometry):
            image[where][inside] = tissue.value(modality)
    return image


def tissue_numbers(body: Body, geometry: Geometry) -> NDArray[np.uint8]:
    """Return (slice, row, column): which organ each voxel centre lies in, counted from 1; 0 in air. No lesions."""
    numbers = np.zeros(geometry.shape, np.uint8)
    for number, tissue in enumerate(body.organs, start=1):
        for where, inside in _slices_inside(tissue.solid, geometry):
            numbers[where][inside] = number
    return numbers


def voxelise(solid: Ellipsoid, geometry: Geometry) -> NDArray[np.bool_]:
    """Return (slice, row, column) bool: the voxels whose centres lie in the solid, including its surface."""
    mask = np.zeros(geometry.shape, dtype=np.bool_)
    for where, inside in _slices_inside(solid, geometry):
        mask[where] = inside
    return mask


def contours(solid: Ellipsoid, geometry: Geometry, *, points: int = 96) -> tuple[tuple[int, NDArray[np.float64]], ...]:
    """Return (slice index, (points, 3) LPS mm) for every slice plane of the grid that meets the solid."""
    directions = geometry.directions
    found = []
    for index, origin in enumerate(geometry.to_world([(k, 0, 0) for k in range(geometry.shape[0])])):
        ellipse = solid.section(origin, directions[:, 2], directions[:, 1], points=points)
        if ellipse is not None:
            found.append((index, ellipse))
    return tuple(found)


def place_lesions(
    body: Body, rng: np.random.Generator, *, hosts: Sequence[str], radii_mm: Sequence[float], reach_mm: float
) -> Body:
    """Return the body with one ellipsoidal lesion per radius, all in one host organ and apart from one another.

    ``reach_mm`` bounds how far lesions may lie from the first one along the body axis, so that one scan shows all.
    If no host has room, the lesions that do not fit are left out.
    """
    most: tuple[Tissue, ...] = ()
    for name in (hosts[index] for index in rng.permutation(len(hosts))):
        lesions = _fill(body.organ(name), rng, radii_mm=radii_mm, reach_mm=reach_mm)
        if len(lesions) > len(most):
            most = lesions
        if len(most) == len(radii_mm):
            break
    return replace(body, lesions=most)


def _fill(host: Tissue, rng: np.random.Generator, *, radii_mm: Sequence[float], reach_mm: float) -> tuple[Tissue, ...]:
    """Return lesions in one organ for as many of the radii as fit."""
    lesions: list[Tissue] = []
    for radius in radii_mm:
        solid = _free_spot(host.solid, [lesion.solid for lesion in lesions], rng, radius=radius, reach_mm=reach_mm)
        if solid is not None:
            hounsfield = 35.0 if "lung" in host.name else host.hounsfield - 55.0
            suv = float(np.round(rng.uniform(4.0, 14.0), 2))
            lesions.append(Tissue(f"lesion {len(lesions) + 1} in {host.name}", solid, hounsfield, 620.0, suv))
    return tuple(lesions)


def _free_spot(
    host: Ellipsoid, taken: Sequence[Ellipsoid], rng: np.random.Generator, *, radius: float, reach_mm: float
) -> Ellipsoid | None:
    """Return a lesion well inside the host and clear of the others; None after 200 tries."""
    stretch = rng.uniform(0.8, 1.25, size=3)
    a, b, c = (float(v) for v in np.round(radius * stretch / np.cbrt(stretch.prod()), 3))
    axes = _rotation(rng)
    for _ in range(200):
        ball = rng.normal(size=3)
        ball *= 0.6 * np.cbrt(rng.random()) / np.linalg.norm(ball)
        x, y, z = (float(v) for v in np.round(np.asarray(host.centre_mm) + ball * np.asarray(host.semi_axes_mm), 3))
        solid = Ellipsoid((x, y, z), (a, b, c), axes)
        near = all(abs(z - other.centre_mm[2]) <= reach_mm for other in taken[:1])
        if near and all(_apart(solid, other) for other in taken):
            return solid
    return None


def _apart(one: Ellipsoid, other: Ellipsoid) -> bool:
    distance = float(np.linalg.norm(np.subtract(one.centre_mm, other.centre_mm)))
    return distance > max(one.semi_axes_mm) + max(other.semi_axes_mm) + APART_MM


def _rotation(rng: np.random.Generator) -> tuple[Triple, Triple, Triple]:
    """Return a random rotation from a unit quaternion (Shoemake 1992)."""
    w, x, y, z = (lambda q: q / np.linalg.norm(q))(rng.normal(size=4))
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    first, second, third = ((float(r[0]), float(r[1]), float(r[2])) for r in rows)
    return (first, second, third)


def _slices_inside(
    solid: Ellipsoid, geometry: Geometry
) -> Iterator[tuple[tuple[int, slice, slice], NDArray[np.bool_]]]:
    """Yield for each slice the box of the grid that holds the solid, and which voxel centres in it are inside."""
    to_ball = solid.to_unit @ geometry.affine[:3, :3]
    start = solid.to_unit @ (geometry.affine[:3, 3] - np.asarray(solid.centre_mm))
    inverse = np.linalg.inv(to_ball)
    middle = -inverse @ start
    half = np.sqrt((inverse**2).sum(axis=1))  # half extent of a linear image of the unit ball along each axis
    low = np.maximum(np.ceil(middle - half), 0).astype(int)
    high = np.minimum(np.floor(middle + half) + 1, geometry.shape).astype(int)
    if (high <= low).any():
        return
    rows = to_ball[:, 1, None] * np.arange(low[1], high[1])
    columns = to_ball[:, 2, None] * np.arange(low[2], high[2])
    for index in range(low[0], high[0]):
        offset = start + to_ball[:, 0] * index
        square = sum((offset[axis] + rows[axis][:, None] + columns[axis][None, :]) ** 2 for axis in range(3))
        yield (index, slice(low[1], high[1]), slice(low[2], high[2])), np.asarray(square <= 1.0)


# name, centre (LPS mm), semi-axes (mm), HU, MR signal, SUV: a trunk of 1.70 m and 70 kg, in painting order
_TRUNK: tuple[tuple[str, Triple, Triple, float, float, float], ...] = (
    ("couch", (0.0, 138.0, 0.0), (210.0, 9.0, 1500.0), -650.0, 0.0, 0.0),
    ("fat", (0.0, 0.0, 0.0), (180.0, 122.0, 620.0), -95.0, 420.0, 0.3),
    ("muscle", (0.0, 0.0, 0.0), (160.0, 103.0, 600.0), 48.0, 160.0, 0.7),
    ("spine", (0.0, 66.0, 0.0), (19.0, 17.0, 590.0), 320.0, 210.0, 1.1),
    ("right lung", (-78.0, -4.0, 105.0), (58.0, 74.0, 118.0), -860.0, 18.0, 0.4),
    ("left lung", (78.0, -4.0, 105.0), (54.0, 74.0, 114.0), -855.0, 18.0, 0.4),
    ("heart", (24.0, -34.0, 62.0), (48.0, 41.0, 46.0), 130.0, 120.0, 2.6),
    ("aorta", (17.0, 39.0, 0.0), (11.0, 11.0, 560.0), 165.0, 40.0, 1.6),
    ("liver", (-58.0, -12.0, -58.0), (84.0, 72.0, 62.0), 112.0, 190.0, 2.2),
    ("spleen", (92.0, 32.0, -48.0), (30.0, 36.0, 44.0), 122.0, 330.0, 1.8),
    ("right kidney", (-58.0, 46.0, -128.0), (26.0, 23.0, 50.0), 175.0, 460.0, 2.9),
    ("left kidney", (58.0, 46.0, -118.0), (26.0, 23.0, 52.0), 175.0, 460.0, 2.9),
)
_BREASTS: tuple[tuple[str, Triple, Triple, float, float, float], ...] = (
    ("right breast", (-72.0, -112.0, 100.0), (58.0, 38.0, 56.0), -80.0, 430.0, 0.4),
    ("left breast", (72.0, -112.0, 100.0), (58.0, 38.0, 56.0), -80.0, 430.0, 0.4),
)
