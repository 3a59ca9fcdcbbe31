"""Turn chunks of INSTANCES into one row per stack with its verdict, for choosing the cohort. No pixels are read."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from builder.deid.columns import OLDEST_AGE, age_band
from builder.errors import CaseError, Reason
from builder.headers.vendors import normalise
from builder.imaging.filed import filed_parts, filed_stack, is_filed
from builder.imaging.lint import lint_stack
from builder.imaging.series_types import Rule, work_out
from builder.imaging.stacks.axes import stacks_for
from builder.imaging.stacks.options import VolumeOptions, admit
from builder.imaging.stacks.series import Stack
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.volume import estimate_bytes
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.sorting import distinct
from builder.model.tables import (
    GRID_COLUMNS,
    READ_COLUMNS,
    SERIES_COLUMNS,
    TEXT,
    TYPE_COLUMNS,
    WHOLE,
    Column,
    schema,
)
from builder.sources import AnySource
from builder.stages.boundary import InternalError, OnInternalError, describe, fault_of_case
from builder.stages.inner import Candidate, admitted, opened
from builder.storage import open_store

PRIVATE_COLUMNS = (
    Column("series_uid", TEXT),
    Column("study_uid", TEXT),
    Column("patient_id", TEXT),
    Column("issuer_of_patient_id", TEXT),
    Column("patient_sex", TEXT),
    Column("patient_birth_date", TEXT),
    Column("study_date", TEXT),
    Column("series_date", TEXT),
    Column("acquisition_date", TEXT),
    Column("accession_number", TEXT),
    Column("frame_of_reference_uid", TEXT),
    Column("chunk", pa.int32()),
)
KEYED = ("series_key", "study_key", "person_key", "frame_of_reference_key", "study_day", "annotations", "license")
DECIDED_COLUMNS = (
    Column("usable_reason", TEXT),  # builder.errors.Reason from the geometry policy; null when the stack can be used
    Column("usable_detail", TEXT),
    Column("peak_bytes", WHOLE, unit="By"),  # projected for its assembly; 0 when it is not usable
    Column("number_type", TEXT),  # of the voxels, as projected from headers; null when not usable
    Column("number_type_sure", pa.bool_()),  # whether it can hold every value that may be stored
    Column("voxel_bytes", WHOLE, unit="By"),  # per voxel of the volume with its padding mask; 0 when not usable
)
HOLDING_COLUMNS = (
    Column("holders", pa.list_(pa.int32())),  # numbers in MEMBERSHIP of the instances that make up the stack
    Column("holder_instances", pa.list_(pa.int32())),  # number of instances of each holder
    Column("holder_bytes", pa.list_(pa.int64())),  # bytes of the files of each holder
    Column("frame_lists", pa.list_(pa.list_(pa.int32()))),  # frames of each instance, in order; null for whole ones
)
STACK_COLUMNS = (
    *PRIVATE_COLUMNS, *(c for c in SERIES_COLUMNS if c.name not in KEYED), *DECIDED_COLUMNS, *HOLDING_COLUMNS,
    *TYPE_COLUMNS, *READ_COLUMNS, *GRID_COLUMNS,
)  # fmt: skip
STACKS = schema(STACK_COLUMNS)
"""One private row per stack: SERIES without the columns that need the key or the person, plus their identifiers and
what rules may read beside it."""

MEMBERSHIP = pa.schema([pa.field("series", TEXT), pa.field("stack", pa.int32())])
"""Parallel to a chunk's rows: the stack of its series that each instance is in (-1: none, because it is no image).

Instances whose frames belong to several stacks have their own number, which these stacks name as a holder.
"""

IDENTITIES = pa.schema(
    [
        *((name, TEXT) for name in ("patient_id", "issuer_of_patient_id", "study_uid")),
        *((name, TEXT) for name in ("patient_sex", "patient_birth_date")),
        ("source", pa.int32()),
    ]
)
"""Distinct combinations in a chunk, from which persons are derived."""


@dataclass(frozen=True)
class SurveyArgument:
    """Which chunk to survey and with which options. All output goes below ``folder`` in one store."""

    store: str
    chunk: str
    folder: str
    number: int
    sources: tuple[AnySource, ...]
    options: VolumeOptions
    on_internal_error: OnInternalError = "exclude"
    rules: tuple[Rule, ...] = ()

    @property
    def stacks(self) -> str:
        """Path of the stack rows."""
        return f"{self.folder}/stacks-{self.number:05d}.parquet"

    @property
    def identities(self) -> str:
        """Path of the chunk's distinct identities."""
        return f"{self.folder}/identities-{self.number:05d}.parquet"

    @property
    def membership(self) -> str:
        """Path of the membership of the chunk's instances, which is written last."""
        return f"{self.folder}/membership-{self.number:05d}.parquet"

    @property
    def unfinished(self) -> str:
        """Path of a mark which says that a series of the chunk met an internal error, so that it is surveyed again."""
        return f"{self.folder}/internal-errors-{self.number:05d}"


