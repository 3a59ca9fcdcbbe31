"""Account for everything found: derive ledger, exclusions and totals from a plan and its receipts."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import Reason
from builder.model.layout import EXCLUSIONS as EXCLUSIONS_FILE
from builder.model.layout import LEDGER as LEDGER_FILE
from builder.model.layout import Receipt
from builder.model.parquet import parquet_bytes
from builder.model.tables import EXCLUSIONS, LEDGER
from builder.plan import DatasetPlan
from builder.planning.inventory import Inventory, Survey
from builder.planning.layouts import IMAGE_FORMATS
from builder.publishing.ledger import (
    DUPLICATE,
    EXCLUDED,
    LABEL,
    OF_FILES,
    QUARANTINED,
    USED,
    Fate,
    Fates,
    Totals,
    annotation_ledger,
    chained,
    check_totals,
    image_ledger,
    leftover_ledger,
)
from builder.storage import open_store

GEOMETRY_RULE = "geometry"

_OF_STACKS = (
    *("series_uid", "series_key", "person_key", "case_key"),
    *("holders", "holder_instances", "included", "rule", "reason", "detail"),
)
"""Columns of the cohort that say what happened to a stack."""

_OF_LEFTOVERS = (*OF_FILES, "status", "reason")


@dataclass(frozen=True, eq=False)
class Accounts:
    """Tables of schema LEDGER and EXCLUSIONS, and counts by level and status."""

    ledger: pa.Table
    exclusions: pa.Table
    totals: Mapping[str, Mapping[str, int]]
    withheld: Mapping[str, int] = field(default_factory=dict)
    """Maps a column to the number of cases whose text the privacy gate withheld."""


def account(plan: DatasetPlan, receipts: Mapping[str, Receipt], inventory: Inventory, survey: Survey) -> Accounts:
    """Account for every file that the sources listed.

    Raises
    ------
    LayoutError
        If the totals do not add up.
    """
    excluded = {e.case_key: e for r in receipts.values() for e in r.excluded}
    shard_of = {case.case_key: shard.fingerprint for shard in plan.shards for case in shard.cases}
    rows = _stacks(plan.cohort)
    deciding = _deciding(rows, excluded)
    stacks = {place: _fate(row, shard_of, excluded) for place, row in deciding.items()}
    fates = Fates(stacks, _annotation_fates(plan, shard_of, excluded))
    totals = Totals()
    ledger = pa.concat_tables([LEDGER.empty_table(), *chained(_parts(plan, inventory, survey, fates), totals)]).sort_by(
        [("object_key", "ascending"), ("status", "ascending")]
    )
    gone = _instances(rows, deciding)
    used = sum(gone[r["case_key"]] for r in rows if _is_used(r, excluded))
    check_totals(totals, files=inventory.files, published={"instances": used})
    counted = [{**row, "instances": gone[row["case_key"]]} for row in rows]
    found = [
        *_of_cases(counted, excluded),
        *_of_leftovers(inventory.leftovers(columns=_OF_LEFTOVERS), plan),
        *_of_annotations(plan, set(fates.annotations)),
        *_of_no_images(ledger),
    ]
    exclusions = pa.Table.from_pylist(found, schema=EXCLUSIONS).sort_by(
        [(c, "ascending") for c in ("level", "key", "stage", "rule", "reason")]
    )
    return Accounts(ledger, exclusions, totals.by_level())


def _stacks(cohort: pa.Table) -> list[dict[str, Any]]:
    """Return what happened to every stack, with ``cases``: the keys of the cases that use it."""
    rows = cohort.select(_OF_STACKS).to_pylist()
    if "serves" in cohort.column_names:
        used = cohort.column("serves").to_pylist()
    else:
        used = [[row["case_key"]] if row["included"] else [] for row in rows]
    return [{**row, "cases": cases} for row, cases in zip(rows, used, strict=True)]


def keep_accounts(plan: DatasetPlan, accounts: Accounts) -> None:
    """Store the ledger and the exclusions with the plan, so that ``builder explain`` works before publication."""
    store = open_store(plan.url, directory_mode=0o700)
    store.put(LEDGER_FILE, parquet_bytes(accounts.ledger, compression="lz4"))
    store.put(EXCLUSIONS_FILE, parquet_bytes(accounts.exclusions, compression="lz4"))


def _parts(plan: DatasetPlan, inventory: Inventory, survey: Survey, fates: Fates) -> Iterator[tuple[pa.Table, bool]]:
    for number in range(len(inventory.chunks)):
        chunk, membership = inventory.chunk(number, columns=OF_FILES), survey.membership(number)
        yield image_ledger(chunk, membership, fates, persons=plan.persons, key=plan.key), True
    for table, is_dicom in _by_kind(inventory.annotations(columns=OF_FILES)):
        yield annotation_ledger(table, fates, persons=plan.persons, key=plan.key), is_dicom
    for table, is_dicom in _by_kind(inventory.leftovers(columns=_OF_LEFTOVERS)):
        yield leftover_ledger(table, persons=plan.persons, key=plan.key), is_dicom


def _by_kind(table: pa.Table) -> list[tuple[pa.Table, bool]]:
    """Divide the rows into DICOM instances and other files, since only the former count as instances."""
    instance = pc.is_valid(table.column("sop_instance_uid"))
    return [(table.filter(instance), True), (table.filter(pc.invert(instance)), False)]


def _is_used(row: Mapping[str, Any], excluded: Mapping[str, Any]) -> bool:
    return any(case not in excluded for case in row["cases"])


def _deciding(
    rows: Sequence[Mapping[str, Any]], excluded: Mapping[str, Any]
) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Return, for every stack number in MEMBERSHIP, the cohort row that decides what happened to its instances.

    A multi-frame object can hold several stacks but must count once. The first stack that is used decides, or else the
    first.
    """
    found: dict[tuple[str, int], Mapping[str, Any]] = {}
    for row in rows:
        for holder in row["holders"]:
            before = found.get((row["series_uid"], holder))
            if before is None or (_is_used(row, excluded) and not _is_used(before, excluded)):
                found[row["series_uid"], holder] = row
    return found


