"""Any chain of transforms and any cut: points and boxes stay where they are in the patient, to a millionth of a mm."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter

from builder.model.case import Boxes, Case, Landmarks, Sample, ValueDomain, Volume
from builder.model.geometry import Geometry, corner_voxels
from builder.model.keyed import Key
from builder.patches import AnySamples, cut
from builder.transforms import AnyTransform
from tests.transforms.cases import make_geometry

EXACT_MM = 1e-6
TRANSFORM: TypeAdapter[Any] = TypeAdapter(AnyTransform)
SAMPLES: TypeAdapter[Any] = TypeAdapter(AnySamples)

spacings = st.floats(0.7, 6.0)
angles = st.sampled_from([0.0, 90.0, -90.0, 180.0, 7.5, -31.0])
grids = st.builds(
    make_geometry,
    st.tuples(st.integers(9, 14), st.integers(12, 18), st.integers(12, 18)),
    st.tuples(spacings, spacings, spacings),
    angles=st.tuples(angles, angles, angles),
    shear=st.sampled_from([0.0, 0.0, 0.32]),
    origin=st.tuples(st.floats(-900, 900), st.floats(-900, 900), st.floats(-900, 900)),
)
orients = st.sampled_from(["LPS", "RAS", "PIR", "SAL", "ILA"]).map(lambda to: {"kind": "orient", "to": to})
resamples = st.builds(
    lambda spacing, axes: {"kind": "resample", "spacing_mm": spacing, "axes": axes},
    st.tuples(st.none() | spacings, st.none() | spacings, st.none() | spacings),
    st.sampled_from(["image", "image", "patient"]),
)
crops = st.tuples(*[st.integers(6, 24)] * 3).map(lambda shape: {"kind": "crop", "shape": shape})
scales = st.just({"kind": "intensity", "scale": [0, 1], "window": [0, 400]})
chains = st.lists(st.one_of(orients, resamples, crops), max_size=5)
cuts = st.sampled_from(
    [
        {"kind": "volumes"},
        {"kind": "grid", "shape": [7, 9, 8]},
        {"kind": "patches", "shape": [8, 6, 10], "per_case": 6},
    ]
)


def make_case(geometry: Geometry, seed: int) -> Case:
    """Points and boxes anywhere in an image whose value is a linear function of the place in the patient."""
    rng = np.random.default_rng(seed)
    shape = np.asarray(geometry.shape)
    voxels = np.indices(geometry.shape).reshape(3, -1).T
    values = value_at(geometry.to_world(voxels)).reshape(geometry.shape).astype(np.float32)
    points = geometry.to_world(rng.uniform(-0.4, shape - 0.6, (6, 3)))
    lows = rng.uniform(-0.4, shape - 3, (4, 3))
    sizes = rng.uniform(0.5, 2.4, (4, 3))
    corners = [geometry.to_world(low + corner_voxels((2, 2, 2)) * size) for low, size in zip(lows, sizes, strict=True)]
    volume = Volume(values[None], geometry, ValueDomain.ARBITRARY)
    names = tuple("abcdef")
    return Case("case", volume, (Landmarks("points", points, names), Boxes("boxes", np.array(corners), names[:4])))


def value_at(points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear in patient space, so that linear interpolation gives it back on any grid."""
    return np.asarray(points_mm @ [0.25, -0.5, 1.0])


@settings(max_examples=120)
@given(grids, chains, cuts, st.integers(0, 2**32 - 1))
def test_points_and_boxes_stay_in_the_patient(geometry: Geometry, chain: Any, options: Any, seed: int) -> None:
    case = original = make_case(geometry, seed)
    passed = [geometry]
    for block in chain:
        case = TRANSFORM.validate_python(block)(case)
        passed.append(case.volume.geometry)
    for sample in cut(case, SAMPLES.validate_python(options), key=Key(b"0" * 32), seed=1):
        check_points(sample, original, case)
        check_boxes(sample, original, case)
        check_image(sample, passed)


def check_points(sample: Sample, original: Case, moved: Case) -> None:
    """Each point of the sample is the original one, and none that no crop lost is missing inside the sample."""
    truth, kept = original.annotations[0], moved.annotations[0]
    assert isinstance(truth, Landmarks)
    assert isinstance(kept, Landmarks)
    expected = dict(zip(truth.classes, truth.points_mm, strict=True))
    found = sample.geometry.to_world(np.reshape(sample.ragged["landmarks"], (-1, 3)))
    names = sample.ragged["landmark_classes"]
    for name, point in zip(names, found, strict=True):
        assert np.abs(point - expected[name]).max() < EXACT_MM
    for name in kept.classes:
        at = sample.geometry.to_voxel(expected[name])[0]
        if (at > -0.499).all() and (at < np.asarray(sample.geometry.shape) - 0.501).all():
            assert name in names


def check_boxes(sample: Sample, original: Case, moved: Case) -> None:
    """A box along the sample's axes is the original one, cut where the image ends; a turned one is enclosed."""
    truth = original.annotations[1]
    kept = moved.annotations[1]
    assert isinstance(truth, Boxes)
    assert isinstance(kept, Boxes)
    expected = dict(zip(truth.classes, truth.corners_mm, strict=True))
    along = np.abs(original.volume.geometry.directions.T @ sample.geometry.directions).round(9)
    parallel = bool(np.isin(along, (0.0, 1.0)).all())
    for name, box in zip(sample.ragged["box_classes"], np.reshape(sample.ragged["boxes"], (-1, 2, 3)), strict=True):
        corners = sample.geometry.to_voxel(expected[name])
        low, high = corners.min(axis=0), corners.max(axis=0)
        if parallel:
            whole = kept.corners_mm[kept.classes.index(name)]
            if np.abs(np.sort(whole, axis=0) - np.sort(expected[name], axis=0)).max() < 1e-9:
                spacing = np.asarray(sample.geometry.spacing_mm)
                assert (np.abs(box - [low, high]) * spacing).max() < EXACT_MM
        # never larger than what was drawn, whatever was cut off
        slack = EXACT_MM / np.asarray(sample.geometry.spacing_mm)
        assert (box[0] >= low - slack).all()
        assert (box[1] <= high + slack).all()


def check_image(sample: Sample, passed: list[Geometry]) -> None:
    """Every voxel holds the value of the place its geometry gives, wherever no image on the way ended nearby."""
    values = sample.arrays["image"][0].ravel()
    world = sample.geometry.to_world(np.indices(sample.geometry.shape).reshape(3, -1).T)
    reach_mm = sum(float(np.linalg.norm(grid.spacing_mm)) for grid in passed[:-1])
    known = np.ones(len(world), bool)
    for grid in passed:
        margin = 0.0 if grid is passed[-1] else reach_mm * np.linalg.norm(np.linalg.inv(grid.affine[:3, :3]), axis=1)
        at = grid.to_voxel(world)
        known &= ((at >= margin - 1e-9) & (at <= np.asarray(grid.shape) - 1 - margin + 1e-9)).all(axis=1)
    assert np.abs(values - value_at(world))[known].max(initial=0) < 0.01
    if len(passed) == 1:
        assert known.sum() == known.size - sample.row["pad_voxels"]
