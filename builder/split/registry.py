"""The registry of a dataset: everybody who was ever dealt, and to which split. Nobody leaves it.

A row is a person, known by the keyed names of all PatientIDs and studies the person ever had. Whoever is not in the
version that carries the registry stays in it as a tombstone, so that nobody comes back into another split.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pyarrow as pa

from builder.errors import LayoutError, counted
from builder.split.registry_rows import REGISTRY_SCHEMA, RegistryRow, names_of, rows_of, table_of, with_names

NAMED_BY_ID: Final = 1
"""Names are made of issuer and PatientID only, as in releases without namespaces."""

NAMED_BY_NAMESPACE: Final = 2

CONTRADICTED: Final = 0.3
"""Share of the persons whose birth date (else sex) is another one now from which they are taken for other people."""

Facts = Callable[[str, str], tuple[frozenset[str], frozenset[str]]]
"""(person, person_key of a row) to the keyed birth dates and sexes of the person, bound to that key."""


@dataclass(frozen=True, eq=False)
class Registry:
    """A registry as a build finds it.

    Parameters
    ----------
    table
        By ``REGISTRY_SCHEMA``.
    current
        Content of CURRENT of the dataset that is built into, None where nothing is published there yet.
    found
        Person to the rows that know the person, once the archive's persons were looked up.
    elsewhere
        Those of ``found`` who are known by their PatientID alone, under another site or issuer.
    studies
        Person to the keyed names of the person's studies, of everybody in the archive.
    """

    table: pa.Table
    current: bytes | None = None
    found: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()
    studies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @staticmethod
    def empty(current: bytes | None = None) -> "Registry":
        """Return an empty registry."""
        return Registry(REGISTRY_SCHEMA.empty_table(), current)


@dataclass(frozen=True)
class Group:
    """A person, or persons who must not be parted, as the registry knows them."""

    persons: tuple[str, ...]
    splits: tuple[str, ...]


def from_splits(splits: pa.Table) -> pa.Table:
    """Make the registry of a version that was published without one from its ``splits.parquet``."""
    persons, homes = (splits[name].to_pylist() for name in ("person_key", "split"))
    has_members = "members" in splits.column_names
    members = splits["members"].to_pylist() if has_members else [()] * splits.num_rows
    return table_of(
        RegistryRow(
            person_key=person, members=sorted({person, *(names or ())}), split=split, present=True,
            named_by=NAMED_BY_ID, bare=(), studies=(),
        )
        for person, split, names in zip(persons, homes, members, strict=True)
    )  # fmt: skip


def recognise(
    known: pa.Table,
    members: Mapping[str, Sequence[str]],
    former: Mapping[str, Sequence[str]],
    studies: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Map each person to the rows that know one of the person's names or studies; persons nobody knows are left out.

    A study proves who somebody is when the archive corrects, replaces or removes a PatientID. ``former`` names count
    only for rows that are ``NAMED_BY_ID``: several of today's persons may share one.
    """
    homes: dict[str, int] = {}
    old: dict[str, int] = {}
    for place, (names, by) in enumerate(zip(*(known[c].to_pylist() for c in ("members", "named_by")), strict=True)):
        homes |= dict.fromkeys(names, place)
        if by == NAMED_BY_ID:
            old |= dict.fromkeys(names, place)
    held = _holders(known)
    found = {}
    for person, names in members.items():
        rows = {homes[name] for name in names if name in homes}
        rows |= {old[name] for name in former.get(person, ()) if name in old}
        rows |= {held[study] for study in (studies or {}).get(person, ()) if study in held}
        if rows:
            found[person] = tuple(sorted(rows))
    return found


def known_elsewhere(
    known: pa.Table, found: Mapping[str, Sequence[int]], bare: Mapping[str, Sequence[str]], facts: Facts
) -> dict[str, tuple[int, ...]]:
    """Map persons whom nobody in the registry knows to the rows that have one of their PatientIDs under another name.

    A site that is stated, corrected or taken out changes the names of all its patients, and so does an issuer. Only
    rows that know nobody else count, and only where birth date and sex do not contradict.
    """
    taken = {place for places in found.values() for place in places}
    rows = rows_of(known)
    homes: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        if place not in taken:
            for name in {*row.members, *(row.bare or ())}:
                homes.setdefault(name, []).append(place)
    matches = {}
    for person, names in bare.items():
        if person in found:
            continue
        places = {place for name in names for place in homes.get(name, ())}
        agreeing = tuple(sorted(n for n in places if _agrees(rows[n], person, facts) is not False))
        if agreeing:
            matches[person] = agreeing
    return matches


