"""Generate synthetic archives whose truth is known in closed form, for demos, tests and benchmarks."""

from builder.phantom.archive import ArchiveSummary, write_archive
from builder.phantom.head_scans import HeadsSummary, write_heads
from builder.phantom.people import DISTRIBUTIONS
from builder.phantom.pictures import PicturesSummary, write_pictures
from builder.phantom.sets import SetsSummary, write_sets

__all__ = [
    "DISTRIBUTIONS",
    "ArchiveSummary",
    "HeadsSummary",
    "PicturesSummary",
    "SetsSummary",
    "write_archive",
    "write_heads",
    "write_pictures",
    "write_sets",
]
