"""Ellipsoids in closed form, and the population's distributions."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.transform import Rotation

from builder.model.geometry import Geometry
from builder.model.keyed import Key
from builder.phantom.archive import plan_visits
from builder.phantom.bodies import Ellipsoid, contours, make_body, paint, place_lesions, voxelise
from builder.phantom.people import DISTRIBUTIONS, draw_person
from builder.phantom.scans import SIZES
from builder.phantom.visits import open_room, scan_grid
from tests.synthetic import OBLIQUE, grid

lengths = st.floats(6.0, 30.0)
angles = st.floats(-180.0, 180.0)


@st.composite
def ellipsoids(draw):
    rotation: Any = Rotation.from_euler("xyz", [draw(angles) for _ in range(3)], degrees=True).as_matrix()
    centre: Any = tuple(draw(st.floats(-20.0, 20.0)) for _ in range(3))
    axes: Any = tuple(map(tuple, rotation.tolist()))
    return Ellipsoid(centre, (draw(lengths), draw(lengths), draw(lengths)), axes)


def surface_value(solid, points):
    """1 on the surface, by scipy's rotation instead of the class's own matrix."""
    own = Rotation.from_matrix(np.array(solid.axes)).apply(points - np.array(solid.centre_mm))
    return ((own / np.array(solid.semi_axes_mm)) ** 2).sum(axis=1)


@settings(max_examples=40, deadline=None)
@given(ellipsoids())
def test_sections_lie_on_the_surface_and_their_areas_sum_to_the_volume(solid):
    geometry = grid((160, 4, 4), (0.7, 1.0, 1.0), orientation=OBLIQUE)
    normal = geometry.directions[:, 0]
    start = np.array(solid.centre_mm) - normal * 56.0
    affine = geometry.affine.copy()
    affine[:3, 3] = start
    geometry = Geometry(geometry.shape, affine)
    volume = 0.0
    for index, points in contours(solid, geometry, points=256):
        np.testing.assert_allclose(surface_value(solid, points), 1.0, atol=1e-9)
        assert np.abs((points - geometry.to_world([(index, 0, 0)])) @ normal).max() < 1e-9
        volume += abs(np.cross(points, np.roll(points, -1, axis=0)).sum(axis=0) @ normal) / 2 * 0.7
    assert volume == pytest.approx(solid.volume_mm3, rel=0.01)


@settings(max_examples=20, deadline=None)
@given(ellipsoids())
def test_voxels_are_those_whose_centres_are_inside(solid):
    geometry = grid((40, 50, 60), (2.6, 2.1, 1.9), origin=(-50.0, -55.0, -60.0), orientation=OBLIQUE, tilt_degrees=10)
    mask = voxelise(solid, geometry)
    centres = geometry.to_world(np.indices(geometry.shape).reshape(3, -1).T)
    value = surface_value(solid, centres).reshape(geometry.shape)
    assert mask[value < 1 - 1e-9].all()
    assert not mask[value > 1 + 1e-9].any()


def test_volume_of_a_finely_voxelised_lesion():
    solid = Ellipsoid((1.0, 2.0, 3.0), (9.0, 7.0, 12.0))
    geometry = grid((70, 70, 70), (0.5, 0.5, 0.5), origin=(-16.0, -15.0, -14.0))
    assert voxelise(solid, geometry).sum() * 0.125 == pytest.approx(4 / 3 * np.pi * 9 * 7 * 12, rel=0.005)


def test_bodies_differ_by_sex_and_size_and_lesions_keep_apart():
    geometry = grid((12, 64, 64), (20.0, 7.0, 7.0), origin=(-220.0, -220.0, -110.0))
    volumes = {
        who: int((paint(make_body(sex=who[0], height_m=who[1], weight_kg=who[2]), geometry, "CT") > -500).sum())
        for who in (("F", 1.6, 55.0), ("M", 1.6, 55.0), ("M", 1.9, 100.0))
    }
    assert volumes["F", 1.6, 55.0] > volumes["M", 1.6, 55.0]
    assert volumes["M", 1.9, 100.0] > 1.2 * volumes["M", 1.6, 55.0]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        body = make_body(sex="F", height_m=1.63, weight_kg=60.0)
        body = place_lesions(body, rng, hosts=("liver",), radii_mm=(12.0, 9.0, 9.0), reach_mm=22.0)
        fine = grid((90, 90, 90), (2.0, 2.0, 2.0), origin=(-150.0, -100.0, -150.0))
        masks = [voxelise(lesion.solid, fine) for lesion in body.lesions]
        assert masks
        assert sum(m.sum() for m in masks) == np.any(masks, axis=0).sum()


@pytest.mark.parametrize("patients", [1, 3, 24])
def test_every_scan_holds_its_lesions_completely(patients):
    asked = placed = 0
    for seed in range(3):
        key = Key(f"field of view {seed}".encode().ljust(16))
        for number in range(1, patients + 1):
            for plan in plan_visits(draw_person(key, number), patients=patients, token=None):
                room = open_room(plan, key, size=SIZES["small"], token=None)
                for modality in plan.modalities:
                    frame = "MR" if modality == "MR" else "CT"
                    grid_of_scan = scan_grid(room, modality)
                    for lesion in room.bodies[frame].lesions:
                        voxels = grid_of_scan.to_voxel(surface_points(lesion.solid))
                        assert (voxels >= 0).all()
                        assert (voxels <= np.array(grid_of_scan.shape) - 1).all()
                asked += len(plan.person.radii_mm)
                placed += len(room.bodies["CT"].lesions)
    assert placed >= 0.97 * asked


def surface_points(solid):
    """A thousand points all over the surface of an ellipsoid."""
    ball = np.random.default_rng(1).normal(size=(1000, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    return np.array(solid.centre_mm) + (ball * np.array(solid.semi_axes_mm)) @ np.array(solid.axes)


def test_persons_follow_the_stated_distributions():
    key = Key(b"distribution test")
    people = [draw_person(key, number) for number in range(6, 2006)]
    assert draw_person(key, 77) == people[71]
    for name, values in (
        ("sex", [p.sex for p in people]),
        ("race", [p.race for p in people]),
        ("grade", [p.grade for p in people]),
        ("vendor", [p.vendor for p in people]),
        ("lesions", [str(len(p.radii_mm)) for p in people]),
    ):
        counts = Counter(values)
        expected = {value: weight * len(values) for value, weight in DISTRIBUTIONS[name]}
        assert set(counts) <= set(expected)
        chi2 = stats.chisquare([counts[value] for value in expected], list(expected.values()))
        assert chi2.pvalue > 1e-3, name
    for grade, probability in DISTRIBUTIONS["recurrence"]:
        some = [p.recurrence for p in people if p.grade == grade]
        assert stats.binomtest(sum(some), len(some), probability).pvalue > 1e-3
    law = dict(DISTRIBUTIONS["height_m_M"])
    heights = [p.height_m for p in people if p.sex == "M"]
    assert np.mean(heights) == pytest.approx(law["mean"], abs=0.01)
    assert np.std(heights) == pytest.approx(law["sd"], abs=0.005)
