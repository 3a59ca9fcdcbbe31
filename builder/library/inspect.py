"""Show what is in a dataset, or what is known about one thing by its keyed name (or, with the key, its real name)."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from builder.deid import resolve_key
from builder.errors import LayoutError, SpecError, counted
from builder.model.keyed import Key
from builder.model.layout import (
    COHORT,
    CURRENT,
    EXCLUSIONS,
    INDEX,
    LEDGER,
    MANIFEST,
    REGISTRY,
    SPLITS,
    Manifest,
    parse_current,
    parse_manifest,
    version_path,
)
from builder.model.parquet import read_parquet
from builder.persons import lookup_names
from builder.sources.names import name_text
from builder.storage import Store, open_store

KEYS = ("sample_key", "case_key", "person_key", "series_key", "study_key", "object_key", "key")
MOST_ROWS = 20
USUAL_ORDER = ("train", "validation", "test")


@dataclass(frozen=True)
class Answer:
    """Facts as data and as lines of text."""

    document: Mapping[str, Any]
    lines: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Return the answer as data that JSON can hold."""
        return dict(self.document)

    def text(self) -> str:
        """Return the answer as text."""
        return "\n".join(self.lines)


def inspect(url: str, name: str | None = None, *, environment: Mapping[str, str]) -> Answer:
    """Return a summary of a dataset or, with a name, every table row about that sample, case, person, series or object.

    Raises
    ------
    LayoutError
        If nothing is published there, or nothing is known by that name.
    """
    store = open_store(url)
    manifest = published_manifest(store)
    if name is None:
        return _summary(url, store, manifest)
    names = keyed_names(name_text(os.fsencode(name)), manifest, environment)
    listed = {stored.path for stored in manifest.files}
    found = {
        table: rows
        for table in (INDEX, COHORT, SPLITS, REGISTRY, EXCLUSIONS, LEDGER)
        if (table != REGISTRY or table in listed) and (rows := rows_of(store, manifest, table, names))
    }
    if not found:
        raise _unknown(names, manifest)
    lines = [f"{table.removesuffix('.parquet')}: {counted(len(rows), 'row')}" for table, rows in found.items()]
    for table, rows in found.items():
        for row in rows[:MOST_ROWS]:
            lines.append(f"-- {table.removesuffix('.parquet')}")
            lines += [f"   {k}: {v}" for k, v in row.items() if v not in (None, [], "")]
    return Answer({t.removesuffix(".parquet"): rows for t, rows in found.items()}, tuple(lines))


def published_manifest(store: Store) -> Manifest:
    """Read the manifest of the published version. Raises LayoutError if there is none."""
    try:
        return parse_manifest(store.read(version_path(parse_current(store.read(CURRENT)), MANIFEST)))
    except FileNotFoundError:
        raise LayoutError(
            f"{store.url}: found no published dataset, expected one; build it, or check the location"
        ) from None


def keyed_names(name: str, manifest: Manifest, environment: Mapping[str, str]) -> set[str]:
    """Return the name itself and every keyed name that it may have in the dataset."""
    names = {name}
    key = key_of(manifest, environment)
    if key is not None:
        names |= {key.name(kind, name) for kind in ("object", "series", "study")}
        names |= lookup_names(key, name, [source.get("site") for source in manifest.spec.get("sources", ())])
    return names


def _reference(manifest: Manifest) -> str:
    return str(manifest.spec.get("deid", {}).get("patient_key", ""))


def key_of(manifest: Manifest, environment: Mapping[str, str]) -> Key | None:
    """Return the key with which a version was built, if the environment holds it; any other key gives None."""
    try:
        key = resolve_key(_reference(manifest), environment)
    except SpecError:
        return None
    return key if key.name("check") == manifest.lock.get("key_check") else None


def rows_of(store: Store, manifest: Manifest, name: str, names: set[str]) -> list[dict[str, Any]]:
    return rows_about(read_parquet(store.read(version_path(manifest.version, name))), names)


def rows_about(table: pa.Table, names: Collection[str]) -> list[dict[str, Any]]:
    """Return the rows of a table that contain one of the names."""
    wanted = pa.array(sorted(names))
    mask = None
    for column in (c for c in KEYS if c in table.column_names):
        hit = pc.is_in(table.column(column), value_set=wanted)
        mask = hit if mask is None else pc.or_(mask, hit)
    if "members" in table.column_names:
        listed = pa.array([any(m in names for m in found) for found in table.column("members").to_pylist()])
        mask = listed if mask is None else pc.or_(mask, listed)
    return [] if mask is None else table.filter(mask).to_pylist()


def _unknown(names: set[str], manifest: Manifest) -> LayoutError:
    hint = "" if len(names) > 1 else (
        "; to look up the archive's own UIDs and PatientIDs set the key the dataset was built with "
        f"({_reference(manifest)})"
    )  # fmt: skip
    return LayoutError(f"found nothing by that name in version {manifest.version}{hint}")


def _summary(url: str, store: Store, manifest: Manifest) -> Answer:
    splits = read_parquet(
        store.read(version_path(manifest.version, INDEX)), columns=["split", "case_key", "person_key"]
    )
    rows = []
    found = set(splits.column("split").to_pylist())
    for split in [*(s for s in USUAL_ORDER if s in found), *sorted(found - set(USUAL_ORDER))]:
        part = splits.filter(pc.equal(splits.column("split"), split))
        cases, persons = (len(set(part.column(c).to_pylist())) for c in ("case_key", "person_key"))
        rows.append({"split": split, "samples": part.num_rows, "cases": cases, "persons": persons})
    stored = sum(o.bytes for s in manifest.shards for o in s.objects)
    document = {
        "name": manifest.name,
        "version": manifest.version,
        "license": manifest.spec.get("license"),
        "splits": rows,
        "fields": [
            {"name": f.name, "dtype": f.dtype, "channels": f.channels, "shape": f.shape, "unit": f.unit,
             "segments": sorted(f.segments)}
            for f in manifest.fields
        ],
        "shards": len(manifest.shards),
        "bytes": stored,
        "totals": dict(manifest.totals),
    }  # fmt: skip
    lines = [f"{manifest.name} {manifest.version} ({manifest.spec.get('license')}) at {url}"]
    lines += [
        f"  {r['split']}: {counted(r['samples'], 'sample')}, {counted(r['cases'], 'case')}, "
        f"{counted(r['persons'], 'person')}"
        for r in rows
    ]
    lines += [
        f"  {f.name}: {f.dtype} {f.channels} x {' x '.join(map(str, f.shape)) if f.shape else 'volumes'}"
        f"{f' in {f.unit}' if f.unit else ''}{f', segments {sorted(f.segments)}' if f.segments else ''}"
        for f in manifest.fields
    ]
    lines.append(f"  {counted(len(manifest.shards), 'shard')}, {stored} bytes")
    for level in ("files", "instances", "series", "studies", "persons"):
        counts = {k.split(".")[1]: v for k, v in manifest.totals.items() if k.startswith(level + ".")}
        lines.append(f"  {level}: {sum(counts.values())} = " + " + ".join(f"{v} {k}" for k, v in counts.items()))
    return Answer(document, tuple(lines))
