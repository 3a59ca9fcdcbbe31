"""Open the planned cases of which only tables told: list their series, bring the objects and judge their headers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import CaseError, Reason, counted
from builder.imaging.stacks.spacing import Verdict
from builder.model.sorting import distinct, ordered
from builder.model.tables import FROM_TABLES, IDENTITY, INSTANCES
from builder.plan import PLANNED, ShardPlan
from builder.protocols import Entry
from builder.sources import AnySource
from builder.sources.counted import UNLISTED
from builder.sources.deferring import is_deferred
from builder.sources.together import in_order
from builder.spec import DatasetSpec
from builder.stages.boundary import Faults, describe, fault_of_case
from builder.stages.index import index_partition
from builder.stages.listed import Listed
from builder.stages.survey import survey

ORDER: Final = ("series_uid", "sop_instance_uid", "source", "path", "member")
"""As in the chunks of an inventory."""

TOLERANCE: Final = 0.01
"""Share by which a spacing of the headers may differ from that of the tables."""

NAMING: Final = (
    *("patient_id", "issuer_of_patient_id", "study_uid", "source", "series_uid", "patient_birth_date"),
    *("accession_number", "device_serial_number", "institution_name", IDENTITY.name),
)
"""Columns of INSTANCES by whose values persons are searched for in what is published."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A shard's plan with the objects of its cases, the cases that cannot be used, and who the headers name."""

    plan: ShardPlan
    refused: Mapping[str, CaseError]
    named: pa.Table


def needs_opening(plan: ShardPlan) -> bool:
    """Return whether objects of the shard are still to be listed."""
    return FROM_TABLES in plan.objects.column("format").to_pylist()


def opened(plan: ShardPlan, spec: DatasetSpec, faults: Faults) -> Opened:
    """List the planned series, several at once, bring their objects, and put these in the place of the series.

    Raises
    ------
    SourceError
        When a source does not answer, or gives another number of files than its tables state.
    """
    if not needs_opening(plan):
        return Opened(plan, {}, INSTANCES.empty_table().select(NAMING))
    stated = plan.objects.filter(pc.equal(plan.objects.column("format"), FROM_TABLES)).to_pylist()
    parts = [plan.objects.filter(pc.not_equal(plan.objects.column("format"), FROM_TABLES))]
    named = [INSTANCES.empty_table().select(NAMING)]
    refused: dict[str, CaseError] = {}
    width = max((spec.sources[number].at_once for number in {row["source"] for row in stated}), default=1)
    listings = in_order(partial(_listed, spec.sources), stated, width=width)
    for row, entries in zip(stated, listings, strict=True):
        case = plan.cases[row["case"]].case_key
        try:
            found = _indexed(spec.sources[row["source"]], row, entries, faults)
            named.append(found.select(NAMING))
            _check(found, row, spec)
        except Exception as error:  # noqa: BLE001 - the case boundary
            refused[case] = fault_of_case(error, on_internal_error=faults.action)
            if refused[case].reason == Reason.INTERNAL_ERROR:
                faults.add([describe(error, case)])
        else:
            parts.append(_planned(found, row))
    objects = pa.concat_tables(parts).combine_chunks()
    return Opened(replace(plan, objects=ordered(objects, ["case"])), refused, distinct(pa.concat_tables(named)))


def _listed(sources: Sequence[AnySource], row: Mapping[str, Any]) -> Sequence[Entry]:
    source = sources[row["source"]]
    assert is_deferred(source)
    return source.files_of(Listed.of(row).entry)


def _indexed(source: AnySource, row: Mapping[str, Any], entries: Sequence[Entry], faults: Faults) -> pa.Table:
    """Bring the objects of a series and return their rows of INSTANCES in order. Raises CaseError, SourceError."""
    if any(entry.stamp == UNLISTED for entry in entries):
        raise CaseError(Reason.SOURCE_INCOMPLETE, "the source did not list the series whole after all tries")
    source.bring(entries)
    found = index_partition(source, row["source"], entries, on_internal_error=faults.action)
    for status, reason, detail in zip(*(found[n].to_pylist() for n in ("status", "reason", "detail")), strict=True):
        if status == "quarantined":
            raise CaseError(Reason(reason), detail or "")
        if status != "instance":
            raise CaseError(Reason.NOT_DICOM, "found a file of the series that is no DICOM instance")
    return ordered(found, ORDER)


def _check(found: pa.Table, row: Mapping[str, Any], spec: DatasetSpec) -> None:
    """Raise CaseError unless the objects are the one volume of the person, study and grid that was planned."""
    for name in ("patient_id", "study_uid", "series_uid"):
        if set(found[name].to_pylist()) != {row[name]}:
            raise _unlike(f"another {name} than the tables state")
    uids = found["sop_instance_uid"].to_pylist()
    if len(set(uids)) != len(uids):
        raise CaseError(Reason.DUPLICATE_CONFLICT, "found several objects of a series under one SOP Instance UID")
    sources = [source.strictly() for source in spec.sources]
    stacks, _ = survey(found, sources=sources, options=spec.volumes, faults=Faults("stop"))
    if stacks.num_rows != 1:
        raise _unlike(f"{counted(stacks.num_rows, 'stack')} in the series, and the plan knows one volume")
    (stack,) = stacks.to_pylist()
    if stack["usable_reason"] is not None:
        raise CaseError(Reason(stack["usable_reason"]), stack["usable_detail"] or "")
    if stack["verdict"] != Verdict.REGULAR or stack["channels"] != 1 or stack["instances"] != found.num_rows:
        raise _unlike(f"a stack that is {stack['verdict']}, and the plan knows a regular volume of all files")
    grid = (stack["slices"], stack["rows"], stack["columns"])
    stated = (row["number_of_frames"], row["rows"], row["columns"])
    if grid != stated:
        raise _unlike(f"{' x '.join(map(str, grid))} voxels where the tables state {' x '.join(map(str, stated))}")
    spacings = [stack[f"spacing_{axis}_mm"] for axis in ("slice", "row", "column")]
    planned = [row["spacing_between_slices"], *row["pixel_spacing"]]
    for own, said in zip(spacings, planned, strict=True):
        if not abs(own - said) <= TOLERANCE * said:
            raise _unlike(f"a spacing of {own:g} mm where the tables state {said:g} mm")


def _unlike(what: str) -> CaseError:
    return CaseError(
        Reason.HEADERS_DISAGREE,
        f"found {what}; leave headers out of the idc source, then the plan is made from the headers",
    )


def _planned(found: pa.Table, row: Mapping[str, Any]) -> pa.Table:
    """Return objects in the place of the series that was planned, by schema PLANNED."""
    count = found.num_rows
    table = found.select(INSTANCES.names).add_column(0, "role", pa.array([row["role"]] * count, pa.string()))
    return table.add_column(0, "case", pa.array([row["case"]] * count, pa.int32())).cast(PLANNED)
