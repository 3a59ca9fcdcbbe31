"""Account for everything found: derive ledger, exclusions and totals from a plan and its receipts."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import Reason
from builder.model.layout import EXCLUSIONS as EXCLUSIONS_FILE
from builder.model.layout import LEDGER as LEDGER_FILE
from builder.model.layout import ExcludedCase, Receipt
from builder.model.parquet import parquet_bytes
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
    image_ledger,
    leftover_ledger,
    withdrawn_ledger,
)
from builder.storage import open_store

GEOMETRY_RULE = "geometry"
WITHDRAWN = "withdrawn"
"""Rule by which the files of persons who withdrew are left out."""

_OF_LEFTOVERS = (*OF_FILES, "status", "reason", "format", "detail")


@dataclass(frozen=True, eq=False)
class _Stack:
    """What happened to a stack; columns as in the cohort. ``serves`` are the keys of the cases that use it."""

    series_uid: str
    series_key: str
    person_key: str | None
    case_key: str
    holders: Sequence[int]
    holder_instances: Sequence[int]
    included: bool
    rule: str | None
    reason: str | None
    detail: str | None
    serves: Sequence[str]

    def is_used(self, excluded: Mapping[str, ExcludedCase]) -> bool:
        """Return whether a case that uses it was built."""
        return not excluded.keys() >= set(self.serves)


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
    shard_of = {case.case_key: shard.fingerprint for shard in plan.shards for case in shard.cases}
    rows = _stacks(plan.cohort)
    deciding = _deciding(rows, excluded)
    stacks = {place: _fate(row, shard_of, excluded) for place, row in deciding.items()}
    fates = Fates(stacks, _annotation_fates(plan, shard_of, excluded))
    totals = Totals()
    parts = chained(_parts(plan, inventory, survey, fates), totals)
    ledger = pa.concat_tables([LEDGER.empty_table(), *parts], promote_options="default").sort_by(
        [("object_key", "ascending"), ("status", "ascending")]
    )
    if FILES in ledger.column_names:
        ledger = ledger.set_column(ledger.num_columns - 1, FILES, pc.fill_null(ledger[FILES], 1))
    gone = _instances(rows, deciding)
    used = sum(gone[row.case_key] for row in rows if row.is_used(excluded))
    check_totals(totals, files=inventory.files, published={"instances": used})
    found = [
        *_of_cases(rows, gone, excluded),
        *_of_leftovers(inventory.leftovers(columns=_OF_LEFTOVERS), plan),
        *_of_annotations(plan, set(fates.annotations)),
        *_of_no_images(ledger),
        *(
            _Left("person", gone.tombstone, gone.tombstone, PERSONS, WITHDRAWN, Reason.WITHDRAWN.value, gone.instances)
            for gone in inventory.withdrawn
        ),
    ]
    exclusions = pa.Table.from_pylist([left._asdict() for left in found], schema=EXCLUSIONS).sort_by(
        [(c, "ascending") for c in ("level", "key", "stage", "rule", "reason")]
    )
    return Accounts(ledger, exclusions, totals.by_level())


def _stacks(cohort: pa.Table) -> list[_Stack]:
    """Return what happened to every stack. Where cases have one image, an included stack serves its own case."""
    if "serves" not in cohort.column_names:
        pairs = zip(*(cohort.column(name).to_pylist() for name in ("case_key", "included")), strict=True)
        served = pa.array([[key] if included else [] for key, included in pairs], pa.list_(pa.string()))
        cohort = cohort.append_column("serves", served)
    return rows_of(cohort, _Stack)


def keep_accounts(plan: DatasetPlan, accounts: Accounts) -> None:
    """Store the ledger and the exclusions with the plan, so that ``builder explain`` works before publication."""
    store = open_store(plan.url, directory_mode=0o700)
    store.put(LEDGER_FILE, parquet_bytes(accounts.ledger, compression="lz4"))
    store.put(EXCLUSIONS_FILE, parquet_bytes(accounts.exclusions, compression="lz4"))


def _parts(plan: DatasetPlan, inventory: Inventory, survey: Survey, fates: Fates) -> Iterator[tuple[pa.Table, bool]]:
    for number in range(len(inventory.chunks)):
        chunk, membership = inventory.chunk(number, columns=OF_IMAGES), survey.membership(number)
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


def _deciding(rows: Sequence[_Stack], excluded: Mapping[str, ExcludedCase]) -> dict[tuple[str, int], _Stack]:
    """Return, for every stack number in MEMBERSHIP, the cohort row that decides what happened to its instances.

    A multi-frame object can hold several stacks but must count once. The first stack that is used decides, or else the
    first.
    """
    found: dict[tuple[str, int], _Stack] = {}
    for row in rows:
        for holder in row.holders:
            before = found.get((row.series_uid, holder))
            if before is None or (row.is_used(excluded) and not before.is_used(excluded)):
                found[row.series_uid, holder] = row
    return found


def _instances(rows: Sequence[_Stack], deciding: Mapping[tuple[str, int], _Stack]) -> dict[str, int]:
    """Return, for every case_key, how many instances it decides about."""
    return {
        row.case_key: sum(
            count
            for holder, count in zip(row.holders, row.holder_instances, strict=True)
            if deciding[row.series_uid, holder] is row
        )
        for row in rows
    }


def _fate(row: _Stack, shard_of: Mapping[str, str], excluded: Mapping[str, ExcludedCase]) -> Fate:
    if not row.serves and row.reason == Reason.DUPLICATE_FORMAT:
        return Fate(DUPLICATE, "cohort", row.reason)
    if not row.serves:
        return Fate(QUARANTINED if row.rule == GEOMETRY_RULE else EXCLUDED, "cohort", row.reason or "")
    built = next((case for case in row.serves if case not in excluded), None)
    if built is None:
        return Fate(QUARANTINED, "shard", excluded[row.serves[0]].reason.value)
    return Fate(USED, shard=shard_of[built])


def _annotation_fates(
    plan: DatasetPlan, shard_of: Mapping[str, str], excluded: Mapping[str, ExcludedCase]
) -> dict[tuple[int, str, str], Fate]:
    """Return the fate of each linked annotation: a label if any of its cases is published, else quarantined."""
    names = list(_names(plan.annotations))
    fates: dict[tuple[int, str, str], Fate] = {}
    for link in plan.links.to_pylist():
        name, case = names[link["annotation"]], link["case_key"]
        if case not in excluded:
            if name not in fates or fates[name].status != LABEL:
                fates[name] = Fate(LABEL, shard=shard_of[case])
        elif name not in fates:
            fates[name] = Fate(QUARANTINED, "shard", excluded[case].reason.value)
    return fates


def _of_cases(
    rows: Sequence[_Stack], instances: Mapping[str, int], excluded: Mapping[str, ExcludedCase]
) -> Iterator[_Left]:
    """Yield the series that the cohort left out, and the cases that the build lost.

    The instances of a case's other images go with it, unless another case uses them. ``instances`` are those that a
    stack decides about, by its case_key.
    """
    gone: Counter[str] = Counter()
    for row in rows:
        if row.serves and not row.is_used(excluded):
            gone[row.serves[0]] += instances[row.case_key]
    for row in rows:
        if not row.serves:
            decided = (row.rule, row.reason, instances[row.case_key], row.detail)
            yield _Left("series", row.series_key, row.person_key, "cohort", *decided)
        elif row.included and row.case_key in excluded:
            case = excluded[row.case_key]
            lost = ("prepare", case.reason.value, gone[case.case_key], case.detail)
            yield _Left("case", case.case_key, row.person_key, "shard", *lost)


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
    for name, form, (key, person, count) in zip(_names(table), formats, _files(table, plan), strict=True):
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
    for name, uid, person in zip(_names(table), uids, plan.persons.keys_of(table), strict=True):
        yield plan.key.name("file", *map(str, name)), person, int(uid is not None)


def _names(table: pa.Table) -> Iterator[tuple[int, str, str]]:
    """Yield the private name of each file: source, path and member."""
    yield from zip(*(table.column(name).to_pylist() for name in ("source", "path", "member")), strict=True)
