"""Where objects come from: one file a kind of source, named in one table."""

from typing import TYPE_CHECKING, TypeAlias

from builder.plugins import block_of, with_installed
from builder.sources.described import Described
from builder.sources.dicomweb import DicomWeb
from builder.sources.dimse import Dimse
from builder.sources.folder import Folder
from builder.sources.idc import Idc
from builder.sources.tcia import Tcia

BUILT_IN: dict[str, type[Described]] = {
    "folder": Folder,
    "dicomweb": DicomWeb,
    "dimse": Dimse,
    "tcia": Tcia,
    "idc": Idc,
}
"""The sources of this package."""

SOURCES: dict[str, type[Described]] = with_installed("sources", BUILT_IN)
"""Every source by the ``kind`` that selects it in a spec."""

if TYPE_CHECKING:
    AnySource: TypeAlias = Described
    """A block of a spec under ``sources``: the ``kind`` decides which source it decodes to."""
else:
    AnySource = block_of(SOURCES)

__all__ = ["BUILT_IN", "SOURCES", "AnySource", "DicomWeb", "Dimse", "Folder", "Idc", "Tcia"]