def survey_chunk(argument: SurveyArgument) -> tuple[InternalError, ...]:
    """Survey one chunk unless it is finished. Raises SourceError when a source does not answer."""
    store = open_store(argument.store)
    if store.exists(argument.membership) and not store.exists(argument.unfinished):
        return ()
    chunk = read_parquet(store.read(argument.chunk))
    errors: list[InternalError] = []
    stacks, membership = survey(
        chunk, number=argument.number, sources=argument.sources, options=argument.options,
        on_internal_error=argument.on_internal_error, tell=errors.append, rules=argument.rules,
    )  # fmt: skip
    if errors:
        store.put(argument.unfinished, b"")
    store.put(argument.stacks, parquet_bytes(stacks))
    store.put(argument.identities, parquet_bytes(identities(chunk)))
    store.put(argument.membership, parquet_bytes(membership))
    if not errors:
        store.delete(argument.unfinished)
    return tuple(errors)


def survey(
    chunk: pa.Table,
    *,
    number: int,
    sources: Sequence[AnySource],
    options: VolumeOptions,
    on_internal_error: OnInternalError = "exclude",
    tell: Callable[[InternalError], None] = lambda _: None,
    rules: Sequence[Rule] = (),
) -> tuple[pa.Table, pa.Table]:
    """Find the stacks of every series of a chunk, split into parts where the options say so.

    The headers of multi-frame objects are read from ``sources``. ``tell`` is called for every series that is left out
    because of an unforeseen exception. ``rules`` come before the shipped ones that work out what a series is.

    Returns
    -------
    tuple
        A table with schema STACKS, and one with schema MEMBERSHIP that has a row for each row of ``chunk``.
    """
    rows: list[dict[str, Any]] = []
    series_names: list[str] = []
    numbers: list[int] = []
    for instances in _by_series(chunk):
        uids = instances.column("sop_instance_uid").to_pylist()
        first = instances.slice(0, 1).to_pylist()[0]
        name = first["series_uid"] or f"\0{uids[0] or first['path']}"
        try:
            found, places = _surveyed(instances, name, sources, options)
        except Exception as error:  # noqa: BLE001 - the case boundary
            fault = fault_of_case(error, on_internal_error=on_internal_error)
            if fault.reason == Reason.INTERNAL_ERROR:
                tell(describe(error, "a series"))
            found, places = _left_out(instances, name, sources, fault)
        series_names.extend([name] * len(uids))
        numbers.extend(places)
        rows.extend(row | {"chunk": number} for row in found)
    membership = pa.table([pa.array(series_names, TEXT), pa.array(numbers, pa.int32())], schema=MEMBERSHIP)
    return _with_types(pa.Table.from_pylist(rows, schema=STACKS), rules), membership


def _with_types(stacks: pa.Table, rules: Sequence[Rule]) -> pa.Table:
    """Fill the columns of TYPE_COLUMNS."""
    found = work_out(stacks, rules)
    for name in found.column_names:
        place = stacks.schema.get_field_index(name)
        stacks = stacks.set_column(place, stacks.schema.field(place), found.column(name))
    return stacks


def _by_series(chunk: pa.Table) -> Iterator[pa.Table]:
    """Yield one table per series of a chunk, in order. A row without a series UID is a series of its own."""
    names = chunk.column("series_uid").to_pylist()
    start = 0
    for row in range(1, len(names) + 1):
        if row == len(names) or names[row] != names[start] or names[row] is None:
            yield chunk.slice(start, row - start)
            start = row


def _surveyed(
    instances: pa.Table, name: str, sources: Sequence[AnySource], options: VolumeOptions
) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the rows of one series' stacks, and the number in MEMBERSHIP of each instance."""
    if is_filed({"format": instances["format"][0].as_py()}):
        return _surveyed_file(instances, name, sources, options)
    stacks = [part for stack in stacks_for(instances, options) for part in admitted(stack, options)]
    return _rows_of(opened(stacks, instances, sources, options), instances, name, sources, options)


def _surveyed_file(
    instances: pa.Table, name: str, sources: Sequence[AnySource], options: VolumeOptions
) -> tuple[list[dict[str, Any]], list[int]]:
    """Do what ``_surveyed`` does for one image file that is not DICOM."""
    stack = filed_stack(instances.to_pylist())
    uids = instances.column("sop_instance_uid").to_pylist()
    candidates = [
        Candidate(part, None if number is None else dict.fromkeys(uids, (number,)))
        for part, number in filed_parts(stack, options)
    ]
    return _rows_of(candidates, instances, name, sources, options)


