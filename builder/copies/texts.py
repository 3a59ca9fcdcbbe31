"""Near copies of texts under different persons, by the rare word sequences that two texts share.

Reports are full of standard sentences that hundreds of patients share, so equal words prove nothing by themselves. What
two texts of different persons share counts only where hardly anybody else has it.
"""

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

WORDS: Final = 4
"""Length of a sequence, in words."""

RARE: Final = 4
"""Most persons whose texts may have a sequence that still counts."""

LEAST_SHARED: Final = 6
"""Fewest rare sequences that a near copy shares, about one sentence of nine words."""

THRESHOLD: Final = 0.5
"""Least share, by weight, of the rare sequences of the text that has less of them."""

Sequence4 = tuple[str, ...]


@dataclass(frozen=True)
class TextOf:
    """A published text: its key, its person and the person's split."""

    key: str
    person: str
    split: str | None
    text: str


@dataclass(frozen=True)
class NearText:
    """Two texts of different persons that are near copies; ``shared`` is the share of rare sequences by weight."""

    first: TextOf
    second: TextOf
    shared: float


def near_texts(texts: Sequence[TextOf]) -> list[NearText]:
    """Return the pairs of near copies under different persons, sorted by their keys.

    A sequence of four words is weighted by ln(persons / persons who have it), and those of more than four persons count
    nothing. Texts without enough rare sequences are templates, and are never near copies of anything.
    """
    by_key = {t.key: t for t in texts}
    sequences = {t.key: _sequences(t.text) for t in texts}
    rare = _rare(texts, sequences)
    common: dict[tuple[str, str], list[float]] = defaultdict(list)
    for sequence, keys in _owners(sequences, rare).items():
        for pair in itertools.combinations(keys, 2):
            if by_key[pair[0]].person != by_key[pair[1]].person:
                common[pair].append(rare[sequence])
    found = []
    for (first, second), weights in sorted(common.items()):
        least = min(_weight(sequences[key], rare) for key in (first, second))
        shared = math.fsum(weights) / least
        if len(weights) >= LEAST_SHARED and shared >= THRESHOLD:
            found.append(NearText(by_key[first], by_key[second], round(shared, 6)))
    return found


def _rare(texts: Sequence[TextOf], sequences: Mapping[str, frozenset[Sequence4]]) -> dict[Sequence4, float]:
    """Return the weight of every sequence that few persons have."""
    holders: dict[Sequence4, set[str]] = defaultdict(set)
    for one in texts:
        for sequence in sequences[one.key]:
            holders[sequence].add(one.person)
    persons = max(RARE + 1, len({t.person for t in texts}))
    return {s: math.log(persons / len(who)) for s, who in holders.items() if len(who) <= RARE}


def _owners(
    sequences: Mapping[str, frozenset[Sequence4]], rare: Mapping[Sequence4, float]
) -> dict[Sequence4, list[str]]:
    """Return the keys of the texts that have each rare sequence, in order."""
    owners: dict[Sequence4, list[str]] = defaultdict(list)
    for key in sorted(sequences):
        for sequence in sequences[key] & rare.keys():
            owners[sequence].append(key)
    return owners


def certify_texts(texts: Sequence[TextOf]) -> dict[str, object]:
    """Return the part of the leak certificate about texts: what was compared, how, and the near copies."""
    found = near_texts(texts)
    return {
        "texts": len(texts),
        "persons": len({t.person for t in texts}),
        "method": {"words": WORDS, "rare_up_to_persons": RARE, "least_shared": LEAST_SHARED, "threshold": THRESHOLD},
        "near_copies": len(found),
        "in_two_splits": sum(_crosses(pair) for pair in found),
        "matches": [
            {
                "first": pair.first.key, "second": pair.second.key, "persons": [pair.first.person, pair.second.person],
                "splits": [pair.first.split, pair.second.split], "shared": pair.shared,
            }
            for pair in found
        ],
    }  # fmt: skip


def _crosses(pair: NearText) -> bool:
    splits = (pair.first.split, pair.second.split)
    return None not in splits and splits[0] != splits[1]


def _sequences(text: str) -> frozenset[Sequence4]:
    words = re.findall(r"[^\W\d_]+", text.lower())
    return frozenset(tuple(words[n : n + WORDS]) for n in range(len(words) - WORDS + 1))


def _weight(sequences: frozenset[Sequence4], rare: Mapping[Sequence4, float]) -> float:
    return math.fsum(rare[s] for s in sequences if s in rare) or 1.0
