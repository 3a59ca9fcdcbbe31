"""A tilted gantry from files on: the image and what was drawn on it stay together, kept sheared or made orthogonal."""

import numpy as np
import pytest

from builder.imaging.rows import instances_of
from builder.imaging.stacks.series import split_stacks
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.volume import assemble
from builder.labels.rtstruct import RtStruct
from builder.labels.seg import Seg
from builder.model.case import Case, Mask
from builder.protocols import ImageFacts, LabelObject
from builder.transforms.resample import Resample
from tests import synthetic

RADIUS_MM = 14.0


def ball(made: synthetic.Stack) -> tuple[np.ndarray, np.ndarray]:
    """The centre of the grid in mm, and the voxels whose centres are within the radius of it."""
    shape = made.geometry.shape
    centre = made.geometry.to_world([[(n - 1) / 2 for n in shape]])[0]
    places = made.geometry.to_world(np.indices(shape).reshape(3, -1).T)
    return centre, (np.linalg.norm(places - centre, axis=1) <= RADIUS_MM).reshape(shape)


@pytest.mark.parametrize("form", ["rtstruct", "seg"])
@pytest.mark.parametrize("tilt", [18.0, -12.0])
@pytest.mark.parametrize("spacing_mm", [None, (1.0, 1.0, 1.0)])
def test_labels_go_through_the_same_transform(
    form: str, tilt: float, spacing_mm: tuple[float, float, float] | None
) -> None:
    blank = synthetic.ct_series(slices=24, shape=(56, 56), spacing=(2.0, 1.0, 1.0), tilt_degrees=tilt)
    centre, inside = ball(blank)
    made = synthetic.ct_series(
        slices=24, shape=(56, 56), spacing=(2.0, 1.0, 1.0), tilt_degrees=tilt, voxels=np.where(inside, 900.0, -900.0)
    )
    (stack,) = split_stacks(instances_of(made.images))
    assert stack.verdict == Verdict.SHEARED
    volume = assemble(stack, made.images)
    if form == "seg":
        drawn = synthetic.seg(made, {"Ball": inside})
        reader: Seg | RtStruct = Seg(kind="seg", segments={"ball": "Ball"})
    else:
        drawn = synthetic.rtstruct(made, {"Ball": _rings(made, centre)})
        reader = RtStruct(kind="rtstruct", roi={"ball": "Ball"})
    facts = ImageFacts(volume.geometry, stack.series_uid, stack.uid_to_slice, "CT")
    case = Case("c", volume, reader.read("ball", [LabelObject(drawn, "a.dcm")], facts))
    if spacing_mm is not None:
        case = Resample(kind="resample", spacing_mm=spacing_mm, image="linear", mask="linear")(case)
    assert case.volume.geometry.is_orthogonal == (spacing_mm is not None)
    (mask,) = (a for a in case.annotations if isinstance(a, Mask))
    bright, labelled = case.volume.voxels[0] > 0, mask.voxels[0] > 0
    dice = 2 * np.count_nonzero(bright & labelled) / (np.count_nonzero(bright) + np.count_nonzero(labelled))
    assert dice > 0.95
    for found in (bright, labelled):
        middle = case.volume.geometry.to_world(np.argwhere(found)).mean(axis=0)
        np.testing.assert_allclose(middle, centre, atol=0.2)


def _rings(made: synthetic.Stack, centre: np.ndarray) -> list[np.ndarray]:
    """Where the ball's surface cuts the tilted image planes."""
    row, column = made.geometry.directions[:, 1], made.geometry.directions[:, 2]
    normal = np.cross(column, row)
    turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    rings = []
    for k in range(made.geometry.shape[0]):
        offset = float((made.geometry.to_world([[k, 0, 0]])[0] - centre) @ normal)
        if abs(offset) < RADIUS_MM:
            radius = np.sqrt(RADIUS_MM**2 - offset**2)
            around = np.outer(np.cos(turn), column) + np.outer(np.sin(turn), row)
            rings.append(centre + offset * normal + radius * around)
    return rings
