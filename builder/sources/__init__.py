"""Where objects come from: one file a kind of source, named in one table."""

from typing import TypeAlias

from builder.sources.folder import Folder

SOURCES = {"folder": Folder}
"""Kind to model: the literal table of sources."""

AnySource: TypeAlias = Folder
"""Every source; the spec decodes a block to one of them by its ``kind``."""
