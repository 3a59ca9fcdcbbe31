"""Choice of the reader for a file by its first bytes, because names can be wrong."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from builder.files.facts import FileFacts, unreadable
from builder.files.grid import FileGrid, geometry_of, stored_voxels
from builder.files.metaimage import is_metaimage, metaimage_facts
from builder.files.nifti import is_nifti, nifti_facts
from builder.files.nrrd import nrrd_facts, nrrd_segments
from builder.files.pictures import picture_facts, picture_labels, picture_voxels

VOLUMES = frozenset({"nifti", "nrrd", "mha", "mhd"})
"""Formats (``builder.headers.sniff``) of files with a grid in the patient."""

PICTURES = frozenset({"png", "jpeg", "tiff"})
"""Formats of files with pixels and no place in the patient."""

FACTS_BYTES = 4 * 2**20
"""Bytes from the start of a volume file that hold its header; a picture is decoded whole."""


def read_facts(content: bytes) -> FileFacts:
    """Return what the header of an image file says; ``content`` is a picture, or the first bytes of a volume file.

    Raises
    ------
    FileFault
        ``unreadable`` if nothing can be read from it.
    """
    if _is_picture(content):
        return picture_facts(content)
    if content.startswith(b"NRRD"):
        return nrrd_facts(content)
    if is_metaimage(content):
        return metaimage_facts(content)
    if is_nifti(content):
        return nifti_facts(content)
    raise unreadable("a file that is neither NIfTI, NRRD, MetaImage, PNG, JPEG nor TIFF")


def read_voxels(contents: Sequence[bytes]) -> tuple[FileFacts, NDArray[Any]]:
    """Return the facts of an image file and its (layer, slice, row, column) values as stored.

    Parameters
    ----------
    contents
        The file, or a header and the file with its voxels in any order.

    Raises
    ------
    FileFault
        ``unreadable``.
    """
    head, voxels = _parted(contents)
    facts = read_facts(head)
    if _is_picture(head):
        return facts, picture_voxels(head)
    if bool(facts.companion) != (voxels is not None):
        raise unreadable(
            "a header and voxels that do not belong together (.mhd needs its raw file, a detached .nhdr or .hdr too)"
        )
    return facts, stored_voxels(facts, head if voxels is None else voxels)


def read_labels(contents: Sequence[bytes]) -> FileGrid:
    """Read a label file: a volume on its grid, or a picture without one.

    Raises
    ------
    FileFault
        ``unreadable`` or ``geometry``.
    """
    head, _ = _parted(contents)
    if _is_picture(head):
        return FileGrid(picture_labels(head), None)
    facts, stored = read_voxels(contents)
    if facts.layer_kind == "colour":
        raise unreadable("voxels of colours, expected one number each")
    values = stored * facts.slope + facts.intercept if facts.scaled else stored
    segments = nrrd_segments(head) if head.startswith(b"NRRD") else ()
    return FileGrid(values, geometry_of(facts), segments)


def _parted(contents: Sequence[bytes]) -> tuple[bytes, bytes | None]:
    """Return the header and the voxels' file. Raises FileFault if the files do not form one image."""
    if len(contents) == 1:
        return contents[0], None
    heads = [n for n, c in enumerate(contents) if _is_headed(c)]
    if len(contents) != 2 or len(heads) != 1:
        raise unreadable(f"{len(contents)} files that do not form one image")
    return contents[heads[0]], contents[1 - heads[0]]


def _is_headed(content: bytes) -> bool:
    return content.startswith(b"NRRD") or is_metaimage(content) or is_nifti(content) or _is_picture(content)


def _is_picture(content: bytes) -> bool:
    return content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))
