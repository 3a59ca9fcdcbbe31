"""PatientIDs, declared aliases and shared studies -> persons, by disjoint sets."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from builder.errors import SpecError, counted
from builder.model.keyed import Key
from builder.model.sorting import distinct, runs
from builder.persons.aliases import AliasesMerged, AliasIds, merge_aliases
from builder.persons.doubts import Facts, PersonConflict, contradictions, doubts_of, facts_of
from builder.persons.forest import Forest
from builder.persons.naming import (
    ALIAS,
    STUDY,
    Identity,
    Naming,
    Seen,
    bare_names,
    former_names,
    identity_name,
    identity_names,
    keyed_names,
    without_zeros,
    written_names,
)

COLUMNS: Final = ("patient_id", "issuer_of_patient_id", "study_uid", "patient_sex", "patient_birth_date", "source")
"""Columns of INSTANCES that persons are made from."""

MOST_DIGITS: Final = 20
"""Longest PatientID, with its leading zeros, that is looked for in earlier versions under ``leading_zeros: join``."""


@dataclass(frozen=True)
class Persons:
    """The outcome of identity resolution.

    Parameters
    ----------
    keys
        Identity to person_key.
    members
        person_key to the sorted keyed names of its PatientIDs: as they are written, and in their normal form.
    conflicts
        Sorted, for the report.
    naming
        The rules by which an object's identity is told.
    former
        person_key to the names that datasets of older releases know the person by, where they are others.
    bare
        person_key to the sorted keyed names of its PatientIDs alone, without issuer and site.
    other_zeros
        person_key to the keyed names of its PatientIDs with other leading zeros, where the spec says that they are one.
    facts
        person_key to birth dates and sexes.
    together
        Groups of persons who may be one: they are dealt to one split.
    studies
        StudyInstanceUID to person_key: one study is one person's.
    spellings
        Every PatientID as it is written anywhere, for the search of what leaves.
    notes
        Counts of what identity resolution could not use or was not sure of, by name.
    """

    keys: dict[Identity, str]
    members: dict[str, tuple[str, ...]]
    conflicts: tuple[PersonConflict, ...]
    naming: Naming = field(default_factory=Naming)
    former: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bare: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    other_zeros: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    facts: Mapping[str, Facts] = field(default_factory=dict)
    together: tuple[tuple[str, ...], ...] = ()
    studies: Mapping[str, str] = field(default_factory=dict)
    spellings: frozenset[str] = frozenset()
    notes: Mapping[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Return persons, PatientIDs, how many were merged or contradict themselves by kind, and the notes."""
        ids = sum(not namespace.startswith(ALIAS) for namespace, _ in self.keys)
        found = {"persons": len(self.members), "patient_ids": ids}
        for conflict in self.conflicts:
            found[conflict.kind] = found.get(conflict.kind, 0) + 1
        return {**found, **self.notes}

    def keys_of(self, table: pa.Table) -> list[str | None]:
        """Return the person of each row of INSTANCES or STACKS; None for an object without study and PatientID."""
        names = ("patient_id", "issuer_of_patient_id", "study_uid", "source")
        first, numbers = runs(table.select(names))
        found: list[str | None] = []
        for row in zip(*(column.to_pylist() for column in first.columns), strict=True):
            patient, _, study, _ = row
            # by study first: a stack may name its patient in part by one object and in part by another
            person = self.studies.get(study or "") or self.keys.get(self.naming.identity(*row))
            found.append(person if patient or study else None)
        return [found[number] for number in numbers.tolist()]


def group_persons(
    instances: pa.Table,
    *,
    key: Key,
    naming: Naming | None = None,
    aliases: Sequence[AliasIds] = (),
    remembered: Collection[str] = (),
    withdrew: Callable[[str], bool] = lambda name: False,
) -> Persons:
    """Group identities into persons.

    Parameters
    ----------
    instances
        The columns ``COLUMNS``, of which ``source`` may be absent; distinct rows are enough. Order does not matter.
    naming
        The spec's rules.
    aliases
        What the spec's alias tables declare. Ids without images join others as well.
    remembered
        Keyed names of everybody in earlier versions: a table may be of people who are absent now.
    withdrew
        Whether a keyed name is of a person who withdrew: a table may be of those, too.

    Returns
    -------
    Persons
        A person is named after the smallest keyed name of its PatientIDs as written, so that the name does not depend
        on order and survives the arrival of most new ids.

    Raises
    ------
    SpecError
        When an alias table cannot be applied as it stands, or two sources without a site have PatientIDs in common.
    """
    rules = naming or Naming()
    rows = _seen(instances, rules)
    forest: Forest[Identity] = Forest()
    for row in rows:
        forest.add(row.who)
    merged = [("shared_study", who) for who in _merge_studies(forest, rows)]
    issuers, unclear = _merge_issuers(forest, rows)
    merged += [("blank_issuer", who) for who in issuers]
    if rules.leading_zeros == "join":
        merged += [("leading_zeros", who) for who in _merge_zeros(forest)]
    _check_sources(forest, rows, rules)
    known_before = set(remembered)
    aliased = merge_aliases(
        forest,
        rows,
        rules=rules,
        tables=aliases,
        remembered=lambda place, name: (
            (known := keyed_names(key, ("", name), (place, name))[1]) in known_before or withdrew(known)
        ),
    )
    merged += [("alias", who) for who in aliased.merged]
    return _finished(forest, rows, _names_of(rows, key), rules=rules, merged=merged, unclear=unclear, aliased=aliased)


