"""Registrations: what pydicom and SimpleITK write is read as it was meant, and what is not rigid is refused."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from builder.errors import CaseError, MissingExtra, Reason
from builder.imaging.registration import (
    AGREE_MM,
    Registration,
    agree,
    check_rigid,
    first_of,
    read_registration,
)
from builder.imaging.transform_files import MOST_BYTES, read_itk
from tests.synthetic import registration

ANGLES = st.tuples(*[st.floats(-1.5, 1.5)] * 3)
SHIFTS = st.tuples(*[st.floats(-80, 80)] * 3)


def rigid(angles, shift, centre=(0, 0, 0)) -> tuple[SimpleITK.Euler3DTransform, np.ndarray]:
    """ITK's transform, and its matrix as ITK applies it to points."""
    transform = SimpleITK.Euler3DTransform(centre, *angles, shift)
    origin = np.array(transform.TransformPoint((0, 0, 0)))
    matrix = np.eye(4)
    matrix[:3, 3] = origin
    for axis in range(3):
        matrix[:3, axis] = np.array(transform.TransformPoint(tuple(np.eye(3)[axis]))) - origin
    return transform, matrix


def between(made: Registration, source: str, target: str) -> np.ndarray:
    found = made.between(source, target)
    assert found is not None
    return found


@given(ANGLES, SHIFTS)
def test_an_object_relates_frames_in_both_directions_and_through_a_third(angles, shift):
    matrix = rigid(angles, shift)[1]
    made = read_registration(registration("1.2.3", {"1.2.4": matrix, "1.2.5": np.eye(4)}))
    assert np.allclose(between(made, "1.2.4", "1.2.3"), matrix, atol=1e-6)
    assert np.allclose(between(made, "1.2.3", "1.2.4"), np.linalg.inv(matrix), atol=1e-4)
    assert np.allclose(between(made, "1.2.4", "1.2.5"), matrix, atol=1e-6)
    assert made.between("1.2.4", "1.2.9") is None
    assert made.between("1.2.4", "1.2.4") is None


@given(ANGLES, SHIFTS, st.sampled_from(["euler", "versor", "affine", "translation"]))
def test_itk_files_mean_what_simpleitk_means(tmp_path_factory, angles, shift, kind):
    transform, matrix = rigid(angles, shift, centre=(10.0, -4.0, 7.5))
    if kind == "versor":
        versor = SimpleITK.VersorRigid3DTransform()
        versor.SetMatrix(transform.GetMatrix(), 1e-6)
        versor.SetCenter(transform.GetCenter())
        versor.SetTranslation(transform.GetTranslation())
        transform = versor
    elif kind == "affine":
        affine = SimpleITK.AffineTransform(3)
        affine.SetMatrix(transform.GetMatrix())
        affine.SetCenter(transform.GetCenter())
        affine.SetTranslation(transform.GetTranslation())
        transform = affine
    elif kind == "translation":
        transform, matrix = SimpleITK.TranslationTransform(3, shift), np.eye(4)
        matrix[:3, 3] = shift
    path = Path(tmp_path_factory.getbasetemp()) / "made.tfm"
    SimpleITK.WriteTransform(transform, str(path))
    assert np.allclose(read_itk(path.read_bytes()) @ matrix, np.eye(4), atol=1e-6)


def matrix_item(values, kind: str = "RIGID") -> Dataset:
    step = Dataset()
    step.FrameOfReferenceTransformationMatrixType = kind
    step.FrameOfReferenceTransformationMatrix = [f"{v:.8g}" for v in np.ravel(values)]
    return step


SCALED = np.diag([1.1, 1.1, 1.1, 1.0])
MIRRORED = np.diag([-1.0, 1.0, 1.0, 1.0])
SINGULAR = np.diag([1.0, 1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([matrix_item(SCALED)], "scales, shears or mirrors"),
        ([matrix_item(MIRRORED)], "scales, shears or mirrors"),
        ([matrix_item(SINGULAR)], "scales, shears or mirrors"),
        ([matrix_item(np.eye(4), "AFFINE")], "type AFFINE, expected RIGID"),
        ([matrix_item(np.eye(4)[:3])], "12 numbers"),
        ([], "0 matrices"),
        ([matrix_item(np.eye(4) + np.eye(4)[[3, 0, 1, 2]] * 0.5)], "last row"),
        ([matrix_item(rigid(a, (9, 0, 7))[1]) for a in ((0.4, 0, 0), (0, 0.5, 0))], "order matters"),
    ],
)  # fmt: skip
def test_what_is_not_one_rigid_matrix_is_refused(steps, message):
    made = registration("1.2.3", {"1.2.4": np.eye(4)})
    made.RegistrationSequence[0].MatrixRegistrationSequence[0].MatrixSequence = steps
    with pytest.raises(CaseError, match=message):
        read_registration(made)


def test_objects_that_contradict_themselves_are_refused():
    moved = rigid((0, 0, 0), (5, 0, 0))[1]
    with pytest.raises(CaseError, match="moves the registered frame"):
        read_registration(registration("1.2.3", {"1.2.3": moved, "1.2.4": moved}))
    twice = registration("1.2.3", {"1.2.4": moved, "1.2.5": np.eye(4)})
    twice.RegistrationSequence[1].FrameOfReferenceUID = "1.2.4"
    with pytest.raises(CaseError, match="two matrices for one frame"):
        read_registration(twice)
    other = registration("1.2.3", {"1.2.4": moved})
    other.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.3"
    with pytest.raises(CaseError, match="deformable"):
        read_registration(other)


