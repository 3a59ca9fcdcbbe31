"""Label readers. Each kind has its own file and one line in ``BUILT_IN``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from builder.labels.aim import Aim
from builder.labels.boxes import BoxTable
from builder.labels.classes import ClassTable
from builder.labels.key_object import KeyObject
from builder.labels.label import Label
from builder.labels.landmarks import LandmarkTable
from builder.labels.mask import MaskFile
from builder.labels.place import Place
from builder.labels.polygons import PolygonTable
from builder.labels.presentation import Presentation
from builder.labels.recist import Recist
from builder.labels.report import Report
from builder.labels.rtstruct import RtStruct
from builder.labels.seg import Seg
from builder.labels.sr import StructuredReport
from builder.labels.text import ReportText, TextTable
from builder.plugins import block_of, with_installed

BUILT_IN: dict[str, type[Label]] = {
    "aim": Aim,
    "boxes": BoxTable,
    "classes": ClassTable,
    "key_object": KeyObject,
    "landmarks": LandmarkTable,
    "mask": MaskFile,
    "place": Place,
    "polygons": PolygonTable,
    "presentation": Presentation,
    "recist": Recist,
    "report": Report,
    "rtstruct": RtStruct,
    "seg": Seg,
    "sr": StructuredReport,
    "text": ReportText,
    "text_table": TextTable,
}
"""The label readers that ship with this package, by ``kind``."""

LABELS: dict[str, type[Label]] = with_installed("labels", BUILT_IN)
"""Every label reader, built in or installed as a plug-in, by the ``kind`` that selects it in a spec."""


def class_fields(labels: "Mapping[str, AnyLabel]") -> tuple[pa.Field, ...]:
    """Return the columns of all class labels that the plan reads, in the order of the spec."""
    return tuple(field for name, reader in labels.items() for field in reader.class_fields(name))


if TYPE_CHECKING:
    AnyLabel: TypeAlias = Label
    """An entry under ``labels`` in a spec. Its ``kind`` decides which reader it decodes to."""
else:
    AnyLabel = block_of(LABELS)
