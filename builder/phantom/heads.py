"""Model heads of invented persons whose face and brain are known, and draw how scanners show them."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from builder.model.geometry import Geometry
from builder.phantom.bodies import Body, Ellipsoid, Tissue, Triple, tissue_numbers
from builder.phantom.scans import oblique_grid

FOREHEAD_MM: Final = 15.0
"""How far above the ears' height, in a head of ordinary size, the face begins."""
CHIN_MM: Final = -124.0
BEFORE_EARS_MM: Final = -22.0
"""The face is what lies before this plane (LPS y in the head's own frame), and both ears."""

PLANES: Final = ("axial", "sagittal", "coronal")


@dataclass(frozen=True, eq=False)
class Head:
    """A head on the table.

    Parameters
    ----------
    body
        Its solids in patient space.
    to_head
        (4, 4): LPS mm to the head's own frame, in which an ordinary head has its ears at the origin's height.
    """

    body: Body
    to_head: NDArray[np.float64]


@dataclass(frozen=True)
class Pose:
    """How a head lies: turned about the axis through the ears, the body axis and the nose, and moved.

    ``size`` scales the head along (x, y, z); ``rest`` adds the table and headrest of a CT.
    """

    pitch_degrees: float = 0.0
    yaw_degrees: float = 0.0
    roll_degrees: float = 0.0
    moved_mm: Triple = (0.0, 0.0, 0.0)
    size: Triple = (1.0, 1.0, 1.0)
    rest: bool = False


@dataclass(frozen=True, eq=False)
class Answer:
    """What is known about one image of a head: (slice, row, column) masks of its grid.

    ``face`` holds the voxels of the skin of the face and the ears that touch air. ``brain`` holds the brain.
    """

    face: NDArray[np.bool_]
    brain: NDArray[np.bool_]


def make_head(pose: Pose) -> Head:
    """Return a head with its neck and shoulders in a pose."""
    rotation = _rotation(pose)
    organs = []
    for name, centre, semi, hounsfield, signal, suv in _HEAD:
        scaled = [tuple(float(v * s) for v, s in zip(part, pose.size, strict=True)) for part in (centre, semi)]
        solid = Ellipsoid((scaled[0][0], scaled[0][1], scaled[0][2]), (scaled[1][0], scaled[1][1], scaled[1][2]))
        organs.append(Tissue(name, solid.turned(rotation).moved(pose.moved_mm), hounsfield, signal, suv))
    rest = _rests(pose) if pose.rest else []
    inverse = np.eye(4)
    inverse[:3, :3] = np.diag(1 / np.asarray(pose.size)) @ rotation.T
    inverse[:3, 3] = -inverse[:3, :3] @ np.asarray(pose.moved_mm)
    return Head(Body((*rest, *organs)), inverse)


def answer(head: Head, geometry: Geometry) -> Answer:
    """Return where face and brain lie on a grid, in closed form at every voxel centre."""
    numbers = tissue_numbers(head.body, geometry)
    names = [tissue.name for tissue in head.body.organs]
    rests = sum(name in _REST for name in names)
    person = numbers > rests
    touching = person & _beside(~person & ~_inner_air(numbers, names))
    s, r, c = np.nonzero(touching)
    places = geometry.to_world(np.stack([s, r, c], axis=1)) @ head.to_head[:3, :3].T + head.to_head[:3, 3]
    in_front = (places[:, 1] < BEFORE_EARS_MM) & (places[:, 2] < FOREHEAD_MM) & (places[:, 2] > CHIN_MM)
    ears = np.isin(numbers[s, r, c], [i for i, name in enumerate(names, start=1) if name.endswith(" ear")])
    face = np.zeros(geometry.shape, np.bool_)
    face[s, r, c] = in_front | ears
    return Answer(face, np.asarray(numbers == names.index("brain") + 1))


