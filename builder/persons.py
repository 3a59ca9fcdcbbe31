"""Who is one person: union-find over PatientIDs, declared aliases and shared studies."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from builder.model.keyed import Key
from builder.model.sorting import distinct

Identity = tuple[str, str]
"""(Issuer of Patient ID (0010,0021), Patient ID (0010,0020)), both stripped; the issuer is often empty."""


@dataclass(frozen=True)
class PersonConflict:
    """Something odd about a person's identity, by keyed name only.

    ``kind`` is ``shared_study`` (one study under several PatientIDs: they were merged), ``alias`` (merged by the
    alias table), ``sex`` or ``birth_date`` (one PatientID with several values: perhaps two people).
    """

    kind: str
    person_key: str
    count: int


@dataclass(frozen=True)
class Persons:
    """The outcome of identity resolution.

    Parameters
    ----------
    keys
        Identity to person_key.
    members
        person_key to the sorted keyed names of its PatientIDs.
    conflicts
        Sorted, for the report.
    """

    keys: dict[Identity, str]
    members: dict[str, tuple[str, ...]]
    conflicts: tuple[PersonConflict, ...]

    def counts(self) -> dict[str, int]:
        """Persons, PatientIDs, and how many were merged or contradict themselves, by kind."""
        found = {"persons": len(self.members), "patient_ids": sum(map(len, self.members.values()))}
        for conflict in self.conflicts:
            found[conflict.kind] = found.get(conflict.kind, 0) + 1
        return found


def identity(patient_id: str | None, issuer: str | None, study_uid: str | None) -> Identity:
    """The identity of an object; an object without PatientID is its study's own person, never everybody's."""
    name = (patient_id or "").strip()
    if name:
        return ((issuer or "").strip(), name)
    return ("\0study", study_uid or "")


def patient_key(key: Key, who: Identity) -> str:
    """The keyed name of one PatientID."""
    return key.name("patient", *who)


def group_persons(instances: pa.Table, *, aliases: Iterable[tuple[str, str]] = (), key: Key) -> Persons:
    """Group identities into persons.

    Parameters
    ----------
    instances
        Columns ``patient_id``, ``issuer_of_patient_id``, ``study_uid``, ``patient_sex``, ``patient_birth_date``;
        distinct rows are enough. Order does not matter.
    aliases
        Pairs of PatientIDs the spec declares to be one person (any issuer).

    Returns
    -------
    Persons
        A person is named after the smallest keyed name of its members, so that the name does not depend on order
        and survives the arrival of most new members.
    """
    rows = _distinct(instances)
    forest = _Forest()
    studies: dict[str, list[Identity]] = {}
    for who, study, _, _ in rows:
        forest.add(who)
        if study:
            studies.setdefault(study, []).append(who)
    shared = _merge_studies(forest, studies)
    aliased = _merge_aliases(forest, aliases)
    keyed = {who: patient_key(key, who) for who in forest.nodes()}
    groups: dict[Identity, list[Identity]] = {}
    for who in keyed:
        groups.setdefault(forest.find(who), []).append(who)
    keys: dict[Identity, str] = {}
    members: dict[str, tuple[str, ...]] = {}
    for group in groups.values():
        names = tuple(sorted(keyed[who] for who in group))
        members[names[0]] = names
        keys.update(dict.fromkeys(group, names[0]))
    merged = [PersonConflict("shared_study", keys[who], 1) for who in shared]
    merged += [PersonConflict("alias", keys[who], 1) for who in aliased]
    return Persons(keys, members, tuple(sorted({*merged, *_contradictions(rows, keys)}, key=_conflict_order)))


def _distinct(instances: pa.Table) -> list[tuple[Identity, str, str, str]]:
    names = ["patient_id", "issuer_of_patient_id", "study_uid", "patient_sex", "patient_birth_date"]
    rows = distinct(instances.select(names)).to_pylist()
    return sorted(
        {
            (
                identity(r["patient_id"], r["issuer_of_patient_id"], r["study_uid"]),
                r["study_uid"] or "",
                (r["patient_sex"] or "").strip(),
                (r["patient_birth_date"] or "").strip(),
            )
            for r in rows
        }
    )


def _merge_studies(forest: "_Forest", studies: dict[str, list[Identity]]) -> list[Identity]:
    shared = []
    for group in studies.values():
        first = group[0]
        for other in group[1:]:
            if forest.find(other) != forest.find(first):
                forest.join(first, other)
                shared.append(first)
    return shared


def _merge_aliases(forest: "_Forest", aliases: Iterable[tuple[str, str]]) -> list[Identity]:
    by_name: dict[str, list[Identity]] = {}
    for who in forest.nodes():
        by_name.setdefault(who[1], []).append(who)
    merged = []
    for one, other in aliases:
        ends = [*by_name.get(one.strip(), ()), *by_name.get(other.strip(), ())]
        for who in ends[1:]:
            if forest.find(who) != forest.find(ends[0]):
                forest.join(ends[0], who)
                merged.append(ends[0])
    return merged


def _contradictions(
    rows: Sequence[tuple[Identity, str, str, str]], keys: dict[Identity, str]
) -> Iterable[PersonConflict]:
    sexes: dict[str, set[str]] = {}
    births: dict[str, set[str]] = {}
    for who, _, sex, birth in rows:
        if sex:
            sexes.setdefault(keys[who], set()).add(sex)
        if birth:
            births.setdefault(keys[who], set()).add(birth)
    for kind, found in (("sex", sexes), ("birth_date", births)):
        for person, values in found.items():
            if len(values) > 1:
                yield PersonConflict(kind, person, len(values))


def _conflict_order(conflict: PersonConflict) -> tuple[str, str, int]:
    return (conflict.kind, conflict.person_key, conflict.count)


class _Forest:
    """Disjoint sets with path halving (Tarjan 1975)."""

    def __init__(self) -> None:
        self._parent: dict[Identity, Identity] = {}

    def add(self, node: Identity) -> None:
        self._parent.setdefault(node, node)

    def nodes(self) -> list[Identity]:
        return sorted(self._parent)

    def find(self, node: Identity) -> Identity:
        parent = self._parent
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(self, one: Identity, other: Identity) -> None:
        a, b = sorted((self.find(one), self.find(other)))
        self._parent[b] = a
