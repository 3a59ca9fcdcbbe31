"""Linking labels to images: what it may know of an image, and what it finds."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class How(StrEnum):
    """How an object was linked to the image, strongest first."""

    SOP = "sop"
    SERIES = "series"
    FRAME_OF_REFERENCE = "frame_of_reference"
    NAME = "name"
    IMAGE = "image"
    STUDY = "study"
    PERSON = "person"
    NONE = "none"


@dataclass(frozen=True)
class ImageRow:
    """What linking may know of an image series: the archive's own identifiers, private to planning.

    Parameters
    ----------
    sop_uids
        The instances of the stack that becomes the volume.
    folder
        Folder of the series' files, relative to its source, with forward slashes.
    source
        Position of its source in the spec; None when it does not matter.
    site_sources
        Positions of all sources whose files may be its labels: those of its site, and those that state no site.
    longer_ids
        Other patients' IDs that begin or end with this patient's: a file that fits such an ID is not this patient's.
    fields
        What the layout of its source says about an image file: pairs of a field and its value.
    accession_number
        Of the study; "" if the images state none.
    """

    series_uid: str
    study_uid: str = ""
    frame_of_reference_uid: str | None = None
    sop_uids: frozenset[str] = frozenset()
    folder: str = ""
    modality: str = ""
    patient_id: str = ""
    source: int | None = None
    site_sources: frozenset[int] = frozenset()
    longer_ids: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    accession_number: str = ""


@dataclass(frozen=True)
class Selection:
    """Rows of the candidates that annotate the image, in table order, and how they were linked.

    ``passed`` are rows that refer to it and name nothing that is asked for.
    """

    rows: tuple[int, ...] = ()
    how: How = How.NONE
    passed: tuple[int, ...] = ()


Mentions: TypeAlias = Callable[[ImageRow], bool]
"""Whether a file of many images' labels, once parsed, has anything to say of an image."""
