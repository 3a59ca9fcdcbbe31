"""Read rigid transforms out of ITK's transform files, in text (.tfm, .txt) and in HDF5 (.h5).

Source: ITK's TxtTransformIO, HDF5TransformIO and CompositeTransform, and the classes of the transforms that they name.
"""

import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from builder.decode.fragile import decode_apart
from builder.errors import CaseError, MissingExtra, Reason
from builder.headers.boundary import parsing
from builder.imaging.registration import Matrix, check_rigid, refused

MOST_BYTES: Final = 1 << 20
"""Largest file that is read; a rigid transform takes less than 10 kB in either form."""

MOST_STEPS: Final = 64
"""Most transforms in one file."""

EXTRA: Final = "registration"
"""The extra whose library reads HDF5."""

_TEXT: Final = b"#Insight Transform File"
_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_COMPOSITE: Final = "CompositeTransform"
_SIZES: Final = {
    "TranslationTransform": 3,
    "Euler3DTransform": 6,
    "VersorRigid3DTransform": 6,
    "AffineTransform": 12,
    "MatrixOffsetTransformBase": 12,
    "Rigid3DTransform": 12,
}
"""How many parameters each kind of transform has that may be rigid."""


class _Step(NamedTuple):
    """One transform of a file: its class without the types of its numbers, and what it is made of."""

    kind: str
    parameters: Sequence[float]
    fixed: Sequence[float]


def read_itk(content: bytes) -> Matrix:
    """Return the matrix from the moving to the fixed image that a transform file of ITK holds.

    ITK stores the way from points of the fixed image to those of the moving one, so the matrix here is the inverse. A
    composite of rigid transforms is their product.

    Raises
    ------
    CaseError
        IMAGE_NOT_ALIGNED if the file is in another form or too large, or holds a transform that is not rigid, or
        several that are not a composite.
    MissingExtra
        If the file is HDF5 and SimpleITK, which reads it, is not installed.
    """
    if len(content) > MOST_BYTES:
        raise refused(f"found a transform file of {len(content)} bytes", f"at most {MOST_BYTES}, as rigid ones have")
    with parsing(Reason.IMAGE_NOT_ALIGNED, "found a transform file that cannot be read"):
        if content.startswith(_HDF5):
            return np.asarray(np.linalg.inv(_from_hdf5(content)))
        return np.asarray(np.linalg.inv(_product(_text_steps(content))))


def _from_hdf5(content: bytes) -> Matrix:
    """Read HDF5 in the process apart: nothing proves of such a file that its library survives it."""
    if find_spec("SimpleITK") is None:
        raise MissingExtra("SimpleITK", EXTRA)
    try:
        return decode_apart(matrix_of_hdf5, content)
    except CaseError as error:
        if error.reason is Reason.IMAGE_NOT_ALIGNED:
            raise
        raise refused("found an HDF5 file on which its reader ends", "a transform file of ITK") from error


def matrix_of_hdf5(content: bytes) -> Matrix:
    """Return the matrix from fixed to moving points of an HDF5 file, read by SimpleITK. May raise CaseError."""
    import SimpleITK

    with parsing(Reason.IMAGE_NOT_ALIGNED, "found an HDF5 file that SimpleITK does not read as a transform"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "transform.h5"  # SimpleITK reads files only
            path.write_bytes(content)
            read = SimpleITK.ReadTransform(str(path))
        return _product(list(_itk_steps(SimpleITK, read)))


def _itk_steps(sitk: Any, read: Any) -> Iterator[_Step]:
    """Yield the transforms of one that SimpleITK has read; of those that are not rigid only the name."""
    if read.GetName() == _COMPOSITE:
        whole = sitk.CompositeTransform(read)  # files hold none within another
        parts = [whole.GetNthTransform(i) for i in range(min(whole.GetNumberOfTransforms(), MOST_STEPS + 1))]
    else:
        parts = [read]
    for part in parts:
        kind = part.GetName()
        known = kind in _SIZES and part.GetDimension() == 3
        yield _Step(kind, part.GetParameters() if known else (), part.GetFixedParameters() if known else ())


def _text_steps(content: bytes) -> list[_Step]:
    """Return the transforms of a file in text form: one, or those of a composite, which is named first."""
    if not content.startswith(_TEXT):
        raise refused(f"found a transform file without '{_TEXT.decode()}' as its beginning", "ITK's text form or HDF5")
    steps: list[_Step] = []
    for line in content.decode("ascii").splitlines():
        key, colon, value = line.partition(":")
        if colon and key == "Transform":
            steps.append(_Step(value.strip().partition("_")[0], (), ()))
        elif colon and steps and key == "Parameters":
            steps[-1] = steps[-1]._replace(parameters=[float(v) for v in value.split()])
        elif colon and steps and key == "FixedParameters":
            steps[-1] = steps[-1]._replace(fixed=[float(v) for v in value.split()])
    if steps and steps[0].kind == _COMPOSITE:
        return steps[1:]
    if len(steps) != 1:
        raise refused(f"found {len(steps)} transforms in a file", "one, or a composite")
    return steps


def _product(steps: Sequence[_Step]) -> Matrix:
    """Return the matrix of transforms of which ITK applies the last one first."""
    if not 1 <= len(steps) <= MOST_STEPS:
        raise refused(f"found a composite of {len(steps)} transforms", f"1 to {MOST_STEPS}")
    product = np.eye(4)
    for step in steps:
        product = product @ _matrix_of(step)
    return product


def _matrix_of(step: _Step) -> Matrix:
    """Return one transform as a matrix; its translation acts after a turn about its centre."""
    turn, shift = _turn_of(step)
    centre = np.array([*step.fixed, 0.0, 0.0, 0.0][:3])
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = shift + centre - turn @ centre
    return check_rigid(matrix)


def _turn_of(step: _Step) -> tuple[Matrix, NDArray[np.float64]]:
    """Return the (3, 3) rotation and the translation of a transform."""
    kind, parameters = step.kind, step.parameters
    if kind not in _SIZES or len(parameters) != _SIZES[kind]:
        named = kind if kind.isidentifier() else "?"
        raise refused(f"found a transform {named} with {len(parameters)} parameters", f"one of {', '.join(_SIZES)}")
    shift = np.array(parameters[-3:])
    if kind == "TranslationTransform":
        return np.eye(3), shift
    if kind == "Euler3DTransform":
        return _euler(parameters[:3], zyx=len(step.fixed) > 3 and step.fixed[3] != 0), shift
    if kind == "VersorRigid3DTransform":
        return _versor(parameters[:3]), shift
    return np.array(parameters[:9]).reshape(3, 3), shift


def _euler(angles: Sequence[float], *, zyx: bool) -> Matrix:
    """Return ITK's rotation by three angles in radians: Z X Y by default, Z Y X where the file says ``ComputeZYX``."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(z @ y @ x if zyx else z @ x @ y)


def _versor(vector: Sequence[float]) -> Matrix:
    """Return the rotation of a unit quaternion whose scalar part is not negative."""
    x, y, z = vector
    length = x * x + y * y + z * z
    if length > 1:
        raise refused("found a versor longer than 1", "a unit quaternion")
    w = np.sqrt(1 - length)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + 2 * w * cross + 2 * cross @ cross)
