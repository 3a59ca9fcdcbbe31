"""Proof: figures of known phantoms, thresholds that exclude, and the cohort's masks in their bodies."""

from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from builder.errors import CaseError, Reason
from builder.labels.proof import Body, Proof, coded_side, round_trip_dice
from builder.labels.rtstruct import RtStruct
from builder.model.case import Boxes, Code, Landmarks, Mask, Segment, ValueDomain, Volume
from builder.model.geometry import Geometry, corner_voxels
from builder.protocols import LabelObject
from tests import synthetic
from tests.labels.images import image_facts

GEOMETRY = Geometry((10, 40, 50), np.array([[0, 0, 2, -50], [0, 2, 0, -40], [3, 0, 0, 0], [0, 0, 0, 1.0]]))


def phantom() -> Volume:
    """A CT of a body (rows 5..34, columns 5..44) with a lung that must count as body."""
    voxels = np.full(GEOMETRY.shape, -1000, np.int16)
    voxels[:, 5:35, 5:45] = 40
    voxels[:, 10:20, 10:20] = -850
    return Volume(voxels[None], GEOMETRY, ValueDomain.HOUNSFIELD)


def mask(inside: NDArray[np.bool_], **measures: float) -> Mask:
    named = {f"t/{name}": value for name, value in measures.items()}
    return Mask("m", inside[None].astype(np.uint8), GEOMETRY, (Segment("t"),), measures=named)


def block(*box: slice) -> NDArray[np.bool_]:
    inside = np.zeros(GEOMETRY.shape, bool)
    inside[box] = True
    return inside


def test_the_body_holds_its_lung() -> None:
    body = Body(phantom())
    assert sum(body.plane(index).sum() for index in range(10)) == 10 * 30 * 40
    assert body.middle_mm == pytest.approx(-50 + 2 * 24.5)


def test_cavities_are_filled_as_scipy_fills_them() -> None:
    random = np.random.default_rng(3)
    for share in (0.3, 0.5, 0.6, 0.8):
        image = np.where(random.random((1, 4, 60, 70)) < share, 40, -1000).astype(np.int16)
        body = Body(Volume(image, Geometry((4, 60, 70), np.eye(4)), ValueDomain.HOUNSFIELD))
        for index in range(4):
            np.testing.assert_array_equal(body.plane(index), binary_fill_holes(image[0, index] > -400))


def test_figures_of_a_known_block() -> None:
    inside = block(slice(2, 5), slice(10, 20), slice(30, 44))
    (proven,) = Proof().prove([mask(inside, contour_volume_mm3=500.0, voxel_volume_mm3=600.0)], phantom())
    assert isinstance(proven, Mask)
    measures = proven.measures
    assert measures["t/body_overlap"] == 1
    assert measures["t/border_mm"] == 2 * 3
    assert measures["t/border_in_plane_mm"] == 6 * 2
    assert measures["t/left_share"] == 1
    assert measures["t/round_trip_dice"] == 1
    assert measures["t/volume_ratio"] == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("rule", "figure"),
    [
        ({"volume_ratio": (0.9, 1.1)}, "volume ratio"),
        ({"planes_on_slice": 0.9}, "planes_on_slice_fraction"),
        ({"body_overlap": 0.9}, "body_overlap"),
        ({"border_mm": 5.0}, "border_mm"),
        ({"gap_mm": 5.9}, "widest_gap_mm"),
        ({"side": {"t": "right"}}, "right side"),
    ],
)
def test_thresholds_exclude_with_the_figure(rule: dict[str, Any], figure: str) -> None:
    inside = block(slice(1, 5), slice(30, 40), slice(30, 44)) | block(slice(7, 8), slice(30, 40), slice(30, 44))
    figures = {"contour_volume_mm3": 500.0, "voxel_volume_mm3": 600.0, "planes_on_slice_fraction": 0.5}
    Proof().prove([mask(inside, **figures)], phantom())
    with pytest.raises(CaseError, match=figure) as caught:
        Proof(**rule).prove([mask(inside, **figures)], phantom())
    assert caught.value.reason is Reason.LABEL_UNPROVEN


@pytest.mark.parametrize(
    ("slices", "empty", "widest"),
    [([4], 0, 0), ([1, 2, 3], 0, 0), ([1, 4, 7], 4, 6), ([0, 1, 5, 7], 4, 9), ([0, 9], 8, 24)],
)
def test_gaps_along_the_slices_are_measured(slices: list[int], empty: int, widest: float) -> None:
    inside = np.zeros(GEOMETRY.shape, bool)
    inside[slices, 10:20, 10:20] = True
    (proven,) = Proof(gap_mm=widest).prove([mask(inside)], phantom())
    assert proven.measures["t/empty_slices"] == empty
    assert proven.measures["t/widest_gap_mm"] == widest
    if widest:
        with pytest.raises(CaseError, match=f"found widest_gap_mm {widest}, expected at most 2"):
            Proof(gap_mm=2).prove([mask(inside)], phantom())


def test_all_figures_beyond_their_thresholds_are_named() -> None:
    inside = block(slice(1, 5), slice(30, 40), slice(30, 44))
    with pytest.raises(CaseError) as caught:
        Proof(body_overlap=0.9, border_mm=5, side={"t": "right"}).prove([mask(inside)], phantom())
    assert [part.split()[2] for part in caught.value.detail.split("; ")] == ["body_overlap", "border_mm", "share"]


