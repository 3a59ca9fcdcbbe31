"""Clinical tables of a spec joined by person, not by PatientID, with a match report for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa

from builder.clinical import check_match, match, read_table
from builder.clinical import schema as clinical_schema
from builder.model.keyed import Key
from builder.persons import Persons
from builder.spec import DatasetSpec
from builder.stages.survey import dicom_date
from builder.storage import open_store


@dataclass(frozen=True, eq=False)
class Clinical:
    """The clinical side of a plan.

    Parameters
    ----------
    table
        ``person_key`` and every declared column, one row a person with images and at least one clinical row; None when
        the spec declares no clinical table.
    reports
        One a table: match counts, examples by key, cells that were not taken. No identifiers.
    """

    table: pa.Table | None
    reports: tuple[Mapping[str, Any], ...] = ()


def read_clinical(spec: DatasetSpec, persons: Persons, stacks: pa.Table, *, key: Key) -> Clinical:
    """Read and join the spec's clinical tables.

    Raises
    ------
    SpecError
        When a table cannot be read as declared, or matches fewer persons than it must.
    """
    if not spec.clinical:
        return Clinical(None)
    by_id = _persons_by_id(persons)
    dates = _first_dates(stacks)
    merged: dict[str, dict[str, Any]] = {}
    fields: list[pa.Field] = [pa.field("person_key", pa.string())]
    reports = []
    for options in spec.clinical:
        folder, _, name = options.url.rpartition("/")
        rows = read_table(open_store(folder or ".").read(name), options, study_dates=dates)
        found = match(rows, by_id)
        check_match(found, options)
        doubtful = _merge(merged, rows.table, by_id)
        fields += list(clinical_schema(options))[1:]
        reports.append(
            {
                **found.summary(key),
                "rows_that_are_no_person": len(rows.not_persons),
                "persons_with_contradicting_rows": doubtful,
                "cells_not_taken": [{"row": i.row, "column": i.column, "problem": i.problem} for i in rows.issues],
            }
        )
    table = pa.Table.from_pylist(
        [{"person_key": p, **merged[p]} for p in sorted(merged)],
        schema=pa.schema([f.remove_metadata() for f in fields]),
    )
    return Clinical(table, tuple(reports))


def _persons_by_id(persons: Persons) -> dict[str, str]:
    """PatientID to person; one that two persons share under different issuers is left out: it tells nobody apart."""
    homes: dict[str, set[str]] = {}
    for (issuer, patient), person in persons.keys.items():
        if issuer != "\0study":
            homes.setdefault(patient, set()).add(person)
    return {patient: next(iter(found)) for patient, found in homes.items() if len(found) == 1}


def _first_dates(stacks: pa.Table) -> dict[str, date]:
    first: dict[str, date] = {}
    for patient, text in zip(stacks["patient_id"].to_pylist(), stacks["study_date"].to_pylist(), strict=True):
        day = dicom_date(text)
        name = (patient or "").strip()
        if day is not None and (name not in first or day < first[name]):
            first[name] = day
    return first


def _merge(merged: dict[str, dict[str, Any]], table: pa.Table, by_id: Mapping[str, str]) -> int:
    """Add a table's columns to the persons; one whose PatientIDs have contradicting rows gets none of them."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        person = by_id.get(row.pop("person_id"))
        if person is not None:
            groups.setdefault(person, []).append(row)
    doubtful = 0
    for person, rows in groups.items():
        if _agree(rows):
            merged.setdefault(person, {}).update(rows[0])
        else:
            doubtful += 1
    return doubtful


def _agree(rows: Sequence[Mapping[str, Any]]) -> bool:
    return all(row == rows[0] for row in rows)
