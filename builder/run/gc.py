"""Clean up a dataset: scratch of writers that died, fetched objects, and versions and shards nothing refers to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from builder.errors import LayoutError, SpecError, counted
from builder.library.absence import versions_of
from builder.model.layout import CURRENT, MANIFEST, parse_current, parse_manifest, shard_path, version_path
from builder.planning.shard_plans import clear_unfinished
from builder.run.lease import hold_lease
from builder.run.progress import SilentProgress
from builder.run.withdraw import go_on
from builder.sources.contents import FOLDER, empty
from builder.storage import SCRATCH_PREFIX, LocalStore, Store, checkpoint, open_store, private_store

UNREFERENCED = ("keep", "delete")


@dataclass(frozen=True)
class Collected:
    """What a clean-up found and removed."""

    dataset: str
    scratch: int
    fetched: int
    versions: tuple[str, ...]
    shards: tuple[str, ...]
    bytes: int
    unreferenced: str
    withdrawals: int = 0
    """Withdrawals whose day had come: the versions that had these persons are gone now."""

    def facts(self) -> dict[str, Any]:
        """Return the result for machines."""
        return {**self.__dict__, "versions": list(self.versions), "shards": list(self.shards)}

    def text(self) -> str:
        """Return the result for a person."""
        versions, shards = counted(len(self.versions), "older version"), counted(len(self.shards), "shard")
        found = f"{versions} and {shards}, {self.bytes} bytes"
        if self.unreferenced == "delete":
            done = f"deleted {found}"
        else:
            done = f"kept {found}, that the published version does not refer to (--unreferenced delete removes them)"
        return (
            f"{self.dataset}: removed {counted(self.scratch, 'unfinished object')} and "
            f"{counted(self.fetched, 'file')} of objects fetched from servers; {done}"
            + (f"; {counted(self.withdrawals, 'withdrawal')} completed" if self.withdrawals else "")
        )


def collect(url: str, *, unreferenced: str = "keep", say: Callable[[str], None] = lambda message: None) -> Collected:
    """Remove half-written data of dead writers, what was fetched from servers, and old versions if asked.

    Fetched objects are a copy of what the archive holds, with names; a later build fetches what it needs again. Old
    versions and shards are those that the published version does not refer to.

    Waits while a build of the dataset is running. A reader that uses an older version loses it when that is deleted.

    Parameters
    ----------
    unreferenced
        ``keep`` or ``delete``.

    Raises
    ------
    SpecError
        When ``unreferenced`` is neither.
    LayoutError
        When nothing was ever built there, or unreferenced shards are to be deleted and nothing is published, as they
        may belong to an unfinished build.
    """
    if unreferenced not in UNREFERENCED:
        raise SpecError(f"--unreferenced: found {unreferenced!r}, expected one of {', '.join(UNREFERENCED)}")
    dataset, private = open_store(url), private_store(url)
    if all(isinstance(store, LocalStore) and not store.root.is_dir() for store in (dataset, private)):
        raise LayoutError(f"{url}: found no folder, expected a dataset, finished or not; check the location")
    with hold_lease(private, say=say) as lease:
        cleared = len(go_on(url, lease, progress=SilentProgress()))
        return replace(_collect(url, dataset, private, unreferenced), withdrawals=cleared)


def _collect(url: str, dataset: Store, private: Store, unreferenced: str) -> Collected:
    scratch = dataset.sweep() + private.sweep() + clear_unfinished(private)
    fetched = empty(private.join(FOLDER))
    version, kept = _published(dataset)
    if version is None and unreferenced == "delete":
        raise LayoutError(f"{CURRENT}: found no published version, expected one; finish the build before deleting")
    versions, shards, count = _strangers(dataset, version, kept)
    if unreferenced == "delete":
        for name in versions:
            _delete(dataset, version_path(name), first=MANIFEST)
        for name in shards:
            _delete(dataset, shard_path(name), first="receipt.json")
    return Collected(url, scratch, fetched, tuple(versions), tuple(shards), count, unreferenced)


def _published(dataset: Store) -> tuple[str | None, set[str]]:
    """Return the published version and the shards it refers to."""
    try:
        version = parse_current(dataset.read(CURRENT))
    except FileNotFoundError:
        return None, set()
    manifest = parse_manifest(dataset.read(version_path(version, MANIFEST)))
    return version, {shard.fingerprint for shard in manifest.shards}


def _strangers(dataset: Store, version: str | None, kept: set[str]) -> tuple[list[str], list[str], int]:
    """Return versions and shards that are not published, and their bytes."""
    versions: set[str] = set()
    shards: set[str] = set()
    withdrawn = {path.split("/")[1] for path in dataset.list("versions")} - versions_of(dataset).keys()
    count = 0
    for path in (*dataset.list("versions"), *dataset.list("data")):
        top, name, *_ = path.split("/")
        if top == "versions" and name in withdrawn:
            continue  # its mark says so to whoever still asks for it
        if name.startswith(SCRATCH_PREFIX) or name == (version if top == "versions" else None) or name in kept:
            continue
        (versions if top == "versions" else shards).add(name)
        count += dataset.size(path)
    return sorted(versions), sorted(shards), count


def _delete(dataset: Store, folder: str, *, first: str) -> None:
    """Delete a folder's objects, starting with the one without which the others are meaningless."""
    for path in _ordered(dataset, folder, f"{folder}/{first}"):
        checkpoint("gc.delete")
        dataset.delete(path)


def _ordered(dataset: Store, folder: str, first: str) -> Iterator[str]:
    yield first
    yield from (path for path in list(dataset.list(folder)) if path != first)