def _instances(
    rows: Sequence[Mapping[str, Any]], deciding: Mapping[tuple[str, int], Mapping[str, Any]]
) -> dict[str, int]:
    """Return, for every case_key, how many instances it decides about."""
    return {
        row["case_key"]: sum(
            count
            for holder, count in zip(row["holders"], row["holder_instances"], strict=True)
            if deciding[row["series_uid"], holder] is row
        )
        for row in rows
    }


def _fate(row: Mapping[str, Any], shard_of: Mapping[str, str], excluded: Mapping[str, Any]) -> Fate:
    if not row["cases"] and row["reason"] == Reason.DUPLICATE_FORMAT:
        return Fate(DUPLICATE, "cohort", row["reason"])
    if not row["cases"]:
        quarantined = row["rule"] == GEOMETRY_RULE
        return Fate(QUARANTINED if quarantined else EXCLUDED, "cohort", row["reason"])
    if not _is_used(row, excluded):
        return Fate(QUARANTINED, "shard", excluded[row["cases"][0]].reason.value)
    return Fate(USED, shard=shard_of[next(case for case in row["cases"] if case not in excluded)])


def _annotation_fates(
    plan: DatasetPlan, shard_of: Mapping[str, str], excluded: Mapping[str, Any]
) -> dict[tuple[int, str, str], Fate]:
    """Return the fate of each linked annotation: a label if any of its cases is published, else quarantined."""
    names = list(zip(*(plan.annotations.column(c).to_pylist() for c in ("source", "path", "member")), strict=True))
    fates: dict[tuple[int, str, str], Fate] = {}
    for link in plan.links.to_pylist():
        name, case = names[link["annotation"]], link["case_key"]
        if case not in excluded:
            if name not in fates or fates[name].status != LABEL:
                fates[name] = Fate(LABEL, shard=shard_of[case])
        elif name not in fates:
            fates[name] = Fate(QUARANTINED, "shard", excluded[case].reason.value)
    return fates


def _of_cases(rows: Sequence[Mapping[str, Any]], excluded: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the series that the cohort left out, and the cases that the build lost.

    The instances of a case's other images go with it, unless another case uses them.
    """
    gone: Counter[str] = Counter()
    for row in rows:
        if row["cases"] and not _is_used(row, excluded):
            gone[row["cases"][0]] += row["instances"]
    for row in rows:
        common = {"key": row["series_key"], "person_key": row["person_key"], "instances": row["instances"]}
        if not row["cases"]:
            decided = {name: row[name] for name in ("rule", "reason", "detail")}
            yield {**common, "level": "series", "stage": "cohort", **decided}
        elif row["included"] and row["case_key"] in excluded:
            case = excluded[row["case_key"]]
            lost = {"rule": "prepare", "reason": case.reason.value, "detail": case.detail}
            lost |= {"key": case.case_key, "instances": gone[case.case_key]}
            yield {**common, "level": "case", "stage": "shard", **lost}


def _of_leftovers(table: pa.Table, plan: DatasetPlan) -> Iterator[dict[str, Any]]:
    """Yield the files that the index set aside."""
    for row, person in zip(table.to_pylist(), plan.persons.keys_of(table), strict=True):
        yield {
            **_file(row, plan),
            "person_key": person,
            "stage": "index",
            "rule": "duplicate" if row["status"] == "duplicate" else "readable",
            "reason": row["reason"] or Reason.UNREADABLE.value,
        }


def _of_annotations(plan: DatasetPlan, linked: Set[tuple[int, str, str]]) -> Iterator[dict[str, Any]]:
    """Yield the annotations that belong to no image of the cohort, and the image files that nothing reads."""
    table = plan.annotations.select(OF_FILES)
    formats = plan.annotations.column("format").to_pylist()
    for row, form, person in zip(table.to_pylist(), formats, plan.persons.keys_of(table), strict=True):
        if _name(row) not in linked:
            rule = f"read_{form}" if form in IMAGE_FORMATS else "linked"
            reason = Reason.NOT_SELECTED.value
            yield {**_file(row, plan), "person_key": person, "stage": "labels", "rule": rule, "reason": reason}


def _of_no_images(ledger: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the series whose instances are not images."""
    rows = ledger.filter(pc.equal(ledger["stage"], "survey"))
    keys = ["series_key", "person_key", "reason"]
    for row in rows.group_by(keys, use_threads=False).aggregate([([], "count_all")]).to_pylist():
        common = {"level": "series", "stage": "survey", "rule": "image", "instances": row["count_all"]}
        yield {**common, "key": row["series_key"], "person_key": row["person_key"], "reason": row["reason"]}


def _file(row: Mapping[str, Any], plan: DatasetPlan) -> dict[str, Any]:
    key = plan.key.name("file", *map(str, _name(row)))
    return {"level": "file", "key": key, "instances": int(row["sop_instance_uid"] is not None)}


def _name(row: Mapping[str, Any]) -> tuple[int, str, str]:
    """Return the private name of a file: source, path and member."""
    return (row["source"], row["path"], row["member"])
