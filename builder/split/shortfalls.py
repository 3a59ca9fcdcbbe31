"""What a deal cannot give: empty splits, classes too rare for every split, ratios that whole persons miss by far."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import pyarrow as pa

from builder.errors import counted
from builder.split.strata import encode

FAR_OFF: Final = 0.10
"""Smallest reported distance between a split's share and its ratio."""

MOST_NAMED: Final = 8
"""Levels of one column that are named; the rest are counted."""


def shortfalls(
    people: pa.Table,
    dealt: pa.Table,
    *,
    ratios: Mapping[str, float],
    strata: Sequence[str],
    also: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return a sentence for everything that the spec asks of the splits and that these persons cannot give.

    Parameters
    ----------
    people
        ``person_key`` and the strata columns, one row a person (or group of persons who are dealt as one).
    dealt
        ``person_key`` and ``split`` of the same rows, or more.
    also
        Splits that hold-outs name.
    """
    home = dict(zip(dealt["person_key"].to_pylist(), dealt["split"].to_pylist(), strict=True))
    splits = [home[person] for person in people["person_key"].to_pylist()]
    wanted = [*ratios, *(name for name in dict.fromkeys(also) if name not in ratios)]
    return (*_empty(splits, wanted, ratios), *_ratios(splits, ratios), *_rare(people, splits, ratios, strata))


def _empty(splits: Sequence[str], wanted: Sequence[str], ratios: Mapping[str, float]) -> Iterator[str]:
    for name in wanted:
        if name not in splits:
            asked = f"a ratio of {ratios[name]:g}" if name in ratios else "a hold-out"
            yield f"split {name} is empty: {counted(len(splits), 'person')} cannot fill {asked}"


def _ratios(splits: Sequence[str], ratios: Mapping[str, float]) -> Iterator[str]:
    dealt = [split for split in splits if split in ratios]
    for name, ratio in ratios.items():
        share = dealt.count(name) / len(dealt) if dealt else 0.0
        if name in dealt and abs(share - ratio) > FAR_OFF:
            yield (
                f"split {name} has {dealt.count(name)} of {counted(len(dealt), 'person')} ({share:.0%}) where "
                f"{ratio:.0%} was asked for: whole persons, who stay where earlier versions put them, come no closer"
            )


def _rare(people: pa.Table, splits: Sequence[str], ratios: Mapping[str, float], strata: Sequence[str]) -> Iterator[str]:
    """Yield levels with fewer persons than splits, and the splits without any of them."""
    for column in strata:
        coded = encode(people[column])
        found: dict[str, list[str]] = {}
        for code, split in zip(coded.codes.tolist(), splits, strict=True):
            for level in coded.parts[code]:
                if split in ratios:
                    found.setdefault(level, []).append(split)
        rare = {level: homes for level, homes in sorted(found.items()) if len(homes) < len(ratios)}
        for level, homes in list(rare.items())[:MOST_NAMED]:
            without = ", ".join(name for name in ratios if name not in homes)
            persons = counted(len(homes), "person")
            yield f"{column}={level} has {persons} for {len(ratios)} splits: none in {without}"
        if len(rare) > MOST_NAMED:
            more = counted(len(rare) - MOST_NAMED, "more value")
            yield f"{column} has {more} with fewer persons than splits"
