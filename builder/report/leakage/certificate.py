"""The leak certificate's part on pixels: what was compared, how, and what was found."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from builder.report.leakage.matching import ACROSS, SHARED_PLANES, THIN, THIN_THRESHOLD, THRESHOLD, THRESHOLDS, Match
from builder.report.leakage.prints import Print

Json = Any


def certify(
    prints: Sequence[Print],
    matches: Sequence[Match],
    *,
    thresholds: Mapping[str, float] = THRESHOLDS,
    threshold: float = THRESHOLD,
) -> dict[str, Json]:
    """Counts, thresholds, digests and pairs.

    ``splits`` of prints and matches are those of the published table: ``in_two_splits`` is what is left there.
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
        "shared_planes": SHARED_PLANES,
        "equal_pixels": sum(m.exact for m in matches),
        "near_duplicates": sum(not m.exact for m in matches),
        "in_two_splits": len(crossing),
        "matches": [
            {"first": m.first, "second": m.second, "persons": list(m.persons), "splits": list(m.splits),
             "correlation": m.correlation, "exact": m.exact, "planes": m.planes} for m in matches
        ],
        "digest_of_digests": hashlib.sha256("".join(sorted(p.digest for p in prints)).encode()).hexdigest(),
    }  # fmt: skip
