"""What a build returns. The module is separate, so that importing it does not load the last stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Published:
    """What was published: the version, its totals by level and status, and whether it was already published."""

    version: str
    samples: int
    cases: int
    persons: int
    totals: Mapping[str, Mapping[str, int]]
    unchanged: bool
    lost: Sequence[Mapping[str, Any]] = ()
    """What the build lost from the plan: facts of ``builder.publishing.outcome.Loss``, the largest first."""
    withheld: Mapping[str, int] = field(default_factory=dict)
    """Maps a column to the number of cases whose text the privacy gate withheld."""
    rewritten: bool = False
    """Whether files were written again since it was published, with the headers and lengths they had."""
