"""Label readers: one file a kind, one line each in ``LABELS``."""

from typing import Annotated, TypeAlias

from pydantic import Field

from builder.labels.boxes import BoxTable
from builder.labels.classes import ClassTable
from builder.labels.landmarks import LandmarkTable
from builder.labels.mask import MaskFile
from builder.labels.recist import Recist
from builder.labels.report import Report
from builder.labels.rtstruct import RtStruct
from builder.labels.seg import Seg

LABELS = {
    "boxes": BoxTable,
    "classes": ClassTable,
    "landmarks": LandmarkTable,
    "mask": MaskFile,
    "recist": Recist,
    "report": Report,
    "rtstruct": RtStruct,
    "seg": Seg,
}
"""Every label reader by the ``kind`` that selects it in a spec."""

AnyLabel: TypeAlias = Annotated[
    BoxTable | ClassTable | LandmarkTable | MaskFile | Recist | Report | RtStruct | Seg, Field(discriminator="kind")
]
"""The block of a spec under ``labels``: the ``kind`` decides which reader it decodes to."""
