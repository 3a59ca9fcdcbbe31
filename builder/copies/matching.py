"""Whether the same image lies under two names: equal pixels, and images that are one another's crop, flip or copy.

Digests tell equal planes. What else may be a copy is found in two steps, both on a small copy of each volume that knows
no spacing, no window and no units: perceptual hashes that compare every volume with every other one (``screening``),
and the correlation of small volumes, of which one is moved over the other until they agree or do not (``fitting``).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builder.copies.fitting import USUAL, fit
from builder.copies.prints import Print
from builder.copies.screening import Start, candidates

THRESHOLD = USUAL
"""Correlation of fine structure from which two volumes count as one image, where ``THRESHOLDS`` has no other."""

THRESHOLDS: Mapping[str, float] = {"CT": 0.85, "MR": 0.86, "PT": 0.85}
"""The same by modality: between what two images reach and what copies do, see docs/leaks.md."""

ACROSS = 0.90
"""At least this where the modalities differ: a secondary capture of a CT, say."""

THIN, THIN_THRESHOLD = 4, 0.95
"""Volumes of fewer planes have little fine structure to tell them apart: at least this for them."""

WINDOWED, RANKS = 0.98, 0.6
"""Or, of four planes or more: this correlation in one window, and this of the ranks, which another window distorts."""

NEIGHBOURS = 4
"""Only the nearest few volumes of each are confirmed."""

SHARED_PLANES = 0.5
"""Share of the smaller volume's planes that lie in the other one too, from which they count as one image."""


@dataclass(frozen=True)
class Match:
    """Two volumes of different persons that show one image.

    ``exact`` when all pixels agree; ``planes`` is how many planes of one value and shape they share.
    """

    first: str
    second: str
    persons: tuple[str, str]
    splits: tuple[str | None, str | None]
    correlation: float
    exact: bool
    planes: int = 0


def find_matches(
    prints: Sequence[Print],
    *,
    thresholds: Mapping[str, float] = THRESHOLDS,
    threshold: float = THRESHOLD,
    neighbours: int = NEIGHBOURS,
) -> tuple[Match, ...]:
    """Pairs of volumes of different persons that show one image, most alike first.

    Equal volumes, and volumes of which one holds half of the other's planes or more, are found by their digests. Then
    the hash of every volume is compared with those of every other one and its crops, in all eight flips and, whole, in
    all orders of the axes; the ``neighbours`` nearest are confirmed by fitting the crop. A crop may keep as little as
    45 % of an edge. Copies rotated by other than quarter turns are not found. Time grows with the square of the number
    of volumes; with ``neighbours`` 0 only digests are compared.

    Parameters
    ----------
    thresholds, threshold
        Correlation from which a pair counts, by modality, and for modalities that are not named; of two modalities
        the higher one, see ``limit``.
    """
    ordered = sorted(prints, key=lambda p: p.key)
    equal = _equal_planes(ordered)
    found = dict.fromkeys(equal, 1.0)
    by_modality = [thresholds.get(p.modality, threshold) for p in ordered]
    for whole, part, starts in candidates(ordered, neighbours) if neighbours else ():
        pair = (min(whole, part), max(whole, part))
        if found.get(pair, 0.0) < 1.0:
            least = limit(ordered[whole], ordered[part], max(by_modality[whole], by_modality[part]))
            agreement = _agreement(ordered[whole], ordered[part], starts, least)
            found[pair] = max(found.get(pair, 0.0), agreement)
    matches = [
        Match(
            a.key, b.key, (a.person_key, b.person_key), (a.split, b.split), c, a.digest == b.digest,
            equal.get((i, j), 0),
        )
        for (i, j), c in found.items()
        for a, b in ((ordered[i], ordered[j]),)
        if (i, j) in equal or c >= limit(a, b, max(by_modality[i], by_modality[j]))
    ]  # fmt: skip
    return tuple(sorted(matches, key=lambda m: (-m.correlation, m.first, m.second)))


def limit(one: Print, other: Print, by_modality: float) -> float:
    """Correlation from which two volumes count as one image: more across modalities, and for thin volumes."""
    across = ACROSS if one.modality != other.modality else 0.0
    thin = THIN_THRESHOLD if min(len(one.planes), len(other.planes)) < THIN else 0.0
    return max(by_modality, across, thin)


def _agreement(whole: Print, part: Print, starts: Sequence[Start], least: float) -> float:
    """The lower of the correlations in one window and of ranks; the former alone where it is as good as certain."""
    found = fit(whole, part, starts, limit=least, enough=WINDOWED)
    thick = min(len(whole.planes), len(part.planes)) >= THIN
    certain = thick and found.correlation >= WINDOWED and found.ranks >= RANKS
    return round(found.correlation if certain else min(found.correlation, found.ranks), 4)


def _equal_planes(prints: Sequence[Print]) -> dict[tuple[int, int], int]:
    """Pairs of different persons with equal pixels or enough planes in common, and how many planes that is."""
    shared: dict[tuple[int, int], int] = {}
    for names in ([(p.digest,) if p.planes else () for p in prints], [p.planes for p in prints]):
        holders: dict[Any, list[int]] = {}
        for i, held in enumerate(names):
            for name in held:
                holders.setdefault(name, []).append(i)
        counts: dict[tuple[int, int], int] = {}
        for members in holders.values():
            for pair in itertools.combinations(members, 2):
                counts[pair] = counts.get(pair, 0) + 1
        shared |= counts
    return {
        (i, j): min(n, len(prints[i].planes), len(prints[j].planes))
        for (i, j), n in shared.items()
        if prints[i].person_key != prints[j].person_key
        and (
            prints[i].digest == prints[j].digest
            or n >= SHARED_PLANES * min(len(prints[i].planes), len(prints[j].planes))
        )
    }
