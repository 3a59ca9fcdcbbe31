"""Transforms that are applied to a case after its labels are read and before its samples are cut.

Each transform has its own file and is listed here. A transform moves the image, its padding, and the masks, boxes and
landmarks of a case together. Boxes and landmarks are held in LPS mm, so their coordinates change only where they are
cut off.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from builder.plugins import block_of, with_installed
from builder.transforms.crop import Crop
from builder.transforms.intensity import Intensity
from builder.transforms.orient import Orient
from builder.transforms.radiomics import Radiomics
from builder.transforms.resample import Resample
from builder.transforms.resize import Resize
from builder.transforms.step import Step

BUILT_IN: dict[str, type[Step]] = {
    "orient": Orient, "resample": Resample, "resize": Resize, "crop": Crop, "intensity": Intensity,
    "radiomics": Radiomics,
}  # fmt: skip
"""The transforms of this package."""

TRANSFORMS: dict[str, type[Step]] = with_installed("transforms", BUILT_IN)
"""Every transform by the ``kind`` that selects it in a spec."""


def steps_for(transforms: "Sequence[AnyTransform]", image: str) -> "tuple[AnyTransform, ...]":
    """Return the transforms that apply to an image of a case; "" names the only image."""
    names = {image, image.rpartition(".")[2]}  # a step for t1 is for baseline.t1 and followup.t1
    return tuple(t for t in transforms if not isinstance(t, Intensity) or not t.of or names & {*t.of})


if TYPE_CHECKING:
    AnyTransform: TypeAlias = Step
    """A block under ``transforms`` in a spec. Its ``kind`` selects the transform."""
else:
    AnyTransform = block_of(TRANSFORMS)

__all__ = [
    "BUILT_IN",
    "TRANSFORMS",
    "AnyTransform",
    "Crop",
    "Intensity",
    "Orient",
    "Radiomics",
    "Resample",
    "Resize",
    "steps_for",
]
