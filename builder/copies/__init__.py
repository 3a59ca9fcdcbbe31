"""Find images that are stored under two names, and certify what was compared and found."""

from builder.copies.certificate import certify
from builder.copies.matching import THRESHOLD, THRESHOLDS, Match, find_matches
from builder.copies.prints import (
    PRINTS,
    PRINTS_VERSION,
    Print,
    parse_prints,
    pixel_digest,
    prints_table,
    small_copy,
    take_print,
)

__all__ = [
    "PRINTS",
    "PRINTS_VERSION",
    "THRESHOLD",
    "THRESHOLDS",
    "Match",
    "Print",
    "certify",
    "find_matches",
    "parse_prints",
    "pixel_digest",
    "prints_table",
    "small_copy",
    "take_print",
]
