"""Define where objects come from, with one module per kind of source and one table that names them."""

from typing import TYPE_CHECKING, Annotated, TypeAlias, Union

from pydantic import BeforeValidator

from builder.plugins import block_of, with_installed
from builder.protocols import Source
from builder.sources.described import Described
from builder.sources.dicomweb import DicomWeb
from builder.sources.dimse import Dimse
from builder.sources.folder import Folder
from builder.sources.idc import Idc
from builder.sources.layout import Layout
from builder.sources.remote_folder import RemoteFolder, elsewhere
from builder.sources.tcia import Tcia
from builder.sources.xnat import Xnat

BUILT_IN: dict[str, type[Described]] = {
    "folder": Folder,
    "remote_folder": RemoteFolder,
    "dicomweb": DicomWeb,
    "dimse": Dimse,
    "tcia": Tcia,
    "idc": Idc,
    "xnat": Xnat,
}
"""The sources that this package contains."""

SOURCES: dict[str, type[Described]] = with_installed("sources", BUILT_IN)
"""All sources, by the ``kind`` that selects them in a spec."""

if TYPE_CHECKING:
    AnySource: TypeAlias = Described
    """A block of a spec under ``sources``. Its ``kind`` decides which source it decodes to."""
else:
    AnySource = Annotated[
        block_of(SOURCES), BeforeValidator(elsewhere, json_schema_input_type=Union[tuple(SOURCES.values())])  # noqa: UP007 (made at run time)
    ]

LaidOut: TypeAlias = Folder | RemoteFolder
"""Sources whose files have names, so that a layout can say who and what they are."""


def layout_in(source: Source) -> Layout | None:
    """Return the layout of a source; None where it has none, or cannot have one."""
    return source.layout if isinstance(source, LaidOut) else None


__all__ = [
    "BUILT_IN",
    "SOURCES",
    "AnySource",
    "DicomWeb",
    "Dimse",
    "Folder",
    "Idc",
    "LaidOut",
    "RemoteFolder",
    "Tcia",
    "Xnat",
    "layout_in",
]
