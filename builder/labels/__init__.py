"""Label readers: one file a kind, one line each in ``LABELS``."""

from typing import Annotated, TypeAlias

from pydantic import Field

from builder.labels.mask import MaskFile
from builder.labels.report import Report
from builder.labels.rtstruct import RtStruct
from builder.labels.seg import Seg

LABELS = {
    "mask": MaskFile,
    "report": Report,
    "rtstruct": RtStruct,
    "seg": Seg,
}
"""Every label reader by the ``kind`` that selects it in a spec."""

AnyLabel: TypeAlias = Annotated[MaskFile | Report | RtStruct | Seg, Field(discriminator="kind")]
"""The block of a spec under ``labels``: the ``kind`` decides which reader it decodes to."""
