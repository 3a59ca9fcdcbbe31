"""Compare rectangles with where text is: which texts are gone, and what else is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.pixeltext.engines import Box

GONE = 0.95
"""Share of its ink that must lie inside rectangles for a text to be gone."""


@dataclass(frozen=True)
class Scored:
    """One picture: what share of the ink of each text is inside, and what share of the other pixels is, too."""

    traits: dict[str, Any]
    inside: tuple[float, ...]
    blanked: float


def score(
    traits: dict[str, Any], ink: Sequence[NDArray[np.bool_]], boxes: Iterable[Box], shape: Sequence[int]
) -> Scored:
    """Score one picture."""
    gone = np.zeros(tuple(shape[:2]), np.bool_)
    for top, bottom, left, right in boxes:
        gone[top:bottom, left:right] = True
    rest = np.ones_like(gone)
    for one in ink:
        rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
        rest[max(rows[0] - 4, 0) : rows[-1] + 5, max(columns[0] - 4, 0) : columns[-1] + 5] = False
    return Scored(
        traits, tuple(float(gone[one].mean()) for one in ink), float(gone[rest].mean()) if rest.any() else 0.0
    )


def wilson(hits: int, count: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    if not count:
        return 0.0, 1.0
    share = hits / count
    centre = share + z * z / (2 * count)
    spread = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (centre - spread) / (1 + z * z / count), (centre + spread) / (1 + z * z / count)


def table(scored: Sequence[Scored]) -> str:
    """Return recall by trait, and false blanking, with intervals."""
    lines = [_row("all", [s for s in scored if s.inside])]
    for trait in ("kind", "bits", "size", "turn", "ink", "shown"):
        values = sorted({s.traits[trait] for s in scored if trait in s.traits and s.inside}, key=str)
        for value in values:
            lines.append(_row(f"{trait} {value}", [s for s in scored if s.traits.get(trait) == value and s.inside]))
    plain = [s for s in scored if not s.inside]
    touched = sum(s.blanked > 0 for s in plain)
    low, high = wilson(touched, len(plain))
    lines.append(
        f"pictures without text: {len(plain)}, blanked anywhere {touched} ({touched / max(len(plain), 1):.2%}, "
        f"{low:.2%} to {high:.2%}), pixels {np.mean([s.blanked for s in plain] or [0]):.4%}"
    )
    lines.append(
        f"pixels away from text, in pictures with text: {np.mean([s.blanked for s in scored if s.inside] or [0]):.4%}"
    )
    return "\n".join(lines)


def _row(name: str, scored: Sequence[Scored]) -> str:
    texts = [share for s in scored for share in s.inside]
    gone, untouched = sum(t >= GONE for t in texts), sum(t < 0.05 for t in texts)
    low, high = wilson(gone, len(texts))
    share = gone / max(len(texts), 1)
    return f"{name:18} texts {len(texts):5} gone {share:7.2%} ({low:.2%} to {high:.2%}) untouched {untouched}"