def draw_pose(rng: np.random.Generator, *, rest: bool) -> Pose:
    """Draw how a head lies."""
    pitch, yaw, roll = (float(rng.uniform(-limit, limit)) for limit in (18.0, 15.0, 8.0))
    x, y, z = (float(v) for v in rng.uniform(-15.0, 15.0, size=3))
    whole = rng.uniform(0.88, 1.10)
    a, b, c = (float(v) for v in whole * rng.uniform(0.97, 1.03, size=3))
    return Pose(pitch, yaw, roll, (x, y, z), (a, b, c), rest)


def draw_grid(rng: np.random.Generator, modality: str, moved_mm: Triple, frame: str) -> Geometry:
    """Draw the grid of a scan: spacing, plane, tilt, and how much of head and neck it covers."""
    if modality == "PT":
        pixel, slices = float(rng.uniform(2.5, 4.2)), float(rng.uniform(2.0, 4.0))
    elif modality == "CT":
        pixel, slices = float(rng.uniform(0.9, 1.6)), float(rng.choice([1.25, 2.0, 3.0, 5.0]))
    else:
        pixel, slices = float(rng.uniform(0.9, 1.4)), float(rng.choice([1.2, 2.0, 4.0, 5.0]))
    top, bottom = float(rng.uniform(20, 40) + 135), float(rng.choice([-150.0, -110.0, -70.0]))
    if modality != "MR":
        bottom = min(bottom, -150.0) if rng.random() < 0.8 else bottom
    if rng.random() < 0.1:
        top = 70.0  # the top of the skull is cut off
    across, deep = (float(v) for v in rng.uniform([215, 265], [260, 330]))
    middle_z = (top + bottom) / 2
    centre = (moved_mm[0], moved_mm[1] - 8.0, moved_mm[2] + middle_z)
    plane = str(rng.choice(PLANES)) if modality == "MR" else "axial"
    pitch, yaw = (float(v) for v in rng.uniform(-12, 12, size=2)) if modality == "MR" else (0.0, 0.0)
    length, wide, tall = {
        "axial": (top - bottom, across, deep),
        "sagittal": (across, deep, top - bottom),
        "coronal": (deep, across, top - bottom),
    }[plane]
    shape = (max(12, int(length / slices)), int(tall / pixel), int(wide / pixel))
    grid = oblique_grid(shape, (slices, pixel, pixel), (0.0, 0.0, 0.0), frame, tilts_degrees=(pitch, yaw))
    affine = np.eye(4)
    affine[:3, :3] = _TURNS[plane] @ grid.affine[:3, :3]
    # rounded as headers round positions, so that truth and file speak of one grid
    affine[:3, 3] = np.round(np.asarray(centre) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2), 4)
    return Geometry(shape, affine, frame)


def _rotation(pose: Pose) -> NDArray[np.float64]:
    pitch, yaw, roll = np.deg2rad([pose.pitch_degrees, pose.yaw_degrees, pose.roll_degrees])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
    return np.asarray(about_z @ about_x @ about_y)


def _rests(pose: Pose) -> list[Tissue]:
    """Return table and headrest, behind where the head lies."""
    return [
        Tissue(name, Ellipsoid(centre, semi).moved(pose.moved_mm), hounsfield, 0.0, 0.0)
        for name, (centre, semi, hounsfield) in _REST.items()
    ]


def _inner_air(numbers: NDArray[np.uint8], names: list[str]) -> NDArray[np.bool_]:
    """Return the voxels of cavities that hold air."""
    return np.isin(numbers, [i for i, name in enumerate(names, start=1) if name in _CAVITIES])


