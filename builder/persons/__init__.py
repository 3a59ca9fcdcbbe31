"""Who is one person: PatientIDs of issuers and sites, declared aliases and shared studies."""

from builder.persons.aliases import Aliases, AliasIds, alias_ids
from builder.persons.doubts import PersonConflict
from builder.persons.grouping import Persons, group_persons
from builder.persons.naming import PLACEHOLDERS, Identity, Naming, lookup_names, normal_id, normal_issuer, without_zeros

__all__ = [
    "PLACEHOLDERS",
    "AliasIds",
    "Aliases",
    "Identity",
    "Naming",
    "PersonConflict",
    "Persons",
    "alias_ids",
    "group_persons",
    "lookup_names",
    "normal_id",
    "normal_issuer",
    "without_zeros",
]
