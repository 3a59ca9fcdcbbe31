"""Gather the facts of a version from plan, tables, manifest and report, and render them into ``catalog/``."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from builder.catalog.documents import catalog
from builder.catalog.facts import (
    PARQUET,
    PLACES,
    ColumnFacts,
    EvidenceFacts,
    Facts,
    LabelFacts,
    LeftFacts,
    ProcedureFacts,
    RangeFacts,
    ShardFacts,
    SourceFacts,
    SplitFacts,
    StoredFile,
    TableFacts,
    ValueCount,
)
from builder.catalog.statement import Statement
from builder.clinical import schema as clinical_schema
from builder.model.canonical import fingerprint
from builder.model.fields import FieldLayout
from builder.model.layout import CATALOG, COHORT, INDEX, REGISTRY, SPLITS, Manifest, shard_path, stored_object
from builder.model.parquet import parquet_bytes
from builder.model.samples import SAMPLE_COLUMNS
from builder.model.tables import EXCLUSIONS, INSTANCES, LEDGER, SERIES, schema, used_rows
from builder.plan import DatasetPlan
from builder.publishing.extent import amounts, coverage, distribution, periods
from builder.publishing.quality import figures, independence
from builder.publishing.report import REPORT_JSON
from builder.report.association import is_worth_a_look
from builder.report.people import one_row_each, reading_order
from builder.report.physics import without_assumed_spacing
from builder.report.power import too_few
from builder.report.wording import stated
from builder.spec import DatasetSpec
from builder.spec.blocks import ReportOptions

KEYS = {INDEX: ("sample_key",), SPLITS: ("person_key",), REGISTRY: ("person_key",)}
ABOVE = "../"
"""Path from the folder of the records to the files that they describe."""

ROOT = "../../../"
"""Path from the folder of the records to that of the dataset."""

ORIGINS_TABLE = f"{CATALOG}/origins.parquet"

OF_IMAGES = ("modality", "body_part", "image_type", "manufacturer", "manufacturer_model", "vendor", "kvp")
OF_PERSONS = ("sex", "age_band", *PLACES)
RANGES = {
    "age_years": "a",
    "slices": None,
    "rows": None,
    "columns": None,
    "spacing_slice_mm": "mm",
    "spacing_row_mm": "mm",
    "spacing_column_mm": "mm",
    "slice_thickness_mm": "mm",
    "magnetic_field_strength": "T",
}
"""Numbers of the source images whose range is stated; maps a column of the cohort to its unit (UCUM)."""

MOST_VALUES = 12
"""Most values of a column that are listed one by one; the rest are counted together."""

_MEDIA_TYPES = {".parquet": PARQUET, ".json": "application/json", ".html": "text/html"}


def catalog_files(
    plan: DatasetPlan, tables: Mapping[str, pa.Table], files: Mapping[str, bytes], manifest: Manifest
) -> dict[str, bytes]:
    """Return ``catalog/croissant.json`` and the other records for what is about to be published.

    ``files`` are the objects of the version so far. The records state the fingerprint of those files as their version,
    because the name of the version itself depends on the records and so cannot appear in them.
    """
    origins = published_origins(plan)
    own = {ORIGINS_TABLE: parquet_bytes(origins)}
    facts = gather(plan, {**tables, ORIGINS_TABLE: origins}, {**files, **own}, manifest)
    return {**own, **{f"{CATALOG}/{name}": text.encode() for name, text in catalog(facts).items()}}


def published_origins(plan: DatasetPlan) -> pa.Table:
    """Return the origins without the positions of the sources, unless the spec retains them: they tell the site.

    The order would tell it, too, and is that of the keyed names then.
    """
    if "source" in plan.spec.deid.retain:
        return plan.origins
    table = plan.origins
    rows = zip(table["role"].to_pylist(), table["source"].to_pylist(), strict=True)
    told = [source if role == "clinical" else None for role, source in rows]
    place = table.schema.get_field_index("source")
    table = table.set_column(place, table.schema.field(place), pa.array(told, table.schema.field(place).type))
    return table.sort_by([(name, "ascending") for name in ("role", "series_key", "source", "title", "license")])


def gather(plan: DatasetPlan, tables: Mapping[str, pa.Table], files: Mapping[str, bytes], manifest: Manifest) -> Facts:
    """Gather everything that the records say."""
    spec = plan.spec
    report = json.loads(files[REPORT_JSON])
    stored = [stored_object(name, files[name]) for name in sorted(files)]
    content = fingerprint(replace(manifest, files=tuple(stored)).to_json())
    included = used_rows(tables[COHORT])
    years = periods(plan.cohort, _split_of(tables[SPLITS]), spec)
    segments = {field.name: tuple(sorted(field.segments)) for field in manifest.fields}
    return Facts(
        name=spec.name,
        # Croissant expects a semantic version; the fingerprint fits in as build metadata.
        version=f"0.0.0+{content[:12]}",
        license=spec.license,
        description=spec.description or None,
        usage=spec.usage,
        governance=spec.governance,
        use_case=spec.use_case,
        statement=_published_statement(plan),
        sources=_sources(plan),
        tables=tuple(_table(name, table, spec) for name, table in sorted(tables.items())),
        files=tuple(StoredFile(ABOVE + s.path, s.bytes, s.sha256, _media_type(s.path)) for s in stored),
        shards=_shards(manifest),
        arrays={field.name: _array(field) for field in manifest.fields},
        labels={name: LabelFacts(label.kind, segments.get(name, ())) for name, label in spec.labels.items()},
        images={n: _values(included[n], spec.report) for n in OF_IMAGES if n in included.column_names},
        people=_people(spec, tables[INDEX]),
        ranges=_ranges(without_assumed_spacing(included, tables[INDEX])),
        source_files=sum(n for k, n in manifest.totals.items() if k.startswith("files.")),
        source_bytes=_source_bytes(plan.cohort) if "bytes" in included.column_names else 0,
        sampling=_sampling(spec),
        preprocessing=tuple(_step(transform) for transform in spec.transforms),
        deidentification=_deidentification(spec.deid.retain),
        annotation=tuple(f"{name}: read from {label.kind} objects" for name, label in spec.labels.items()),
        procedures=_procedures(plan.procedures),
        eligibility=_eligibility(plan.published_spec["cohort"]),
        amounts=amounts(included, tables[INDEX], spec),
        periods=years,
        distribution=distribution(tables[INDEX], [row["label"] for row in report["labels"]], spec),
        figures=(
            *figures((tables[INDEX], included), manifest.totals, spec, max((p.last for p in years), default=None)),
            *coverage(plan.cohort, set(tables[INDEX]["person_key"].to_pylist()), spec),
        ),
        independence=independence(tables[INDEX], plan.cohort, spec),
        **_of_report(report),
    )


def _split_of(splits: pa.Table) -> dict[str, str]:
    return dict(zip(splits["person_key"].to_pylist(), splits["split"].to_pylist(), strict=True))


def _of_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of the report as facts."""
    left: Counter[tuple[str, str]] = Counter()
    for box in report["flow"]["boxes"]:
        for row in box["left"]:
            left[(row["reason"], row["level"])] += row["things"]
    persons = [k["in_two_splits"] for k in report["leakage"]["keys"] if k["key"] == "person_key"]
    test = report.get("power", {}).get("split")
    return {
        "splits": tuple(SplitFacts(r["split"], r["persons"], r["cases"], r["samples"]) for r in report["splits"]),
        "strata": ((report.get("balance") or {}).get("strata") or {}).get("number"),
        "disjoint": not persons[0] if persons else None,
        "left": tuple(LeftFacts(reason, level, n) for (reason, level), n in sorted(left.items())),
        "findings": tuple(findings(report)),
        "outcomes": tuple(
            f"{e['outcome']}: {e['positives']} yes and {e['negatives']} no in {test}"
            for e in report.get("power", {}).get("outcomes", ())
            if None not in (e["positives"], e["negatives"])
        ),
        "evidence": tuple(_evidence(entry) for entry in report.get("evidence", ())),
        "agreed": tuple(
            f"{e['name']}: {e['method'].replace('_', ' ')} of {', '.join(e['of'])}, compared in the report"
            for e in report.get("agreement", ())
        ),
    }


