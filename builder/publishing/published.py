"""What a build published: the small outcome of a large last stage, cheap to import."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Published:
    """What was published: the version, its totals by level and status, and whether it was there before."""

    version: str
    samples: int
    cases: int
    persons: int
    totals: Mapping[str, Mapping[str, int]]
    unchanged: bool
    lost: Sequence[Mapping[str, Any]] = ()
    """What the build lost of the plan: facts of ``builder.publishing.outcome.Loss``, the largest first."""
    withheld: Mapping[str, int] = field(default_factory=dict)
    """Column to the number of cases of which the privacy gate kept text back."""
