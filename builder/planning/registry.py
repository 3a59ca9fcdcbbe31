"""Read the registry of a build's dataset before persons are assigned, and carry it into the next version."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pyarrow as pa

from builder.errors import LayoutError, counted
from builder.model.keyed import Key
from builder.model.layout import (
    CURRENT,
    MANIFEST,
    REGISTRY,
    SPLITS,
    parse_current,
    parse_manifest,
    stored_object,
    version_path,
)
from builder.model.parquet import read_parquet
from builder.persons import Persons
from builder.plan import DatasetPlan, key_check
from builder.split import Splits
from builder.split.registry import (
    Facts,
    Registry,
    carry,
    check_people,
    from_splits,
    join_registries,
    known_elsewhere,
    recognise,
)
from builder.split.registry_rows import REGISTRY_SCHEMA
from builder.storage import Store, open_store, read_at

_FILE = ".parquet"
"""Suffix of the ``previous`` that older specs use: the path of a ``splits.parquet``."""


def read_registry(options: Splits, home: Store, *, key: Key) -> Registry:
    """Read everybody who was ever assigned to a split in the dataset at ``home`` and in the one ``previous`` names.

    Raises
    ------
    LayoutError
        When a registry cannot be read, was made with another key, or contradicts the other one.
    """
    current = published(home)
    if options.fresh:
        return Registry.empty(current)
    own = REGISTRY_SCHEMA.empty_table()
    if current is not None:
        own = _read(home, parse_current(current), key, where=home.url)
    return Registry(_with_previous(own, options.previous, key), current)


def published(dataset: Store) -> bytes | None:
    """Read the content of CURRENT; return None if nothing is published."""
    try:
        return dataset.read(CURRENT)
    except FileNotFoundError:
        return None


def still_published(dataset: Store, current: bytes | None, guard: Callable[[], None]) -> Callable[[], None]:
    """Extend ``guard`` to raise LayoutError once another version is published than the one the plan is based on."""

    def unmoved() -> None:
        guard()
        now = published(dataset)
        if now != current:
            before, after = (
                "no version" if pointer is None else f"version {parse_current(pointer)}" for pointer in (current, now)
            )
            raise LayoutError(
                f"{CURRENT}: found {after}, expected {before} as when this build was planned: another build published "
                "meanwhile, and may have dealt persons. Nothing is published by this one; type the same command again"
            )

    return unmoved


def known_again(options: Splits, registry: Registry, persons: Persons, *, key: Key) -> Registry:
    """Look persons up in the registry, and check that they are the people it lists.

    Persons whom it does not know by name, but by their PatientID under another site or issuer, count as known: a site
    that is newly stated must move nobody. Where several rows with several splits could be meant, the person is new.

    Raises
    ------
    LayoutError
        When they are other people, or when ``trust_registry`` is set and somebody's split cannot be told.
    """
    table, facts, studies = registry.table, facts_of(persons, key), studies_of(persons, key)
    names = {person: (*own, *persons.other_zeros.get(person, ())) for person, own in persons.members.items()}
    found = recognise(table, names, persons.former, studies)
    elsewhere = known_elsewhere(table, found, persons.bare, facts)
    splits = table["split"].to_pylist()
    unclear = {person for person, rows in elsewhere.items() if len({splits[row] for row in rows}) > 1}
    if not options.trust_registry:
        check_people(table, found, len(persons.members), facts, elsewhere=len(elsewhere))
    elif unclear:
        raise LayoutError(
            f"splits: found {counted(len(unclear), 'person')} whose PatientID the registry has in several splits "
            "under other "
            f"sites or issuers, for instance {min(unclear)}; expected to know which one each of them is. "
            "State or change one site at a time, with a build in between"
        )
    clear = {person: rows for person, rows in elsewhere.items() if person not in unclear}
    return replace(registry, found={**found, **clear}, elsewhere=frozenset(clear), studies=studies)


def next_registry(registry: Registry, persons: Persons, splits: pa.Table, *, key: Key) -> pa.Table:
    """Return the registry of the version with these splits, with ``REGISTRY_SCHEMA``; ``registry`` is as before it."""
    dealt = dict(zip(*(splits[c].to_pylist() for c in ("person_key", "split")), strict=True))
    facts = facts_of(persons, key)
    known, found = registry.table, registry.found
    return carry(known, found, persons.members, dealt, facts, bare=persons.bare, studies=registry.studies)


def registry_facts(plan: DatasetPlan) -> dict[str, int]:
    """Count a plan's persons who were assigned before, those who are new, and those who remain only as tombstones."""
    registry = plan.registry
    dealt = plan.splits["person_key"].to_pylist()
    known = sum(person in registry.found for person in dealt)
    elsewhere = sum(person in registry.elsewhere for person in dealt)
    absent = 0
    if registry.table.num_rows:  # otherwise nobody was dealt before
        absent = next_registry(registry, plan.persons, plan.splits, key=plan.key)["present"].to_pylist().count(False)
    return {"dealt_before": known, "new": len(dealt) - known, "absent": absent, "elsewhere": elsewhere}


