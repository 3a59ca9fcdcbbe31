"""The on-disk format of a dataset: its version, its names, and the documents that hold it together.

::

    <dataset>/CURRENT                     one line: the published version
    <dataset>/versions/<version>/         dataset.json (manifest), index.parquet, splits.parquet, views/, report/, ...
    <dataset>/data/<shard fingerprint>/   a Zarr v3 group, samples.parquet, receipt.json (written last)

Nothing written here differs between two runs on the same inputs: no clock, no host, no attempt.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from builder.errors import LayoutError, Reason
from builder.model.canonical import Json, canonical_json

FORMAT_VERSION = 2
"""Raised when an older reader could not read what a newer writer wrote; part of every shard's fingerprint."""

CURRENT = "CURRENT"
VERSIONS = "versions"
DATA = "data"
MANIFEST = "dataset.json"
INDEX = "index.parquet"
SPLITS = "splits.parquet"
REGISTRY = "registry.parquet"
COHORT = "cohort.parquet"
EXCLUSIONS = "exclusions.parquet"
LEDGER = "ledger.parquet"
LEAKS = "leaks.json"
SAMPLES = "samples.parquet"
RECEIPT = "receipt.json"
VIEWS = "views"
REPORT = "report"
CATALOG = "catalog"
EXPORTS = "exports"

_FIELD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_FINGERPRINT = re.compile(r"[0-9a-f]{32}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
_DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_SEGMENT = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DTYPES = frozenset(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)) | {"float32", "float64"}
"""Types of stored numbers. A manifest may come from anybody: NumPy's own parser also knows types that hold pointers."""

_SAMPLE_KEY = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,199}$"
_SPLIT = r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,99}$"
_MAXIMUM_DOCUMENT_BYTES = 1 << 30


