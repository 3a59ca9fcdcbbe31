"""Make the rows of STACKS: what is known of one stack before its voxels are read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import pyarrow as pa

from builder.deid.columns import OLDEST_AGE, age_band
from builder.errors import CaseError
from builder.headers.dates import dicom_date
from builder.headers.vendors import normalise
from builder.imaging.lint import lint_stack
from builder.imaging.stacks.options import VolumeOptions, admit
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.stacks.stack import Stack
from builder.imaging.volume import estimate_bytes
from builder.model.geometry import Geometry
from builder.model.tables import (
    GRID_COLUMNS,
    READ_COLUMNS,
    SERIES_COLUMNS,
    TEXT,
    TYPE_COLUMNS,
    WHOLE,
    Column,
    files_in,
    schema,
)
from builder.stages.inner import Candidate

GAUSS = 10_000.0
"""Gauss in a tesla."""

LEAST_GAUSS = 100.0
"""A field strength from here on is in gauss: 100 gauss are less than any scanner has, 100 tesla more."""

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
    # of the instances' rows of INSTANCES (builder.stages.row_digests); null where some were taken out since
    Column("rows_digest", TEXT),
)
STACK_COLUMNS = (
    *PRIVATE_COLUMNS, *(c for c in SERIES_COLUMNS if c.name not in KEYED), *DECIDED_COLUMNS, *HOLDING_COLUMNS,
    *TYPE_COLUMNS, *READ_COLUMNS, *GRID_COLUMNS,
)  # fmt: skip
STACKS = schema(STACK_COLUMNS)
"""One private row per stack: SERIES without the columns that need the key or the person, plus their identifiers and
what rules may read beside it."""


@dataclass(frozen=True)
class Origin:
    """Which series a stack is of, and what its source states about all its objects; columns as in STACKS."""

    series_uid: str
    site: str | None
    country: str | None
    collection: str | None


@dataclass(frozen=True)
class Usable:
    """Whether the geometry policy admits a stack, and what its assembly takes; columns as in STACKS."""

    usable_reason: str | None
    usable_detail: str | None
    peak_bytes: int = 0
    voxel_bytes: int = 0
    number_type: str | None = None
    number_type_sure: bool | None = None


@dataclass(frozen=True)
class Holding:
    """Which instances and frames make up a stack; columns as in STACKS."""

    holders: Sequence[int]
    holder_instances: Sequence[int]
    holder_bytes: Sequence[int]
    frame_lists: Sequence[Sequence[int]] | None


@dataclass(frozen=True)
class Shape:
    """How a stack was found and how large it is; columns as in STACKS."""

    stack: int
    split_rule: str
    verdict: str
    verdict_detail: str
    instances: int
    frames: int
    bytes: int
    slices: int
    channels: int


@dataclass(frozen=True)
class Grid:
    """The voxels' distances and directions, None where the stack has none; columns as in STACKS."""

    spacing_slice_mm: float | None = None
    spacing_row_mm: float | None = None
    spacing_column_mm: float | None = None
    orientation: str | None = None
    coverage_mm: float | None = None
    normal_x: float | None = None
    normal_y: float | None = None
    normal_z: float | None = None


@dataclass(frozen=True)
class Described:
    """What the headers say of image, scanner and person, in one form; columns as in STACKS."""

    frame_of_reference_uid: str | None
    slice_thickness_mm: float | None
    header_findings: str | None
    vendor: str | None
    body_part: str | None
    sex: str | None
    age_years: float | None
    age_band: str | None
    format: str
    laterality: str | None
    magnetic_field_strength: float | None


Part = Origin | Usable | Holding | Shape | Grid | Described


def stack_row(
    candidate: Candidate, members: pa.Table, *, origin: Origin, holding: Holding, options: VolumeOptions
) -> dict[str, Any]:
    """Return the row of a stack, by the columns of STACKS.

    Parameters
    ----------
    members
        Its instances, with schema INSTANCES.
    """
    stack = candidate.stack
    shape = Shape(
        stack.number, stack.split_rule, stack.verdict.value, stack.detail, instances=members.num_rows,
        frames=stack.frames, bytes=sum(members.column("size").to_pylist()), slices=stack.shape[0],
        channels=len(stack.channels),
    )  # fmt: skip
    first = _first_values(members)
    inside = candidate.inside or stack
    # a stack knows better than the first of its headers
    better = {name: v for name, v in (("echo_time", inside.echo_time), ("b_value", inside.b_value)) if v is not None}
    parts = (origin, _usable(candidate, members, options), holding, shape, _grid(stack, inside, members))
    return joined({**first, **better}, *parts, _described(stack, members, first))


def left_out_row(instances: pa.Table, fault: CaseError, *, origin: Origin) -> dict[str, Any]:
    """Return the row of a series that failed: one unusable stack of all its instances."""
    size, count = sum(instances.column("size").to_pylist()), sum(files_in(instances))
    verdict = Verdict.UNKNOWN_GEOMETRY.value
    shape = Shape(0, "", verdict, fault.detail, instances=count, frames=count, bytes=size, slices=0, channels=1)
    first = {name: instances.column(name)[0].as_py() for name in instances.column_names}
    usable, holding = Usable(fault.reason.value, fault.detail), Holding([0], [count], [size], None)
    return joined(first, origin, usable, holding, shape)


