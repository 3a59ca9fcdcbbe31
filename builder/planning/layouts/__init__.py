"""Who and what the files are that are not DICOM: the layouts of a folder, applied to the rows of the index."""

from builder.planning.layouts.assign import (
    IMAGE_FORMATS,
    Laid,
    count_formats,
    lay_out,
    refused_lines,
    unread_lines,
    unread_object_lines,
    why_refused,
)
from builder.planning.layouts.published import label_name_lines, published_values

__all__ = [
    "IMAGE_FORMATS",
    "Laid",
    "count_formats",
    "label_name_lines",
    "lay_out",
    "published_values",
    "refused_lines",
    "unread_lines",
    "unread_object_lines",
    "why_refused",
]
