"""Guard the publishing step: clear every text from the archive, and search everything that will be published.

``clear_plan`` judges every text that comes from the archive before anything is derived from it. ``release`` runs last.
It searches every table and document for the identifiers of the whole archive, and returns the cleared bytes that
``publish_files`` takes.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from builder.deid.columns import crossing
from builder.deid.documents import clear_document, search_table
from builder.deid.gate import Gate
from builder.errors import PrivacyError
from builder.model.cleared import ClearedBytes, Policy, policy_of
from builder.model.layout import MANIFEST, Manifest, Receipt, shard_path
from builder.model.options import WITHHELD
from builder.plan import DatasetPlan
from builder.planning.inventory import Inventory
from builder.planning.offsets import STUDY_DAY, Lives, count_withheld_days, study_days, visit_days
from builder.planning.roster import Roster, clear_cohort
from builder.spec import DatasetSpec
from builder.stages.gating import WITHHELD_TEXTS, gate_of, list_withheld
from builder.storage import Store, open_store

KEYED = re.compile(r"[0-9a-hjkmnp-tv-z]{26}(?:-\d+)?")
"""The shape of a keyed name (for a sample, with its number); key columns may hold nothing else."""

KEY_COLUMNS = re.compile(r"(?:.*_)?key|members|bare")
FINGERPRINTS = frozenset({"shard"})


def clear_plan(plan: DatasetPlan, inventory: Inventory, lives: Lives) -> tuple[DatasetPlan, Gate, Roster]:
    """Return the plan with every publishable text judged, the gate with what it withheld, and the archive's persons."""
    gate = gate_of(plan.spec)
    roster = Roster(gate.words.spec, plan.persons, plan.annotations, inventory)
    cohort = clear_cohort(plan.cohort, gate, roster)
    deid = plan.spec.deid
    if STUDY_DAY in deid.retain:
        place = cohort.schema.get_field_index(STUDY_DAY)
        days = study_days(plan.cohort, lives, most_days=deid.most_days)
        cohort = cohort.set_column(place, cohort.schema.field(place), days)
    for name, days in visit_days(plan.cohort, lives, options=plan.spec.cohort, deid=deid).items():
        cohort = cohort.append_column(name, days)
    splits = _with_strata(plan.splits, plan.cohort, cohort, names=plan.spec.splits.stratify)
    splits = _without_levels(splits, plan.spec)
    cleared = replace(plan, cohort=cohort, splits=splits, origins=gate.table(plan.origins, where="origins"))
    return cleared, gate, roster


def _with_strata(splits: pa.Table, before: pa.Table, after: pa.Table, *, names: Iterable[str]) -> pa.Table:
    """Replace the names of strata by what may be published of their levels."""
    changed: dict[str, str] = {}
    for name in names:
        if name in before.column_names and pa.types.is_string(before.schema.field(name).type):
            pairs = zip(before.column(name).to_pylist(), after.column(name).to_pylist(), strict=True)
            changed |= {raw: cleared or WITHHELD for raw, cleared in set(pairs) if raw and raw != cleared}
    if not changed:
        return splits
    pattern = re.compile("|".join(re.escape(raw) for raw in sorted(changed, key=len, reverse=True)))
    told = [s if s is None else pattern.sub(lambda m: changed[m[0]], s) for s in splits.column("stratum").to_pylist()]
    place = splits.schema.get_field_index("stratum")
    return splits.set_column(place, splits.schema.field(place), pa.array(told, pa.string()))


def _without_levels(splits: pa.Table, spec: DatasetSpec) -> pa.Table:
    """Return the splits with strata that tell only levels of columns that go into the dataset.

    A stratum stands beside each person: ``sex=F`` would tell what ``deid.retain`` keeps back.
    """
    names = spec.splits.stratify
    kept = crossing(names, retain=spec.deid.retain, clinical=spec.clinical_columns)
    hidden = [re.escape(name) for name in names if name not in kept]
    if not hidden:
        return splits
    pattern = re.compile(rf"(^|; )({'|'.join(hidden)})=.*?(?=$|; (?:{'|'.join(map(re.escape, names))})=)", re.DOTALL)
    told = [s if s is None else pattern.sub(rf"\1\2={WITHHELD}", s) for s in splits["stratum"].to_pylist()]
    place = splits.schema.get_field_index("stratum")
    return splits.set_column(place, splits.schema.field(place), pa.array(told, pa.string()))