def _evidence(entry: Mapping[str, Any]) -> EvidenceFacts:
    tiers = tuple(ValueCount(t["tier"], t["all"]) for t in entry["tiers"])
    tools = tuple(ValueCount(t["tool"], t["cases"]) for t in entry["tools"])
    return EvidenceFacts(entry["label"], tiers, entry["readers"], tools)


def _eligibility(cohort: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how series were chosen: the cohort block of the published spec in words."""
    rules = [f"{rule['name']}: {rule['keep']}" for rule in cohort["rules"]]
    single = [f"one series a {cohort['one_per']}"] if cohort["one_per"] != "series" else []
    single += [f"one case a {cohort['case']}"] if cohort["images"] else []
    images = [f"images: {cohort['image']}"] if cohort["image"] is not None else []
    images += [
        f"image {name}: {image['select']}" + ("" if image["required"] else " (optional)")
        for name, image in cohort["images"].items()
    ]
    return (*images, *rules, f"labels {cohort['labels']}",
            f"clinical row {cohort['clinical']}", *single)  # fmt: skip


def findings(report: Mapping[str, Any]) -> list[str]:
    """Return what a user must know from the report: untested groups, associations and gaps in the data."""
    found = []
    for row in report.get("associations", ()):
        if is_worth_a_look(row):
            strength = f"Cramer's V {row['cramers_v']:.2f}, q {row['q']:.3g}"
            found.append(f"{row['label']} is associated with {row['group']} ({strength})")
    outcomes = report.get("power", {}).get("outcomes", ())
    small: dict[str, list[str]] = {}
    for row in too_few(outcomes):
        named = [of["outcome"] for of in row["outcomes"]]
        which = "any outcome" if len(named) == len(outcomes) else ", ".join(named)
        small.setdefault(which, []).append(f"{row['column']} {stated(row['level'])}")
    for which, groups in small.items():
        split = report["power"]["split"]
        found.append(f"the {split} split has too few persons to speak for {which} in {', '.join(groups)}")
    for entry in report.get("table_one", ()):
        for row in entry.get("levels", ()):
            share = row["cells"]["all"]["share"]
            if row["level"] == "missing" and share:
                found.append(f"{entry['column']} is unknown for {100 * share:.1f} % of the persons")
    return found


def _published_statement(plan: DatasetPlan) -> Statement:
    """Return the statement with the playbook's location as published, since the original path may be private."""
    said = plan.spec.catalog
    if said.playbook is None:
        return said
    url = plan.published_spec["catalog"]["playbook"]["url"]
    return said.model_copy(update={"playbook": said.playbook.model_copy(update={"url": url})})


def _sources(plan: DatasetPlan) -> tuple[SourceFacts, ...]:
    """Return one entry per role and set of terms; a source without title is named by kind and site, never address."""
    counted: Counter[tuple[Any, ...]] = Counter()
    for row in plan.origins.to_pylist():
        name = row["title"] or _unnamed(plan.spec, row["role"], row["source"])
        terms = (row["license"], row["citation"], row["doi"], row["page"])
        counted[(name, row["role"], *terms)] += row["series_key"] is not None
    order = sorted(counted, key=lambda k: tuple(x or "" for x in k))
    return tuple(SourceFacts(k[0], k[1], counted[k], *k[2:]) for k in order)


def _unnamed(spec: DatasetSpec, role: str, number: int) -> str:
    if role == "clinical":
        return f"clinical table {number + 1}"
    source: Any = spec.sources[number]
    return " ".join(str(x) for x in (source.kind, source.site, source.collection) if x)


def _table(name: str, table: pa.Table, spec: DatasetSpec) -> TableFacts:
    notes = _column_notes(name, spec)
    columns = []
    for field in table.schema:
        told = notes.get(field.name, {})
        columns.append(ColumnFacts(field.name, str(field.type), told.get("unit"), told.get("dicom_tag")))
    return TableFacts(ABOVE + name, table.num_rows, tuple(columns), KEYS.get(name, ()))


def _column_notes(table: str, spec: DatasetSpec) -> dict[str, dict[str, str]]:
    """Return unit and DICOM attribute of columns by name, because joined tables lose the metadata of their fields.

    A clinical column or a column of the sample takes precedence over an image attribute of the same name: the rows of a
    sample, for example, are not the rows of its image.
    """
    schemas = [INSTANCES, LEDGER, EXCLUSIONS, SERIES, *(clinical_schema(sheet) for sheet in spec.clinical)]
    if table == INDEX:
        schemas.append(schema(SAMPLE_COLUMNS))
    return {
        field.name: {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        for known in schemas
        for field in known
    }


def _shards(manifest: Manifest) -> ShardFacts:
    size = sum(o.bytes for shard in manifest.shards for o in shard.objects)
    folders = tuple(ROOT + shard_path(shard.fingerprint) for shard in manifest.shards if shard.rows)
    return ShardFacts(len(manifest.shards), size, folders)


def _people(spec: DatasetSpec, index: pa.Table) -> dict[str, tuple[ValueCount, ...]]:
    """Return the characteristics of the persons whose samples are in the dataset."""
    names = [n for n in dict.fromkeys((*OF_PERSONS, *spec.report.groups)) if n in index.column_names]
    names = [n for n in names if n not in OF_IMAGES]
    persons = one_row_each(index, names)
    return {name: _values(persons[name], spec.report) for name in names}


def _values(column: pa.ChunkedArray, options: ReportOptions) -> tuple[ValueCount, ...]:
    """Return the most frequent values with their number of rows, sorted by name, and the rest as ``others``.

    If any number is below ``mask_below``, the whole column is masked, because a single masked number could be computed
    from the others.
    """
    counted = Counter(None if v is None else _word(v) for v in column.to_pylist())
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0] is None, item[0] or ""))
    first = sorted(ordered[:MOST_VALUES], key=lambda item: (item[0] is None, reading_order(item[0] or "")))
    rest = ordered[MOST_VALUES:]
    told = [
        *first,
        *([("1 other" if len(rest) == 1 else f"{len(rest)} others", sum(n for _, n in rest))] if rest else []),
    ]
    masked = any(n < options.mask_below for n in counted.values())
    return tuple(ValueCount(value, None if masked else n) for value, n in told)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _source_bytes(cohort: pa.Table) -> int:
    """Return the bytes of the image files of included series; an object with several stacks counts once."""
    included = used_rows(cohort).select(["series_uid", "holders", "holder_bytes"]).to_pylist()
    held = [((r["series_uid"], h), n) for r in included for h, n in zip(r["holders"], r["holder_bytes"], strict=True)]
    return sum(dict(held).values())