def pinned(groups: Mapping[str, Group], *, on_merge: str) -> pa.Table:
    """Return ``person_key`` and ``split`` of every group that the registry knows; ``assign`` takes it as ``previous``.

    Raises
    ------
    LayoutError
        When persons who are one, or must not be parted, were dealt to several splits and ``on_merge`` is ``stop``.
    """
    torn = {first: group for first, group in groups.items() if len(group.splits) > 1}
    if torn and on_merge == "stop":
        first, group = min(torn.items())
        raise LayoutError(
            f"splits: found {counted(len(torn), 'person who was', 'persons who were')} dealt to several splits "
            f"before, for instance {first} to {' and '.join(group.splits)}: they turned out to be one person, to have "
            "taken over somebody's study, or to share images. Expected one split each. Say in the spec which one they "
            "go to, as in splits: {on_merge: train}; leave them out by a cohort rule; or deal everybody anew with "
            "splits: {fresh: true}"
        )
    rows = [
        {"person_key": first, "split": on_merge if len(group.splits) > 1 else group.splits[0]}
        for first, group in sorted(groups.items())
        if group.splits
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([("person_key", pa.string()), ("split", pa.string())]))


def check_people(
    known: pa.Table, found: Mapping[str, Sequence[int]], persons: int, facts: Facts, *, elsewhere: int = 0
) -> None:
    """Refuse an archive of other people than the registry's.

    Parameters
    ----------
    found
        As ``recognise`` gives it.
    persons
        How many persons the archive has.
    elsewhere
        How many of them are known by their PatientID, but under another site or issuer.

    Raises
    ------
    LayoutError
        When nobody is known again, or too many of those who are have another birth date or sex.
    """
    answer = (
        "check the sources, their site and the key; build into another place; or, if that is how it should be, say so: "
        "splits: {trust_registry: true}, which keeps the registry, or splits: {fresh: true}, which deals everybody anew"
    )
    if known.num_rows and persons and not found:
        raise LayoutError(
            f"splits: found none of the registry's {counted(known.num_rows, 'person')} among the "
            f"{counted(persons, 'person')} of the "
            f"archive, expected some of them; {_hint(elsewhere)}{answer}"
        )
    rows = rows_of(known)
    compared = [said for p, places in found.items() for n in places if (said := _agrees(rows[n], p, facts)) is not None]
    wrong = compared.count(False)
    if wrong > 1 and wrong >= CONTRADICTED * len(compared):
        raise LayoutError(
            f"splits: found another birth date or sex for {wrong} of {len(compared)} persons whom the registry knows, "
            f"expected the same people under the same PatientIDs; {answer}"
        )


def carry(
    known: pa.Table,
    found: Mapping[str, Sequence[int]],
    members: Mapping[str, Sequence[str]],
    dealt: Mapping[str, str],
    facts: Facts,
    *,
    bare: Mapping[str, Sequence[str]] | None = None,
    studies: Mapping[str, Sequence[str]] | None = None,
) -> pa.Table:
    """Return the registry of the next version: persons it deals, and everybody of the registry before.

    Parameters
    ----------
    known, found
        The registry before, and who of today's persons is in it (see ``recognise``).
    members
        Person to keyed names, of everybody in the archive.
    dealt
        Person to split, of everybody in the version.
    bare
        Person to the keyed names of the PatientIDs alone.
    studies
        Person to the keyed names of the studies, of everybody in the archive.
    """
    before = rows_of(known)
    matching: dict[int, int] = {}
    for places in found.values():
        for place in places:
            matching[place] = matching.get(place, 0) + 1
    seen = {study for found_studies in (studies or {}).values() for study in found_studies}
    rows: list[RegistryRow] = []
    for person in sorted({*dealt, *found}):
        mine = [before[place] for place in found.get(person, ())]
        splits = {row.split for row in mine}
        if person not in dealt and len(splits) > 1:
            continue  # nobody asked yet where they belong; each row stays as it is
        split = dealt.get(person) or splits.pop()
        names, alone = set(members[person]), set((bare or {}).get(person, ()))
        own = set((studies or {}).get(person, ()))
        for place in found.get(person, ()):
            row = before[place]
            if matching[place] == 1 and (row.named_by != NAMED_BY_ID or names & set(row.members)):
                names |= set(row.members)
                alone |= set(row.bare or ())
            if matching[place] == 1 or row.person_key in names:
                own |= set(row.studies or ()) - seen
        births, sexes = facts(person, person)
        same = [row for row in mine if row.person_key == person]  # a fact that the archive lost stays known
        rows.append(
            RegistryRow(
                person_key=person,
                members=sorted(names),
                split=split,
                moved_from=sorted({s for row in mine for s in (row.split, *row.moved_from)} - {split}),
                present=person in dealt,
                named_by=NAMED_BY_NAMESPACE,
                birth_key=min(births) if len(births) == 1 else next((r.birth_key for r in same), None),
                sex_key=min(sexes) if len(sexes) == 1 else next((r.sex_key for r in same), None),
                bare=sorted(alone),
                studies=sorted(own),
            )
        )
    taken = {name for row in rows for name in (*row.members, *(row.studies or ()))}
    rows += [left for row in before if (left := _tombstone(row, taken)) is not None]
    return table_of(sorted(rows, key=lambda row: row.person_key))