@dataclass(frozen=True)
class StoredObject:
    """One object: its path below the folder that lists it, its size and SHA-256 (hex)."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Packing:
    """How stored whole numbers become values: value = stored * factor + offset, in the field's unit."""

    factor: float
    offset: float = 0.0

    def unpack(self, stored: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Write values to ``out``. Rounding ``(value - offset) / factor`` gives the stored numbers back."""
        np.multiply(stored, np.float32(self.factor), out=out)
        if self.offset:
            np.add(out, np.float32(self.offset), out=out)


@dataclass(frozen=True)
class FieldLayout:
    """One array field of every sample.

    Parameters
    ----------
    name
        ``image`` or a mask's name.
    channels
        Length of the first axis of a sample's array.
    shape
        (slice, row, column) when every sample has the same (one Zarr array a shard, one inner chunk a sample); None
        when samples are whole volumes (one Zarr array a sample).
    chunk
        (slice, row, column) of an inner chunk; equal to ``shape`` where that is stated.
    dtype
        NumPy name without byte order (``int16``); bytes on disk are little endian.
    unit
        Unit or domain of the numbers (``HU``); "" for masks.
    segments
        For masks: name to ``[channel, value]``.
    packing
        How stored numbers become values; None where they are the values.
    channel_names, channel_units
        Name and unit of each channel where they are of several images of a case; empty otherwise.
    grid
        Name of the field on whose grid it lies, itself if that is its own; "" for the grid in the sample's row.
    """

    name: str
    channels: int
    shape: tuple[int, int, int] | None
    chunk: tuple[int, int, int]
    dtype: str
    unit: str = ""
    segments: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    packing: Packing | None = None
    channel_names: tuple[str, ...] = ()
    channel_units: tuple[str, ...] = ()
    grid: str = ""

    @property
    def is_image(self) -> bool:
        """Whether it holds images rather than a mask."""
        return self.name == "image" or bool(self.channel_names)


@dataclass(frozen=True)
class ExcludedCase:
    """A case that gave no sample, with its one reason."""

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
        """Canonical JSON; ``parse_receipt`` is its inverse."""
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
        """Canonical JSON; ``parse_manifest`` is its inverse."""
        return canonical_json(_document(self))


def merged_units(some: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """Return the units of channels, ``mixed`` where they differ; of no channels, those of the others."""
    if not some or not others:
        return some or others
    return tuple(one if one == other else "mixed" for one, other in zip(some, others, strict=True))


def _document(holder: "Receipt | Manifest") -> dict[str, Json]:
    """Return a document without what says nothing about fields of one image, so that theirs stays as it was."""
    document = asdict(holder)
    for layout in document["fields"]:
        for name in ("channel_names", "channel_units", "grid"):
            if not layout[name]:
                del layout[name]
    return document


def stored_object(path: str, data: bytes) -> StoredObject:
    """The entry of an object from its bytes."""
    return StoredObject(path, len(data), hashlib.sha256(data).hexdigest())


def picture_path(case_key: str) -> str:
    """Where a shard keeps the picture of a case whose labels failed their proof."""
    return f"pictures/{case_key}.png"


def shard_path(shard: str, *parts: str) -> str:
    """Path of a shard, or of something in it, below the dataset's root."""
    if not _FINGERPRINT.fullmatch(shard):
        raise LayoutError(f"shard: found the name {shard!r}, expected 32 hexadecimal digits")
    return "/".join((DATA, shard, *parts))


def version_path(version: str, *parts: str) -> str:
    """Path of a version, or of something in it, below the dataset's root."""
    if not _VERSION.fullmatch(version):
        raise LayoutError(f"version: found the name {version!r}, expected up to 64 letters, digits, '.', '-', '_', '+'")
    return "/".join((VERSIONS, version, *parts))


def check_field_name(name: str) -> str:
    """``name`` if it can name a Zarr array on every store. Raises ValueError."""
    if not _FIELD_NAME.fullmatch(name) or name in (SAMPLES, RECEIPT, "zarr.json"):
        raise ValueError(f"field: found the name {name!r}, expected letters, digits, '_', '-', '.' (at most 100)")
    return name


def check_names(index: pa.Table) -> None:
    """Raise LayoutError unless the index names samples and splits as files may be named.

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


def write_current(version: str) -> bytes:
    """Content of ``CURRENT``."""
    version_path(version)
    return version.encode() + b"\n"


def parse_current(data: bytes) -> str:
    """The published version. Raises LayoutError unless ``data`` is exactly one version's name on one line."""
    text = data.decode("utf-8", "replace")
    if not text.endswith("\n") or not _VERSION.fullmatch(text[:-1]):
        raise LayoutError(f"{CURRENT}: found {text[:80]!r}, expected one line with the name of a version")
    return text[:-1]


def parse_receipt(data: bytes) -> Receipt:
    """A receipt from its JSON. Raises LayoutError, naming the entry, what was found and what was expected."""
    document = _load(data, RECEIPT)
    at = _Entries(document, RECEIPT)
    return Receipt(
        fingerprint=at.text("fingerprint"),
        objects=_objects(at),
        rows=at.count("rows"),
        cases=at.count("cases"),
        excluded=tuple(_excluded(e) for e in at.entries("excluded")),
        fields=tuple(_field(e) for e in at.entries("fields")),
        tallies=at.mapping("tallies"),
    )


def parse_manifest(data: bytes) -> Manifest:
    """A manifest from its JSON. Raises LayoutError, naming the entry, what was found and what was expected."""
    at = _Entries(_load(data, MANIFEST), MANIFEST)
    return Manifest(
        name=at.named("name", _DATASET_NAME),
        version=at.named("version", _VERSION),
        spec=at.mapping("spec"),
        lock=at.mapping("lock"),
        fields=tuple(_field(e) for e in at.entries("fields")),
        shards=tuple(
            ShardEntry(e.named("fingerprint", _FINGERPRINT), e.count("rows"), _objects(e)) for e in at.entries("shards")
        ),
        files=_objects(at, "files"),
        totals={key: int(value) for key, value in at.mapping("totals").items()},
    )


@dataclass(frozen=True)
class _Entries:
    """A JSON object and where it stands, read entry by entry."""

    document: Mapping[str, Json]
    where: str

    def text(self, key: str) -> str:
        return str(self._take(key, str))

    def named(self, key: str, pattern: re.Pattern[str]) -> str:
        """A name that may become part of a path. The message does not repeat what may hold anything."""
        found = self.text(key)
        if pattern.fullmatch(found) is None:
            raise LayoutError(f"{self.where}: found a {key} that cannot be one, expected {pattern.pattern}")
        return found

    def count(self, key: str) -> int:
        number = int(self._take(key, int))
        if number < 0:
            raise LayoutError(f"{self.where}: found {key} = {number}, expected 0 or more")
        return number

    def mapping(self, key: str) -> Mapping[str, Json]:
        found: Mapping[str, Json] = self._take(key, dict)
        return found

    def numbers(self, key: str) -> list[Json]:
        found: list[Json] = self._take(key, list)
        return found

    def entries(self, key: str) -> "list[_Entries]":
        found = self._take(key, list)
        wrong = next((i for i, entry in enumerate(found) if not isinstance(entry, dict)), None)
        if wrong is not None:
            kind = type(found[wrong]).__name__
            raise LayoutError(f"{self.where}: found {kind} as {key}[{wrong}], expected an object")
        return [_Entries(entry, f"{self.where}: {key}[{i}]") for i, entry in enumerate(found)]

    def _take(self, key: str, kind: type) -> Json:
        value = self.document.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            found = type(value).__name__ if key in self.document else "nothing"
            raise LayoutError(f"{self.where}: found {found} as {key}, expected {kind.__name__}")
        return value


def _load(data: bytes, name: str) -> Mapping[str, Json]:
    if len(data) > _MAXIMUM_DOCUMENT_BYTES:
        raise LayoutError(f"{name}: found {len(data)} bytes, expected at most {_MAXIMUM_DOCUMENT_BYTES}")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"{name}: found no valid JSON ({error}); the file is damaged or was cut short") from error
    if not isinstance(document, dict):
        raise LayoutError(f"{name}: found {type(document).__name__}, expected an object")
    found = document.get("format_version")
    if found != FORMAT_VERSION:
        raise LayoutError(
            f"{name}: found format version {found!r}, expected {FORMAT_VERSION}; "
            "read it with the release that wrote it, or build the dataset again"
        )
    return document