def _ranges(included: pa.Table) -> dict[str, RangeFacts]:
    found = {}
    for name, unit in RANGES.items():
        values = included[name].drop_null().to_pylist() if name in included.column_names else []
        if values:
            low, middle, high = (float(f"{x:.6g}") for x in (min(values), np.median(values), max(values)))
            found[name] = RangeFacts(low, middle, high, unit)
    return found


def _procedures(found: Mapping[str, Any] | None) -> ProcedureFacts | None:
    if found is None:
        return None
    rows = tuple((p["rpid"], p["name"], p["studies"]) for p in found["procedures"])
    return ProcedureFacts(found["studies"], found["mapped"], found["without_description"], rows)


def _array(field: FieldLayout) -> str:
    shape = " x ".join(map(str, field.shape)) if field.shape else "one volume a sample"
    unit = f", {field.unit}" if field.unit else ""
    names = f", {', '.join(sorted(field.segments))}" if field.segments else ""
    channels = "1 channel" if field.channels == 1 else f"{field.channels} channels"
    return f"{field.dtype}, {channels}, {shape} (slice, row, column){unit}{names}"


def _sampling(spec: DatasetSpec) -> str:
    return _step(spec.samples)


def _step(step: Any) -> str:
    """Describe a block of the spec in words: its kind and its options, except empty ones."""
    options = step.model_dump(mode="json", by_alias=True, exclude={"kind"})
    told = [f"{k.replace('_', ' ')} {_option(v)}" for k, v in options.items() if v not in (None, [], {}, "", "none")]
    return f"{step.kind}: {', '.join(told)}" if told else str(step.kind)


def _option(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_option(v)}" for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        numbers = all(isinstance(v, int | float) for v in value)
        between = {3: " x ", 2: " to "}.get(len(value), " and ") if numbers else " and "
        return between.join(_option(v) for v in value)
    return "yes" if value is True else "no" if value is False else _word(value)


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
