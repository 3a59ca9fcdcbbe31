"""Decoders of label files: NIfTI, NRRD (with 3D Slicer's segments) and MetaImage, read from bytes within limits."""

from builder.labels.files.decode import read_label_file
from builder.labels.files.grid import FileSegment, LabelGrid

__all__ = ["FileSegment", "LabelGrid", "read_label_file"]
