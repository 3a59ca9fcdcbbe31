"""Search everything that is left of a dataset for a person who withdrew, and certify what was found."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numcodecs.blosc as blosc
import numpy as np
import pyarrow as pa

from builder.errors import LayoutError
from builder.model.layout import (
    DATA,
    INDEX,
    MANIFEST,
    VERSIONS,
    Manifest,
    parse_manifest,
    parse_receipt,
    shard_path,
    version_path,
)
from builder.model.parquet import read_parquet
from builder.model.zarr_format import CHECKSUM_BYTES
from builder.planning.inventory import Inventory
from builder.shards.stored import StoredShard
from builder.storage import Store

KEYED = re.compile(rb"(?<![0-9a-z])[0-9a-hjkmnp-tv-z]{26}(?:-\d+)?(?![0-9a-z])")
_UID = re.compile(rb"\d+(?:\.\d+){4,}")
_LEAST_ID = 6
_PIECE, _OVERLAP = 2**26, 2**12
"""Bytes of an object that are searched at once; pieces overlap by more than anything that is searched for is long."""
_TABLES = ("splits.parquet", "registry.parquet", "cohort.parquet", "ledger.parquet", "exclusions.parquet", INDEX)


@dataclass(frozen=True)
class Needles:
    """What is searched for. It lives in the private workspace while a withdrawal is under way, and no longer.

    Parameters
    ----------
    names
        Keyed names of the person, and of the person's studies, series, objects, cases and samples.
    chunks
        SHA-256 of the stored inner chunks of the person's images, but for chunks of one value.
    shared
        Those that samples of other persons had too: they are these persons' own, and stay.
    prints
        Digests of the person's volumes.
    uids, ids
        UIDs and PatientIDs in the archive; they are searched for in the private workspace too.
    files
        Source, path and member of the person's files.
    objects
        SHA-256 of the objects that only versions with the person have; caches call their files so.
    """

    names: frozenset[str] = frozenset()
    chunks: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    prints: frozenset[str] = frozenset()
    uids: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    files: frozenset[tuple[int, str, str]] = frozenset()
    objects: frozenset[str] = frozenset()

    @property
    def telling(self) -> frozenset[str]:
        """PatientIDs that are long enough to be searched for; shorter ones would be found in every number."""
        return frozenset(name for name in self.ids if len(name) >= _LEAST_ID)

    def to_json(self) -> bytes:
        """Return the needles as a file."""
        return json.dumps({name: sorted(values) for name, values in asdict(self).items()}).encode()

    def joined(self, other: "Needles") -> "Needles":
        """Return what either holds."""
        return Needles(*(a | b for a, b in zip(_values(self), _values(other), strict=True)))


def parse_needles(data: bytes) -> Needles:
    """Read what ``Needles.to_json`` wrote."""
    found = json.loads(data)
    files = frozenset((source, path, member) for source, path, member in found.pop("files"))
    return Needles(**{name: frozenset(values) for name, values in found.items()}, files=files)


def _values(needles: Needles) -> list[frozenset[Any]]:
    return [getattr(needles, name) for name in Needles.__dataclass_fields__]


def versions_of(dataset: Store) -> dict[str, Manifest | None]:
    """Return every version in a dataset's folder that may be opened, and None for one without a manifest."""
    found: dict[str, Manifest | None] = {}
    for path in dataset.list(VERSIONS):
        name = path.split("/")[1]
        if name in found or name.startswith("."):
            continue
        try:
            found[name] = parse_manifest(dataset.read(version_path(name, MANIFEST)))
        except FileNotFoundError:
            found[name] = None
        except LayoutError:  # withdrawn before, or of another release: nobody opens it
            continue
    return found


