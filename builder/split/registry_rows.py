"""The rows of a registry: what is known of each person, and how it is stored."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

REGISTRY_SCHEMA: Final = pa.schema(
    [
        ("person_key", pa.string()),
        ("members", pa.list_(pa.string())),  # keyed names, sorted
        ("split", pa.string()),
        ("moved_from", pa.list_(pa.string())),  # splits the person left because the spec answered a conflict, sorted
        ("present", pa.bool_()),  # whether this version has the person; false for a tombstone
        ("named_by", pa.int8()),  # NAMED_BY_ID or NAMED_BY_NAMESPACE
        ("birth_key", pa.string()),  # keyed birth date, bound to person_key; null when it is not one date
        ("sex_key", pa.string()),
        ("bare", pa.list_(pa.string())),  # keyed PatientIDs without issuer and site; several may share one
        ("studies", pa.list_(pa.string())),  # keyed StudyInstanceUIDs, sorted; a study is one person's
    ]
)


@dataclass(frozen=True, kw_only=True)
class RegistryRow:
    """One person of the registry; the fields are the columns of ``REGISTRY_SCHEMA``."""

    person_key: str
    members: Sequence[str]
    split: str
    moved_from: Sequence[str] = ()
    present: bool
    named_by: int
    birth_key: str | None = None
    sex_key: str | None = None
    bare: Sequence[str] | None = None
    studies: Sequence[str] | None = None


def rows_of(registry: pa.Table) -> list[RegistryRow]:
    """Return the rows of a registry; those of other releases may lack a column or have one more."""
    columns = [name for name in REGISTRY_SCHEMA.names if name in registry.column_names]
    return [RegistryRow(**row) for row in registry.select(columns).to_pylist()]


def names_of(row: RegistryRow) -> set[str]:
    """Return what tells who a row is: names and studies, which are different texts."""
    return {*row.members, *(row.studies or ())}


def with_names(row: RegistryRow, other: RegistryRow, new: set[str]) -> RegistryRow:
    """Return a row that also knows what ``other`` is known by, as far as it is ``new``."""
    return replace(
        row,
        members=sorted({*row.members, *(new & set(other.members))}),
        bare=sorted({*(row.bare or ()), *(other.bare or ())}),
        studies=sorted({*(row.studies or ()), *(new & set(other.studies or ()))}),
    )


def table_of(rows: Iterable[RegistryRow]) -> pa.Table:
    """Return rows as a table by ``REGISTRY_SCHEMA``."""
    held = list(rows)
    columns = {name: [getattr(row, name) for row in held] for name in REGISTRY_SCHEMA.names}
    return pa.table(columns, schema=REGISTRY_SCHEMA)
