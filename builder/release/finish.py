"""Publish a release: account for every file, search all that leaves, write the tables, and the manifest last."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from builder.deid.documents import clear_document
from builder.deid.leaks import Canaries, assert_clean
from builder.errors import LayoutError, OutcomeError, Reason, counted
from builder.model.canonical import canonical_json, fingerprint
from builder.model.parquet import parquet_bytes
from builder.model.tables import LEDGER
from builder.pages import template_environment
from builder.plan import DatasetPlan
from builder.planning.inventory import Inventory, Survey
from builder.planning.roster import Roster
from builder.publishing.accounts import account
from builder.publishing.ledger import EXCLUDED, LABEL, LEVELS, QUARANTINED, STATUSES, USED
from builder.release.cleaning import MEANINGS, methods_of
from builder.release.harbor import columns_of, identifiers_left
from builder.release.objects import Unit
from builder.release.science import lint, table_of
from builder.release.unit import OBJECTS, ReleasedObject, UnitReceipt
from builder.spec.blocks import MostLost
from builder.stages.gating import gate_of
from builder.storage import Store, checkpoint

FORMAT_VERSION = 1
MANIFEST = "release.json"
SUMS = "SHA256SUMS"
TABLE = "objects.csv"
SPLIT_TABLE = "splits.csv"
LEDGER_FILE = "ledger.parquet"
REPORT_JSON, REPORT_PAGE = "report.json", "report.html"


@dataclass(frozen=True)
class Done:
    """What was released."""

    version: str
    objects: int
    persons: int
    bytes: int
    totals: Mapping[str, Mapping[str, int]]
    failed: Mapping[str, int]
    """Number of objects by the reason for which they do not leave, though the plan chose them."""
    references_removed: int = 0
    unchanged: bool = False


def inputs_of(
    published_spec: Mapping[str, Any], lock: Mapping[str, Any], units: Sequence[Unit], splits: pa.Table
) -> str:
    """Fingerprint everything that a release is made from."""
    return fingerprint(FORMAT_VERSION, published_spec, dict(lock), [u.name for u in units], parquet_bytes(splits))


def publish_release(
    plan: DatasetPlan,
    receipts: Sequence[UnitReceipt],
    inventory: Inventory,
    survey: Survey,
    target: Store,
    *,
    guard: Callable[[], None],
) -> Done:
    """Account, search, write, and publish by writing the manifest. ``guard`` raises if this run may no longer publish.

    Raises
    ------
    OutcomeError
        If nothing would leave, or more of the plan was lost than the spec allows.
    PrivacyError
        If an identifier of the archive is found in anything that would leave.
    LayoutError
        If the totals do not add up.
    """
    receipts = sorted(receipts, key=lambda receipt: receipt.person)
    objects = [o for receipt in receipts for o in receipt.objects]
    _check_outcome(plan.spec.max_lost, receipts)
    ledger = _ledger(plan, receipts, inventory, survey)
    words, leaving = gate_of(plan.spec).words.spec, columns_of(plan.spec.deid.profile)
    canaries = Roster(words, plan.persons, plan.annotations, inventory, leaving).canaries
    _search_texts(receipts, canaries)
    totals = _totals(ledger)
    about = {"name": plan.spec.name, "license": plan.spec.license}
    methods = methods_of(plan.spec.deid.profile)
    chosen = {"retained": [*plan.spec.deid.retain], "removed_everywhere": [*plan.spec.release.remove]}
    report = {
        "title": about["name"], "license": about["license"], **chosen, "totals": totals,
        "hipaa": [*identifiers_left(plan.spec.deid)],
        **_report(receipts, methods=methods, splits=plan.splits),
    }  # fmt: skip
    tables = {TABLE: _object_table(receipts), SPLIT_TABLE: _split_table(plan.splits, receipts), LEDGER_FILE: ledger}
    for name, table in tables.items():
        assert_clean(table, canaries, where=name, counts=_counts(table))
    facts = {**about, "spec": plan.published_spec, "lock": dict(plan.lock), "methods": [*methods], "totals": totals}
    files, version = _files(tables, report, facts, objects)
    numberless = canaries.without_numbers()
    cleared = {name: clear_document(name, data, numberless) for name, data in files.items() if name != SUMS}
    guard()
    _clear_strays(target, {o.path for o in objects})
    for name in (*sorted(files.keys() - {MANIFEST}), MANIFEST):
        if name == MANIFEST:
            guard()
            checkpoint("release.manifest")
        target.put(name, cleared.get(name, files[name]))
    failed = Counter(reason for receipt in receipts for reason, _ in receipt.failed.values())
    return Done(
        version=version,
        objects=len(objects),
        persons=len({r.person for r in receipts if r.objects}),
        bytes=sum(o.bytes for o in objects),
        totals=totals,
        failed=dict(sorted(failed.items())),
        references_removed=sum(o.references_removed for o in objects),
    )


def _files(
    tables: Mapping[str, pa.Table],
    report: Mapping[str, Any],
    facts: Mapping[str, Any],
    objects: Sequence[ReleasedObject],
) -> tuple[dict[str, bytes], str]:
    """Return the files beside the objects, the manifest among them, and the version that it states."""
    files = {name: parquet_bytes(t) if name == LEDGER_FILE else _csv(t) for name, t in tables.items()}
    files |= {REPORT_JSON: canonical_json(report), REPORT_PAGE: _page(report)}
    files[SUMS] = _sums(objects, files)
    digest = hashlib.sha256(files[SUMS]).hexdigest()
    manifest = {"format_version": FORMAT_VERSION, **facts, "objects": len(objects), "sums": digest}
    version = fingerprint(canonical_json(manifest))
    files[MANIFEST] = canonical_json({**manifest, "version": version})
    return files, version


def _check_outcome(most: MostLost, receipts: Sequence[UnitReceipt]) -> None:
    """Refuse an empty release, and one that lost more of its objects than ``max_lost.cases`` allows."""
    left = sum(len(r.objects) for r in receipts)
    lost = sum(len(r.failed) for r in receipts)
    if not any(o.kind == "image" for r in receipts for o in r.objects):
        raise OutcomeError("release: found no image that may leave, expected at least one; nothing is published")
    if lost >= most.at_least and lost > most.cases * (left + lost):
        reasons = Counter(reason for r in receipts for reason, _ in r.failed.values())
        told = ", ".join(f"{name} {count}" for name, count in reasons.most_common())
        raise OutcomeError(
            f"release: found {lost} of {counted(left + lost, 'object')} lost ({told}), expected at most "
            f"{most.cases:.0%} (max_lost.cases); nothing is published"
        )


def _ledger(plan: DatasetPlan, receipts: Sequence[UnitReceipt], inventory: Inventory, survey: Survey) -> pa.Table:
    """Return the ledger of the plan with what became of each object; every file that was listed has one row."""
    ledger = account(plan, {}, inventory, survey).ledger
    role = {o.source_key: USED if o.kind == "image" else LABEL for r in receipts for o in r.objects}
    unit = {o.source_key: r.unit for r in receipts for o in r.objects}
    failed = {key: reason for r in receipts for key, (reason, _) in r.failed.items()}
    rows = ledger.to_pylist()
    for row in rows:
        key, status = row["object_key"], row["status"]
        if status in ("duplicate",) or (status == QUARANTINED and row["stage"] == "index"):
            continue
        if key in role:
            row |= {"status": role[key], "stage": None, "reason": None, "shard": unit[key]}
        elif key in failed:
            row |= {"status": QUARANTINED, "stage": "release", "reason": failed[key], "shard": None}
        elif status in (USED, LABEL):  # a file that is not DICOM, or of a kind that the spec does not release
            row |= {"status": EXCLUDED, "stage": "release", "reason": Reason.NOT_SELECTED.value, "shard": None}
    found = Counter(row["status"] for row in rows if row["object_key"] in role and row["status"] in (USED, LABEL))
    if sum(found.values()) != len(role) or len(rows) != inventory.files:
        raise LayoutError(
            f"ledger: found {len(rows)} rows and {sum(found.values())} released objects, expected {inventory.files} "
            f"files and {len(role)} objects; nothing is published"
        )
    return pa.Table.from_pylist(rows, schema=LEDGER)


def _totals(ledger: pa.Table) -> dict[str, dict[str, int]]:
    """Count files, series, studies and persons by status; those of several objects have the strongest status."""
    statuses = ledger["status"].to_pylist()
    found: dict[str, Counter[str]] = {"files": Counter(statuses)}
    for level, column in (("series", "series_key"), ("studies", "study_key"), ("persons", "person_key")):
        best: dict[str, int] = {}
        for name, status in zip(ledger[column].to_pylist(), statuses, strict=True):
            if name is not None:
                best[name] = min(STATUSES.index(status), best.get(name, len(STATUSES)))
        found[level] = Counter(STATUSES[rank] for rank in best.values())
    return {level: {s: found[level][s] for s in STATUSES if found[level][s]} for level in LEVELS if level in found}


def _search_texts(receipts: Sequence[UnitReceipt], canaries: Canaries) -> None:
    """Search every text of the released objects for the identifiers of the whole archive. Raises PrivacyError."""
    texts: dict[str, set[str]] = {}
    for receipt in receipts:
        for keyword, values in receipt.texts.items():
            texts.setdefault(keyword, set()).update(values)
    for keyword, said in sorted(texts.items()):
        assert_clean(
            "\n".join(sorted(said)).encode(), canaries, where=f"released objects, attribute {keyword}",
            remedy=f"; take it out of all objects with release: {{remove: [{keyword}]}}",
        )  # fmt: skip


def _object_table(receipts: Sequence[UnitReceipt]) -> pa.Table:
    names = [f.name for f in fields(ReleasedObject)]
    rows = [{"patient_id": r.person} | {n: getattr(o, n) for n in names} for r in receipts for o in r.objects]
    return pa.Table.from_pylist(rows)


def _split_table(splits: pa.Table, receipts: Sequence[UnitReceipt]) -> pa.Table:
    released = {r.person for r in receipts if r.objects}
    pairs = sorted(
        (person, split)
        for person, split in zip(*(splits[c].to_pylist() for c in ("person_key", "split")), strict=True)
        if person in released
    )
    return pa.table({"patient_id": [p for p, _ in pairs], "split": [s for _, s in pairs]})


def _counts(table: pa.Table) -> frozenset[str]:
    return frozenset(field.name for field in table.schema if pa.types.is_integer(field.type))


def _csv(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    csv.write_csv(table, sink, csv.WriteOptions(quoting_style="needed"))
    return bytes(sink.getvalue())


def _sums(objects: Sequence[ReleasedObject], files: Mapping[str, bytes]) -> bytes:
    """Return the lines that ``sha256sum --check`` reads, for every file but itself and the manifest."""
    sums = {o.path: o.sha256 for o in objects} | {n: hashlib.sha256(d).hexdigest() for n, d in files.items()}
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode()


def _report(receipts: Sequence[UnitReceipt], *, methods: Sequence[str], splits: pa.Table) -> dict[str, Any]:
    science = [*table_of(receipt.science for receipt in receipts)]
    return {
        "report_version": FORMAT_VERSION,
        "methods": [{"code": code, "meaning": MEANINGS[code]} for code in methods],
        "objects": [*_by_kind(receipts)],
        "failed": [*_failures(receipts)],
        "splits": _split_counts(splits, receipts),
        "science": science,
        "lost": [*lint(science)],
        "label_words_withheld": len({word for receipt in receipts for word in receipt.withheld}),
    }


def _by_kind(receipts: Sequence[UnitReceipt]) -> Iterator[dict[str, Any]]:
    groups: dict[tuple[str, str], list[tuple[str, ReleasedObject]]] = {}
    for receipt in receipts:
        for released in receipt.objects:
            groups.setdefault((released.kind, released.modality), []).append((receipt.person, released))
    for (kind, modality), found in sorted(groups.items()):
        yield {
            "kind": kind,
            "modality": modality,
            "objects": len(found),
            "series": len({o.series_uid for _, o in found}),
            "persons": len({person for person, _ in found}),
            "bytes": sum(o.bytes for _, o in found),
            "blanked": sum(o.blanked for _, o in found),
            "defaced": sum(o.defaced for _, o in found),
            "references_removed": sum(o.references_removed for _, o in found),
            "references_relisted": sum(o.references_relisted for _, o in found),
        }


def _failures(receipts: Sequence[UnitReceipt]) -> Iterator[dict[str, Any]]:
    found = Counter(reason for receipt in receipts for reason, _ in receipt.failed.values())
    for reason, count in sorted(found.items()):
        yield {"reason": reason, "objects": count}


def _split_counts(splits: pa.Table, receipts: Sequence[UnitReceipt]) -> list[dict[str, Any]]:
    counts = pc.value_counts(_split_table(splits, receipts)["split"]).to_pylist()
    return sorted(({"split": c["values"], "persons": c["counts"]} for c in counts), key=lambda row: str(row["split"]))


def _page(report: Mapping[str, Any]) -> bytes:
    template = template_environment(Path(__file__).parent).get_template("report.html.jinja")
    return template.render(report=report).encode()


def _clear_strays(target: Store, expected: set[str]) -> None:
    """Remove objects of an interrupted run of another plan, which nobody has seen: there is no manifest yet."""
    for path in list(target.list(OBJECTS)):
        if path not in expected:
            target.delete(path)
