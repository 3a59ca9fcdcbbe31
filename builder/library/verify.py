"""Check every checksum and every total of a published dataset by reading all of it."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import LayoutError, counted
from builder.library.versions import split_name
from builder.model.layout import (
    CURRENT,
    HELD_BACK,
    INDEX,
    LEDGER,
    MANIFEST,
    RECEIPT,
    REGISTRY,
    SPLITS,
    Manifest,
    StoredObject,
    parse_current,
    parse_manifest,
    parse_receipt,
    shard_path,
    version_name,
    version_path,
)
from builder.model.parquet import read_parquet
from builder.publishing.ledger import Totals
from builder.split.registry import faults as registry_faults
from builder.storage import Store, open_store

PIECE = 8 << 20
Track = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class Findings:
    """What ``verify`` found; empty ``faults`` mean that every byte is as it was published."""

    dataset: str
    version: str
    objects: int
    bytes: int
    faults: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Return the findings as data that JSON can hold."""
        return {**self.__dict__, "faults": list(self.faults), "sound": not self.faults}

    def text(self) -> str:
        """Return the findings as text."""
        if not self.faults:
            held = f"{counted(self.objects, 'object')}, {self.bytes} bytes"
            return f"{self.dataset}: version {self.version} is sound: {held}"
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        if not self.version:
            return f"{self.dataset}: no published version can be checked:\n{lines}"
        return (
            f"{self.dataset}: {counted(len(self.faults), 'fault')} in version {self.version}:\n{lines}\n"
            "delete the damaged shards' folders and build again, or restore them from a copy"
        )


def verify(url: str, *, progress: Track | None = None) -> Findings:
    """Check the published version, or the one named after ``@``, by reading all of it.

    That is its pointer, manifest, the SHA-256 of every object, unexpected objects, and every total.

    Damage raises nothing. Each fault is a line that names the object, what was found and what was expected.
    """
    location, chosen = split_name(url)
    store = open_store(location)
    try:
        version, manifest = _manifest(store, chosen)
    except LayoutError as error:
        return Findings(url, "", 0, 0, (str(error),))
    objects = list(_listed(version, manifest))
    faults = []
    for path, stored in (progress or _plain)(objects, len(objects)):
        faults += _check_object(store, path, stored)
    faults += _unexpected(store, version, manifest, {path for path, _ in objects})
    if not faults:
        faults += _check_totals(store, version, manifest)
    return Findings(url, version, len(objects), sum(o.bytes for _, o in objects), tuple(faults))


def _plain(items: Iterable[Any], total: int) -> Iterable[Any]:
    return items


def _manifest(store: Store, chosen: str) -> tuple[str, Manifest]:
    """Read the manifest of a version and check its content against the version's name. Raises LayoutError."""
    version = chosen or _published(store)
    path = version_path(version, MANIFEST)
    try:
        data = store.read(path)
    except FileNotFoundError:
        raise LayoutError(f"{path}: found nothing, expected the manifest {CURRENT} points to") from None
    manifest = parse_manifest(data)
    if manifest.to_json() != data or manifest.version != version or version_name(manifest) != version:
        raise LayoutError(f"{path}: found another content than its version's name stands for; the file is damaged")
    return version, manifest


def _published(store: Store) -> str:
    try:
        return parse_current(store.read(CURRENT))
    except FileNotFoundError:
        raise LayoutError(
            f"{CURRENT}: found nothing, expected the name of the published version; check the path of the dataset, or "
            "publish one here with builder build"
        ) from None


def _listed(version: str, manifest: Manifest) -> Iterator[tuple[str, StoredObject]]:
    for stored in manifest.files:
        yield version_path(version, stored.path), stored
    for shard in manifest.shards:
        for stored in shard.objects:
            yield shard_path(shard.fingerprint, stored.path), stored


