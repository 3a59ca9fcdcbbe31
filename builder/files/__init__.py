"""Image and mask files that are not DICOM: what their headers say, and their voxels, read within limits.

``imaging`` makes volumes of them, ``labels`` masks, and the index stores what ``read_facts`` finds. Nothing here opens
a file: a name in a header may lead anywhere on this machine.
"""

from builder.files.facts import FileFacts, FileFault, facts_from_json
from builder.files.formats import PICTURES, VOLUMES, read_facts, read_labels, read_voxels
from builder.files.grid import FileGrid, FileSegment

__all__ = [
    "PICTURES", "VOLUMES", "FileFacts", "FileFault", "FileGrid", "FileSegment", "facts_from_json", "read_facts",
    "read_labels", "read_voxels",
]  # fmt: skip
