"""Cases for the tests of transforms: an image, a mask, boxes and landmarks on any grid."""

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from builder.model.case import Boxes, Case, Landmarks, Mask, Segment, ValueDomain, Volume
from builder.model.geometry import Geometry, corner_voxels


def make_geometry(shape, spacing=(2.5, 0.8, 0.7), *, angles=(0.0, 0.0, 0.0), shear=0.0, origin=(-31.0, 12.5, 300.25)):
    """A grid whose slices, rows and columns grow S, P, L before rotation; ``shear`` tilts slices towards rows."""
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.array(
        [[0.0, 0, 1], [shear, 1, 0], [1, 0, 0]]
    )
    axes[:, 0] /= np.linalg.norm(axes[:, 0])
    affine = np.eye(4)
    affine[:3, :3] = axes * np.asarray(spacing)
    affine[:3, 3] = origin
    return Geometry(shape, affine, "2.25.1")


def make_case(geometry, *, dtype="int16", padding=False, channels=1, seed=0):
    """Noise with two structures, one box around the first, and a line of two landmarks with a single third."""
    rng = np.random.default_rng(seed)
    low, high = (0, 200) if dtype == "uint8" else (-1000, 2000)
    voxels = rng.integers(low, high, (channels, *geometry.shape)).astype(dtype)
    n = geometry.shape
    label = np.zeros((1, *n), np.uint8)
    first: Any = tuple(slice(k // 4, max(k // 4 + 1, k // 2)) for k in n)
    label[(0, *first)] = 1
    label[0, -1, -1, -1] = 2
    corners = np.array([s.start for s in first]) - 0.5
    ends = np.array([s.stop for s in first]) - 0.5
    box = corners + (corner_voxels((2, 2, 2)) * (ends - corners))
    points = geometry.to_world([[k / 3 for k in n], [k / 2 for k in n], [k - 1 for k in n]])
    empty = None
    if padding:
        empty = np.zeros(n, np.bool_)
        empty[:, 0] = True
    volume = Volume(
        voxels,
        geometry,
        ValueDomain.HOUNSFIELD,
        tuple(f"c{i}" for i in range(channels)),
        padding=empty,
        notes=("seen",),
    )
    return Case(
        "case",
        volume,
        (
            Mask("tumour", label, geometry, (Segment("mass", 0, 1), Segment("node", 0, 2)), measures={"kept": 1.0}),
            Boxes("lesions", geometry.to_world(box).reshape(1, 8, 3), ("a",)),
            Landmarks("recist", points, ("x", "y", "z"), ("l1", "l1", "")),
        ),
        {"age_years": 61},
    )


def part(case, kind):
    """The one annotation of this type."""
    return next(a for a in case.annotations if isinstance(a, kind))
