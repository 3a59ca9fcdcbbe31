"""Account for everything found: derive ledger, exclusions and totals from a plan and its receipts."""

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import Reason
from builder.model.layout import EXCLUSIONS as EXCLUSIONS_FILE
from builder.model.layout import LEDGER as LEDGER_FILE
from builder.model.layout import ExcludedCase, Receipt
from builder.model.parquet import parquet_bytes
from builder.model.sorting import changes, ordered
from builder.model.tables import EXCLUSIONS, LEDGER
from builder.plan import DatasetPlan
from builder.planning.inventory import Inventory, Survey
from builder.planning.layouts import IMAGE_FORMATS, why_refused
from builder.planning.rows import rows_of
from builder.publishing.ledger import (
    DUPLICATE,
    EXCLUDED,
    FILES,
    LABEL,
    OF_FILES,
    OF_IMAGES,
    PERSONS,
    QUARANTINED,
    USED,
    Fate,
    Fates,
    Totals,
    annotation_ledger,
    chained,
    check_totals,
    file_keys,
    file_names,
    image_ledger,
    leftover_ledger,
    withdrawn_ledger,
)
from builder.storage import open_store

GEOMETRY_RULE = "geometry"
WITHDRAWN = "withdrawn"
"""Rule by which the files of persons who withdrew are left out."""

_OF_STACKS = (
    *("series_uid", "series_key", "person_key", "case_key", "holders", "holder_instances"),
    *("included", "rule", "reason", "detail"),
)
_OF_LEFTOVERS = (*OF_FILES, "status", "reason", "format", "detail")

_CHUNKS_TOGETHER = 16
"""Chunks of the inventory that are looked at together, as a call of Arrow takes longer than a few thousand rows."""


@dataclass(frozen=True)
class _Unused:
    """A stack that no case uses, or whose own case was lost; columns as in ``_judged``."""

    series_key: str
    person_key: str | None
    case_key: str
    included: bool
    rule: str | None
    reason: str | None
    detail: str | None
    case: str | None
    instances: int


class _Left(NamedTuple):
    """A row of EXCLUSIONS."""

    level: str
    key: str
    person_key: str | None
    stage: str
    rule: str | None
    reason: str | None
    instances: int
    detail: str | None = None


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
    stacks = _judged(plan.cohort, excluded)
    deciding = _deciding(stacks)
    counts = np.bincount(deciding["row"].to_numpy(), deciding["instances"].to_numpy(), minlength=stacks.num_rows)
    stacks = stacks.append_column("instances", pa.array(counts.astype(np.int64)))
    shard_of = {case.case_key: shard.fingerprint for shard in plan.shards for case in shard.cases}
    fates = Fates(_stack_fates(stacks, deciding, shard_of, excluded), _annotation_fates(plan, shard_of, excluded))
    totals = Totals()
    parts = chained(_parts(plan, inventory, survey, fates), totals)
    ledger = pa.concat_tables([LEDGER.empty_table(), *parts], promote_options="default").sort_by(
        [("object_key", "ascending"), ("status", "ascending")]
    )
    if FILES in ledger.column_names:
        ledger = ledger.set_column(ledger.num_columns - 1, FILES, pc.fill_null(ledger[FILES], 1))
    used = sum(stacks.filter(stacks["used"])["instances"].to_pylist())
    check_totals(totals, files=inventory.files, published={"instances": used})
    found = [
        *_of_cases(stacks, excluded),
        *_of_leftovers(inventory.leftovers(columns=_OF_LEFTOVERS), plan),
        *_of_annotations(plan, set(fates.annotations)),
        *_of_no_images(ledger),
        *(
            _Left("person", gone.tombstone, gone.tombstone, PERSONS, WITHDRAWN, Reason.WITHDRAWN.value, gone.instances)
            for gone in inventory.withdrawn
        ),
    ]
    columns = {name: [getattr(left, name) for left in found] for name in EXCLUSIONS.names}
    exclusions = pa.Table.from_pydict(columns, schema=EXCLUSIONS).sort_by(
        [(c, "ascending") for c in ("level", "key", "stage", "rule", "reason")]
    )
    return Accounts(ledger, exclusions, totals.by_level())


