"""What every registrar promises, whichever it is, and how well the shipped one places an image."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from builder.errors import CaseError, Reason
from builder.model.case import Volume
from builder.model.geometry import Geometry
from builder.protocols import Registrar
from builder.registrars import REGISTRARS, AnyRegistrar
from tests.endtoend.test_image_sets import blobs

ADAPTER = TypeAdapter(AnyRegistrar)
BLOCKS = [{"kind": "rigid"}]
SHAPE, SPACING = (16, 40, 40), (2.5, 1.0, 1.1)


def test_every_registrar_of_the_table_is_here():
    assert {block["kind"] for block in BLOCKS} == set(REGISTRARS)


def volume(*, matrix: NDArray[np.float64] | None = None, origin=(-21.0, -19.0, -19.0), contrast: int = 1) -> Volume:
    """An anatomy on a grid; with a matrix, the grid is where another scanner would have placed it."""
    voxels = blobs(SHAPE, SPACING, origin).astype(np.float32)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = SPACING
    affine[:3, 3], affine[3, 3] = origin, 1
    away = np.eye(4) if matrix is None else np.linalg.inv(matrix)
    return Volume(np.where(voxels > 0, contrast * voxels, 0)[None], Geometry(SHAPE, away @ affine, "1.2"))


def rigid(*, angles: tuple[float, ...], shift: tuple[float, ...]) -> NDArray[np.float64]:
    transform = SimpleITK.Euler3DTransform((0, 0, 0), *angles, shift)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.reshape(transform.GetMatrix(), (3, 3)), shift
    return matrix


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block["kind"])
class TestContract:
    def test_is_its_options(self, block):
        registrar = ADAPTER.validate_python(block)
        assert type(registrar) is REGISTRARS[block["kind"]]
        assert isinstance(registrar, Registrar)
        assert registrar.VERSION >= 1
        assert pickle.loads(pickle.dumps(registrar)) == registrar  # noqa: S301
        assert registrar.scratch_bytes((4, 8, 8), (4, 8, 8)) >= 0
        with pytest.raises(ValidationError, match="surprise"):
            ADAPTER.validate_python(block | {"surprise": 1})

    def test_leaves_its_input_alone_and_repeats_itself(self, block):
        fixed, moving = volume(), volume(matrix=rigid(angles=(0, 0, 0.05), shift=(3.0, 0.0, 0.0)), contrast=-2)
        before = [fixed.voxels.tobytes(), moving.voxels.tobytes(), moving.geometry.affine.tobytes()]
        registrar = ADAPTER.validate_python(block)
        first, again = registrar(fixed, moving), registrar(fixed, moving)
        assert first == again
        assert before == [fixed.voxels.tobytes(), moving.voxels.tobytes(), moving.geometry.affine.tobytes()]
        turn = np.reshape(first.matrix, (4, 4))[:3, :3]
        assert np.allclose(turn.T @ turn, np.eye(3), atol=1e-9)
        assert math.isclose(np.linalg.det(turn), 1, abs_tol=1e-9)

    def test_finds_a_known_move_of_another_contrast(self, block):
        matrix = rigid(angles=(0.04, -0.03, 0.1), shift=(5.0, -6.0, 4.0))
        moving = volume(matrix=matrix, origin=(-20.3, -20.1, -18.2), contrast=-2)
        found = ADAPTER.validate_python(block)(volume(), moving)
        corners = np.array([(x, y, z, 1.0) for x in (-12, 12) for y in (-10, 10) for z in (-12, 12)])
        there = corners @ np.linalg.inv(matrix).T
        placed = there @ np.reshape(found.matrix, (4, 4)).T
        assert np.linalg.norm(placed - corners, axis=1).max() < 0.6
        assert found.gain > 1.2
        assert 4 < found.shift_mm < 14
        assert 5 < found.degrees < 8

    def test_does_not_trust_what_shows_nothing(self, block):
        registrar = ADAPTER.validate_python(block)
        far = volume(matrix=rigid(angles=(0, 0, 0), shift=(500.0, 0.0, 0.0)))
        thin = volume()
        thin = replace(thin, voxels=thin.voxels[:, :2], geometry=Geometry((2, *SHAPE[1:]), thin.geometry.affine))
        for moving in (far, thin):
            with pytest.raises(CaseError) as error:
                registrar(volume(), moving)
            assert error.value.reason == Reason.IMAGE_NOT_ALIGNED


def test_a_match_that_is_too_far_away_is_refused_and_another_start_finds_it():
    moving = volume(matrix=rigid(angles=(0, 0, 0.02), shift=(9.0, 0.0, 0.0)))
    with pytest.raises(CaseError, match=r"mm and .* degrees away, expected at most 2 mm"):
        ADAPTER.validate_python({"kind": "rigid", "most_mm": 2})(volume(), moving)
    far = volume(matrix=rigid(angles=(0, 0, 0.02), shift=(500.0, 0.0, 0.0)))
    found = ADAPTER.validate_python({"kind": "rigid", "start": "centres"})(volume(), far)
    assert found.shift_mm < 2
    assert abs(np.reshape(found.matrix, (4, 4))[0, 3] - 500) < 1