def _check_object(store: Store, path: str, stored: StoredObject) -> list[str]:
    try:
        size = store.size(path)
        if size != stored.bytes:
            return [f"{path}: found {size} bytes, expected {stored.bytes}"]
        digest = hashlib.sha256()
        for start in range(0, size, PIECE):
            digest.update(store.read_range(path, start, length=min(PIECE, size - start)))
    except FileNotFoundError:
        return [f"{path}: found nothing, expected {stored.bytes} bytes"]
    found = digest.hexdigest()
    return [] if found == stored.sha256 else [f"{path}: found SHA-256 {found}, expected {stored.sha256}"]


def _unexpected(store: Store, version: str, manifest: Manifest, listed: set[str]) -> list[str]:
    """Return a fault for each object in the folders of the version and its shards that no manifest lists."""
    listed = listed | {version_path(version, MANIFEST)}
    folders = [version_path(version), *(shard_path(s.fingerprint) for s in manifest.shards)]
    return [
        f"{path}: found an object no manifest lists, expected none; delete it, or run builder gc"
        for folder in folders
        for path in store.list(folder)
        if path not in listed
    ]


def _check_totals(store: Store, version: str, manifest: Manifest) -> list[str]:
    sequestered = manifest.spec.get("splits", {}).get("sequester") is not None
    published = {stored.path for stored in manifest.files}  # has no ledger if splits are sequestered
    names = [n for n in (INDEX, LEDGER, SPLITS) if n in published or not sequestered]
    tables = {n: read_parquet(store.read(version_path(version, n))) for n in names}
    faults = []
    for shard in manifest.shards:
        receipt = parse_receipt(store.read(shard_path(shard.fingerprint, RECEIPT)))
        if receipt.rows != shard.rows or receipt.fingerprint != shard.fingerprint:
            faults.append(
                f"shard {shard.fingerprint}: found a receipt of {counted(receipt.rows, 'row')}, expected {shard.rows}"
            )
    rows = Counter(tables[INDEX].column("shard").to_pylist())
    for shard in manifest.shards:
        if rows[shard.fingerprint] != shard.rows:
            found = rows[shard.fingerprint]
            faults.append(
                f"{INDEX}: found {counted(found, 'sample')} of shard {shard.fingerprint}, expected {shard.rows}"
            )
    faults += _compare(_recounted(tables), manifest.totals)
    if REGISTRY in published:  # versions of older releases have none
        registry = read_parquet(store.read(version_path(version, REGISTRY)))
        if HELD_BACK in published:
            splits = json.loads(store.read(version_path(version, HELD_BACK)))["held_back"]
            away = pc.is_in(registry["split"], pa.array(splits, pa.string()))
            registry = registry.filter(pc.invert(away))  # nothing but their names and splits is published
        faults += registry_faults(registry, tables[SPLITS], named=(REGISTRY, SPLITS))
    return faults + _persons_in_two_splits(tables[INDEX])


def _recounted(tables: Mapping[str, pa.Table]) -> dict[str, int]:
    totals = Totals()
    if LEDGER in tables:
        totals.add(tables[LEDGER], instances=False)
    counts = {f"{level}.{s}": n for level, c in totals.by_level().items() for s, n in c.items() if level != "instances"}
    index = tables[INDEX]
    return counts | {"samples": index.num_rows, "cases": len(set(index.column("case_key").to_pylist()))}


def _compare(found: Mapping[str, int], stated: Mapping[str, int]) -> list[str]:
    names = [n for n in sorted({*found, *stated}) if not n.startswith("instances.")]
    return [
        f"{MANIFEST}: found the total {name} = {stated.get(name, 0)}, expected {found.get(name, 0)} as counted"
        for name in names
        if found.get(name, 0) != stated.get(name, 0)
    ]


def _persons_in_two_splits(index: pa.Table) -> list[str]:
    homes: dict[str, set[str]] = {}
    for person, split in zip(index.column("person_key").to_pylist(), index.column("split").to_pylist(), strict=True):
        homes.setdefault(person, set()).add(split)
    return [f"{INDEX}: found person {p} in {sorted(s)}, expected one split" for p, s in homes.items() if len(s) > 1]