def _objects(at: _Entries, key: str = "objects") -> tuple[StoredObject, ...]:
    return tuple(StoredObject(_inside(e), e.count("bytes"), e.named("sha256", _SHA256)) for e in at.entries(key))


def _inside(at: _Entries) -> str:
    """The path of an object below the folder that lists it."""
    path = at.text("path")
    parts = path.split("/")
    if "\\" in path or any(part in ("", ".", "..") or not part.isprintable() for part in parts):
        raise LayoutError(f"{at.where}: found a path that leads elsewhere, expected a relative one without '..'")
    return path


def _excluded(at: _Entries) -> ExcludedCase:
    try:
        reason = Reason(at.text("reason"))
    except ValueError as error:
        raise LayoutError(f"{at.where}: found the reason {at.text('reason')!r}, expected one of Reason") from error
    return ExcludedCase(at.text("case_key"), reason, at.text("detail"))


def _field(at: _Entries) -> FieldLayout:
    shape = None if at.document.get("shape") is None else _three(at, "shape")
    segments = {}
    for name, pair in at.mapping("segments").items():
        if not isinstance(pair, list) or len(pair) != 2 or not all(type(n) is int for n in pair):
            raise LayoutError(f"{at.where}: found {pair!r} for segment {name!r}, expected [channel, value]")
        if _SEGMENT.fullmatch(name) is None:
            raise LayoutError(f"{at.where}: found a segment's name that cannot be one, expected printable text")
        segments[name] = (int(pair[0]), int(pair[1]))
    dtype = at.text("dtype")
    if dtype not in _DTYPES:
        raise LayoutError(f"{at.where}: found the type {dtype[:40]!r}, expected one of {', '.join(sorted(_DTYPES))}")
    return FieldLayout(
        name=at.named("name", _FIELD_NAME),
        channels=at.count("channels"),
        shape=shape,
        chunk=_three(at, "chunk"),
        dtype=dtype,
        unit=at.text("unit"),
        segments=segments,
        packing=_packing(at),
        channel_names=_channels(at, "channel_names"),
        channel_units=_channels(at, "channel_units"),
        grid=at.named("grid", _FIELD_NAME) if "grid" in at.document else "",
    )


def _channels(at: _Entries, key: str) -> tuple[str, ...]:
    """One text for each channel, or none at all."""
    if key not in at.document:
        return ()
    found = at.numbers(key)
    if len(found) != at.count("channels") or not all(isinstance(n, str) and _SEGMENT.fullmatch(n) for n in found):
        raise LayoutError(f"{at.where}: found {key} = {found!r}, expected a printable text for each channel")
    return tuple(found)


def _packing(at: _Entries) -> Packing | None:
    if at.document.get("packing") is None:
        return None
    found = at.mapping("packing")
    try:
        packing = Packing(float(found["factor"]), float(found["offset"]))
    except (KeyError, TypeError, ValueError) as error:
        raise LayoutError(f"{at.where}: found the packing {dict(found)!r}, expected factor and offset") from error
    if not packing.factor > 0:
        raise LayoutError(f"{at.where}: found the factor {packing.factor}, expected one above 0")
    return packing


def _three(at: _Entries, key: str) -> tuple[int, int, int]:
    found = at.numbers(key)
    if len(found) != 3 or any(not isinstance(n, int) or n < 1 for n in found):
        raise LayoutError(f"{at.where}: found {key} = {found!r}, expected three positive counts (slice, row, column)")
    return (found[0], found[1], found[2])