def test_boxes_and_points_have_figures_and_thresholds() -> None:
    unit = corner_voxels((2, 2, 2))
    inside = GEOMETRY.to_world(unit * [3, 4, 5] + [1.5, 9.5, 29.5])[None]
    (proven,) = Proof(body_overlap=0.9, inside=1, side={"b": "left"}).prove([Boxes("b", inside, ("x",))], phantom())
    assert isinstance(proven, Boxes)
    assert proven.measures == {
        "all/boxes": 1, "all/body_overlap": 1, "all/border_mm": 6, "all/inside_fraction": 1, "all/left_share": 1,
    }  # fmt: skip
    for far in (Boxes("b", inside + 1000, ("x",)), Landmarks("l", inside[0, :1] + 1000, ("x",))):
        (kept,) = Proof().prove([far], phantom())
        assert kept.measures["all/inside_fraction"] == 0
        with pytest.raises(CaseError, match="inside_fraction") as caught:
            Proof(inside=1).prove([far], phantom())
        assert caught.value.reason is Reason.LABEL_UNPROVEN
    air = GEOMETRY.to_world(corner_voxels((3, 3, 3)))[None]
    with pytest.raises(CaseError, match="body_overlap"):
        Proof(body_overlap=0.9).prove([Boxes("b", air, ("x",))], phantom())
    with pytest.raises(CaseError, match="right side"):
        Proof(side={"l": "right"}).prove([Landmarks("l", inside[0, :1], ("x",))], phantom())


def test_points_are_inside_up_to_the_edges_of_the_outermost_voxels_and_count_half_on_the_midline() -> None:
    last = np.array(GEOMETRY.shape) - 1.0
    for axis in range(3):
        for beyond, inside in ((0.5, 1), (0.6, 0)):
            for corner, step in ((np.zeros(3), -beyond), (last, beyond)):
                point = corner + step * np.eye(3)[axis]
                (proven,) = Proof().prove([Landmarks("l", GEOMETRY.to_world(point[None]), ("x",))], phantom())
                assert proven.measures["all/inside_fraction"] == inside, point
    middle = np.array([[1, 9, 24.5], [1, 9, 24.5], [1, 9, 40], [1, 9, 10]])
    (proven,) = Proof().prove([Landmarks("l", GEOMETRY.to_world(middle), ("a", "b", "c", "d"))], phantom())
    assert proven.measures["all/left_share"] == 0.5


@pytest.mark.parametrize(("meaning", "side"), [("Left kidney", "left"), ("Lung, right", "right"), ("Liver", None)])
def test_a_coded_side_is_held_against_the_place(meaning: str, side: str | None) -> None:
    inside = block(slice(2, 5), slice(10, 20), slice(30, 44))
    segment = Segment("t", type=Code("1", "SCT", meaning))
    drawn = Mask("m", inside[None].astype(np.uint8), GEOMETRY, (segment,))
    (proven,) = Proof().prove([drawn], phantom())
    assert coded_side(segment) == side
    share = {"left": 1.0, "right": 0.0, None: None}[side]
    assert proven.measures.get("t/on_coded_side") == share
    if side == "right":
        with pytest.raises(CaseError, match="coded side"):
            Proof(coded_side="required").prove([drawn], phantom())


def test_the_middle_of_the_body_is_found_whatever_the_slices_run_along() -> None:
    axial = phantom()
    affine = GEOMETRY.affine[:, [2, 1, 0, 3]]
    sagittal = Geometry((50, 40, 10), affine)
    volume = Volume(np.ascontiguousarray(axial.voxels.transpose(0, 3, 2, 1)), sagittal, axial.domain)
    assert Body(volume).middle_mm == pytest.approx(Body(axial).middle_mm, abs=1.5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["axial", "oblique", "tilted"]))
def test_any_mask_survives_the_round_trip_through_patient_space(seed: int, kind: str) -> None:
    options: dict[str, Any] = {
        "axial": {},
        "oblique": {"orientation": synthetic.OBLIQUE},
        "tilted": {"tilt_degrees": 18},
    }
    geometry = synthetic.ct_series(slices=4, **options[kind]).geometry
    inside = np.random.default_rng(seed).random(geometry.shape) < 0.3
    assert round_trip_dice(inside, geometry) == 1.0


def test_tumours_of_the_cohort_lie_in_their_bodies(corpus: Any) -> None:
    for series in ("STS_008/CT", "STS_041/CT"):
        folder = corpus("sts") / "sts_cohort" / series
        image = image_facts(folder / "image")
        slices = [pydicom.dcmread(p) for p in (folder / "image").iterdir()]
        slices.sort(key=lambda d: image.uid_to_slice[str(d.SOPInstanceUID)])
        voxels = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in slices])
        volume = Volume(voxels[None].astype(np.float32), image.geometry, ValueDomain.HOUNSFIELD)
        dataset = pydicom.dcmread(next((folder / "mask").iterdir()), force=True)
        drawn = RtStruct(roi={"t": "."}).read("t", [LabelObject(dataset)], image)
        strict = Proof(volume_ratio=(0.9, 1.1), planes_on_slice=1, round_trip_dice=1, body_overlap=0.99)
        (proven,) = strict.prove(drawn, volume)
        # the cohort is cropped 5 cm round each tumour, and resampled to whole voxels
        assert proven.measures["t/border_in_plane_mm"] == pytest.approx(50, abs=2)
