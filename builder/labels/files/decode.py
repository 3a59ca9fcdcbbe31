"""Choice of the decoder for a label file by its first bytes, because names can be wrong."""

from collections.abc import Sequence

from builder.labels.files.grid import LabelGrid, check_values, unreadable
from builder.labels.files.metaimage import is_metaimage, read_metaimage
from builder.labels.files.nifti import is_nifti, read_nifti
from builder.labels.files.nrrd import read_nrrd


def read_label_file(contents: Sequence[bytes]) -> LabelGrid:
    """Read the label file in ``contents``: one file, or an .mhd header with its raw companion.

    Raises
    ------
    CaseError
        LABEL_UNREADABLE or LABEL_GEOMETRY.
    """
    grid = _decode(contents)
    check_values(grid.layers)
    return grid


def _decode(contents: Sequence[bytes]) -> LabelGrid:
    heads = [c for c in contents if is_metaimage(c)]
    if len(contents) == 2 and len(heads) == 1:
        return read_metaimage(heads[0], next(c for c in contents if c is not heads[0]))
    if len(contents) != 1:
        raise unreadable(f"{len(contents)} files that do not form one image")
    content = contents[0]
    if content.startswith(b"NRRD"):
        return read_nrrd(content)
    if is_metaimage(content):
        return read_metaimage(content)
    if is_nifti(content):
        return read_nifti(content)
    raise unreadable("a file that is neither NIfTI, NRRD nor MetaImage")
