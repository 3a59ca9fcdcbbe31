"""What is done to a case between its labels and its samples. One file a transform; this table names them all.

A transform moves the image, its padding, the masks, boxes and landmarks of a case together. Boxes and landmarks are
held in LPS mm, so their coordinates change only where something is cut off.
"""

from typing import Annotated, TypeAlias

from pydantic import Field

from builder.transforms.crop import Crop
from builder.transforms.intensity import Intensity
from builder.transforms.orient import Orient
from builder.transforms.resample import Resample

AnyTransform: TypeAlias = Annotated[Orient | Resample | Crop | Intensity, Field(discriminator="kind")]

TRANSFORMS = {"orient": Orient, "resample": Resample, "crop": Crop, "intensity": Intensity}

__all__ = ["TRANSFORMS", "AnyTransform", "Crop", "Intensity", "Orient", "Resample"]
