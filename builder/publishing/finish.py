"""Turn receipts into index, ledger, totals, report and manifest, then swap the pointer, so publishing is atomic."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from builder.clinical import schema as clinical_schema
from builder.deid.columns import crossing
from builder.errors import LayoutError
from builder.model.canonical import canonical_json
from builder.model.cleared import ClearedBytes
from builder.model.fields import FieldLayout, merged_units
from builder.model.layout import (
    COHORT,
    CURRENT,
    EXCLUSIONS,
    INDEX,
    LEAKS,
    LEDGER,
    MANIFEST,
    RECEIPT,
    REGISTRY,
    SAMPLES,
    SPLITS,
    WITHDRAWN,
    Manifest,
    Receipt,
    ShardEntry,
    shard_path,
    stored_object,
    version_name,
    version_path,
    write_current,
)
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.samples import PLACE_COLUMNS, SAMPLE_COLUMNS
from builder.model.tables import schema
from builder.plan import DatasetPlan
from builder.planning.inventory import Inventory, Survey
from builder.planning.offsets import label_days, read_lives
from builder.planning.registry import next_registry
from builder.publishing.accounts import Accounts, account, keep_accounts
from builder.publishing.catalog import ORIGINS_TABLE, catalog_files, published_origins
from builder.publishing.classes import with_class_columns
from builder.publishing.consensus import check_evidence, settle_classes, with_evidence
from builder.publishing.exports import export_files
from builder.publishing.leaks import Compared, certificate, with_intensities
from builder.publishing.outcome import check_build, losses
from builder.publishing.privacy import clear_plan, count_withheld, release
from builder.publishing.published import Published
from builder.publishing.report import report_files
from builder.publishing.sentences import sentence_table
from builder.publishing.thumbnails import unproven
from builder.reader.views import split_views
from builder.spec import DatasetSpec
from builder.stages.annotate import CASE_FACTS
from builder.stages.shard import read_receipt
from builder.storage import Store, checkpoint

NOT_RETAINED = "not retained: name it in deid.retain and build again"
"""The note at a column of the index whose values stay behind."""
SENTENCES = "sentences.parquet"
"""Table of the sentences of published texts, where a label asks for it."""

COHORT_DECISIONS = ("included", "rule", "reason", "detail")


def finish(
    plan: DatasetPlan,
    compared: Compared,
    inventory: Inventory,
    survey: Survey,
    dataset: Store,
    *,
    guard: Callable[[], None],
) -> Published:
    """Gather the receipts, account for every file, render, check, and publish.

    ``guard`` raises if this builder may no longer publish; it is called right before anything that readers see changes.

    Raises
    ------
    LayoutError
        If a receipt is missing, shards disagree about fields, or totals do not add up.
    OutcomeError
        If the dataset would be empty, or the build lost more of the plan than the spec allows.
    PrivacyError
        If an identifier from the archive is found in anything that would be published.
    """
    receipts = _receipts(plan, dataset)
    lives = read_lives(plan.cohort, plan.persons, survey, retain=plan.spec.deid.retain)
    plan, gate, roster = clear_plan(plan, inventory, lives)
    accounts = account(plan, receipts, inventory, survey)
    shared, deid = plan.shared_dates, plan.spec.deid
    days = label_days(plan.cohort, lives, links=plan.links, annotations=plan.annotations, shared=shared, deid=deid)
    tables = _tables(plan, receipts, accounts, dataset, days)
    lost = losses(plan, receipts)
    keep_accounts(plan, accounts)
    alike = {p for m in compared.matches for p in m.persons} if plan.spec.leaks.on_match == "merge" else set()
    check_build(plan, lost, tables[INDEX], unlisted=inventory.incomplete, alike=len(alike))
    check_evidence(tables[INDEX], plan.spec)
    tables[INDEX] = with_intensities(tables[INDEX], compared)
    sentences = sentence_table(tables[INDEX], plan.spec)
    if sentences is not None:
        tables[SENTENCES] = sentences
    draft = _draft(plan, receipts, accounts)
    files = {name: parquet_bytes(table) for name, table in tables.items()}
    files |= split_views(dataset, draft, tables[INDEX])
    leaks = certificate(plan, compared, tables[INDEX])
    files[LEAKS] = canonical_json(leaks)
    files |= export_files(plan.spec, plan.splits, tables[INDEX])
    accounts = replace(accounts, withheld=count_withheld(plan, receipts, gate))
    files |= report_files(plan, accounts, tables, draft, dataset, leaks, unproven(receipts, dataset))
    files |= catalog_files(plan, tables, files, draft)
    searched = {**tables, ORIGINS_TABLE: published_origins(plan)}
    cleared = release(plan, roster, searched, files, manifest=draft, dataset=dataset)
    swapped = publish_files(draft, cleared, dataset, guard)
    return Published(
        version=swapped.version,
        samples=draft.totals["samples"],
        cases=draft.totals["cases"],
        persons=accounts.totals["persons"].get("used", 0),
        totals=accounts.totals,
        unchanged=swapped.unchanged,
        lost=[loss.facts() for loss in lost],
        withheld=accounts.withheld,
    )


def crossing_columns(spec: DatasetSpec, names: Iterable[str]) -> tuple[str, ...]:
    """Return the columns that may enter the dataset: technical, retained and clinical ones."""
    return crossing(list(names), retain=spec.deid.retain, clinical=spec.clinical_columns)


def _receipts(plan: DatasetPlan, dataset: Store) -> dict[str, Receipt]:
    receipts = {}
    for shard in plan.shards:
        receipt = read_receipt(dataset, shard.fingerprint)
        if receipt is None:
            raise LayoutError(f"shard {shard.fingerprint}: found no receipt, expected a finished shard; build again")
        receipts[shard.fingerprint] = receipt
    return receipts


def _tables(
    plan: DatasetPlan,
    receipts: Mapping[str, Receipt],
    accounts: Accounts,
    dataset: Store,
    days: Mapping[tuple[str, str], int],
) -> dict[str, pa.Table]:
    columns = crossing_columns(plan.spec, plan.cohort.column_names)
    if plan.cohort["split_published"].null_count == plan.cohort.num_rows:
        columns = tuple(name for name in columns if name != "split_published")
    split_of = dict(zip(*(plan.splits.column(c).to_pylist() for c in ("person_key", "split")), strict=True))
    cohort = plan.cohort.select(columns)
    decided = plan.cohort.select(COHORT_DECISIONS)
    splits = [split_of.get(p) for p in plan.cohort.column("person_key").to_pylist()]
    for name in decided.column_names:
        cohort = cohort.append_column(name, decided.column(name))
    return {
        INDEX: _with_unretained(
            with_evidence(_index(plan, receipts, cohort, columns, split_of, dataset), days), plan.spec
        ),
        SPLITS: plan.splits,
        REGISTRY: next_registry(plan.registry, plan.persons, plan.splits, key=plan.key),
        COHORT: cohort.append_column("split", pa.array(splits, pa.string())),
        EXCLUSIONS: accounts.exclusions,
        LEDGER: accounts.ledger,
        **({WITHDRAWN: plan.withdrawn.stored()} if plan.withdrawn.table.num_rows else {}),
    }


def _index(
    plan: DatasetPlan,
    receipts: Mapping[str, Receipt],
    cohort: pa.Table,
    columns: Sequence[str],
    split_of: Mapping[str, str],
    dataset: Store,
) -> pa.Table:
    """Return one row per sample: its place, the facts of its shard and of its case, and the measures of its labels."""
    samples = _samples(plan, receipts, dataset)
    own = set(samples.column_names)
    facts = [c for c in columns if c not in own and c not in ("case_key", "image_name", "serves")]
    rows = {key: i for i, key in enumerate(cohort.column("case_key").to_pylist())}
    order = pa.array([rows[key] for key in samples.column("case_key").to_pylist()], pa.int64())
    joined = cohort.select(facts).take(order)
    splits = [split_of[p] for p in joined.column("person_key").to_pylist()]
    table = samples.add_column(0, "split", pa.array(splits, pa.string()))
    for name in facts:
        table = table.append_column(name, joined.column(name))
    return _with_measures(with_class_columns(settle_classes(table, plan.spec), plan.cohort.schema, plan.spec))


def _with_unretained(index: pa.Table, spec: DatasetSpec) -> pa.Table:
    """Append the declared clinical times that ``deid.retain`` does not name, as nulls with a note that says so.

    Code that reads them then finds nothing instead of failing, and whoever looks at the schema learns what to do.
    """
    for table in spec.clinical:
        for field in clinical_schema(table):
            if field.name in table.dated and field.name not in index.column_names:
                note = {**(field.metadata or {}), b"note": NOT_RETAINED.encode()}
                index = index.append_column(field.with_metadata(note), pa.nulls(index.num_rows, field.type))
    return index


def _samples(plan: DatasetPlan, receipts: Mapping[str, Receipt], dataset: Store) -> pa.Table:
    """Return the rows of all shards with their places, in one chunk: a chunk per shard would make columns slow."""
    parts: list[pa.Table] = []
    shards: list[str] = []
    places: list[int] = []
    for shard in plan.shards:
        if receipts[shard.fingerprint].rows:
            part = read_parquet(dataset.read(shard_path(shard.fingerprint, SAMPLES)))
            parts.append(part)
            shards += [shard.fingerprint] * part.num_rows
            places += range(part.num_rows)
    if not parts:
        return _no_samples()
    rows = pa.concat_tables(parts).combine_chunks()
    place = {"shard": pa.array(shards, pa.string()), "row": pa.array(places, pa.int64())}
    return pa.table({**place, **{name: rows.column(name) for name in rows.column_names}})


def _no_samples() -> pa.Table:
    empty = schema(PLACE_COLUMNS[1:] + SAMPLE_COLUMNS).empty_table()
    for field in CASE_FACTS:
        empty = empty.append_column(field, pa.array([], field.type))
    return empty


def _with_measures(table: pa.Table) -> pa.Table:
    """Turn the measures of each sample's case into columns ``label.<mask>.<segment>.volume_mm3``, sorted by name."""
    found = [
        dict(zip(names or (), values or (), strict=True))
        for names, values in zip(
            table.column("measure_names").to_pylist(), table.column("measure_values").to_pylist(), strict=True
        )
    ]
    for name in sorted({name for measures in found for name in measures}):
        column = "label." + name.replace("/", ".")
        table = table.append_column(column, pa.array([m.get(name) for m in found], pa.float64()))
    return table.drop_columns(["measure_names", "measure_values"])


