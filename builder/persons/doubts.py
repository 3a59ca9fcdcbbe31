"""What the headers say about persons, and where they contradict each other or leave open who somebody is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from builder.persons.forest import Forest
from builder.persons.naming import STUDY, Identity, Naming, Seen, normal_id, without_zeros


@dataclass(frozen=True)
class PersonConflict:
    """Something odd about a person's identity, by keyed name only.

    ``kind`` is ``shared_study`` (one study under several PatientIDs: they were merged), ``alias`` (merged by an alias
    table), ``blank_issuer`` (a PatientID with its issuer in one object and without in another: merged),
    ``unclear_issuer`` (one without issuer that several issuers have: dealt together), ``leading_zeros`` (merged because
    the spec says so), ``spelling`` (one PatientID written in several ways), ``sex`` or ``birth_date`` (one person with
    several values: perhaps two people).
    """

    kind: str
    person_key: str
    count: int


@dataclass(frozen=True)
class Facts:
    """What tells whether a keyed name still stands for the same person; private."""

    births: frozenset[str] = frozenset()
    sexes: frozenset[str] = frozenset()


def facts_of(rows: Iterable[Seen], keys: Mapping[Identity, str]) -> dict[str, Facts]:
    """Return what the headers say about each person, by keyed name."""
    found: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        if row.birth or row.sex:
            found.setdefault(keys[row.who], set()).add((row.birth, row.sex))

    @cache
    def facts(said: frozenset[tuple[str, str]]) -> Facts:  # of many persons, as a set alone takes 216 bytes
        return Facts(frozenset(b for b, _ in said if b), frozenset(s for _, s in said if s))

    return {person: facts(frozenset(said)) for person, said in found.items()}


def contradictions(facts: Mapping[str, Facts]) -> Iterable[PersonConflict]:
    """Yield persons of several sexes or birth dates."""
    for person, said in facts.items():
        for kind, values in (("sex", said.sexes), ("birth_date", said.births)):
            if len(values) > 1:
                yield PersonConflict(kind, person, len(values))


def doubts_of(rows: Sequence[Seen], forest: Forest[Identity], rules: Naming) -> dict[str, int]:
    """Return ids that name nobody, and ids that differ only in leading zeros and are not merged."""
    nobody = {(normal_id(row.spelling[1]), row.study) for row in rows if row.who[0] == STUDY and row.spelling[1]}
    found = {"placeholder_ids": len({name for name, _ in nobody if name}), "studies_under_them": len(nobody)}
    if not found["placeholder_ids"]:
        found = {}
    if rules.leading_zeros == "report":
        first: dict[Identity, Identity] = {}
        ids = {row.who for row in rows if row.who[0] != STUDY}
        alike = [((namespace, without_zeros(name)), forest.find((namespace, name))) for namespace, name in ids]
        lost = {short for short, group in alike if first.setdefault(short, group) != group}
        found |= {"differ_in_leading_zeros": len(lost)} if lost else {}
    return found
