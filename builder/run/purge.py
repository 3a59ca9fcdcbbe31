"""Remove what still holds a person who withdrew: old versions, shards without a version, and private tables."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from builder.copies import PRINTS_VERSION, parse_prints
from builder.errors import LayoutError
from builder.library.absence import KEYED, Needles, Search, certificate, files_between, images_in, names_in, versions_of
from builder.library.records import BESIDE as PAGES
from builder.library.training import TRAINING
from builder.library.uses import read_uses
from builder.model.layout import (
    CURRENT,
    DATA,
    MANIFEST,
    RECEIPT,
    Manifest,
    mark_withdrawn,
    parse_current,
    shard_path,
    version_path,
)
from builder.model.parquet import read_parquet
from builder.planning.extracts import EXTRACTS
from builder.planning.faces import FACES, forget_decisions
from builder.planning.inventory import INDEX, INVENTORY, Inventory, kept_inventory
from builder.planning.latest import Latest
from builder.planning.shard_plans import PLAN
from builder.run.journal import FOLDER as JOURNAL
from builder.run.lease import FOLDER as LEASE
from builder.run.pipeline import PRINTS
from builder.sources.contents import FOLDER as CONTENT
from builder.sources.contents import empty
from builder.stages.listings import is_listing
from builder.stages.shard import CASES
from builder.storage import SCRATCH_PREFIX, Store, checkpoint, open_beside


def collect_needles(
    stores: Sequence[Store], private: Store, people: Collection[str], *, before: str, after: str
) -> Needles:
    """Return everything by which persons could be recognised in what is left of a dataset.

    Parameters
    ----------
    before, after
        Folders of the inventories with and without the persons.
    """
    found = Needles(names=frozenset(people))
    for store in stores:
        versions, current = versions_of(store), parse_current(store.read(CURRENT))
        for version, manifest in versions.items():
            if manifest is None or version == current:
                continue
            names = names_in(store, version, manifest, frozenset(people))
            if names:
                prints = _prints(private, manifest, people)
                chunks, shared = images_in(store, manifest, names)
                objects = objects_of(manifest) - objects_of(versions[current])
                found = found.joined(Needles(names=names, chunks=chunks, shared=shared, prints=prints, objects=objects))
    found = replace(found, chunks=found.chunks - found.shared)
    if before != after:
        found = found.joined(files_between(*(_inventory(private, name) for name in (before, after))))
    return found


def objects_of(manifest: Manifest | None) -> frozenset[str]:
    """Return the SHA-256 of every object of a version."""
    if manifest is None:
        return frozenset()
    shards = (stored.sha256 for shard in manifest.shards for stored in shard.objects)
    return frozenset((*shards, *(stored.sha256 for stored in manifest.files)))


def _inventory(private: Store, name: str) -> Inventory:
    return kept_inventory(private.join(name))


def _prints(private: Store, manifest: Manifest, people: Collection[str]) -> frozenset[str]:
    found: set[str] = set()
    for shard in manifest.shards:
        path = f"{PRINTS}/{shard.fingerprint}.{PRINTS_VERSION}.parquet"
        if private.exists(path):
            found |= {p.digest for p in parse_prints(read_parquet(private.read(path))) if p.person_key in people}
    return frozenset(found)


def purge(store: Store, people: Collection[str], *, guard: Callable[[], None]) -> None:
    """Make the versions that have the persons impossible to open, and delete what only they refer to.

    The manifest goes first, and a mark takes its place: from then on every reader says that the version is withdrawn.
    """
    guard()
    current = parse_current(store.read(CURRENT))
    left: set[str] = set()
    for version, manifest in versions_of(store).items():
        if version == current or (manifest and not names_in(store, version, manifest, frozenset(people))):
            left |= {shard.fingerprint for shard in manifest.shards} if manifest else set()
            continue
        store.put(version_path(version, MANIFEST), mark_withdrawn(version))
        checkpoint("withdraw.marked")
    for version in _marked(store):
        for path in list(store.list(version_path(version))):
            if path != version_path(version, MANIFEST):
                checkpoint("withdraw.version")
                store.delete(path)
    pages = open_beside(store, PAGES)
    for path in list(pages.list()):
        if path.removesuffix(".catalog.html") in _marked(store):
            pages.delete(path)
    for name in sorted({path.split("/")[1] for path in store.list(DATA)} - left):
        if not name.startswith(SCRATCH_PREFIX):
            _delete(store, shard_path(name), first=RECEIPT)
    store.sweep()


def _marked(store: Store) -> list[str]:
    names = {path.split("/")[1] for path in store.list("versions")}
    return sorted(name for name in names - versions_of(store).keys() if not name.startswith(SCRATCH_PREFIX))


def _delete(store: Store, folder: str, *, first: str) -> None:
    paths = list(store.list(folder))
    for path in sorted(paths, key=lambda p: p != f"{folder}/{first}"):
        checkpoint("withdraw.shard")
        store.delete(path)


def purge_private(private: Store, plan: Latest, needles: Needles, shards: Collection[str]) -> None:
    """Delete from the private workspace what lists the persons, or may."""
    paths = {path for _, path, _ in needles.files}
    gone = [path for path in private.list(PLAN) if not path.startswith(f"{plan.plan}/")]
    gone += [path for path in private.list(INVENTORY) if not path.startswith(f"{plan.inventory}/")]
    for path in list(private.list(INDEX)):
        if path.endswith(".parquet") and paths.intersection(_listed(private, path)):
            gone += [path, path.removesuffix(".parquet") + ".json"]
    gone += [path for path in private.list(INDEX) if is_listing(path)]
    for top in (PRINTS, CASES):
        gone += [path for path in private.list(top) if path.split("/")[1].split(".")[0] not in shards]
    gone += private.list(EXTRACTS)  # the plan read them again, and its tables no longer have the persons
    # what runs that were killed left: compressed rows, in which a search would not find the persons
    gone += [path for path in private.list() if f"/{SCRATCH_PREFIX}" in f"/{path.rpartition('/')[0]}"]
    gone.sort(key=lambda path: not path.endswith(".json"))  # receipts first, or a kill leaves some without their tables
    for path in gone:
        checkpoint("withdraw.private")
        private.delete(path)
    forget_decisions(private.join(FACES))
    empty(private.join(CONTENT))
    _clear_journal(private, needles)


def _listed(private: Store, path: str) -> list[str]:
    listed: list[str] = read_parquet(private.read(path), columns=["path"])["path"].to_pylist()
    return listed


def _clear_journal(private: Store, needles: Needles) -> None:
    """Leave out of the journal the lines that name the persons' cases."""
    names = {name.encode() for name in needles.names}
    for path in list(private.list(JOURNAL)):
        data = private.read(path)
        if names & set(KEYED.findall(data)):
            kept_lines = [line for line in data.splitlines(keepends=True) if not names & set(KEYED.findall(line))]
            private.put(path, b"".join(kept_lines))