def _rows_of(
    candidates: Sequence[Candidate],
    instances: pa.Table,
    name: str,
    sources: Sequence[AnySource],
    options: VolumeOptions,
) -> tuple[list[dict[str, Any]], list[int]]:
    """Return a row for each candidate, and the number in MEMBERSHIP of each instance."""
    uids = instances.column("sop_instance_uid").to_pylist()
    place = _places(candidates)
    rows = []
    for candidate in candidates:
        holders = _holders(candidate, place)
        members = instances.filter(pa.array([place.get(u) in holders for u in uids]))
        facts = {"series_uid": name, **stated(sources[members["source"][0].as_py()])}
        facts |= _usable(candidate, members, options) | _holding(candidate, members, holders, place)
        facts |= _grid(candidate.inside or candidate.stack, members)
        rows.append(_stack_row(candidate.stack, members, facts))
    return rows, [place.get(uid, -1) for uid in uids]


def _left_out(
    instances: pa.Table, name: str, sources: Sequence[AnySource], fault: CaseError
) -> tuple[list[dict[str, Any]], list[int]]:
    """Return what ``_surveyed`` returns, for a series that failed: one unusable stack of all its instances."""
    sizes = instances.column("size").to_pylist()
    row: dict[str, Any] = dict.fromkeys(STACKS.names)
    row |= {column: instances.column(column)[0].as_py() for column in instances.column_names if column in row}
    row |= {"series_uid": name, **stated(sources[instances["source"][0].as_py()]), "stack": 0, "split_rule": ""}
    row |= {"verdict": Verdict.UNKNOWN_GEOMETRY.value, "verdict_detail": fault.detail, "instances": len(sizes)}
    row |= {"frames": len(sizes), "bytes": sum(sizes), "slices": 0, "channels": 1, "peak_bytes": 0, "voxel_bytes": 0}
    row |= {"usable_reason": fault.reason.value, "usable_detail": fault.detail, "frame_lists": None}
    row |= {"holders": [0], "holder_instances": [len(sizes)], "holder_bytes": [sum(sizes)]}
    return [row], [0] * len(sizes)


def stated(source: AnySource) -> dict[str, str | None]:
    """Return by column what a source states about all its objects."""
    return {"site": source.site, "country": source.country, "collection": source.collection}


def identities(instances: pa.Table) -> pa.Table:
    """Return the distinct identities of INSTANCES rows, sorted, with schema IDENTITIES."""
    return distinct(instances.select(IDENTITIES.names))


def age_years(stated: str | None, birth_date: str | None, study_date: str | None) -> float | None:
    """Return the age at the study from Patient's Age (0010,1010; AS, PS3.5 6.2), else from the dates, else None.

    Ages above 89 become 90.
    """
    years = _stated_age(stated)
    if years is None:
        born, seen = dicom_date(birth_date), dicom_date(study_date)
        if born is None or seen is None or seen < born:
            return None
        years = float(seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day)))
    if not 0 <= years <= 150:
        return None
    return years if years < OLDEST_AGE else float(OLDEST_AGE)


def dicom_date(text: str | None) -> date | None:
    """Parse a DA value (PS3.5 6.2); return None when it is not valid."""
    digits = (text or "").strip().replace(".", "")
    if not re.fullmatch(r"\d{8}", digits):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def _stated_age(text: str | None) -> float | None:
    match = re.fullmatch(r"(\d{1,3})([DWMY])", (text or "").strip())
    if match is None:
        return None
    return int(match[1]) / {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}[match[2]]


def _places(candidates: Sequence[Candidate]) -> dict[str, int]:
    """Map each SOPInstanceUID to the number of its instance in MEMBERSHIP."""
    place = {uid: c.stack.number for c in candidates if c.frames is None for uid in c.uids}
    sharing: dict[str, tuple[int, ...]] = {}
    for candidate in candidates:
        for uid in candidate.frames or ():
            sharing[uid] = (*sharing.get(uid, ()), candidate.stack.number)
    shared = sorted({group for group in sharing.values() if len(group) > 1})
    numbers = {group: len(candidates) + i for i, group in enumerate(shared)}
    return place | {uid: numbers.get(group, group[0]) for uid, group in sharing.items()}


def _holders(candidate: Candidate, place: Mapping[str, int]) -> tuple[int, ...]:
    """Return the numbers in MEMBERSHIP of a candidate's instances."""
    if candidate.frames is None:
        return (candidate.stack.number,)
    return tuple(sorted({place[uid] for uid in candidate.frames}))


