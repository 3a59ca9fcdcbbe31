"""Build the pixel part of the leak certificate: what was compared, how, and what was found."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence

from builder.copies import fitting, lists, screening
from builder.copies.matching import (
    ACROSS,
    NEIGHBOURS,
    RANKS,
    SHARED_PLANES,
    THIN,
    THIN_THRESHOLD,
    THRESHOLD,
    THRESHOLDS,
    WINDOWED,
    Match,
)
from builder.copies.prints import PRINTS_VERSION, SMALL, Print
from builder.kernels.boxes import OUTSIDE, SMALLEST
from builder.kernels.hashes import EDGE
from builder.model.canonical import Json


def certify(
    prints: Sequence[Print],
    matches: Sequence[Match],
    *,
    thresholds: Mapping[str, float] = THRESHOLDS,
    threshold: float = THRESHOLD,
) -> dict[str, Json]:
    """Return counts, thresholds, digests and pairs.

    The ``splits`` of prints and matches are those of the published table, so ``in_two_splits`` counts the pairs that
    remain there.
    """
    persons = {p.person_key for p in prints}
    by_person = sorted([p.person_key for p in prints])
    same = sum(n * (n - 1) // 2 for n in (len(list(g)) for _, g in itertools.groupby(by_person)))
    crossing = [m for m in matches if None not in m.splits and m.splits[0] != m.splits[1]]
    return {
        "volumes": len(prints),
        "planes": sum(len(p.planes) for p in prints),
        "persons": len(persons),
        "pairs_of_different_persons": len(prints) * (len(prints) - 1) // 2 - same,
        "thresholds": {m: thresholds.get(m, threshold) for m in sorted({p.modality for p in prints})},
        "across_modalities": ACROSS,
        "thin": {"planes_below": THIN, "threshold": THIN_THRESHOLD},
        "another_window": {"threshold": WINDOWED, "ranks": RANKS},
        "shared_planes": SHARED_PLANES,
        "method": method(),
        "equal_pixels": sum(m.exact for m in matches),
        "near_duplicates": sum(not m.exact for m in matches),
        "in_two_splits": len(crossing),
        "matches": [
            {"first": m.first, "second": m.second, "persons": list(m.persons), "splits": list(m.splits),
             "correlation": m.correlation, "exact": m.exact, "planes": m.planes} for m in matches
        ],
        "digest_of_digests": hashlib.sha256("".join(sorted(p.digest for p in prints)).encode()).hexdigest(),
    }  # fmt: skip


def method() -> dict[str, Json]:
    """Return how copies are searched for: versions, sizes and limits, none of which the spec can change."""
    return {
        "prints_version": PRINTS_VERSION,
        "small_edge": SMALL,
        "hash": {
            "planes": EDGE, "views": len(screening.VIEWS), "views_of_many": len(screening.MANY_VIEWS),
            "flips": len(screening.FLIPS), "threshold": screening.SCREEN_THRESHOLD, "promising": screening.PROMISING,
            "promising_in_all": screening.PAIRS, "listed_from": lists.LISTED, "lists_compared": lists.PROBED,
            "neighbours": NEIGHBOURS, "starts": screening.STARTS,
        },
        "fit": {
            "edge": fitting.CONFIRM, "given_up_below": fitting.HOPELESS, "doubtful_below": fitting.DOUBTFUL,
            "seen_alike_from": fitting.SEEN_ALIKE,
            "given_up_below_in_ranks": fitting.HOPELESS_RANKS, "unlikely_below_in_ranks": fitting.UNLIKELY_RANKS,
            "clear_from": fitting.CLEAR, "given_up_below_in_one_window": fitting.HOPELESS_WINDOWED,
            "last_steps_from": fitting.WORTH, "for_a_threshold_of": fitting.USUAL, "smallest_edge": SMALLEST,
            "outside": OUTSIDE, "last_step": fitting.LEAST,
        },
    }  # fmt: skip
