"""Clinical tables of a spec joined by person, not by PatientID, with a match report for each."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa

from builder.clinical import ClinicalRows, MatchReport, check_match, read_table
from builder.clinical import schema as clinical_schema
from builder.model.keyed import Key
from builder.persons import Persons
from builder.spec import DatasetSpec
from builder.stages.survey import dicom_date
from builder.storage import open_store

EXAMPLES = 5


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
        doubtful = _merge(merged, rows.table, by_id)
        found = _by_person(rows, by_id, persons, doubtful)
        check_match(found, options)
        fields += list(clinical_schema(options))[1:]
        reports.append(
            {
                "columns": list(options.columns),
                **_summary(found, key),
                "rows_that_are_no_person": len(rows.not_persons),
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


def _by_person(
    rows: ClinicalRows, by_id: Mapping[str, str], persons: Persons, doubtful: Collection[str]
) -> MatchReport:
    """Who matched, by person_key; ``clinical_only`` are raw ids, for nobody else knows these people."""
    ids = set(rows.table["person_id"].to_pylist())
    ambiguous = {*doubtful, *(by_id[i] for i in rows.ambiguous if i in by_id)}
    matched = {by_id[i] for i in ids if i in by_id} - ambiguous
    unknown = {i for i in (*ids, *rows.ambiguous) if i not in by_id}
    image_only = set(persons.members) - matched - ambiguous
    return MatchReport(*(tuple(sorted(found)) for found in (matched, image_only, unknown, ambiguous)))


def _summary(found: MatchReport, key: Key) -> dict[str, Any]:
    """Counts of persons, and a few examples by keyed name."""
    unknown = sorted(key.name("patient", "", i) for i in found.clinical_only)
    groups = {"matched": found.matched, "image_only": found.image_only, "ambiguous": found.ambiguous}
    shown = {**groups, "clinical_only": tuple(unknown)}
    return {
        "matched_fraction": found.fraction,
        **{name: len(names) for name, names in shown.items()},
        "examples": {name: list(names[:EXAMPLES]) for name, names in shown.items()},
    }


def _merge(merged: dict[str, dict[str, Any]], table: pa.Table, by_id: Mapping[str, str]) -> set[str]:
    """Add a table's columns to the persons; returns those whose PatientIDs have contradicting rows, and get none."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        person = by_id.get(row.pop("person_id"))
        if person is not None:
            groups.setdefault(person, []).append(row)
    doubtful = set()
    for person, rows in groups.items():
        if _agree(rows):
            merged.setdefault(person, {}).update(rows[0])
        else:
            doubtful.add(person)
    return doubtful


def _agree(rows: Sequence[Mapping[str, Any]]) -> bool:
    return all(row == rows[0] for row in rows)
