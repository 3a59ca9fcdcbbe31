"""The on-disk format of a dataset: its version, its names, and the documents that hold it together.

::

    <dataset>/CURRENT                     one line: the published version
    <dataset>/versions/<version>/         dataset.json (manifest), index.parquet, splits.parquet, views/, report/, ...
    <dataset>/data/<shard fingerprint>/   a Zarr v3 group, samples.parquet, receipt.json (written last)

Nothing written here differs between two runs on the same inputs: no clock, no host, no attempt.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import LayoutError, Reason
from builder.model.canonical import Json, canonical_json, fingerprint
from builder.model.entries import Entries, json_object
from builder.model.fields import FIELD_NAME, FieldLayout, parse_field

FORMAT_VERSION = 2
"""Increased when older readers cannot read what newer writers write; part of every shard's fingerprint."""

CURRENT = "CURRENT"
VERSIONS = "versions"
DATA = "data"
MANIFEST = "dataset.json"
INDEX = "index.parquet"
SPLITS = "splits.parquet"
REGISTRY = "registry.parquet"
WITHDRAWN = "withdrawn.parquet"
COHORT = "cohort.parquet"
EXCLUSIONS = "exclusions.parquet"
LEDGER = "ledger.parquet"
LEAKS = "leaks.json"
HELD_BACK = "held-back.json"
SAMPLES = "samples.parquet"
RECEIPT = "receipt.json"
VIEWS = "views"
WITHDRAWN_MARK = "withdrawn"
REPORT = "report"
CATALOG = "catalog"
EXPORTS = "exports"

_FINGERPRINT = re.compile(r"[0-9a-f]{32}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
_DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

_SAMPLE_KEY = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,199}$"
_SPLIT = r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,99}$"


@dataclass(frozen=True)
class StoredObject:
    """One object: its path below the folder that lists it, its size and SHA-256 (hex)."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ExcludedCase:
    """A case without any sample, and the one reason for it."""

    case_key: str
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Receipt:
    """What one finished shard holds: written last, so without it there is no shard.

    Parameters
    ----------
    fingerprint
        Of the shard's inputs; also its folder's name.
    objects
        Every object of the shard but the receipt, by path.
    rows
        Samples.
    cases
        Cases that gave at least one sample.
    excluded
        Cases that gave none.
    fields
        Array fields, by name; empty when ``rows`` is 0.
    tallies
        Counts and histograms that can be added over shards.
    """

    fingerprint: str
    objects: tuple[StoredObject, ...]
    rows: int
    cases: int
    excluded: tuple[ExcludedCase, ...] = ()
    fields: tuple[FieldLayout, ...] = ()
    tallies: Mapping[str, Json] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def to_json(self) -> bytes:
        """Return canonical JSON; ``parse_receipt`` is its inverse."""
        return canonical_json(_document(self))


@dataclass(frozen=True)
class ShardEntry:
    """A shard as the manifest lists it."""

    fingerprint: str
    rows: int
    objects: tuple[StoredObject, ...]


@dataclass(frozen=True)
class Manifest:
    """``dataset.json``: everything a reader needs to know without listing a folder.

    Parameters
    ----------
    name, version
        Of the dataset; ``version`` is also the folder below ``versions/``.
    spec, lock
        What it was built from, as JSON documents.
    fields
        Array fields every sample has.
    shards
        In the order of the index.
    files
        Objects of the version's folder but the manifest itself.
    totals
        Persons, cases, samples, bytes, ...
    """

    name: str
    version: str
    spec: Mapping[str, Json]
    lock: Mapping[str, Json]
    fields: tuple[FieldLayout, ...]
    shards: tuple[ShardEntry, ...]
    files: tuple[StoredObject, ...]
    totals: Mapping[str, int] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def to_json(self) -> bytes:
        """Return canonical JSON; ``parse_manifest`` is its inverse."""
        return canonical_json(_document(self))


def _document(holder: "Receipt | Manifest") -> dict[str, Json]:
    """Return a document without entries that say nothing about datasets of one image, whose bytes must not change."""
    document = asdict(holder)
    for layout in document["fields"]:
        for name in ("channel_names", "channel_units", "grid"):
            if not layout[name]:
                del layout[name]
    return document


def stored_object(path: str, data: bytes) -> StoredObject:
    """Return the entry of an object with these bytes."""
    return StoredObject(path, len(data), hashlib.sha256(data).hexdigest())


def picture_path(case_key: str) -> str:
    """Return where a shard keeps the picture of a case whose labels failed their proof."""
    return f"pictures/{case_key}.png"


def shard_path(shard: str, *parts: str) -> str:
    """Return the path of a shard, or of something in it, below the dataset's root."""
    if not _FINGERPRINT.fullmatch(shard):
        raise LayoutError(f"shard: found the name {shard!r}, expected 32 hexadecimal digits")
    return "/".join((DATA, shard, *parts))


def version_path(version: str, *parts: str) -> str:
    """Return the path of a version, or of something in it, below the dataset's root."""
    if not _VERSION.fullmatch(version):
        raise LayoutError(f"version: found the name {version!r}, expected up to 64 letters, digits, '.', '-', '_', '+'")
    return "/".join((VERSIONS, version, *parts))


def check_field_name(name: str) -> str:
    """Return ``name`` if it can name a Zarr array on every store. Raises ValueError."""
    if not FIELD_NAME.fullmatch(name) or name in (SAMPLES, RECEIPT, "zarr.json"):
        raise ValueError(f"field: found the name {name!r}, expected letters, digits, '_', '-', '.' (at most 100)")
    return name


