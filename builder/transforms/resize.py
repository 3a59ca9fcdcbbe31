"""Resize pictures to a fixed number of pixels, with their aspect kept and the rest padded."""

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from builder.model.case import Case
from builder.model.geometry import Geometry
from builder.protocols import Shape, Spacing
from builder.transforms.resample import Resample
from builder.transforms.step import Step

Pixels = Annotated[int, Field(ge=1, le=16384)]


class Resize(Step):
    """Resize the rows and columns of every slice to a fixed number of pixels.

    The picture keeps its aspect in millimetres: pixels become square, the longer side fills its axis, and the picture
    lies in the middle of what is padded. Slices (of a film: frames) stay as they are. Masks follow by nearest
    neighbour, and boxes and points by the same map: a place ``x`` along an axis of ``n`` pixels goes to
    ``(x + 0.5 - n / 2) * old spacing / new spacing + pixels / 2 - 0.5``. Where the file states no spacing, it counts as
    the same along both axes.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["resize"]
    pixels: tuple[Pixels, Pixels]
    """(rows, columns) of the result."""
    image: Literal["linear", "cubic", "nearest"] = "linear"
    """How values are interpolated."""
    antialias: Literal["lowpass", "none"] = "lowpass"
    """``lowpass`` filters a picture that shrinks, so that fine texture does not turn into patterns."""
    fill: float | Literal["minimum"] = "minimum"
    """Value of padded pixels; ``minimum`` is the lowest value of the channel. The padding mask is True there."""

    def __call__(self, case: Case) -> Case:
        """Resize the case. Raises CaseError if a mask is on another grid, or if no type holds ``fill``."""
        target = self.make_grid(case.volume.geometry)
        step = Resample(
            kind="resample", spacing_mm=(None, None, None), image=self.image, antialias=self.antialias, fill=self.fill
        )
        return step.to_grid(case, target)

    def make_grid(self, geometry: Geometry) -> Geometry:
        """Return the grid of the result: square pixels about the middle of the picture."""
        _, rows, columns = geometry.shape
        _, down, across = geometry.spacing_mm
        side = self._side((rows * down, columns * across))
        affine = np.array(geometry.affine)
        affine[:3, 1] *= side / down
        affine[:3, 2] *= side / across
        middle = geometry.affine[:3, 3] + geometry.affine[:3, 1:3] @ [(rows - 1) / 2, (columns - 1) / 2]
        affine[:3, 3] = middle - affine[:3, 1:3] @ [(n - 1) / 2 for n in self.pixels]
        return Geometry((geometry.shape[0], *self.pixels), affine, geometry.frame_of_reference)

    def projected(self, shape: Shape, spacing_mm: Spacing) -> tuple[Shape, Spacing]:
        """Return the fixed shape, and the spacing of square pixels."""
        side = self._side((shape[1] * spacing_mm[1], shape[2] * spacing_mm[2]))
        return (shape[0], *self.pixels), (spacing_mm[0], side, side)

    def scratch_bytes(self, before: Shape, after: Shape, *, item: int) -> int:
        """Return the bytes of the float32 stack for filters and splines."""
        if self.image != "cubic" and self.antialias == "none":
            return 0
        both = (math.prod(before) + math.prod(after)) * item
        return min(4 * before[0] * after[1] * after[2], 2 * both)

    def _side(self, extent_mm: tuple[float, float]) -> float:
        """Return the side of a square pixel with which a picture of this extent just fits."""
        return max(extent / pixels for extent, pixels in zip(extent_mm, self.pixels, strict=True))