def test_registrations_agree_within_a_tenth_of_a_millimetre():
    one, two = rigid((0, 0, 0), (5, 0, 0))[1], rigid((0, 0, 0), (5 + AGREE_MM / 2, 0, 0))[1]
    assert agree([one, two])
    assert (first_of([one, two]) == one).all()
    with pytest.raises(CaseError, match="contradict each other"):
        first_of([one, rigid((0, 0, 0), (5.5, 0, 0))[1]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing", "Insight Transform File"),
        (b"#Insight Transform File V1.0\n", "0 transforms"),
        (b"#Insight Transform File V1.0\nTransform: BSplineTransform_double_3_3\nParameters: 1\n", "BSplineTransform"),
        (b"#Insight Transform File V1.0\nTransform: Euler3DTransform_double_3_3\nParameters: 1 a\n", "cannot be read"),
        (b"#Insight Transform File V1.0\nTransform: VersorRigid3DTransform_double_3_3\nParameters: 1 1 0 0 0 0\n",
         "longer than 1"),
    ],
)  # fmt: skip
def test_other_transform_files_are_refused(content, message):
    with pytest.raises(CaseError, match=message):
        read_itk(content)


def test_a_rigid_matrix_may_be_rounded_to_six_digits():
    matrix = rigid((0.3, -0.2, 1.1), (12, 4, -90))[1]
    assert agree([matrix, check_rigid(np.round(matrix, 6))])


def test_a_transform_file_of_more_than_a_mebibyte_is_not_read() -> None:
    begun = b"#Insight Transform File V1.0\n"
    with pytest.raises(CaseError, match="found 0 transforms"):
        read_itk(begun.ljust(MOST_BYTES))
    for start in (begun, b"\x89HDF\r\n\x1a\n"):
        with pytest.raises(CaseError, match="found a transform file of 1048577 bytes"):
            read_itk(start.ljust(MOST_BYTES + 1))


@pytest.mark.parametrize("form", ["tfm", "h5"])
@pytest.mark.parametrize("order", ["ZXY", "ZYX"])
def test_a_composite_of_rigid_transforms_is_their_product_as_simpleitk_applies_it(form, order, tmp_path):
    turned = rigid((0.4, -0.3, 0.7), (5.0, -2.0, 9.0), centre=(10.0, -4.0, 7.5))[0]
    turned.SetComputeZYX(order == "ZYX")
    steps = [turned, SimpleITK.TranslationTransform(3, (4.0, 0.0, -6.0)), rigid((0, 0.5, 0), (1, 2, 3))[0]]
    for made in (turned, SimpleITK.CompositeTransform(steps)):
        path = tmp_path / f"made.{form}"
        SimpleITK.WriteTransform(made, str(path))
        matrix = np.linalg.inv(read_itk(path.read_bytes()))  # the file leads from fixed to moving points
        for point in ((0.0, 0.0, 0.0), (100.0, -50.0, 25.0)):
            assert np.allclose((matrix @ [*point, 1])[:3], made.TransformPoint(point), atol=1e-6)


def other_transforms() -> dict[str, SimpleITK.Transform]:
    field = SimpleITK.Image([3, 3, 3], SimpleITK.sitkVectorFloat64, 3)
    made = {
        "DisplacementFieldTransform": SimpleITK.DisplacementFieldTransform(field),
        "BSplineTransform": SimpleITK.BSplineTransform(3, 3),
        "Similarity3DTransform": SimpleITK.Similarity3DTransform(),
        "Euler2DTransform": SimpleITK.Euler2DTransform(),
        "scales, shears or mirrors": SimpleITK.AffineTransform([1.2, 0, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0]),
    }
    inner = SimpleITK.CompositeTransform([SimpleITK.Euler3DTransform(), made["BSplineTransform"]])
    return made | {"found a transform BSplineTransform": inner}


@pytest.mark.parametrize("form", ["tfm", "h5"])
@pytest.mark.parametrize("name", other_transforms())
def test_what_is_not_rigid_is_refused_by_name(form, name, tmp_path):
    SimpleITK.WriteTransform(other_transforms()[name], str(tmp_path / f"made.{form}"))
    with pytest.raises(CaseError, match=name):
        read_itk((tmp_path / f"made.{form}").read_bytes())


def test_damaged_hdf5_files_cost_nothing_but_themselves(tmp_path):
    SimpleITK.WriteTransform(rigid((0.1, 0, 0), (1, 2, 3))[0], str(tmp_path / "made.h5"))
    whole = (tmp_path / "made.h5").read_bytes()
    random = np.random.default_rng(3)
    for number in range(40):
        damaged = bytearray(whole[: len(whole) - 200 * (number % 4)])
        for place in random.integers(8, len(damaged), 60):
            damaged[place] = random.integers(256)
        with contextlib.suppress(CaseError):  # anything else would stop a plan
            assert np.isfinite(check_rigid(read_itk(bytes(damaged)))).all()
    with pytest.raises(CaseError, match="HDF5 file that SimpleITK does not read") as refused:
        read_itk(whole[:2000])
    assert refused.value.reason is Reason.IMAGE_NOT_ALIGNED


def test_hdf5_needs_the_extra_that_reads_it(monkeypatch, tmp_path):
    SimpleITK.WriteTransform(rigid((0.1, 0, 0), (1, 2, 3))[0], str(tmp_path / "made.h5"))
    monkeypatch.setattr("builder.imaging.transform_files.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"medical-dataset-builder\[registration\]"):
        read_itk((tmp_path / "made.h5").read_bytes())