def certify_absence(
    stores: Sequence[Store],
    private: Store,
    needles: Needles,
    about: Mapping[str, Any],
    *,
    place: str,
    elsewhere: Sequence[Mapping[str, Any]],
    not_searched: Sequence[str],
) -> dict[str, Any]:
    """Search what is left of a dataset and its private workspace. Old versions that were kept are not searched.

    ``place`` is where the certificate goes; one that a killed run left there is not searched. ``elsewhere`` and
    ``not_searched`` are as ``certificate`` takes them.
    """
    search = Search(needles)
    for number, store in enumerate(stores):
        current = parse_current(store.read(CURRENT))
        old = [version_path(name) + "/" for name in versions_of(store) if name != current]
        manifest = versions_of(store)[current]
        if manifest is None:
            raise LayoutError(f"{CURRENT}: found a version without a manifest, expected a published one")
        kept = {shard.fingerprint for shard in manifest.shards}
        others = {path.split("/")[1] for path in store.list(DATA)} - kept
        strangers = [f"{DATA}/{name}/" for name in others] if about["old_versions"] == "keep" else []
        skipped = [place, *(old if about["old_versions"] == "keep" else []), *strangers]
        search.store(store, leave_out=skipped, label="labels: " if number < len(stores) - 1 else "")
        search.images(store, manifest)
    counts = search.objects, search.read
    search.store(private, leave_out=("withdrawals/", f"{LEASE}/"), label="private: ")
    search.objects, search.read = counts  # the journal of a run that was killed is longer, and proves nothing
    return certificate(search, about, elsewhere, not_searched)


def seen_by(store: Store, people: Collection[str]) -> dict[str, list[str]]:
    """List the reads, exports and training runs of versions that had the persons, as far as they are known."""
    had = {
        version
        for version, manifest in versions_of(store).items()
        if manifest is not None and version != parse_current(store.read(CURRENT))
        and names_in(store, version, manifest, frozenset(people))
    }  # fmt: skip
    reads = [
        f"{entry['opened']} version {entry['version']}, {entry['split'] or 'all splits'}"
        + (f", exported as {entry['form']}" if "form" in entry else "")
        for entry in read_uses(store.url).entries
        if entry["version"] in had
    ]
    home = open_beside(store, TRAINING)
    runs = []
    for path in sorted(home.list()):
        version = path.split("/")[0]
        if version in had and path.endswith(".json"):
            runs.append(
                f"{path.rpartition('/')[2].removesuffix('.json')} on version {version}: {_architecture(home, path)}"
            )
    return {"reads": reads, "training runs": runs}


def _architecture(home: Store, path: str) -> str:
    try:
        return str(json.loads(home.read(path)).get("architecture", ""))
    except ValueError:
        return "damaged report"