def joined(header: Mapping[str, Any], *parts: Part) -> dict[str, Any]:
    """Return a row of STACKS from its parts; all other columns are the header's of their name."""
    row = dict.fromkeys(STACKS.names)
    row |= {name: value for name, value in header.items() if name in row}
    for part in parts:
        row |= {field.name: getattr(part, field.name) for field in fields(part)}
    return row


def _usable(candidate: Candidate, members: pa.Table, options: VolumeOptions) -> Usable:
    stack = candidate.stack
    try:
        admit(stack, options)
    except CaseError as error:
        return Usable(error.reason.value, error.detail)
    peak = estimate_bytes(stack) + _decoded_beside(candidate, members)
    return Usable(None, None, peak, stack.voxel_bytes, stack.number_type, stack.number_type_sure)


def _decoded_beside(candidate: Candidate, members: pa.Table) -> int:
    """Return the bytes of other stacks' frames that are decoded along with this one's, one instance at a time."""
    if candidate.frames is None:
        return 0
    names = zip(*(members.column(name).to_pylist() for name in ("sop_instance_uid", "number_of_frames")), strict=True)
    others = max((frames or 1) - len(candidate.frames[uid]) for uid, frames in names)
    _, rows, columns = candidate.stack.shape
    return others * rows * columns * max(1, candidate.stack.bits_allocated // 8)


def _grid(stack: Stack, inside: Stack, members: pa.Table) -> Grid:
    """Return the grid of a stack; ``inside`` is what it was found as in its objects."""
    geometry = stack.geometry
    own = {} if geometry is None else dict(zip(_SPACING, geometry.spacing_mm, strict=True))
    orientation = None if geometry is None else geometry.orientation
    within = inside.geometry
    coverage = None if within is None else within.shape[0] * within.spacing_mm[0]
    return Grid(**own, orientation=orientation, coverage_mm=coverage, **_normal(within, members))


_SPACING = ("spacing_slice_mm", "spacing_row_mm", "spacing_column_mm")


def _normal(geometry: Geometry | None, members: pa.Table) -> dict[str, float]:
    """Return the direction across the slices by column, of the grid or of what all headers state alike."""
    if geometry is not None:
        normal = np.cross(geometry.directions[:, 1], geometry.directions[:, 2])
    else:
        stated = {tuple(v) for v in members.column("image_orientation_patient").to_pylist() if v and len(v) == 6}
        if len(stated) != 1:
            return {}
        across = np.array(stated.pop())
        normal = np.cross(across[:3], across[3:])
    length = float(np.linalg.norm(normal))
    if not 0.9 < length < 1.1:
        return {}
    return {f"normal_{axis}": abs(float(v)) / length for axis, v in zip("xyz", normal, strict=True)}


def _described(stack: Stack, members: pa.Table, first: Mapping[str, Any]) -> Described:
    age = age_years(first["patient_age"], first["patient_birth_date"], first["study_date"])
    sex = (first["patient_sex"] or "").strip().upper()
    return Described(
        frame_of_reference_uid=stack.frame_of_reference,
        slice_thickness_mm=thickness_mm(first["slice_thickness"]),
        header_findings="; ".join(str(f) for f in lint_stack(stack, first["kvp"])) or None,
        vendor=normalise(first["manufacturer"]),
        body_part=first["body_part_examined"],
        sex=sex if sex in ("F", "M", "O") else None,
        age_years=age,
        age_band=None if age is None else age_band(age),
        format=members["format"][0].as_py(),
        laterality=first["image_laterality"] or first["laterality"],
        magnetic_field_strength=tesla(first["magnetic_field_strength"]),
    )


def thickness_mm(stated: float | None) -> float | None:
    """Return a slice thickness, None for one that no slice has: 0 would be the thinnest of all."""
    return stated if stated is not None and stated > 0 else None


_FIRST: Final = frozenset({*STACKS.names, "patient_age", "slice_thickness", "body_part_examined", "image_laterality"})
"""Columns of INSTANCES that a stack takes over, or that something is derived from."""


def _first_values(members: pa.Table) -> Mapping[str, Any]:
    """Map columns to their first values that are not missing, in the order of the instances."""
    values = {}
    for name in members.column_names:
        if name not in _FIRST:
            continue
        column = members.column(name)
        stated = column.null_count < len(column)
        first = column[0].as_py() if stated else None
        values[name] = column.drop_null()[0].as_py() if stated and first is None else first
    return values


def tesla(stated: float | None) -> float | None:
    """Return Magnetic Field Strength (0018,0087) in tesla: some scanners state gauss, which no magnet has in tesla."""
    return stated / GAUSS if stated is not None and stated >= LEAST_GAUSS else stated


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


def _stated_age(text: str | None) -> float | None:
    match = re.fullmatch(r"(\d{1,3})([DWMY])", (text or "").strip())
    if match is None:
        return None
    return int(match[1]) / {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}[match[2]]
