"""What every transform promises, whichever it is."""

import pickle
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from builder.model.case import Case
from builder.protocols import Transform
from builder.transforms import TRANSFORMS, AnyTransform
from tests.transforms.cases import make_case, make_geometry

BLOCKS: list[dict[str, Any]] = [
    {"kind": "orient", "to": "RIA"},
    {"kind": "resample", "spacing_mm": [1.5, 1.0, 0.9], "image": "cubic", "mask": "linear"},
    {"kind": "resample", "spacing_mm": [2.0, None, 1.5], "antialias": "lowpass"},
    {"kind": "resample", "spacing_mm": [2.0, 1.0, 1.5], "axes": "patient"},
    {"kind": "resize", "pixels": [20, 12], "fill": -1024},
    {"kind": "crop", "mask": "tumour", "margin_mm": [1, 2, 3], "shape": [8, 12, 40], "fill": -1024},
    {"kind": "intensity", "window": [40, 400], "scale": [0, 1]},
    {"kind": "radiomics", "families": ["statistics", "glcm"], "bins": 16},
]
ADAPTER = TypeAdapter(AnyTransform)


def same(a, b):
    """Deep equality of cases to the byte."""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return a == b


def test_every_transform_of_the_table_is_here():
    assert {block["kind"] for block in BLOCKS} == set(TRANSFORMS)
    for kind, transform in TRANSFORMS.items():
        assert transform.model_fields["kind"].annotation.__args__ == (kind,)
        assert transform.VERSION >= 1


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block["kind"])
class TestContract:
    @pytest.fixture(autouse=True)
    def _needs(self, block):
        if block["kind"] == "radiomics":
            pytest.importorskip("mirp", reason="MIRP is not here: make test-radiomics")

    def test_is_its_options(self, block):
        transform = ADAPTER.validate_python(block)
        assert type(transform) is TRANSFORMS[block["kind"]]
        assert isinstance(transform, Transform)
        assert ADAPTER.validate_json(transform.model_dump_json()) == transform
        assert pickle.loads(pickle.dumps(transform)) == transform  # noqa: S301
        with pytest.raises(ValidationError, match="frozen"):
            setattr(transform, "kind", "other")  # noqa: B010 (mypy knows that it is frozen)
        with pytest.raises(ValidationError, match="surprise"):
            ADAPTER.validate_python(block | {"surprise": 1})

    def test_leaves_its_input_alone_and_repeats_itself(self, block):
        case = make_case(make_geometry((9, 14, 16)), padding=True)
        before = pickle.loads(pickle.dumps(case))  # noqa: S301
        transform = ADAPTER.validate_python(block)
        once, twice = transform(case), transform(before)
        assert same(case, before)
        assert same(once, twice)

    def test_keeps_one_geometry(self, block):
        moved = ADAPTER.validate_python(block)(make_case(make_geometry((9, 14, 16), angles=(2, 3, 4)), padding=True))
        assert moved.volume.padding.shape == moved.volume.geometry.shape
        for mask in moved.masks:
            assert mask.geometry.same_grid(moved.volume.geometry, tolerance_voxels=1e-9)
        assert moved.volume.geometry.frame_of_reference == "2.25.1"
        assert {a.name for a in moved.annotations} == {"tumour", "lesions", "recist"}
        assert moved.row == {"age_years": 61}

    def test_takes_a_case_without_annotations(self, block):
        if block.get("mask") == "tumour":
            pytest.skip("needs its mask")
        case = make_case(make_geometry((9, 14, 16)))
        assert isinstance(ADAPTER.validate_python(block)(Case("c", case.volume)), Case)

    def test_projects_the_shape_of_an_axial_image(self, block):
        geometry = make_geometry((9, 14, 16))
        transform = ADAPTER.validate_python(block)
        shape, spacing = transform.projected(geometry.shape, geometry.spacing_mm)
        found = transform(make_case(geometry)).volume.geometry
        assert sorted(found.shape) == sorted(shape)
        np.testing.assert_allclose(sorted(found.spacing_mm), sorted(spacing))


def test_a_table_of_transforms_is_a_chain():
    """Orient, resample, crop and scale one after the other: a point of the image stays where it is in the patient."""
    case = make_case(make_geometry((20, 40, 44), angles=(3, 0, 5)))
    spot = case.volume.geometry.to_world([[6.0, 14.0, 15.0]])
    voxels = case.volume.voxels
    voxels[:] = -900
    voxels[0, 5:8, 12:17, 13:18] = 900
    for block in (BLOCKS[0], BLOCKS[1], BLOCKS[5], BLOCKS[6]):
        case = ADAPTER.validate_python(block)(case)
    at = np.rint(case.volume.geometry.to_voxel(spot)[0]).astype(int)
    assert case.volume.voxels[(0, *at)] == 1.0
    assert case.volume.voxels.mean() < 0.2