def check_names(index: pa.Table) -> None:
    """Raise LayoutError unless all names of samples and splits in the index are fit for file names.

    Exports name files by sample keys and fields, so a key like ``../x`` would write outside their folder.
    """
    for column, pattern in (("sample_key", _SAMPLE_KEY), ("split", _SPLIT)):
        if column not in index.schema.names:
            continue
        values = index.column(column).cast(pa.string())
        fits = pc.match_substring_regex(values, pattern)
        if pc.any(pc.invert(fits)).as_py():
            number = pc.index(fits, False).as_py()
            raise LayoutError(
                f"{INDEX}: found a {column} in row {number} that cannot name a file, expected letters, digits, "
                "'_' and '-'; the dataset was not written by builder, or was changed"
            )
    if "sample_key" in index.schema.names:
        keys = pc.utf8_lower(index.column("sample_key").cast(pa.string()))
        if pc.count_distinct(keys).as_py() < index.num_rows:
            raise LayoutError(
                f"{INDEX}: found a sample_key twice, or two that differ in case only, expected keys that name other "
                "files everywhere; the dataset was changed"
            )


def version_name(manifest: Manifest) -> str:
    """Return the name of a version: the fingerprint of its manifest, so that equal content gets the same name."""
    return fingerprint(replace(manifest, version="").to_json())


def write_current(version: str) -> bytes:
    """Return the content of ``CURRENT``."""
    version_path(version)
    return version.encode() + b"\n"


def parse_current(data: bytes) -> str:
    """Return the published version. Raises LayoutError unless ``data`` is exactly one version's name on one line."""
    text = data.decode("utf-8", "replace")
    if not text.endswith("\n") or not _VERSION.fullmatch(text[:-1]):
        raise LayoutError(f"{CURRENT}: found {text[:80]!r}, expected one line with the name of a version")
    return text[:-1]


def parse_receipt(data: bytes) -> Receipt:
    """Parse a receipt. Raises LayoutError with the entry, what was found and what was expected."""
    document = _load(data, RECEIPT)
    at = Entries(document, RECEIPT)
    return Receipt(
        fingerprint=at.text("fingerprint"),
        objects=_objects(at),
        rows=at.count("rows"),
        cases=at.count("cases"),
        excluded=tuple(_excluded(e) for e in at.entries("excluded")),
        fields=tuple(parse_field(e) for e in at.entries("fields")),
        tallies=at.mapping("tallies"),
    )


def mark_withdrawn(version: str) -> bytes:
    """Return what takes the place of the manifest of a version that was withdrawn; nobody can open it any more."""
    return canonical_json({"format_version": FORMAT_VERSION, "version": version, WITHDRAWN_MARK: True})


def parse_manifest(data: bytes) -> Manifest:
    """Parse a manifest. Raises LayoutError with the entry, what was found and what was expected."""
    document = _load(data, MANIFEST)
    if document.get(WITHDRAWN_MARK):
        raise LayoutError(
            "withdrawn: found a version that was withdrawn with the data of a person, expected one that may be read; "
            "use the published version of the dataset, and whatever was made of this one no more"
        )
    at = Entries(document, MANIFEST)
    return Manifest(
        name=at.named("name", _DATASET_NAME),
        version=at.named("version", _VERSION),
        spec=_spec(at),
        lock=at.mapping("lock"),
        fields=tuple(parse_field(e) for e in at.entries("fields")),
        shards=tuple(
            ShardEntry(e.named("fingerprint", _FINGERPRINT), e.count("rows"), _objects(e)) for e in at.entries("shards")
        ),
        files=_objects(at, "files"),
        totals=at.counts("totals"),
    )


def _spec(at: Entries) -> Mapping[str, Json]:
    """Return the published spec, whose blocks that readers look into have the right kind; the others are only shown."""
    spec = at.mapping("spec")
    inside = Entries(spec, f"{at.where}: spec")
    for name in ("catalog", "deid", "splits"):
        inside.block(name)
    if "sources" in spec:
        inside.entries("sources")
    return spec


def _load(data: bytes, name: str) -> Mapping[str, Json]:
    document = json_object(data, name)
    found = document.get("format_version")
    if found != FORMAT_VERSION:
        raise LayoutError(
            f"{name}: found format version {found!r}, expected {FORMAT_VERSION}; "
            "read it with the release that wrote it, or build the dataset again"
        )
    return document


def _objects(at: Entries, key: str = "objects") -> tuple[StoredObject, ...]:
    return tuple(StoredObject(_inside(e), e.count("bytes"), e.named("sha256", _SHA256)) for e in at.entries(key))


def _inside(at: Entries) -> str:
    """Return the path of an object below the folder that lists it."""
    path = at.text("path")
    parts = path.split("/")
    if "\\" in path or any(part in ("", ".", "..") or not part.isprintable() for part in parts):
        raise LayoutError(f"{at.where}: found a path that leads elsewhere, expected a relative one without '..'")
    return path


def _excluded(at: Entries) -> ExcludedCase:
    try:
        reason = Reason(at.text("reason"))
    except ValueError as error:
        raise LayoutError(f"{at.where}: found the reason {at.text('reason')!r}, expected one of Reason") from error
    return ExcludedCase(at.text("case_key"), reason, at.text("detail"))
