"""Chunks of INSTANCES -> one row a pure stack, with its verdict: what the cohort is chosen from. No pixels are read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa

from builder.imaging.series import Stack, split_stacks
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.tables import SERIES_COLUMNS, TEXT, WHOLE, Column, schema
from builder.report.vendors import normalise
from builder.stages.merge import by_series
from builder.storage import open_store

OLDEST_STATED_AGE = 89.0
"""Ages above this become 90 (45 CFR 164.514(b)(2)(i)(C))."""

AGE_BANDS = ((18.0, "00-17"), (40.0, "18-39"), (60.0, "40-59"), (75.0, "60-74"), (float("inf"), "75+"))

PRIVATE_COLUMNS = (
    Column("series_uid", TEXT),
    Column("study_uid", TEXT),
    Column("patient_id", TEXT),
    Column("issuer_of_patient_id", TEXT),
    Column("patient_sex", TEXT),
    Column("patient_birth_date", TEXT),
    Column("study_date", TEXT),
    Column("frame_of_reference_uid", TEXT),
    Column("chunk", pa.int32()),
)
KEYED = ("series_key", "study_key", "person_key", "frame_of_reference_key", "study_day", "annotations")
STACK_COLUMNS = PRIVATE_COLUMNS + tuple(c for c in SERIES_COLUMNS if c.name not in KEYED) + (Column("peak_bytes", WHOLE),)
STACKS = schema(STACK_COLUMNS)
"""One row a stack, private: SERIES without what needs the key or the person, plus the identifiers those come from."""

MEMBERSHIP = pa.schema([pa.field("series", TEXT), pa.field("stack", pa.int32())])
"""Parallel to a chunk's rows: which stack of its series each instance is in (-1: none, it is no image)."""


@dataclass(frozen=True)
class SurveyArgument:
    """Which chunk to survey: everything is read from and written to the index store."""

    store: str
    chunk: str
    number: int
    sites: tuple[str | None, ...]


def stacks_path(number: int) -> str:
    """Where the stack rows of a chunk lie."""
    return f"stacks/{number:05d}.parquet"


def membership_path(number: int) -> str:
    """Where the membership of a chunk's instances lies."""
    return f"membership/{number:05d}.parquet"


def survey_chunk(argument: SurveyArgument) -> int:
    """Survey one chunk; returns the number of stacks."""
    store = open_store(argument.store)
    if store.exists(membership_path(argument.number)):
        return read_parquet(store.read(stacks_path(argument.number)), columns=["stack"]).num_rows
    chunk = read_parquet(store.read(argument.chunk))
    stacks, membership = survey(chunk, number=argument.number, sites=argument.sites)
    store.put(stacks_path(argument.number), parquet_bytes(stacks))
    store.put(membership_path(argument.number), parquet_bytes(membership))
    return stacks.num_rows


def survey(chunk: pa.Table, *, number: int, sites: tuple[str | None, ...]) -> tuple[pa.Table, pa.Table]:
    """Stacks of every series of a chunk.

    Returns
    -------
    tuple
        A table by schema STACKS, and one by schema MEMBERSHIP with a row for each row of ``chunk``.
    """
    rows: list[dict[str, Any]] = []
    series_names: list[str] = []
    numbers: list[int] = []
    for instances in by_series(chunk):
        uids = instances.column("sop_instance_uid").to_pylist()
        stacks = split_stacks(instances)
        place = {uid: stack.number for stack in stacks for channel in stack.uids for uid in channel}
        first = instances.slice(0, 1).to_pylist()[0]
        name = first["series_uid"] or f"\0{uids[0] or first['path']}"
        series_names.extend([name] * len(uids))
        numbers.extend(place.get(uid, -1) for uid in uids)
        for stack in stacks:
            members = instances.filter(pa.array([place.get(u) == stack.number for u in uids]))
            rows.append(_stack_row(stack, members, name=name, number=number, sites=sites))
    membership = pa.table([pa.array(series_names, TEXT), pa.array(numbers, pa.int32())], schema=MEMBERSHIP)
    return pa.Table.from_pylist(rows, schema=STACKS), membership


def age_years(stated: str | None, birth_date: str | None, study_date: str | None) -> float | None:
    """Age at the study from Patient's Age (0010,1010; AS, PS3.5 6.2), else from the dates; None when neither says it.

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
    return years if years <= OLDEST_STATED_AGE else 90.0


def age_band(years: float | None) -> str | None:
    """The band an age falls into; None for no age."""
    return None if years is None else next(name for below, name in AGE_BANDS if years < below)


def dicom_date(text: str | None) -> date | None:
    """A DA value (PS3.5 6.2), or None when it is not one."""
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


def _stack_row(
    stack: Stack, members: pa.Table, *, name: str, number: int, sites: tuple[str | None, ...]
) -> dict[str, Any]:
    first = _first_values(members)
    age = age_years(first["patient_age"], first["patient_birth_date"], first["study_date"])
    spacing = stack.geometry.spacing_mm if stack.geometry is not None else (None, None, None)
    sex = (first["patient_sex"] or "").strip().upper()
    row = {
        "series_uid": name,
        "frame_of_reference_uid": stack.frame_of_reference,
        "chunk": number,
        "stack": stack.number,
        "split_rule": stack.split_rule,
        "verdict": stack.verdict.value,
        "verdict_detail": stack.detail,
        "site": sites[first["source"]],
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
        "vendor": normalise(first["manufacturer"]),
        "body_part": first["body_part_examined"],
        "sex": sex if sex in ("F", "M", "O") else None,
        "age_years": age,
        "age_band": age_band(age),
    }
    named = {n: first[n] for n in STACKS.names if n in first and n not in row}
    return {n: row[n] if n in row else named.get(n) for n in STACKS.names}


def _first_values(members: pa.Table) -> Mapping[str, Any]:
    """Column to its first value that is not missing, in the order of the instances."""
    values = {}
    for column in members.column_names:
        found = members.column(column).drop_null()
        values[column] = found[0].as_py() if len(found) else None
    return values
