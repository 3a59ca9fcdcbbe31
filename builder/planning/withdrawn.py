"""Leave out of a plan's inputs whoever withdrew from the dataset, before anything else looks at them."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import LayoutError, counted
from builder.model.canonical import fingerprint
from builder.model.keyed import Key
from builder.model.layout import MANIFEST, WITHDRAWN, parse_current, parse_manifest, stored_object, version_path
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.tables import FROM_TABLES, files_in
from builder.persons import Persons
from builder.plan import key_check
from builder.planning.inputs import PlanInputs
from builder.planning.inventory import INVENTORY, Gone, Inventory, Survey, keep_inventory
from builder.planning.merge import ANNOTATIONS, LEFTOVERS, keep_chunk
from builder.planning.people import find_persons
from builder.planning.registry import facts_of, published, read_registry, studies_of
from builder.split.registry import recognise
from builder.split.withdrawn import Known, Withdrawn, learnt, parse_withdrawn, stands_for, without_withdrawn
from builder.stages.twin import TWINS
from builder.storage import Store

Item = TypeVar("Item")


def with_history(inputs: PlanInputs, *, also: Withdrawn | None = None) -> PlanInputs:
    """Return the inputs with who was dealt before and who withdrew, and without what is of persons who withdrew.

    Parameters
    ----------
    also
        Tombstones that no published version has yet.

    Raises
    ------
    LayoutError
        When the published registry or tombstones cannot be read, or were made with another key.
    """
    key = inputs.key
    registry = read_registry(inputs.spec.splits, inputs.dataset, key=key)
    withdrawn = read_withdrawn(inputs.dataset, key=key)
    for other in () if also is None else (also,):
        withdrawn = withdrawn.joined(other)
    registry = replace(registry, table=without_withdrawn(registry.table, withdrawn, key=key))
    inputs = replace(inputs, registry=registry, withdrawn=withdrawn)
    if not withdrawn.table.num_rows:
        return inputs
    table = inputs.inventory.annotations()
    persons = find_persons(replace(inputs, progress=_Silent()), table, registry=registry)
    people, facts = known_people(persons, key), facts_of(persons, key)
    # whom the registry knows by name or study is that person, whatever else is alike
    names = {person: own.names for person, own in people.items()}
    others = recognise(registry.table, names, persons.former, {p: k.studies for p, k in people.items()})
    unknown = {p: replace(k, bare=()) if p in others else k for p, k in people.items()}
    found = stands_for(withdrawn, unknown, facts, key=key)
    if not found:
        return inputs
    withdrawn = learnt(withdrawn, found, people, facts, key=key)
    stones = withdrawn.table["person_key"].to_pylist()
    gone = {person: stones[places[0]] for person, places in found.items()}
    inventory, survey = _left(inputs.inventory, inputs.survey, persons, gone, inputs.private)
    inputs.progress.say(
        f"withdrawn: {counted(len(gone), 'person of the archive is', 'persons of the archive are')} left out, with "
        + counted(sum(g.files for g in inventory.withdrawn), "file")
    )
    return replace(inputs, inventory=inventory, survey=survey, withdrawn=withdrawn)


def read_withdrawn(dataset: Store, *, key: Key) -> Withdrawn:
    """Read the tombstones of the published version; nobody's where nothing is published or nobody withdrew.

    Raises
    ------
    LayoutError
        When they were made with another key, under which nobody would be known again, or are damaged.
    """
    current = published(dataset)
    if current is None:
        return Withdrawn()
    version = parse_current(current)
    manifest = parse_manifest(dataset.read(version_path(version, MANIFEST)))
    stored = next((s for s in manifest.files if s.path == WITHDRAWN), None)
    if stored is None:
        return Withdrawn()
    if manifest.lock.get("key_check") != key_check(key):
        raise LayoutError(
            f"{WITHDRAWN}: found tombstones of persons who withdrew, made with another key, under which they would not "
            "be known again; expected the same key. A dataset under a new key needs a place of its own and an archive "
            "without these persons"
        )
    data = dataset.read(version_path(version, WITHDRAWN))
    if stored_object(WITHDRAWN, data) != stored:
        raise LayoutError(f"{WITHDRAWN}: found another content than the manifest states; restore it from a copy")
    return parse_withdrawn(read_parquet(data))


def known_people(persons: Persons, key: Key) -> dict[str, Known]:
    """Return what an archive knows everybody by."""
    studies = studies_of(persons, key)
    return {
        person: Known(
            names=(*own, *persons.other_zeros.get(person, ())),
            former=persons.former.get(person, ()),
            bare=persons.bare.get(person, ()),
            studies=studies.get(person, ()),
        )
        for person, own in persons.members.items()
    }


@dataclass(frozen=True)
class _Silent:
    """Progress that nobody sees: persons are found once more, with words, when those who withdrew are left out."""

    def track(self, items: Iterable[Item], *, stage: str, total: int | None) -> Iterator[Item]:
        yield from items

    def say(self, message: str) -> None:
        pass


def _left(
    inventory: Inventory, survey: Survey, persons: Persons, gone: Mapping[str, str], private: Store
) -> tuple[Inventory, Survey]:
    """Write an inventory and its survey without some persons, and return them.

    ``gone`` maps each of these persons to the tombstone's name.
    """
    held = inventory.store.url.rpartition("/")[2]
    store = private.join(INVENTORY, fingerprint("withdrawn", held, sorted(gone)))
    files: dict[str, int] = dict.fromkeys(gone.values(), 0)
    instances = dict(files)

    def kept(table: pa.Table, *, count: bool = True) -> pa.Array:
        people = persons.keys_of(table)
        for person, uid, form, number in zip(people, *_counted_by(table), strict=True) if count else ():
            if person is not None and person in gone:
                files[gone[person]] += number
                instances[gone[person]] += number if uid is not None or form == FROM_TABLES else 0
        return pa.array([person not in gone for person in people], pa.bool_())

    parts = []
    for number, old in enumerate(survey.parts):
        table, stacks = inventory.chunk(number), survey.stacks_of(number)
        rows = kept(table)
        new = replace(old, store=store.url, chunk=keep_chunk(store, table.filter(rows)))
        parts.append(new)
        stacks = _without_digests(stacks, table.filter(pc.invert(rows))["series_uid"])
        store.put(new.stacks, parquet_bytes(stacks.filter(kept(stacks, count=False)), compression="lz4"))
        identities = read_parquet(inventory.store.read(old.identities))
        identities = identities.filter(kept(identities, count=False))
        store.put(new.identities, parquet_bytes(identities, compression="lz4"))
        store.put(new.membership, parquet_bytes(survey.membership(number).filter(rows), compression="lz4"))
    for path, table in ((ANNOTATIONS, inventory.annotations()), (LEFTOVERS, inventory.leftovers())):
        store.put(path, parquet_bytes(table.filter(kept(table))))
    _keep_twins(inventory.store, store, persons, gone)
    before = {g.tombstone: g for g in inventory.withdrawn}
    counts = [Gone(name, files[name], instances[name]) for name in sorted(files)]
    now = {g.tombstone: _added(g, before.get(g.tombstone)) for g in counts}
    found = replace(
        inventory,
        store=store,
        chunks=tuple(part.chunk for part in parts),
        withdrawn=tuple({**before, **now}[name] for name in sorted({*before, *now})),
        parts={},
        changed=None,
    )
    keep_inventory(found)
    return found, replace(survey, store=store, parts=tuple(parts))


def _without_digests(stacks: pa.Table, series: pa.ChunkedArray) -> pa.Table:
    """Return stacks without the digests of the rows of some series, which may hold other rows now."""
    place = stacks.schema.get_field_index("rows_digest")
    missing = pa.scalar(None, pa.string())
    kept = pc.if_else(pc.is_in(stacks["series_uid"], pc.unique(series)), missing, stacks.column(place))
    return stacks.set_column(place, stacks.schema.field(place), kept)


def _counted_by(table: pa.Table) -> tuple[list[str | None], list[str | None], list[int]]:
    """Return SOPInstanceUID, format and number of files of each row of INSTANCES."""
    return table["sop_instance_uid"].to_pylist(), table["format"].to_pylist(), files_in(table)


def _added(gone: Gone, before: Gone | None) -> Gone:
    if before is None:
        return gone
    return Gone(gone.tombstone, gone.files + before.files, gone.instances + before.instances)


def _keep_twins(old: Store, new: Store, persons: Persons, gone: Collection[str]) -> None:
    """Copy what the comparison of images in several formats found, so that no image must be read again."""
    there = set(old.list(TWINS))
    for path in sorted(p for p in there if p.endswith(".parquet")):
        signature = path.removesuffix(".parquet") + ".json"
        data = old.read(path)
        if signature in there and not gone & set(persons.keys_of(read_parquet(data))):  # type: ignore[operator]
            new.put(path, data)
            new.put(signature, old.read(signature))