def _seen(instances: pa.Table, rules: Naming) -> list[Seen]:
    rows = distinct(instances.select([name for name in COLUMNS if name in instances.column_names]))
    columns = (rows[name].to_pylist() if name in rows.column_names else [None] * rows.num_rows for name in COLUMNS)
    found = set()
    for patient_id, issuer, study, sex, birth, given in zip(*columns, strict=True):
        source = given or 0
        who = rules.identity(patient_id, issuer, study, source)
        spelling = ((issuer or "").strip(), (patient_id or "").strip())
        said = ((sex or "").strip(), (birth or "").strip())
        found.add(Seen(who, spelling, study or "", *said, rules.place(source), source))
    return sorted(found)


def _merge_studies(forest: Forest[Identity], rows: Iterable[Seen]) -> list[Identity]:
    first: dict[str, Identity] = {}
    found = [forest.join(first.setdefault(row.study, row.who), row.who) for row in rows if row.study]
    return [who for who in found if who is not None]


def _merge_issuers(forest: Forest[Identity], rows: Sequence[Seen]) -> tuple[list[Identity], list[tuple[Identity, ...]]]:
    """Join a PatientID without issuer to the one issuer that has it at the same site; name the groups of several."""
    issued: dict[tuple[str, str], set[Identity]] = {}
    for row in rows:
        if row.who[0] not in (STUDY, row.place):
            issued.setdefault((row.place, row.who[1]), set()).add(row.who)
    joined: list[Identity] = []
    unclear: list[tuple[Identity, ...]] = []
    for who in forest.nodes():
        others = sorted(issued.get(who, ()))
        if len({forest.find(other) for other in others}) > 1:
            unclear.append((who, *others))
        elif others and (found := forest.join(who, others[0])) is not None:
            joined.append(found)
    return joined, unclear


def _merge_zeros(forest: Forest[Identity]) -> list[Identity]:
    first: dict[Identity, Identity] = {}
    found = []
    for who in forest.nodes():
        if who[0] != STUDY:
            found.append(forest.join(first.setdefault((who[0], without_zeros(who[1])), who), who))
    return [who for who in found if who is not None]


def _check_sources(forest: Forest[Identity], rows: Iterable[Seen], rules: Naming) -> None:
    """Refuse PatientIDs that two sources without a site have, unless a study says that it is one patient."""
    if rules.shared_ids or sum(not rules.place(n) for n in range(len(rules.sites))) < 2:
        return
    homes: dict[Identity, dict[int, set[str]]] = {}
    for row in rows:
        if not row.who[0]:
            proof = f"{row.source} {row.study}" if row.source in rules.named_studies else row.study
            homes.setdefault(row.who, {}).setdefault(row.source, set()).add(proof)
    doubtful = [studies for studies in homes.values() if len(studies) > 1 and not _linked(studies)]
    if doubtful:
        sources = sorted({source for studies in doubtful for source in studies})
        raise SpecError(
            f"persons: found {counted(len(doubtful), 'PatientID')} in several of the sources "
            f"{', '.join(map(str, sources))} (from "
            "0), which state no site, expected one hospital's numbers in each; give every source its site, as in "
            "{kind: folder, url: ..., site: north}, or say that they number their patients together: "
            "persons: {shared_ids: true}"
        )


def _linked(studies: Mapping[int, set[str]]) -> bool:
    """Return whether studies that the sources have in common link all of them."""
    groups = [set(found) for found in studies.values()]
    linked = groups.pop()
    while True:
        near = [group for group in groups if group & linked]
        if not near:
            return not groups
        linked = linked.union(*near)
        groups = [group for group in groups if not group & linked]


@dataclass(frozen=True)
class _Names:
    """What persons are called."""

    key: Key
    written: dict[Identity, set[str]]
    normal: dict[Identity, str]
    former: dict[Identity, set[str]]
    bare: dict[Identity, str]

    def of(self, group: Sequence[Identity], absent: Mapping[Identity, Sequence[str]]) -> tuple[str, set[str], set[str]]:
        """Return a group's person_key ("" if the archive has nothing of its ids), its names and its former names."""
        names = {name for who in group for name in self.written.get(who, ())}
        person = min(names, default="")
        names |= {self.normal[who] for who in group if who in self.normal}
        if absent:
            names |= _absent_names(group, absent, key=self.key, taken=self.normal.keys())
        return person, names, {name for who in group for name in self.former.get(who, ())} - names


