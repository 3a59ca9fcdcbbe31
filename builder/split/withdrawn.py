"""Tombstones of persons who withdrew: their names hashed again, so that the published ones are gone."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from builder.model.keyed import Key
from builder.split.registry import Facts, recognise
from builder.split.registry_rows import REGISTRY_SCHEMA

REASONS: Final = ("consent", "request", "minor", "error", "law", "other")
"""Codes of why a person is taken out. They are published, so nobody may write free text."""

_NAMES: Final = ("person_key", "members", "named_by", "birth_key", "sex_key", "bare", "studies")
TOMBSTONES: Final = pa.schema([*(REGISTRY_SCHEMA.field(name) for name in _NAMES), pa.field("reason", pa.string())])
"""One row a person. Every name is hashed again; birth date and sex are bound to the tombstone's name."""

_PURPOSE: Final = "withdrawn"
_TYPES: Final = b"number_types"


@dataclass(frozen=True, eq=False)
class Withdrawn:
    """Who withdrew from a dataset.

    Parameters
    ----------
    table
        By TOMBSTONES.
    number_types
        Number type that an image ("" for the only one) was read with before, where something had to decide it.
    """

    table: pa.Table = field(default_factory=TOMBSTONES.empty_table)
    number_types: Mapping[str, str] = field(default_factory=dict)

    def stored(self) -> pa.Table:
        """Return the table as it is published; ``parse_withdrawn`` is the inverse."""
        said = json.dumps(dict(self.number_types), sort_keys=True).encode()
        return self.table.replace_schema_metadata({_TYPES: said} if self.number_types else None)

    def joined(self, other: "Withdrawn") -> "Withdrawn":
        """Return both; of a person in both, the row of ``self``."""
        known = set(self.table["person_key"].to_pylist())
        fresh = other.table.filter(
            pa.array([k not in known for k in other.table["person_key"].to_pylist()], pa.bool_())
        )
        table = pa.concat_tables([self.table, fresh]).sort_by("person_key")
        return Withdrawn(table, {**other.number_types, **self.number_types})


def parse_withdrawn(table: pa.Table) -> Withdrawn:
    """Read the table of a version."""
    types = json.loads((table.schema.metadata or {}).get(_TYPES, b"{}"))
    return Withdrawn(table.replace_schema_metadata(None).select(TOMBSTONES.names).cast(TOMBSTONES), types)


def hashed(key: Key, names: Iterable[str]) -> list[str]:
    """Return keyed names hashed again for tombstones, sorted."""
    return sorted(key.names(_PURPOSE, set(names)))


def tombstone(key: Key, row: Mapping[str, object], reason: str) -> pa.Table:
    """Return the tombstone of a person.

    Parameters
    ----------
    row
        Of the registry, of which ``person_key``, ``members``, ``bare`` and ``studies`` are used.
    reason
        One of REASONS.
    """
    made = {name: hashed(key, row[name] or ()) for name in ("members", "bare", "studies")}  # type: ignore[arg-type]
    (name,) = hashed(key, [str(row["person_key"])])
    rest = {"named_by": row["named_by"], "birth_key": None, "sex_key": None, "reason": reason}
    return pa.Table.from_pylist([{"person_key": name, **made, **rest}], schema=TOMBSTONES)


@dataclass(frozen=True)
class Known:
    """What today's archive knows a person by; all keyed."""

    names: Sequence[str]
    former: Sequence[str] = ()
    bare: Sequence[str] = ()
    studies: Sequence[str] = ()


def stands_for(withdrawn: Withdrawn, people: Mapping[str, Known], facts: Facts, *, key: Key) -> dict[str, list[int]]:
    """Map each of today's persons who withdrew to the tombstones that stand for that person.

    A name or a study is enough. A PatientID alone, under another site or issuer than before, counts only together with
    the birth date, because two hospitals may give one number to two patients.
    """
    table = withdrawn.table
    found = recognise(
        table,
        {person: hashed(key, known.names) for person, known in people.items()},
        {person: hashed(key, known.former) for person, known in people.items()},
        {person: hashed(key, known.studies) for person, known in people.items()},
    )
    births = dict(enumerate(table["birth_key"].to_pylist()))
    stones = table["person_key"].to_pylist()
    numbers: dict[str, list[int]] = {}
    for place, names in enumerate(table["bare"].to_pylist()):
        for name in names or () if births[place] else ():
            numbers.setdefault(name, []).append(place)
    for person, known in people.items() if numbers else ():
        alike = {place for name in hashed(key, known.bare) for place in numbers.get(name, ())}
        born = [place for place in sorted(alike) if births[place] in facts(person, stones[place])[0]]
        if person not in found and born:
            found[person] = tuple(born)
    return {person: list(places) for person, places in found.items()}


def learnt(
    withdrawn: Withdrawn, found: Mapping[str, Sequence[int]], people: Mapping[str, Known], facts: Facts, *, key: Key
) -> Withdrawn:
    """Return the tombstones with everything that today's archive knows of the persons they stand for."""
    rows = withdrawn.table.to_pylist()
    for person in sorted(found):
        row, known = rows[found[person][0]], people[person]
        for name, more in (("members", known.names), ("bare", known.bare), ("studies", known.studies)):
            row[name] = sorted({*(row[name] or ()), *hashed(key, more)})
        births, sexes = facts(person, row["person_key"])
        row["birth_key"] = row["birth_key"] or (min(births) if len(births) == 1 else None)
        row["sex_key"] = row["sex_key"] or (min(sexes) if len(sexes) == 1 else None)
    return Withdrawn(pa.Table.from_pylist(rows, schema=TOMBSTONES), withdrawn.number_types)


def without_withdrawn(registry: pa.Table, withdrawn: Withdrawn, *, key: Key) -> pa.Table:
    """Return a registry without the rows of persons who withdrew."""
    stones = {name for names in withdrawn.table["members"].to_pylist() for name in names}
    if not stones:
        return registry
    members = registry["members"].to_pylist()
    kept = [stones.isdisjoint(hashed(key, names)) for names in members]
    return registry.filter(pa.array(kept, pa.bool_()))