def _judged(cohort: pa.Table, excluded: Mapping[str, ExcludedCase]) -> pa.Table:
    """Return what is asked of the stacks, with the ``case`` that decides about each, and whether it is ``used``.

    That case is the first that was built of those that a stack serves, or else the first. Where cases have one image,
    an included stack serves its own.
    """
    if "serves" in cohort.column_names:
        served = cohort["serves"].to_pylist()
        case = pa.array([next((c for c in s if c not in excluded), s[0] if s else None) for s in served], pa.string())
    else:
        case = pc.if_else(cohort["included"], cohort["case_key"], pa.scalar(None, pa.string()))
    used = pc.and_not(case.is_valid(), pc.is_in(case, pa.array(list(excluded), pa.string())))
    return cohort.select(_OF_STACKS).append_column("case", case).append_column("used", used).combine_chunks()


def keep_accounts(plan: DatasetPlan, accounts: Accounts) -> None:
    """Store the ledger and the exclusions with the plan, so that ``builder explain`` works before publication."""
    store = open_store(plan.url, directory_mode=0o700)
    store.put(LEDGER_FILE, parquet_bytes(accounts.ledger, compression="lz4"))
    store.put(EXCLUSIONS_FILE, parquet_bytes(accounts.exclusions, compression="lz4"))


def _parts(plan: DatasetPlan, inventory: Inventory, survey: Survey, fates: Fates) -> Iterator[tuple[pa.Table, bool]]:
    """Yield the parts of the ledger; the flag says whether the rows are DICOM instances, as which all images count."""
    for start in range(0, len(inventory.chunks), _CHUNKS_TOGETHER):
        numbers = range(len(inventory.chunks))[start : start + _CHUNKS_TOGETHER]
        chunk = pa.concat_tables([inventory.chunk(number, columns=OF_IMAGES) for number in numbers])
        membership = pa.concat_tables([survey.membership(number) for number in numbers])
        yield image_ledger(chunk, membership, fates, persons=plan.persons, key=plan.key), True
    for table, is_dicom in _by_kind(inventory.annotations(columns=OF_FILES)):
        yield annotation_ledger(table, fates, persons=plan.persons, key=plan.key), is_dicom
    for table, is_dicom in _by_kind(inventory.leftovers(columns=_OF_LEFTOVERS)):
        yield leftover_ledger(table, persons=plan.persons, key=plan.key), is_dicom
    for gone in inventory.withdrawn:
        yield withdrawn_ledger(gone.tombstone, gone.instances), True
        yield withdrawn_ledger(gone.tombstone, gone.files - gone.instances), False


def _by_kind(table: pa.Table) -> list[tuple[pa.Table, bool]]:
    """Divide the rows into DICOM instances and other files, since only the former count as instances."""
    instance = pc.is_valid(table.column("sop_instance_uid"))
    return [(table.filter(instance), True), (table.filter(pc.invert(instance)), False)]


def _deciding(stacks: pa.Table) -> pa.Table:
    """Return, for every stack number in MEMBERSHIP, the row that decides what happened to its ``instances``.

    A multi-frame object can hold several stacks but must count once. The first stack that is used decides, or else the
    first.
    """
    rows = pc.list_parent_indices(stacks["holders"])
    columns = {
        "series_uid": stacks["series_uid"].take(rows),
        "stack": pc.list_flatten(stacks["holders"]),
        "spare": pc.invert(stacks["used"]).take(rows),
        "row": rows,
        "instances": pc.list_flatten(stacks["holder_instances"]),
    }
    held = ordered(pa.table(columns), ("series_uid", "stack", "spare"))
    return held.filter(pa.array(changes(held.select(["series_uid", "stack"]))))


def _stack_fates(
    stacks: pa.Table, deciding: pa.Table, shard_of: Mapping[str, str], excluded: Mapping[str, ExcludedCase]
) -> dict[tuple[str, int], Fate]:
    """Return the fate of every stack number in MEMBERSHIP."""
    decided = stacks.select(["case", "rule", "reason"]).take(deciding["row"])
    rows = zip(*(column.to_pylist() for column in decided.columns), strict=True)
    numbers = zip(deciding["series_uid"].to_pylist(), deciding["stack"].to_pylist(), strict=True)
    return {
        number: _fate(case, rule, reason, shard_of, excluded)
        for number, (case, rule, reason) in zip(numbers, rows, strict=True)
    }


