"""Settles classes that several readers voted on, over all cases at once, because confusion shows only across cases."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from builder.labels.consensus import dawid_skene


@dataclass(frozen=True)
class Vote:
    """What a reader said of a finding of a case."""

    case: str
    reader: str
    finding: str
    value: str


@dataclass(frozen=True)
class Settled:
    """The value of a finding of a case, and how sure it is: its probability, or its share of the votes."""

    value: str
    probability: float
    readers: int


def settle_votes(
    votes: Sequence[Vote], *, method: str, least: int
) -> dict[tuple[str, str], Settled]:
    """(case, finding) to its settled value; cases with fewer than ``least`` readers, and ties, are left out.

    ``method`` is ``majority`` or ``dawid_skene``.

    A reader who judged a case several times counts once, with what was said most often; where that is a tie, not at
    all. Neither the order of votes nor that of cases matters.
    """
    found: dict[tuple[str, str], Settled] = {}
    for finding in sorted({vote.finding for vote in votes}):
        said = _one_each([vote for vote in votes if vote.finding == finding])
        for case, settled in METHODS[method](said).items():
            if settled.readers >= least:
                found[case, finding] = settled
    return found


def _one_each(votes: Sequence[Vote]) -> dict[str, dict[str, str]]:
    """Case to reader to value."""
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
"""How votes are settled, by the name a consensus gives it."""
