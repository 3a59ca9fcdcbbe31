"""Rigid registration by mutual information, with SimpleITK.

Source: Mattes et al., "PET-CT image registration in the chest using free-form deformations", IEEE TMI 22 (2003), for
the metric; ITK's ImageRegistrationMethodv4 for the search.
"""

import math
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from builder.errors import CaseError, MissingExtra, Reason
from builder.model.case import Volume
from builder.model.geometry import Geometry
from builder.protocols import Registered, Shape
from builder.registrars.registrar import RegistrarBlock

EXTRA: Final = "registration"

BINS: Final = 32
"""Grey levels of the joint histogram, in each direction."""

SAMPLED: Final = 0.2
"""Share of the voxels that each step compares, on a regular pattern: random ones would not give the same bytes."""

SHRINK: Final = (4, 2, 1)
"""How many times coarser the images are at each level of the search."""

STEPS: Final = 200
"""Most steps of a level."""

LEAST_SHAPE: Final = 4
"""Fewest voxels along an axis of either image; with fewer, a shift along it cannot be told."""


class Rigid(RegistrarBlock):
    """Turns and shifts an image until it matches the reference best, by the mutual information of grey levels."""

    VERSION: ClassVar[int] = 1

    kind: Literal["rigid"] = "rigid"
    start: Literal["world", "centres"] = "world"
    """Where the search begins. ``world``: where both images say they lie; ``centres``: with the middle of one grid on
    the middle of the other."""
    spacing_mm: Annotated[float, Field(gt=0, le=20, allow_inf_nan=False)] = 2.0
    """Voxels closer than this many mm are thinned out before the search, which saves time and memory."""
    most_mm: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 50.0
    """Farthest that the middle of the image may move from where the search began; beyond it the case is left out."""
    most_degrees: Annotated[float, Field(gt=0, le=180, allow_inf_nan=False)] = 30.0
    """Largest angle by which the image may turn; beyond it the case is left out."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Return SimpleITK, whose version decides the result. Raises MissingExtra."""
        try:
            return (f"SimpleITK=={version('SimpleITK')}",)
        except PackageNotFoundError as error:
            raise MissingExtra("SimpleITK", EXTRA) from error

    def scratch_bytes(self, fixed: Shape, moving: Shape) -> int:
        """Return five float32 copies of both images: as they are, smoothed, shrunk, and the gradients of one."""
        return 5 * 4 * (math.prod(fixed) + math.prod(moving))

    def __call__(self, fixed: Volume, moving: Volume) -> Registered:
        """Return how the moving image lies on the fixed one.

        Only the first channel of each is compared. One thread computes, so that every run gives the same numbers. That
        number of threads holds for all of SimpleITK in this process.

        Raises
        ------
        CaseError
            IMAGE_NOT_ALIGNED if the images are too small, do not overlap, match no better than where the search began,
            or had to move too far.
        MissingExtra
            If SimpleITK is not installed.
        """
        sitk = _simpleitk()
        images = [_thinned(volume, self.spacing_mm) for volume in (fixed, moving)]
        if min(n for voxels, _ in images for n in voxels.shape) < LEAST_SHAPE:
            raise _failed(f"found an image with fewer than {LEAST_SHAPE} slices, rows or columns", "larger ones")
        one, other = (_as_image(sitk, voxels, grid) for voxels, grid in images)
        begin = sitk.Euler3DTransform()
        begin.SetCenter(_middle(images[0][1]).tolist())
        if self.start == "centres":
            begin.SetTranslation((_middle(images[1][1]) - _middle(images[0][1])).tolist())
        try:
            found, before, after = _search(sitk, one, other, begin)
        except RuntimeError as error:
            raise _failed("found images of which too little overlaps", "images that show the same place") from error
        if not after < before:
            raise _failed("found no better match than where the search began", "one; state another start")
        return self._checked(np.asarray(_matrix(found)), np.asarray(_matrix(begin)), images[1][1], before / after)

    def _checked(self, out: NDArray[Any], begun: NDArray[Any], moving: Geometry, ratio: float) -> Registered:
        """Return the result as the way of the moving image, if it did not move too far."""
        matrix = np.linalg.inv(out)  # ITK leads from points of the fixed image to those of the moving one
        change = matrix @ begun
        middle = np.append(np.linalg.inv(begun)[:3] @ np.append(_middle(moving), 1.0), 1.0)
        shift = float(np.linalg.norm((change @ middle - middle)[:3]))
        degrees = math.degrees(math.acos(min(1.0, max(-1.0, (np.trace(change[:3, :3]) - 1) / 2))))
        if shift > self.most_mm or degrees > self.most_degrees:
            raise _failed(
                f"found a match {shift:.1f} mm and {degrees:.1f} degrees away",
                f"at most {self.most_mm:g} mm (most_mm) and {self.most_degrees:g} degrees (most_degrees)",
            )
        return Registered(tuple(float(v) for v in matrix.ravel()), shift, degrees, 1.0 / ratio)


def _search(sitk: Any, fixed: Any, moving: Any, begin: Any) -> tuple[Any, float, float]:
    """Return the transform from fixed to moving points, and the metric before and after; lower is better."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(SAMPLED, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, STEPS, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(SHRINK)
    method.SetSmoothingSigmasPerLevel([factor / 2 if factor > 1 else 0.0 for factor in SHRINK])
    method.SetInitialTransform(begin, inPlace=False)
    before = method.MetricEvaluate(fixed, moving)
    found = sitk.Euler3DTransform(sitk.CompositeTransform(method.Execute(fixed, moving)).GetBackTransform())
    method.SetInitialTransform(found, inPlace=False)
    return found, float(before), float(method.MetricEvaluate(fixed, moving))


def _thinned(volume: Volume, spacing_mm: float) -> tuple[NDArray[np.float32], Geometry]:
    """Return the first channel of a volume with voxels that are no closer than they need be, and its grid."""
    grid = volume.geometry
    stride = [
        max(1, min(math.floor(spacing_mm / own), n // LEAST_SHAPE))
        for own, n in zip(grid.spacing_mm, grid.shape, strict=True)
    ]
    voxels = volume.voxels[0][tuple(slice(None, None, n) for n in stride)].astype(np.float32)
    affine = grid.affine @ np.diag([*stride, 1.0])
    return voxels, Geometry((voxels.shape[0], voxels.shape[1], voxels.shape[2]), affine, grid.frame_of_reference)


def _as_image(sitk: Any, voxels: NDArray[np.float32], grid: Geometry) -> Any:
    """Return voxels as an ITK image, whose axes are (column, row, slice)."""
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetDirection(grid.directions[:, ::-1].ravel().tolist())
    image.SetOrigin(grid.affine[:3, 3].tolist())
    return image


def _middle(grid: Geometry) -> NDArray[np.float64]:
    """Return the middle of a grid in LPS mm."""
    return np.asarray(grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + grid.affine[:3, 3])


def _matrix(transform: Any) -> NDArray[np.float64]:
    """Return an ITK transform as a matrix; its translation acts after a turn about its centre."""
    turn, centre = np.reshape(transform.GetMatrix(), (3, 3)), np.array(transform.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = np.array(transform.GetTranslation()) + centre - turn @ centre
    return matrix


def _simpleitk() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise MissingExtra("SimpleITK", EXTRA) from error
    # several threads would add up the metric in another order each time, and the option of a search does not reach it
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return SimpleITK


def _failed(found: str, expected: str) -> CaseError:
    return CaseError(Reason.IMAGE_NOT_ALIGNED, f"registrar: {found}, expected {expected}")
