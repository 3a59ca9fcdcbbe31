"""What a build published: the small outcome of a large last stage, cheap to import."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """What was published: the version, its totals by level and status, and whether it was there before."""

    version: str
    samples: int
    cases: int
    persons: int
    totals: Mapping[str, Mapping[str, int]]
    unchanged: bool
