"""The catalog records of a version: facts of plan, tables, manifest and report, rendered into ``catalog/``."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from builder.model.layout import (
    CATALOG,
    COHORT,
    EXCLUSIONS,
    INDEX,
    LEDGER,
    SPLITS,
    FieldLayout,
    Manifest,
    fingerprint,
    stored_object,
)
from builder.plan import DatasetPlan
from builder.report.catalog import PARQUET, Facts, SourceFacts, StoredFile, catalog
from builder.stages.report import REPORT_JSON

KEYS = {INDEX: ("sample_key",), SPLITS: ("person_key",), LEDGER: (), COHORT: (), EXCLUSIONS: ()}
ABOVE = "../"
"""The records lie in a folder beside the files they describe."""

_MEDIA_TYPES = {".parquet": PARQUET, ".json": "application/json", ".html": "text/html"}


def catalog_files(
    plan: DatasetPlan, tables: Mapping[str, pa.Table], files: Mapping[str, bytes], manifest: Manifest
) -> dict[str, bytes]:
    """``catalog/croissant.json`` and the other records, from what is about to be published.

    ``files`` are the objects of the version so far. The version in the records is the fingerprint of those files:
    the version's own name depends on the records and cannot stand in them.
    """
    texts = catalog(_facts(plan, tables, files, manifest))
    return {f"{CATALOG}/{name}": text.encode() for name, text in texts.items()}


def _facts(plan: DatasetPlan, tables: Mapping[str, pa.Table], files: Mapping[str, bytes], manifest: Manifest) -> Facts:
    spec = plan.spec
    stored = [stored_object(name, files[name]) for name in sorted(files)]
    shards = [o.bytes for shard in manifest.shards for o in shard.objects]
    modalities = tables[INDEX]["modality"].unique().to_pylist() if "modality" in tables[INDEX].column_names else []
    content = fingerprint(replace(manifest, files=tuple(stored)).to_json())
    return Facts(
        name=spec.name,
        version=f"0.0.0+{content[:12]}",
        license=spec.license,
        description=spec.description or None,
        sources=tuple(_source(source) for source in spec.sources),
        tables={ABOVE + name: table.schema for name, table in tables.items()},
        keys={ABOVE + name: KEYS[name] for name in tables},
        files=tuple(StoredFile(ABOVE + s.path, s.bytes, s.sha256, _media_type(s.path)) for s in stored),
        shards=(len(manifest.shards), sum(shards)),
        arrays={field.name: _array(field) for field in manifest.fields},
        modalities=tuple(sorted(m for m in modalities if m)),
        report=json.loads(files[REPORT_JSON]),
        preprocessing=tuple(_step(transform) for transform in spec.transforms),
        deidentification=_deidentification(spec.deid.retain),
        annotation=tuple(f"{name}: read from {label.kind} objects" for name, label in spec.labels.items()),
    )


def _source(source: Any) -> SourceFacts:
    """A source by kind, site and collection; never by its address, which may name a machine or a patient."""
    words = [source.kind, *(str(getattr(source, n)) for n in ("site", "collection") if getattr(source, n, None))]
    return SourceFacts(" ".join(words))


def _array(field: FieldLayout) -> str:
    shape = "x".join(map(str, field.shape)) if field.shape else "one volume a sample"
    unit = f", {field.unit}" if field.unit else ""
    names = f", {', '.join(sorted(field.segments))}" if field.segments else ""
    return f"{field.dtype}, {field.channels} channels, {shape} (slice, row, column){unit}{names}"


def _step(transform: Any) -> str:
    options = transform.model_dump(mode="json", by_alias=True, exclude={"kind"})
    return f"{transform.kind} {json.dumps(options, sort_keys=True)}"


def _deidentification(retained: Any) -> tuple[str, ...]:
    kept = ", ".join(sorted(map(str, retained)))
    return (
        "header attributes pass only if an allow list names them, at every depth of nesting",
        "persons, studies, series and UIDs are replaced by keyed hashes (HMAC-SHA256)",
        "dates are replaced by ages and days since a person's first study",
        f"retained characteristics: {kept or 'none'}",
    )


def _media_type(path: str) -> str:
    return next((kind for end, kind in _MEDIA_TYPES.items() if path.endswith(end)), "application/octet-stream")
