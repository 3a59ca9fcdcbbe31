"""What a deal cannot give: empty splits, classes too rare for every split, ratios that whole persons miss by far."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import pyarrow as pa

from builder.split.strata import encode

FAR_OFF: Final = 0.10
"""Distance of a split's share from its ratio from which it is told."""

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
    """A sentence for everything that the spec asks of the splits and that these persons cannot give.

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


def _persons(count: int) -> str:
    return "1 person" if count == 1 else f"{count} persons"


def _empty(splits: Sequence[str], wanted: Sequence[str], ratios: Mapping[str, float]) -> Iterator[str]:
    for name in wanted:
        if name not in splits:
            asked = f"a ratio of {ratios[name]:g}" if name in ratios else "a hold-out"
            yield f"split {name} is empty: {_persons(len(splits))} cannot fill {asked}"


def _ratios(splits: Sequence[str], ratios: Mapping[str, float]) -> Iterator[str]:
    counted = [split for split in splits if split in ratios]
    for name, ratio in ratios.items():
        share = counted.count(name) / len(counted) if counted else 0.0
        if name in counted and abs(share - ratio) > FAR_OFF:
            yield (
                f"split {name} has {counted.count(name)} of {_persons(len(counted))} ({share:.0%}) where {ratio:.0%} "
                "was asked for: whole persons, and where earlier versions put them, leave no more"
            )


def _rare(people: pa.Table, splits: Sequence[str], ratios: Mapping[str, float], strata: Sequence[str]) -> Iterator[str]:
    """Levels with fewer persons than splits, and the splits that have nobody of them."""
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
            yield f"{column}={level} has {_persons(len(homes))} for {len(ratios)} splits: nobody of it is in {without}"
        if len(rare) > MOST_NAMED:
            yield f"{column} has {len(rare) - MOST_NAMED} more values with fewer persons than splits"
