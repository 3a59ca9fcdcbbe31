"""Find images that are stored under two names: equal pixels, and images that are crops, flips or copies of each other.

Digests find equal planes. Other copies are found in two steps, both on a small copy of each volume that ignores
spacing, window and units. First, perceptual hashes compare every volume with every other one (``screening``). Then one
small volume is moved over the other until their correlation shows whether they agree (``fitting``).
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from builder.copies.fitting import USUAL, fit
from builder.copies.prints import Print
from builder.copies.screening import Start, candidates, fitted_first, starts_of

THRESHOLD = USUAL
"""Correlation of fine structure from which two volumes count as one image, for modalities not in ``THRESHOLDS``."""

THRESHOLDS: Mapping[str, float] = {"CT": 0.85, "MR": 0.86, "PT": 0.85}
"""The same by modality, chosen between what different images reach and what copies reach (see docs/leaks.md)."""

ACROSS = 0.90
"""Lowest threshold if the modalities differ, as for a secondary capture of a CT."""

THIN, THIN_THRESHOLD = 4, 0.95
"""Volumes with fewer planes have little fine structure to tell them apart, so they need at least this correlation."""

WINDOWED, RANKS = 0.98, 0.6
"""With four planes or more, this correlation in one window suffices if the ranks, which windows distort, reach this."""

NEIGHBOURS = 4
"""Only this many nearest volumes of each volume are fitted, because fitting is slow (see ``fitted_first``)."""

SHARED_PLANES = 0.5
"""Two volumes count as one image if they share at least this fraction of the smaller volume's planes."""


@dataclass(frozen=True)
class Match:
    """Two volumes of different persons that show one image.

    ``exact`` is true if all pixels agree; ``planes`` is the number of equal planes that they share.
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
    """Return pairs of volumes of different persons that show one image, the most alike first.

    Digests find equal volumes, and volumes of which one holds at least half of the other's planes. Then the hash of
    every volume is compared with the hashes of other volumes and their crops, in all eight flips; whole volumes are
    also compared in all orders of the axes. The ``neighbours`` nearest are confirmed by fitting the crop; of many
    volumes the nearest one, and the others if that is a copy. A crop may keep as little as 45 % of an edge. Copies that
    are rotated by anything other than quarter turns are not found. If ``neighbours`` is 0, only digests are compared.

    Parameters
    ----------
    thresholds, threshold
        Correlation from which a pair counts, by modality, and for modalities that are not named. For a pair of two
        modalities the higher value applies (see ``limit``).
    """
    ordered = sorted(prints, key=lambda p: p.key)
    equal = equal_planes(ordered)
    fitted: dict[tuple[int, int], float] = {}
    chosen = candidates(ordered, neighbours)
    first = fitted_first(chosen, len(ordered))
    for some in (first, ~first):
        alike = {n for pair in confirmed(ordered, equal, fitted, thresholds, threshold) for n in pair}
        for found in chosen[some]:
            whole, part = int(found["whole"]), int(found["crop"])
            a, b = ordered[whole], ordered[part]
            if (min(whole, part), max(whole, part)) not in equal and (some is first or {whole, part} & alike):
                least = limit(a, b, thresholds, threshold)
                agreed = agreement(a, b, starts_of(found), least=least, thick=thick(a, b))
                keep_best(fitted, whole, part, agreed)
    return matches_of(ordered, equal, fitted, thresholds=thresholds, threshold=threshold)


def keep_best(fitted: dict[tuple[int, int], float], whole: int, part: int, found: float) -> None:
    """Keep the better agreement of two volumes, of which either may be a part of the other."""
    pair = (min(whole, part), max(whole, part))
    fitted[pair] = max(fitted.get(pair, 0.0), found)


def matches_of(
    ordered: Sequence[Print],
    equal: Mapping[tuple[int, int], int],
    fitted: Mapping[tuple[int, int], float],
    *,
    thresholds: Mapping[str, float] = THRESHOLDS,
    threshold: float = THRESHOLD,
) -> tuple[Match, ...]:
    """Return the pairs that show one image: those with equal planes, and those that agree well enough.

    Parameters
    ----------
    ordered
        All volumes in the order of their keys; pairs are of their places.
    equal, fitted
        How many planes are equal, and how well small copies agree.
    """
    alike = confirmed(ordered, equal, fitted, thresholds, threshold)
    matches = [
        Match(
            a.key, b.key, (a.person_key, b.person_key), (a.split, b.split), c, a.digest == b.digest,
            equal.get((i, j), 0),
        )
        for (i, j), c in alike.items()
        for a, b in ((ordered[i], ordered[j]),)
    ]  # fmt: skip
    return tuple(sorted(matches, key=lambda m: (-m.correlation, m.first, m.second)))


def confirmed(
    ordered: Sequence[Print],
    equal: Mapping[tuple[int, int], int],
    fitted: Mapping[tuple[int, int], float],
    thresholds: Mapping[str, float],
    threshold: float = THRESHOLD,
) -> dict[tuple[int, int], float]:
    """Return the pairs with equal planes, and those that agree well enough, with their correlations."""
    return {
        (i, j): c
        for (i, j), c in {**fitted, **dict.fromkeys(equal, 1.0)}.items()
        if (i, j) in equal or c >= limit(ordered[i], ordered[j], thresholds, threshold)
    }


def limit(one: Print, other: Print, thresholds: Mapping[str, float], threshold: float = THRESHOLD) -> float:
    """Return the correlation from which two volumes count as one image: higher across modalities and if thin."""
    by_modality = max(thresholds.get(p.modality, threshold) for p in (one, other))
    across = ACROSS if one.modality != other.modality else 0.0
    return max(by_modality, across, 0.0 if thick(one, other) else THIN_THRESHOLD)


def thick(one: Print, other: Print) -> bool:
    """Return whether both volumes have enough planes to be told apart by their fine structure."""
    return min(len(one.planes), len(other.planes)) >= THIN


def agreement(whole: Print, part: Print, starts: Sequence[Start], *, least: float, thick: bool) -> float:
    """Return the lower of the correlations in one window and of ranks, or only the former if it is almost certain."""
    found = fit(whole, part, starts, limit=least, enough=WINDOWED)
    certain = thick and found.correlation >= WINDOWED and found.ranks >= RANKS
    return round(found.correlation if certain else min(found.correlation, found.ranks), 4)


def equal_planes(prints: Sequence[Print]) -> dict[tuple[int, int], int]:
    """Return pairs of different persons with equal pixels or enough common planes, and how many planes they share."""
    digests: dict[str, list[int]] = {}
    for i, p in enumerate(prints):
        if p.planes:
            digests.setdefault(p.digest, []).append(i)
    shared = {pair: 1 for members in digests.values() for pair in itertools.combinations(members, 2)}
    counts: dict[tuple[int, int], int] = {}
    for members in _holders([p.planes for p in prints]):
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


def _holders(planes: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Yield the volumes that have each plane that several have; nearly all planes are of one volume only."""
    names = np.fromiter(itertools.chain.from_iterable(planes), np.int64)
    volumes = np.repeat(np.arange(len(planes)), [len(held) for held in planes])
    order = np.argsort(names, kind="stable")
    first = np.flatnonzero(np.diff(names[order], prepend=names[order][:1] - 1))
    sizes = np.diff(first, append=len(order))
    for at in np.flatnonzero(sizes > 1).tolist():
        yield volumes[order[first[at] : first[at] + sizes[at]]].tolist()
