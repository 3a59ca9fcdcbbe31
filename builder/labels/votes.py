"""Settles classes on which several readers voted, over all cases at once, because confusion shows only across cases."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from builder.labels.consensus import dawid_skene


@dataclass(frozen=True)
class Vote:
    """What a reader said about one finding of a case."""

    case: str
    reader: str
    finding: str
    value: str


@dataclass(frozen=True)
class Settled:
    """The settled value of a finding of a case, with its probability or its share of the votes."""

    value: str
    probability: float
    readers: int


def settle_votes(votes: Sequence[Vote], *, method: str, least: int) -> dict[tuple[str, str], Settled]:
    """Settle votes to one value per (case, finding), leaving out ties and cases with fewer than ``least`` readers.

    ``method`` is ``majority`` or ``dawid_skene``.

    A reader who judged a case several times counts once, with the most frequent answer, or not at all if there is a
    tie. The order of votes and cases does not matter.
    """
    found: dict[tuple[str, str], Settled] = {}
    for finding in sorted({vote.finding for vote in votes}):
        said = _one_each([vote for vote in votes if vote.finding == finding])
        for case, settled in METHODS[method](said).items():
            if settled.readers >= least:
                found[case, finding] = settled
    return found


def _one_each(votes: Sequence[Vote]) -> dict[str, dict[str, str]]:
    """Return each reader's value, by case and reader."""
    all_said: dict[tuple[str, str], Counter[str]] = {}
    for vote in votes:
        all_said.setdefault((vote.case, vote.reader), Counter())[vote.value] += 1
    said: dict[str, dict[str, str]] = {}
    for (case, reader), counts in sorted(all_said.items()):
        first, *others = counts.most_common(2)
        if not others or others[0][1] < first[1]:
            said.setdefault(case, {})[reader] = first[0]
    return said


def _by_majority(said: Mapping[str, Mapping[str, str]]) -> dict[str, Settled]:
    found = {}
    for case, values in said.items():
        value, count = min(Counter(values.values()).items(), key=lambda item: (-item[1], item[0]))
        if 2 * count > len(values):
            found[case] = Settled(value, count / len(values), len(values))
    return found


def _by_dawid_skene(said: Mapping[str, Mapping[str, str]]) -> dict[str, Settled]:
    cases = sorted(said)
    readers = sorted({reader for values in said.values() for reader in values})
    classes = sorted({value for values in said.values() for value in values.values()})
    table = np.full((len(cases), len(readers)), -1, np.int64)
    for row, case in enumerate(cases):
        for reader, value in said[case].items():
            table[row, readers.index(reader)] = classes.index(value)
    belief = dawid_skene(table, len(classes)).probability
    return {
        case: Settled(classes[int(row.argmax())], round(float(row.max()), 6), len(said[case]))
        for case, row in zip(cases, belief, strict=True)
    }


METHODS = {"majority": _by_majority, "dawid_skene": _by_dawid_skene}
"""Functions that settle votes, by the name of the method in a consensus."""