def join_registries(own: pa.Table, other: pa.Table) -> pa.Table:
    """Join a dataset's own registry with the people of another dataset whom it does not know yet.

    Raises
    ------
    LayoutError
        When they disagree about anybody.
    """
    rows, others = rows_of(own), rows_of(other)
    homes = {name: place for place, row in enumerate(rows) for name in names_of(row)}
    torn = [row for row in others if {rows[homes[name]].split for name in names_of(row) & homes.keys()} - {row.split}]
    if torn:
        raise LayoutError(
            f"splits.previous: found {counted(len(torn), 'person')} whom that dataset has in other splits than the "
            "dataset that "
            f"is built into, for instance {torn[0].person_key}; expected the same ones. Take 'previous' out of the "
            "spec: the dataset's own registry knows everybody it was begun with"
        )
    for row in others:
        new = names_of(row) - homes.keys()
        place = min((homes[name] for name in names_of(row) & homes.keys()), default=len(rows))
        if place == len(rows):
            rows.append(replace(row, present=False))
        else:
            rows[place] = with_names(rows[place], row, new)
        homes |= dict.fromkeys(new, place)
    return table_of(rows)


def faults(registry: pa.Table, splits: pa.Table, *, named: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with a version's registry: names that two persons have, and persons dealt otherwise.

    ``named``: file names of the registry and of the splits, for the messages.
    """
    homes: dict[str, str] = {}
    rows = rows_of(registry)
    for row in rows:
        if row.person_key not in row.members:
            yield f"{named[0]}: found person {row.person_key} without the own name among the members, expected it"
        for kind, names in (("name", row.members), ("study", row.studies or ())):
            for name in names:
                if homes.setdefault(name, row.person_key) != row.person_key:
                    yield f"{named[0]}: found the {kind} {name} with two persons, expected one"
    dealt = dict(zip(splits["person_key"].to_pylist(), splits["split"].to_pylist(), strict=True))
    listed = {row.person_key: row for row in rows}
    for person, split in dealt.items():
        found = listed.get(person)
        if found is None or not found.present or found.split != split:
            said = "nobody" if found is None else f"{found.split}{'' if found.present else ' and absent'}"
            yield f"{named[0]}: found {said} for person {person}, expected {split} as in {named[1]}"
    for person, row in listed.items():
        if row.present and person not in dealt:
            yield f"{named[0]}: found person {person} as present, expected a row in {named[1]}"


def _holders(known: pa.Table) -> dict[str, int]:
    """Map each study to the row that knows it."""
    listed = known["studies"].to_pylist() if "studies" in known.column_names else []
    return {study: place for place, studies in enumerate(listed) for study in studies or ()}


def _hint(elsewhere: int) -> str:
    if not elsewhere:
        return ""
    return (
        f"{elsewhere} have a PatientID that the registry knows under another site or issuer: if a site was stated or "
        "changed since, trust_registry lets them keep their splits; "
    )


def _agrees(row: RegistryRow, person: str, facts: Facts) -> bool | None:
    """Return whether a row's birth date, else sex, is one of the person's; None when neither can be compared."""
    for said, stated in zip((row.birth_key, row.sex_key), facts(person, row.person_key), strict=True):
        if said is not None and stated:
            return said in stated
    return None


def _tombstone(row: RegistryRow, taken: set[str]) -> RegistryRow | None:
    """Return what is left of a row once today's persons have taken their names from it; None when nothing is."""
    left = [name for name in row.members if name not in taken]
    if not left:
        return None
    studies = None if row.studies is None else [study for study in row.studies if study not in taken]
    if row.person_key in left:
        return replace(row, members=left, studies=studies, present=False)
    return replace(row, person_key=left[0], members=left, studies=studies, present=False, birth_key=None, sex_key=None)
