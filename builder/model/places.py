"""Where a file lies in its source: its path, in which an archive stands for the folder that holds it."""

import posixpath


def place_of(path: str, member: str) -> str:
    """Return the place of a file or archive member, with forward slashes and relative to the source."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), member) if member else path.replace("\\", "/"))


IMAGE_SUFFIXES = (
    *(".nii.gz", ".nii", ".hdr.gz", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd"),
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff"),
)
"""Suffixes of image files that are not DICOM, longer ones first."""


def stem_of(place: str) -> str:
    """Return a file's name without the suffix of its format."""
    name = posixpath.basename(place)
    return name[: len(name) - len(suffix_of(name))]


def suffix_of(place: str) -> str:
    """Return the suffix of an image file's format as it is written; "" for other names."""
    found = next((s for s in IMAGE_SUFFIXES if place.lower().endswith(s)), "")
    return place[len(place) - len(found) :]
