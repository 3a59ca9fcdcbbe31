"""Label readers: one file a kind, one line each in ``LABELS``."""

from typing import Annotated, TypeAlias

from pydantic import Field

from builder.labels.mask import MaskFile
from builder.labels.rtstruct import RtStruct

LABELS = {
    "mask": MaskFile,
    "rtstruct": RtStruct,
}
"""Every label reader by the ``kind`` that selects it in a spec."""

AnyLabel: TypeAlias = Annotated[MaskFile | RtStruct, Field(discriminator="kind")]
"""The block of a spec under ``labels``: the ``kind`` decides which reader it decodes to."""