def _holding(
    candidate: Candidate, members: pa.Table, holders: Sequence[int], place: Mapping[str, int]
) -> dict[str, Any]:
    """Return the columns that say which instances and frames make up a candidate."""
    uids = members.column("sop_instance_uid").to_pylist()
    sizes = members.column("size").to_pylist()
    held = [[size for uid, size in zip(uids, sizes, strict=True) if place[uid] == holder] for holder in holders]
    frames = candidate.frames
    return {
        "holders": list(holders),
        "holder_instances": [len(found) for found in held],
        "holder_bytes": [sum(found) for found in held],
        "frame_lists": None if frames is None else [list(frames[uid]) for uid in uids],
    }


def _usable(candidate: Candidate, members: pa.Table, options: VolumeOptions) -> dict[str, Any]:
    stack = candidate.stack
    try:
        admit(stack, options)
    except CaseError as error:
        return {"usable_reason": error.reason.value, "usable_detail": error.detail, "peak_bytes": 0, "voxel_bytes": 0}
    return {
        "usable_reason": None,
        "usable_detail": None,
        "peak_bytes": estimate_bytes(stack) + _decoded_beside(candidate, members),
        "number_type": stack.number_type,
        "number_type_sure": stack.number_type_sure,
        "voxel_bytes": stack.voxel_bytes,
    }


def _decoded_beside(candidate: Candidate, members: pa.Table) -> int:
    """Return the bytes of other stacks' frames that are decoded along with this one's, one instance at a time."""
    if candidate.frames is None:
        return 0
    names = zip(*(members.column(name).to_pylist() for name in ("sop_instance_uid", "number_of_frames")), strict=True)
    others = max((frames or 1) - len(candidate.frames[uid]) for uid, frames in names)
    _, rows, columns = candidate.stack.shape
    return others * rows * columns * max(1, candidate.stack.bits_allocated // 8)


def _grid(stack: Stack, members: pa.Table) -> dict[str, Any]:
    """Return the columns of GRID_COLUMNS, and what a stack knows better than the first of its headers."""
    geometry = stack.geometry
    known = {"echo_time": stack.echo_time, "b_value": stack.b_value}
    facts: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
    if geometry is not None:
        facts["coverage_mm"] = geometry.shape[0] * geometry.spacing_mm[0]
        normal = np.cross(geometry.directions[:, 1], geometry.directions[:, 2])
    else:
        stated = {tuple(v) for v in members.column("image_orientation_patient").to_pylist() if v and len(v) == 6}
        if len(stated) != 1:
            return facts
        across = np.array(stated.pop())
        normal = np.cross(across[:3], across[3:])
    length = float(np.linalg.norm(normal))
    if 0.9 < length < 1.1:
        facts |= {f"normal_{axis}": abs(float(v)) / length for axis, v in zip("xyz", normal, strict=True)}
    return facts


def _stack_row(stack: Stack, members: pa.Table, facts: Mapping[str, Any]) -> dict[str, Any]:
    first = _first_values(members)
    age = age_years(first["patient_age"], first["patient_birth_date"], first["study_date"])
    spacing = stack.geometry.spacing_mm if stack.geometry is not None else (None, None, None)
    sex = (first["patient_sex"] or "").strip().upper()
    row = {
        **facts,
        "frame_of_reference_uid": stack.frame_of_reference,
        "stack": stack.number,
        "split_rule": stack.split_rule,
        "verdict": stack.verdict.value,
        "verdict_detail": stack.detail,
        "instances": members.num_rows,
        "frames": stack.frames,
        "bytes": sum(members.column("size").to_pylist()),
        "slices": stack.shape[0],
        "channels": len(stack.channels),
        "spacing_slice_mm": spacing[0],
        "spacing_row_mm": spacing[1],
        "spacing_column_mm": spacing[2],
        "slice_thickness_mm": first["slice_thickness"],
        "orientation": stack.geometry.orientation if stack.geometry is not None else None,
        "header_findings": "; ".join(str(f) for f in lint_stack(stack, first["kvp"])) or None,
        "vendor": normalise(first["manufacturer"]),
        "body_part": first["body_part_examined"],
        "sex": sex if sex in ("F", "M", "O") else None,
        "age_years": age,
        "age_band": None if age is None else age_band(age),
        "format": members["format"][0].as_py(),
        "laterality": first["image_laterality"] or first["laterality"],
    }
    named = {n: first[n] for n in STACKS.names if n in first and n not in row}
    return {n: row[n] if n in row else named.get(n) for n in STACKS.names}


def _first_values(members: pa.Table) -> Mapping[str, Any]:
    """Map each column to its first value that is not missing, in the order of the instances."""
    values = {}
    for column in members.column_names:
        found = members.column(column).drop_null()
        values[column] = found[0].as_py() if len(found) else None
    return values