def names_in(dataset: Store, version: str, manifest: Manifest, people: frozenset[str]) -> frozenset[str]:
    """Return every keyed name that a version has for persons, and for nobody else; empty if it does not know them."""
    mine: set[str] = set()
    others: set[str] = set()
    there = {stored.path for stored in manifest.files}
    for name in _TABLES:
        if name in there:
            table = read_parquet(dataset.read(version_path(version, name)))
            owners = table["person_key"].to_pylist()
            members = table["members"].to_pylist() if "members" in table.column_names else [()] * table.num_rows
            rows = [p in people or not people.isdisjoint(m or ()) for p, m in zip(owners, members, strict=True)]
            if any(rows):
                mine |= _keyed(table.filter(pa.array(rows)))
                others |= _keyed(table.filter(pa.array([not row for row in rows])))
    return frozenset(mine - others)


def _keyed(table: pa.Table) -> set[str]:
    found: set[str] = set()
    for column in table.schema:
        if column.name not in ("shard", "split", "stratum"):
            found |= {name.decode() for name in KEYED.findall("\n".join(_texts(table[column.name])).encode())}
    return found


def images_in(dataset: Store, manifest: Manifest, cases: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the digests of the image chunks that only these cases have in a version, and of those that others have."""
    mine: set[str] = set()
    others: set[str] = set()
    for entry in manifest.shards:
        try:
            receipt = parse_receipt(dataset.read(shard_path(entry.fingerprint, "receipt.json")))
        except FileNotFoundError:
            continue
        shard = StoredShard(dataset, receipt)
        images = {layout.name for layout in receipt.fields if layout.is_image}
        for case, numbers in shard.places.items():
            held = [c for sample in map(shard.sample, numbers) for name in images for c in sample.chunks[name]]
            if case in cases:
                mine |= {_digest(c) for c in held if not _is_flat(c)}
            else:
                others |= {_digest(c) for c in held}
    return frozenset(mine - others), frozenset(mine & others)


def _digest(chunk: bytes) -> str:
    return hashlib.sha256(chunk).hexdigest()


def _is_flat(chunk: bytes) -> bool:
    """Return whether a chunk holds one byte again and again, as air does: anybody's image may have it."""
    values = np.frombuffer(blosc.decompress(chunk[:-CHECKSUM_BYTES]), np.uint8)
    pairs = values[: values.size // 4 * 4].reshape(-1, 4)
    return bool((pairs == pairs[0]).all()) if len(pairs) else True


def files_between(before: Inventory, after: Inventory) -> Needles:
    """Return the identifiers of what one inventory lists and the other does not."""
    columns = ("source", "path", "member", "patient_id", "study_uid", "series_uid", "sop_instance_uid")
    kept = {row[:3] for row in _rows(after, columns)}
    gone = [row for row in _rows(before, columns) if row[:3] not in kept]
    left = {value for row in _rows(after, columns) for value in row[3:]}
    uids = {value for row in gone for value in row[4:] if value and _UID.fullmatch(value.encode())} - left
    ids = {row[3] for row in gone if row[3]} - left
    return Needles(uids=frozenset(uids), ids=frozenset(ids), files=frozenset(row[:3] for row in gone))


def _rows(inventory: Inventory, columns: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    wanted = [*columns]
    tables = [inventory.chunk(n, columns=wanted) for n in range(len(inventory.chunks))]
    for table in (*tables, inventory.annotations(columns=wanted), inventory.leftovers(columns=wanted)):
        yield from zip(*(table[name].to_pylist() for name in wanted), strict=True)


@dataclass
class Search:
    """What was searched, and in which objects anything was found."""

    needles: Needles
    objects: int = 0
    read: int = 0
    found: list[str] = field(default_factory=list)

    def store(self, store: Store, *, leave_out: Iterable[str] = (), label: str = "") -> None:
        """Search every object of a store, but for folders that are left out."""
        skipped = tuple(leave_out)
        for path in sorted(store.list()):
            if not path.startswith(skipped):
                self.file(store, path, label=label)

    def file(self, store: Store, path: str, *, label: str = "") -> None:
        """Search one object, and its name."""
        size = store.size(path)
        self.objects += 1
        self.read += size
        if path.endswith(".parquet"):
            try:
                table = read_parquet(store.read(path))
            except LayoutError:  # whatever is in it
                self.found.append(f"{label}{path} (no table that can be read)")
                return
            texts, found = _texts_of(table), self._has_print(table)
        else:
            texts, found = _pieces(store, path, size), False
        if found or self._is_in(path.encode()) or any(map(self._is_in, texts)):
            self.found.append(f"{label}{path}")

    def _has_print(self, table: pa.Table) -> bool:
        names = map(_text, table["digest"].to_pylist()) if "digest" in table.column_names else ()
        return not self.needles.prints.isdisjoint(names)

    def _is_in(self, text: bytes) -> bool:
        names, uids, ids = self._encoded
        found = not names.isdisjoint(KEYED.findall(text)) or not uids.isdisjoint(_UID.findall(text))
        return found or any(name in text for name in ids)

    @cached_property
    def _encoded(self) -> tuple[frozenset[bytes], ...]:
        held = (self.needles.names, self.needles.uids, self.needles.telling)
        return tuple(frozenset(name.encode() for name in names) for names in held)

    def images(self, dataset: Store, manifest: Manifest) -> None:
        """Search every stored image chunk of a version's shards."""
        if not self.needles.chunks:
            return
        for entry in manifest.shards:
            shard = StoredShard(dataset, parse_receipt(dataset.read(shard_path(entry.fingerprint, "receipt.json"))))
            images = {layout.name for layout in shard.receipt.fields if layout.is_image}
            for number in range(shard.receipt.rows):
                sample = shard.sample(number)
                if any(_digest(c) in self.needles.chunks for name in images for c in sample.chunks[name]):
                    self.found.append(f"{DATA}/{entry.fingerprint}, sample {number}")


def _texts_of(table: pa.Table) -> Iterator[bytes]:
    yield "\n".join(t for c in table.schema for t in _texts(table[c.name])).encode()
    yield repr(table.schema.metadata).encode()


def _pieces(store: Store, path: str, size: int) -> Iterator[bytes]:
    for start in range(0, size, _PIECE):
        yield store.read_range(path, start, length=min(_PIECE + _OVERLAP, size - start))


def certificate(
    search: Search, about: Mapping[str, Any], elsewhere: Sequence[Mapping[str, Any]], not_searched: Sequence[str]
) -> dict[str, Any]:
    """Return the certificate of absence: what was searched for (counts only), where, and what was found.

    Parameters
    ----------
    elsewhere
        Places beside the dataset and its workspace, with the number of objects in which anything was ``found_in``.
    not_searched
        What could not be searched, in words.
    """
    needles = search.needles
    return {
        **about,
        "searched_for": {
            "keyed_names": len(needles.names),
            "image_chunks": len(needles.chunks),
            "image_chunks_that_others_have_too": len(needles.shared),
            "prints": len(needles.prints),
            "identifiers_of_the_archive": len(needles.uids) + len(needles.telling),
        },
        "objects_searched": search.objects,
        "bytes_searched": search.read,
        "found_in": sorted(search.found),
        "elsewhere": [*elsewhere],
        "not_searched": [*not_searched],
        "absent": not search.found and not any(place["found_in"] for place in elsewhere),
    }


def _texts(column: pa.ChunkedArray | pa.Array) -> Iterator[str]:
    """Yield every distinct text of a column, of lists and of structs too."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield from column.unique().drop_null().to_pylist()
    elif pa.types.is_dictionary(kind):
        yield from _texts(column.cast(kind.value_type))
    elif pa.types.is_map(kind):
        for part in _chunks(column):
            yield from (*_texts(part.keys), *_texts(part.items))
    elif pa.types.is_nested(kind):  # lists and structs
        for part in _chunks(column):
            for inner in part.flatten() if pa.types.is_struct(kind) else [part.flatten()]:
                yield from _texts(inner)


def _chunks(column: pa.ChunkedArray | pa.Array) -> Sequence[pa.Array]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
