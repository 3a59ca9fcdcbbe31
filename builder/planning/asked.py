"""The columns beside SERIES that a spec asks for: read from the stacks, or worked out over studies and persons."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow as pa

from builder.cohort import Cohort
from builder.deid import RETAINABLE
from builder.headers.dates import dicom_date
from builder.labels import class_fields
from builder.model.expression import compile as compile_expression
from builder.model.tables import CHOICE, DATE
from builder.spec import DatasetSpec
from builder.spec.columns import columns_of, columns_of_images

LABELLING = frozenset({"SEG", "RTSTRUCT", "SR", "PR", "KO", "ANN", "FID"})
"""Modalities of objects that say something of an image. Plans, dose grids and registrations refer to it as well."""

IDENTIFYING = frozenset(CHOICE.names) - frozenset(RETAINABLE)
"""Columns that rules may read and that never leave: messages do not quote their values."""


def asked_columns(spec: DatasetSpec) -> tuple[str, ...]:
    """Return, sorted, the names in CHOICE that a spec uses anywhere, except those of its clinical tables."""
    columns = columns_of(spec.clinical, labelled=bool(spec.labels), classes=class_fields(spec.class_labels))
    schema = columns_of_images(columns, spec.cohort.partners)
    named = {name for text in expressions(spec.cohort) for name in compile_expression(text, schema).columns}
    named |= {name.removeprefix("-") for name in spec.cohort.prefer}
    named |= {name.removeprefix("-") for image in spec.cohort.images.values() for name in image.prefer}
    named |= {*spec.splits.stratify, *spec.report.groups, *spec.report.outcomes, *spec.deid.retain}
    named |= {rule.column for rule in spec.splits.hold_out}
    if spec.splits.leave_one_out is not None:
        named.add(spec.splits.leave_one_out)
    partners = {*spec.cohort.partners}
    named |= {name.rpartition(".")[2] for name in named if name.rpartition(".")[0] in partners}
    clinical = {name for table in spec.clinical for name in table.names}
    return tuple(sorted(named & {*CHOICE.names} - clinical))


def asked_values(
    names: Sequence[str], stacks: pa.Table, person_keys: Sequence[str], annotations: pa.Table
) -> dict[str, pa.Array]:
    """Return the asked columns, parallel to ``stacks``.

    Parameters
    ----------
    annotations
        The annotation objects, with schema INSTANCES.
    """
    made: dict[str, pa.Array] = {}
    for name in names:
        kind = CHOICE.field(name).type
        match name:
            case "visit_number":
                made[name] = pa.array(_visits(stacks, person_keys), kind)
            case "study_modalities":
                made[name] = pa.array(_modalities(stacks), kind)
            case "label_objects":
                made[name] = pa.array(_label_objects(stacks, annotations), kind)
            case _ if kind == DATE:
                made[name] = pa.array([dicom_date(text) for text in stacks.column(name).to_pylist()], kind)
            case _:
                made[name] = stacks.column(name)
    return made


def expressions(cohort: Cohort) -> Iterator[str]:
    """Yield the expressions of a cohort over columns of series."""
    if cohort.image is not None:
        yield cohort.image
    yield from (image.select for image in cohort.images.values())
    yield from (rule.keep for rule in cohort.rules)


def _visits(stacks: pa.Table, person_keys: Sequence[str]) -> list[int | None]:
    """Number the days on which a person has a study, from 1, in the order of time."""
    days = [dicom_date(text) for text in stacks.column("study_date").to_pylist()]
    of: dict[str, set[date]] = {}
    for person, day in zip(person_keys, days, strict=True):
        if day is not None:
            of.setdefault(person, set()).add(day)
    place = {person: {day: n for n, day in enumerate(sorted(seen), 1)} for person, seen in of.items()}
    return [None if day is None else place[person][day] for person, day in zip(person_keys, days, strict=True)]


def _modalities(stacks: pa.Table) -> list[list[str]]:
    studies = stacks.column("study_uid").to_pylist()
    of: dict[Any, set[str]] = {}
    for study, modality in zip(studies, stacks.column("modality").to_pylist(), strict=True):
        of.setdefault(study, set()).update([modality] if modality else ())
    return [sorted(of[study]) for study in studies]


def _label_objects(stacks: pa.Table, annotations: pa.Table) -> list[list[str] | None]:
    """Return by stack the modalities of the label objects that name its series, or only its frame of reference."""
    of_series: dict[str, set[str]] = {}
    of_frame: dict[str, set[str]] = {}
    columns = ("modality", "referenced_series_uids", "referenced_frame_of_reference_uids")
    for row in annotations.select(columns).to_pylist():
        series, frames = row["referenced_series_uids"] or (), row["referenced_frame_of_reference_uids"] or ()
        for found, names in ((of_series, series), (of_frame, () if series else frames)):
            for name in names if row["modality"] in LABELLING else ():
                found.setdefault(name, set()).add(row["modality"])
    pairs = zip(*(stacks.column(c).to_pylist() for c in ("series_uid", "frame_of_reference_uid")), strict=True)
    return [sorted(of_series.get(series, set()) | of_frame.get(frame, set())) or None for series, frame in pairs]


def with_asked(table: pa.Table, values: Mapping[str, pa.Array]) -> pa.Table:
    """Append the asked columns that a table does not have yet."""
    for name, column in values.items():
        if name not in table.column_names:
            table = table.append_column(CHOICE.field(name), column)
    return table
