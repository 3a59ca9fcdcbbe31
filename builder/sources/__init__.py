"""Where objects come from: one file a kind of source, named in one table."""

from typing import Annotated, TypeAlias

from pydantic import Field

from builder.sources.dicomweb import DicomWeb
from builder.sources.folder import Folder

__all__ = ["SOURCES", "AnySource", "DicomWeb", "Folder"]

SOURCES = {"folder": Folder, "dicomweb": DicomWeb}
"""Kind to model: the literal table of sources."""

AnySource: TypeAlias = Annotated[Folder | DicomWeb, Field(discriminator="kind")]
"""Every source; the spec decodes a block to one of them by its ``kind``."""
