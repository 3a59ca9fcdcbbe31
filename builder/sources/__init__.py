"""Where objects come from: one file a kind of source, named in one table."""

from typing import Annotated, TypeAlias

from pydantic import Field

from builder.sources.dicomweb import DicomWeb
from builder.sources.dimse import Dimse
from builder.sources.folder import Folder
from builder.sources.idc import Idc
from builder.sources.tcia import Tcia

__all__ = ["SOURCES", "AnySource", "DicomWeb", "Dimse", "Folder", "Idc", "Tcia"]

SOURCES = {"folder": Folder, "dicomweb": DicomWeb, "dimse": Dimse, "tcia": Tcia, "idc": Idc}
"""Kind to model: the literal table of sources."""

AnySource: TypeAlias = Annotated[Folder | DicomWeb | Dimse | Tcia | Idc, Field(discriminator="kind")]
"""Every source; the spec decodes a block to one of them by its ``kind``."""