def count_withheld(plan: DatasetPlan, receipts: Mapping[str, Receipt], gate: Gate) -> dict[str, int]:
    """Count the cases or series whose text each column withheld; the plan's private folder lists the texts."""
    list_withheld(open_store(plan.url, directory_mode=0o700), "cohort", [gate])
    counts: Counter[str] = Counter()
    for receipt in receipts.values():
        counts.update(receipt.tallies.get(WITHHELD_TEXTS, {}))
    for (column, _), rows in gate.dropped.items():
        counts[column] += rows
    if STUDY_DAY in plan.spec.deid.retain and (days := count_withheld_days(plan.cohort, plan.cohort[STUDY_DAY])):
        counts[STUDY_DAY] += days
    return dict(sorted(counts.items()))


def release(
    plan: DatasetPlan,
    roster: Roster,
    tables: Mapping[str, pa.Table],
    files: Mapping[str, bytes],
    *,
    manifest: Manifest,
    dataset: Store,
) -> Mapping[str, ClearedBytes]:
    """Search everything that will be published for the identifiers of the whole archive, and clear the files.

    That is all tables and documents, the manifest, and of every shard its Zarr metadata and its pictures. Key columns
    are checked for their shape instead, because their random digits would sometimes equal a person's number. In
    documents only texts are searched, not numbers, because counts and sizes would match in the same way. What stands
    in values of closed vocabularies is no identifier, wherever it is said again: a patient may be called Axial.

    Raises
    ------
    PrivacyError
        The message names the file and the column, never the value. Nothing is published then.
    """
    declared = frozenset(plan.spec.clinical_columns)
    canaries = roster.canaries
    canaries = canaries.without(canaries.found_in(_vocabulary(tables.values(), declared)))
    for name, table in sorted(tables.items()):
        _check_keys(table, where=name)
        search_table(name, _searched(table), canaries, counts=_counts(table, plan.spec), declared=declared)
    words = canaries.without_numbers()
    cleared = {}
    for name, data in sorted(files.items()):
        # Texts in views hold Zarr metadata and shard paths, whose digits could equal a person's number.
        numbered = words if name.startswith("views/") else canaries
        cleared[name] = clear_document(name, data, words, numbered=numbered)
    clear_document(MANIFEST, manifest.to_json(), words)
    for path, data in _described(manifest, dataset):
        clear_document(path, data, words)
    return cleared


_VOCABULARIES = frozenset(
    {
        *(Policy.TERM, Policy.IMAGE_TYPE, Policy.BODY_PART, Policy.KERNEL, Policy.VENDOR, Policy.MODEL, Policy.TOOL),
        *(Policy.CODE, Policy.MEANING, Policy.UNIT, Policy.CLASS),
    }
)
"""Policies of which every value comes from a list that the builder ships."""


def _vocabulary(tables: Iterable[pa.Table], declared: frozenset[str]) -> bytes:
    """Return every value that is published from a closed vocabulary."""
    found: set[str] = set()
    for table in tables:
        for field in table.schema:
            if policy_of(field.name, declared) in _VOCABULARIES:
                values = table.column(field.name)
                flat = pc.list_flatten(values) if pa.types.is_list(field.type) else values
                found.update(v for v in pc.unique(flat).to_pylist() if isinstance(v, str))
    return "\n".join(sorted(found)).encode()


def _described(manifest: Manifest, dataset: Store) -> Iterator[tuple[str, bytes]]:
    """Yield the Zarr metadata and the pictures of all shards, each content once: those of most shards are equal."""
    seen: set[str] = set()
    for shard in manifest.shards:
        for stored in shard.objects:
            if stored.path.endswith(("zarr.json", ".png")) and stored.sha256 not in seen:
                seen.add(stored.sha256)
                yield stored.path, dataset.read(shard_path(shard.fingerprint, stored.path))


def _check_keys(table: pa.Table, *, where: str) -> None:
    for field in table.schema:
        if KEY_COLUMNS.fullmatch(field.name) and field.name not in FINGERPRINTS:
            values = table.column(field.name)
            flat = pc.list_flatten(values) if pa.types.is_list(field.type) else values
            wrong = sum(1 for v in pc.unique(flat).to_pylist() if v is not None and not KEYED.fullmatch(v))
            if wrong:
                raise PrivacyError(
                    f"{where}, column {field.name!r}: found {wrong} value(s) that are no keyed names (not shown), "
                    "expected keyed names only; nothing is published"
                )


def _searched(table: pa.Table) -> pa.Table:
    keys = [n for n in table.column_names if KEY_COLUMNS.fullmatch(n) or n in FINGERPRINTS]
    return table.drop_columns(keys)


def _counts(table: pa.Table, spec: DatasetSpec) -> frozenset[str]:
    """Return the whole-number columns, except those of clinical tables, which may hold identifiers."""
    clinical = {name for t in spec.clinical for name in t.names}
    return frozenset(f.name for f in table.schema if pa.types.is_integer(f.type) and f.name not in clinical)