def _fields(receipts: Mapping[str, Receipt]) -> tuple[FieldLayout, ...]:
    """Merge the fields of all shards, which must agree in everything except unit and segments."""
    merged: dict[str, FieldLayout] = {}
    for receipt in receipts.values():
        for found in receipt.fields:
            known = merged.setdefault(found.name, found)
            segments = {**known.segments, **found.segments}
            clash = [n for n, place in known.segments.items() if segments[n] != place]
            alike = [replace(f, unit="", segments={}, channel_units=()) for f in (known, found)]
            if clash or alike[0] != alike[1]:
                raise LayoutError(
                    f"field {found.name}: found {_described(found)} in one shard and {_described(known)} in another; "
                    "add a transform that makes them equal"
                )
            unit = known.unit if known.unit == found.unit else "mixed"
            units = merged_units(known.channel_units, found.channel_units)
            segments = dict(sorted(segments.items()))
            merged[found.name] = replace(known, unit=unit, segments=segments, channel_units=units)
    return tuple(merged[name] for name in sorted(merged))


def _described(field: FieldLayout) -> str:
    return f"{field.channels} channels of {field.dtype} {field.shape} {dict(field.segments)}"


def _draft(plan: DatasetPlan, receipts: Mapping[str, Receipt], accounts: Accounts) -> Manifest:
    """Return the manifest without the version's name and files, which are not known yet."""
    shards = []
    for shard in plan.shards:
        receipt = receipts[shard.fingerprint]
        own = stored_object(RECEIPT, receipt.to_json())
        shards.append(ShardEntry(shard.fingerprint, receipt.rows, (*receipt.objects, own)))
    totals = {f"{level}.{status}": n for level, counts in accounts.totals.items() for status, n in counts.items()}
    totals |= {"samples": sum(r.rows for r in receipts.values()), "cases": sum(r.cases for r in receipts.values())}
    return Manifest(
        name=plan.spec.name,
        version="",
        spec=plan.published_spec,
        lock=plan.lock,
        fields=_fields(receipts),
        shards=tuple(shards),
        files=(),
        totals=totals,
    )


