"""Generate a synthetic archive whose truth is known in closed form, for demos, tests and benchmarks."""

from builder.phantom.archive import ArchiveSummary, write_archive
from builder.phantom.people import DISTRIBUTIONS

__all__ = ["DISTRIBUTIONS", "ArchiveSummary", "write_archive"]
