"""Deal persons whom two sites have to the split that a keyed draw gives at both, before anybody else is dealt."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import pyarrow as pa

from builder.errors import LayoutError, SpecError, counted
from builder.model.keyed import Key
from builder.split.options import Splits, whole_shares

_FIXED = pa.schema([pa.field("person_key", pa.string()), pa.field("split", pa.string())])


def draw(key: Key, name: str, ratios: Mapping[str, float]) -> str:
    """Return the split of a name: the same for whoever has the key, by chance in the ratios."""
    splits, shares = whole_shares(ratios)
    place = key.number("split", name) * sum(shares) >> 64
    for split, share in zip(splits, shares, strict=True):
        if place < share:
            return split
        place -= share
    raise AssertionError("shares sum to their total")


def alike_file(drawn: Mapping[str, str]) -> bytes:
    """Return the bytes of a file of persons and splits; ``parse_alike`` is its inverse."""
    head = "# Persons whom another site has as well, and the split of each at both. It stays at this site.\n"
    return (head + "".join(f"{person} {split}\n" for person, split in sorted(drawn.items()))).encode()


def parse_alike(data: bytes) -> dict[str, str]:
    """Return person to split. Raises SpecError; no line is quoted."""
    drawn: dict[str, str] = {}
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        person, _, split = line.partition(" ")
        if line.startswith("#") or not line:
            continue
        if len(person) != 26 or not split:
            raise SpecError(
                f"splits.alike, line {number}: found something else, expected a keyed name and a split, as "
                "builder site matched writes them"
            )
        drawn[person] = split
    return drawn


def deal_alike(
    groups: Mapping[str, Sequence[str]],
    drawn: Mapping[str, str],
    options: Splits,
    *,
    previous: pa.Table | None,
    barred: Collection[str],
    kept: Collection[str],
) -> pa.Table | None:
    """Return ``previous`` with the groups whose persons were drawn for a split.

    Parameters
    ----------
    groups
        First person to the persons who belong together.
    drawn
        Person to split.
    barred
        First persons of groups who may not be tested on.
    kept
        Persons in the dataset; of others, who are left out, nothing is asked.

    Raises
    ------
    LayoutError
        If a person cannot go to the split that was drawn: the other site deals the person to it.
    """
    fixed = {} if previous is None else dict(zip(*(previous[c].to_pylist() for c in _FIXED.names), strict=True))
    found: dict[str, str] = {}
    wrong: list[str] = []
    for first, own in groups.items():
        splits = {drawn[person] for person in own if person in drawn}
        allowed = splits - {*options.tested.splits} if first in barred else splits
        if len(splits) == 1 and allowed and fixed.get(first, *splits) in splits:
            found[first] = splits.pop()
        elif splits:
            wrong += [person for person in own if person in drawn and person in kept]
    _refuse(wrong)
    rows = [{"person_key": first, "split": split} for first, split in sorted(found.items()) if first not in fixed]
    before = [] if previous is None else [previous.select(_FIXED.names).cast(_FIXED)]
    return pa.concat_tables([*before, pa.Table.from_pylist(rows, schema=_FIXED)]) if rows else previous


def _refuse(wrong: Iterable[str]) -> None:
    names = sorted(wrong)
    if names:
        raise LayoutError(
            f"splits.alike: found {counted(len(names), 'person')} who were dealt to another split before, are held "
            "out, may not be tested on or belong to persons of another split, expected the split that another site "
            f"deals them to; leave them out by their keyed names: {', '.join(names)}"
        )