@dataclass(frozen=True)
class Swapped:
    """The version that readers see now, and whether they saw it before."""

    version: str
    unchanged: bool


def publish_files(
    draft: Manifest, files: Mapping[str, ClearedBytes], dataset: Store, guard: Callable[[], None]
) -> Swapped:
    """Write the files and the manifest of a version, then swap the pointer; ``guard`` is as for ``finish``."""
    stored = tuple(stored_object(name, files[name]) for name in sorted(files))
    manifest = replace(draft, files=stored)
    manifest = replace(manifest, version=version_name(manifest))
    guard()
    dataset.sweep()  # removes unfinished files; the guard has just shown that this builder may
    current = _current(dataset)
    pointer = write_current(manifest.version)
    # An equal version is already complete, so publishing it again changes nothing.
    if current != pointer:
        for name in sorted(files):
            dataset.put(version_path(manifest.version, name), files[name])
        checkpoint("publish.manifest")
        dataset.put(version_path(manifest.version, MANIFEST), manifest.to_json())
        checkpoint("publish.current")
        dataset.swap(CURRENT, pointer, guard=guard)
        checkpoint("publish.done")
    return Swapped(manifest.version, current == pointer)


def _current(dataset: Store) -> bytes | None:
    try:
        return dataset.read(CURRENT)
    except FileNotFoundError:
        return None