def _beside(air: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels with air beside them along an axis. What lies outside the grid is no air."""
    found = np.zeros_like(air)
    for axis in range(3):
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        found[tuple(behind)] |= air[tuple(ahead)]
        found[tuple(ahead)] |= air[tuple(behind)]
    return found


_TURNS: Final = {
    "axial": np.eye(3),
    # slices from left to right or from front to back, rows from head to feet
    "sagittal": np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
    "coronal": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
}

_REST: Final[dict[str, tuple[Triple, Triple, float]]] = {
    "table": ((0.0, 165.0, -300.0), (230.0, 12.0, 900.0), -350.0),
    "headrest": ((0.0, 118.0, 20.0), (90.0, 16.0, 110.0), -820.0),
    "headrest shell": ((0.0, 136.0, 20.0), (95.0, 4.0, 120.0), 60.0),
}
_CAVITIES: Final = ("nasal cavity", "pharynx", "mouth")

# name, centre (LPS mm, ears at 0), semi-axes (mm), HU, MR signal, SUV; a later one replaces an earlier one
_HEAD: Final[tuple[tuple[str, Triple, Triple, float, float, float], ...]] = (
    ("shoulders", (0.0, 25.0, -345.0), (205.0, 100.0, 115.0), 45.0, 260.0, 0.6),
    ("neck", (0.0, 18.0, -180.0), (56.0, 58.0, 200.0), 45.0, 240.0, 0.7),
    ("scalp", (0.0, 5.0, 25.0), (75.0, 96.0, 95.0), 20.0, 420.0, 0.5),
    ("cheeks", (0.0, -35.0, -45.0), (62.0, 58.0, 75.0), 10.0, 400.0, 0.6),
    ("chin", (0.0, -62.0, -100.0), (28.0, 28.0, 22.0), 30.0, 380.0, 0.6),
    ("nose", (0.0, -98.0, -30.0), (15.0, 22.0, 24.0), 30.0, 360.0, 0.6),
    ("lips", (0.0, -92.0, -72.0), (25.0, 9.0, 9.0), 40.0, 340.0, 0.7),
    ("right ear", (-75.0, 12.0, -8.0), (11.0, 17.0, 31.0), 20.0, 330.0, 0.5),
    ("left ear", (75.0, 12.0, -8.0), (11.0, 17.0, 31.0), 20.0, 330.0, 0.5),
    ("right lid", (-32.0, -74.0, -8.0), (16.0, 15.0, 12.0), 30.0, 350.0, 0.6),
    ("left lid", (32.0, -74.0, -8.0), (16.0, 15.0, 12.0), 30.0, 350.0, 0.6),
    ("skull", (0.0, 8.0, 32.0), (69.0, 92.0, 82.0), 900.0, 60.0, 0.4),
    ("fluid", (0.0, 8.0, 33.0), (66.0, 87.5, 76.5), 8.0, 150.0, 0.5),
    ("brain", (0.0, 8.0, 33.0), (64.5, 86.0, 75.0), 36.0, 520.0, 7.0),
    ("bones of the face", (0.0, -42.0, -52.0), (46.0, 38.0, 46.0), 600.0, 90.0, 0.6),
    ("right socket", (-32.0, -62.0, -8.0), (18.0, 22.0, 17.0), -80.0, 480.0, 0.5),
    ("left socket", (32.0, -62.0, -8.0), (18.0, 22.0, 17.0), -80.0, 480.0, 0.5),
    ("right eye", (-32.0, -74.0, -8.0), (12.0, 12.0, 12.0), 12.0, 200.0, 0.6),
    ("left eye", (32.0, -74.0, -8.0), (12.0, 12.0, 12.0), 12.0, 200.0, 0.6),
    ("nasal cavity", (0.0, -58.0, -38.0), (11.0, 32.0, 22.0), -1000.0, 0.0, 0.0),
    ("tongue", (0.0, -42.0, -82.0), (28.0, 34.0, 17.0), 55.0, 280.0, 1.6),
    ("mouth", (0.0, -52.0, -62.0), (22.0, 28.0, 4.0), -1000.0, 0.0, 0.0),
    ("mandible", (0.0, -60.0, -100.0), (24.0, 20.0, 9.0), 800.0, 70.0, 0.5),
    ("pharynx", (0.0, -2.0, -85.0), (9.0, 7.0, 60.0), -1000.0, 0.0, 0.0),
    ("spine", (0.0, 45.0, -175.0), (18.0, 18.0, 130.0), 350.0, 150.0, 1.0),
    ("cord", (0.0, 45.0, -175.0), (7.0, 7.0, 126.0), 40.0, 380.0, 1.4),
)