def _fate(
    case: str | None,
    rule: str | None,
    reason: str | None,
    shard_of: Mapping[str, str],
    excluded: Mapping[str, ExcludedCase],
) -> Fate:
    if case is None and reason == Reason.DUPLICATE_FORMAT:
        return Fate(DUPLICATE, "cohort", reason)
    if case is None:
        return Fate(QUARANTINED if rule == GEOMETRY_RULE else EXCLUDED, "cohort", reason or "")
    if case in excluded:
        return Fate(QUARANTINED, "shard", excluded[case].reason.value)
    return Fate(USED, shard=shard_of[case])


def _annotation_fates(
    plan: DatasetPlan, shard_of: Mapping[str, str], excluded: Mapping[str, ExcludedCase]
) -> dict[tuple[int, str, str], Fate]:
    """Return the fate of each linked annotation: a label if any of its cases is published, else quarantined."""
    names = list(file_names(plan.annotations))
    fates: dict[tuple[int, str, str], Fate] = {}
    for link in plan.links.to_pylist():
        name, case = names[link["annotation"]], link["case_key"]
        if case not in excluded:
            if name not in fates or fates[name].status != LABEL:
                fates[name] = Fate(LABEL, shard=shard_of[case])
        elif name not in fates:
            fates[name] = Fate(QUARANTINED, "shard", excluded[case].reason.value)
    return fates


def _of_cases(stacks: pa.Table, excluded: Mapping[str, ExcludedCase]) -> Iterator[_Left]:
    """Yield the series that the cohort left out, and the cases that the build lost.

    The instances of a case's other images go with it, unless another case uses them.
    """
    lost = pc.is_in(stacks["case_key"], pa.array(list(excluded), pa.string()))
    rows = rows_of(stacks.filter(pc.or_(lost, pc.invert(stacks["used"]))), _Unused)
    gone: Counter[str] = Counter()
    for row in rows:
        if row.case is not None and row.case in excluded:
            gone[row.case] += row.instances
    for row in rows:
        if row.case is None:
            decided = (row.rule, row.reason, row.instances, row.detail)
            yield _Left("series", row.series_key, row.person_key, "cohort", *decided)
        elif row.included and row.case_key in excluded:
            case = excluded[row.case_key]
            told = ("prepare", case.reason.value, gone[case.case_key], case.detail)
            yield _Left("case", case.case_key, row.person_key, "shard", *told)


def _of_leftovers(table: pa.Table, plan: DatasetPlan) -> Iterator[_Left]:
    """Yield the files that the index set aside."""
    judged = table.select(["status", "reason", "format", "detail"]).to_pylist()
    for row, (key, person, count) in zip(judged, _files(table, plan), strict=True):
        rule = "duplicate" if row["status"] == "duplicate" else "readable"
        reason = row["reason"] or Reason.UNREADABLE.value
        yield _Left("file", key, person, "index", rule, reason, count, why_refused(row))


def _of_annotations(plan: DatasetPlan, linked: Set[tuple[int, str, str]]) -> Iterator[_Left]:
    """Yield the annotations that belong to no image of the cohort, and the image files that nothing reads."""
    table = plan.annotations.select([*OF_FILES, "format"])
    formats = table.column("format").to_pylist()
    for name, form, (key, person, count) in zip(file_names(table), formats, _files(table, plan), strict=True):
        if name not in linked:
            rule = f"read_{form}" if form in IMAGE_FORMATS else "linked"
            yield _Left("file", key, person, "labels", rule, Reason.NOT_SELECTED.value, count)


def _of_no_images(ledger: pa.Table) -> Iterator[_Left]:
    """Yield the series whose instances are not images."""
    rows = ledger.filter(pc.equal(ledger["stage"], "survey"))
    keys = ["series_key", "person_key", "reason"]
    counted = rows.group_by(keys, use_threads=False).aggregate([([], "count_all")])
    columns = (counted.column(name).to_pylist() for name in (*keys, "count_all"))
    for key, person, reason, count in zip(*columns, strict=True):
        yield _Left("series", key, person, "survey", "image", reason, count)


def _files(table: pa.Table, plan: DatasetPlan) -> Iterator[tuple[str, str | None, int]]:
    """Yield the published name of each file, its person, and the number of its instances."""
    uids = table.column("sop_instance_uid").to_pylist()
    for name, uid, person in zip(file_keys(table, plan.key), uids, plan.persons.keys_of(table), strict=True):
        yield name, person, int(uid is not None)
