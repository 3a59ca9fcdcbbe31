"""Predict which cases a build will refuse because their pixels may show text, from the headers in the index."""

from collections import Counter
from typing import Any

import pyarrow as pa

from builder.deid import Deid
from builder.deid.pixels import judge_pixels
from builder.errors import CaseError
from builder.imaging.rows import dataset_of
from builder.model.sorting import changes
from builder.model.tables import INSTANCES, used_rows
from builder.plan import DatasetPlan
from builder.planning.inventory import Inventory, Survey
from builder.planning.rows import Placed, rows_of
from builder.stages.prepare import KIND_COLUMNS


def pixel_refusals(plan: DatasetPlan, inventory: Inventory, survey: Survey) -> dict[str, int]:
    """Count the planned cases that the build will refuse, by cause."""
    rows: dict[int, list[Placed]] = {}
    for row in rows_of(used_rows(plan.cohort), Placed):
        rows.setdefault(row.chunk, []).append(row)
    verdicts: dict[tuple[object, ...], str | None] = {}
    found: Counter[str] = Counter()
    for chunk in sorted(rows):
        table = inventory.chunk(chunk, columns=KIND_COLUMNS)
        if not any(_verdict(kind, plan.spec.deid, verdicts) for kind in _kinds(table)):
            continue  # nothing in the chunk would be refused, so whose image it is need not be told
        kinds: dict[tuple[str, int], set[tuple[object, ...]]] = {}
        membership = survey.membership(chunk)
        for name in membership.column_names:
            table = table.append_column(f"of {name}", membership[name])
        for *header, series, stack in _kinds(table):
            kinds.setdefault((series, stack), set()).add(tuple(header))
        for row in rows[chunk]:
            own = {kind for holder in row.holders for kind in kinds.get((row.series_uid, holder), ())}
            causes = (_verdict(kind, plan.spec.deid, verdicts) for kind in sorted(own, key=str))
            reasons = [why for why in causes if why is not None]
            found.update(reasons[:1])
    return dict(sorted(found.items()))


def _kinds(table: pa.Table) -> set[tuple[Any, ...]]:
    seen = table.filter(pa.array(changes(table)))
    return set(zip(*(column.to_pylist() for column in seen.columns), strict=True))


def risks_of_chunk(instances: pa.Table, stacks: pa.Table, *, deid: Deid) -> dict[str, int]:
    """Count the series with a usable stack that a build would refuse, by cause."""
    usable = {row["series_uid"] for row in stacks.to_pylist() if row["usable_reason"] is None}
    verdicts: dict[tuple[object, ...], str | None] = {}
    found: dict[str, str] = {}
    kinds = zip(*(instances[name].to_pylist() for name in KIND_COLUMNS), strict=True)
    for series, kind in zip(instances["series_uid"].to_pylist(), kinds, strict=True):
        if series in usable and (why := _verdict(kind, deid, verdicts)) is not None:
            found.setdefault(series, why)
    return dict(sorted(Counter(found.values()).items()))


def _verdict(kind: tuple[object, ...], deid: Deid, known: dict[tuple[object, ...], str | None]) -> str | None:
    if kind not in known:
        try:
            row = dict.fromkeys(INSTANCES.names) | dict(zip(KIND_COLUMNS, kind, strict=True))
            judge_pixels(dataset_of(row), deid=deid)
            known[kind] = None
        except CaseError as error:
            known[kind] = error.detail
    return known[kind]