def _names_of(rows: Sequence[Seen], key: Key) -> _Names:
    written: dict[Identity, set[str]] = {}
    for row, name in zip(rows, written_names(key, rows), strict=True):
        written.setdefault(row.who, set()).add(name)
    former: dict[Identity, set[str]] = {}
    stated = [row for row in rows if row.spelling[1]]
    for row, name in zip(stated, former_names(key, stated), strict=True):
        former.setdefault(row.who, set()).add(name)
    ids = [who for who in written if who[0] != STUDY]
    return _Names(
        key,
        written=written,
        normal=dict(zip(written, identity_names(key, written), strict=True)),
        former=former,
        bare=dict(zip(ids, bare_names(key, ids), strict=True)),
    )


def _finished(
    forest: Forest[Identity],
    rows: Sequence[Seen],
    names: _Names,
    *,
    rules: Naming,
    merged: Sequence[tuple[str, Identity]],
    unclear: Sequence[tuple[Identity, ...]],
    aliased: AliasesMerged,
) -> Persons:
    groups: dict[Identity, list[Identity]] = {}
    for who in forest.nodes():
        groups.setdefault(forest.find(who), []).append(who)
    keys: dict[Identity, str] = {}
    members: dict[str, tuple[str, ...]] = {}
    former: dict[str, tuple[str, ...]] = {}
    bare: dict[str, tuple[str, ...]] = {}
    for group in groups.values():
        person, own, old = names.of(group, aliased.absent)
        if person:
            keys.update(dict.fromkeys(group, person))
            members[person] = tuple(sorted(own))
            former |= {person: tuple(sorted(old))} if old else {}
            bare[person] = tuple(sorted({names.bare[who] for who in group if who in names.bare}))
    conflicts = [PersonConflict(kind, keys[who], 1) for kind, who in merged if who in keys]
    conflicts += [PersonConflict("unclear_issuer", keys[group[0]], len(group)) for group in unclear]
    ways = Counter(who for who, _ in {(row.who, row.spelling) for row in rows} if who[0] != STUDY)
    conflicts += [PersonConflict("spelling", keys[who], count) for who, count in ways.items() if count > 1]
    facts = facts_of(rows, keys)
    together = sorted({tuple(sorted({keys[who] for who in group})) for group in unclear})
    texts = {row.spelling[1] for row in rows} | {row.study for row in rows if row.who[0] == STUDY}
    return Persons(
        keys,
        members,
        tuple(sorted({*conflicts, *contradictions(facts)}, key=lambda c: (c.kind, c.person_key, c.count))),
        naming=rules,
        former=former,
        bare=bare,
        other_zeros=_other_zeros(names.key, keys) if rules.leading_zeros == "join" else {},
        facts=facts,
        together=tuple(group for group in together if len(group) > 1),
        studies={row.study: keys[row.who] for row in rows if row.study},
        spellings=frozenset(texts.union(*aliased.absent.values())) - {""},
        notes={**aliased.notes, **doubts_of(rows, forest, rules)},
    )


def _other_zeros(key: Key, keys: Mapping[Identity, str]) -> dict[str, tuple[str, ...]]:
    """Name each id of digits with fewer and more leading zeros: an earlier version may have had it so."""
    found: dict[str, list[str]] = {}
    for (namespace, name), person in keys.items():
        if namespace != STUDY and name.isdigit():
            digits = without_zeros(name)
            for length in range(len(digits), MOST_DIGITS + 1):
                found.setdefault(person, []).append(identity_name(key, (namespace, digits.zfill(length))))
    return {person: tuple(sorted(set(names))) for person, names in found.items()}


def _absent_names(
    group: Sequence[Identity], absent: Mapping[Identity, Sequence[str]], *, key: Key, taken: Collection[Identity]
) -> set[str]:
    """Return the keyed names of a group's ids without objects.

    Each is named as of its table's site and the issuers of the group, or, where the table states no site, as of every
    namespace of the group; never as of one where somebody in the archive has that id (``taken``).
    """
    namespaces = {namespace for namespace, _ in group if namespace != STUDY and not namespace.startswith(ALIAS)}
    found: set[str] = set()
    for who in group:
        site = who[0].removeprefix(ALIAS)
        own = {n for n in namespaces if not site or (n and "\0" not in n)} | {site}
        for text in absent.get(who, ()):
            for namespace in sorted(n for n in own if (n, who[1]) not in taken):
                found |= {*keyed_names(key, (_issuer(namespace), text), (namespace, who[1]))}
    return found


def _issuer(namespace: str) -> str:
    return "" if "\0" in namespace else namespace