def registry_lines(facts: Mapping[str, int]) -> Iterator[str]:
    """Yield the same facts as a line; nothing for a first version."""
    if facts["dealt_before"] or facts["absent"]:
        absent = counted(facts["absent"], "person who was dealt before is", "persons who were dealt before are")
        yield (
            f"  registry: {counted(facts['dealt_before'], 'person keeps', 'persons keep')} the split of an earlier "
            f"version, {counted(facts['new'], 'is', 'are')} new"
            + (f"; {absent} not in this version and will come back to the same split" if facts["absent"] else "")
        )
    if facts["elsewhere"]:
        yield (
            f"  registry: {counted(facts['elsewhere'], 'of them is', 'of them are')} known by their PatientID under "
            "another site or issuer than "
            "before"
        )


def studies_of(persons: Persons, key: Key) -> dict[str, tuple[str, ...]]:
    """Return the keyed names of every person's studies; they are the ``study_key`` of other tables."""
    found: dict[str, list[str]] = {}
    names = key.names("study", persons.studies)
    for person, name in zip(persons.studies.values(), names, strict=True):
        found.setdefault(person, []).append(name)
    return {person: tuple(sorted(names)) for person, names in found.items()}


def facts_of(persons: Persons, key: Key) -> Facts:
    """Return keyed birth dates and sexes, bound to a person's name so that equal values of two persons differ."""

    def facts(person: str, bound_to: str) -> tuple[frozenset[str], frozenset[str]]:
        said = persons.facts.get(person)
        if said is None:
            return frozenset(), frozenset()
        births = frozenset(key.name("birth", bound_to, value) for value in said.births)
        return births, frozenset(key.name("sex", bound_to, value) for value in said.sexes)

    return facts


def _with_previous(own: pa.Table, previous: str | None, key: Key) -> pa.Table:
    if previous is None:
        return own
    if previous.endswith(_FILE):
        try:
            table = read_parquet(read_at(previous))
        except FileNotFoundError:
            raise _nothing(previous) from None
        return join_registries(own, _complete(table) if "named_by" in table.column_names else from_splits(table))
    location, mark, version = previous.rpartition("@")
    if not mark or "/" in version:
        location, version = previous, ""
    store = open_store(location)
    current = published(store)
    if not version and current is None:
        raise _nothing(previous)
    return join_registries(own, _read(store, version or parse_current(current or b""), key, where=previous))


def _nothing(previous: str) -> LayoutError:
    return LayoutError(
        f"splits.previous: found no dataset at {previous}, expected a published one (DATASET or DATASET@VERSION); "
        "check the location. The dataset that is built into needs no mention: its registry is read unasked"
    )


def _read(store: Store, version: str, key: Key, *, where: str) -> pa.Table:
    """Read the registry of a version, or derive it from the splits if the version was published without one."""
    try:
        manifest = parse_manifest(store.read(version_path(version, MANIFEST)))
    except FileNotFoundError:
        raise LayoutError(f"{where}: found no version {version}, expected it to be there; check the location") from None
    made_with = manifest.lock.get("key_check")
    if made_with != key_check(key):
        raise LayoutError(
            f"{where}: found a dataset that was built with another key, under which nobody would be known again; "
            "expected the same key. Set the one it was built with, build into another place, or deal everybody anew "
            "with splits: {fresh: true}"
        )
    listed = {stored.path: stored for stored in manifest.files}
    name = REGISTRY if REGISTRY in listed else SPLITS
    try:
        data = store.read(version_path(version, name))
    except FileNotFoundError:
        raise LayoutError(
            f"{where}: found no {name} in version {version}, which says where everybody was dealt, expected it to be "
            "there; restore it from a copy, see builder verify"
        ) from None
    if stored_object(name, data) != listed.get(name):
        raise LayoutError(f"{where}: found another {name} than the manifest states; restore it, see builder verify")
    table = read_parquet(data)
    return _complete(table) if name == REGISTRY else from_splits(table)


def _complete(registry: pa.Table) -> pa.Table:
    """Return a registry with every column; those of earlier releases lack the newest."""
    for column in REGISTRY_SCHEMA:
        if column.name not in registry.column_names:
            registry = registry.append_column(column, pa.nulls(registry.num_rows, column.type))
    return registry.select(REGISTRY_SCHEMA.names).cast(REGISTRY_SCHEMA)
