"""Turn stack rows, persons and clinical rows into SERIES, which has keyed names and no identifiers."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import pyarrow as pa

from builder.deid.columns import age_band
from builder.headers.dates import dicom_date
from builder.model.keyed import Key
from builder.model.tables import SERIES, SERIES_COLUMNS
from builder.persons import Persons

DECISION_COLUMNS = (
    ("usable_reason", pa.string()),
    ("usable_detail", pa.string()),
    ("clinical_rows", pa.int64()),
    ("clinical_unclear", pa.bool_()),
    ("label_state", pa.string()),
    ("label_detail", pa.string()),
)
"""Columns that the cohort's fixed rules read, in addition to the columns of SERIES and the clinical ones."""


def person_column(stacks: pa.Table, persons: Persons) -> list[str]:
    """Return the person_key of every stack row."""
    return [person or "" for person in persons.keys_of(stacks)]


def series_table(
    stacks: pa.Table,
    person_keys: Sequence[str],
    *,
    key: Key,
    annotations: Sequence[Sequence[str]] = (),
    licenses: Sequence[str | None] = (),
    clinical: pa.Table | None = None,
) -> pa.Table:
    """Return SERIES followed by the clinical columns, one row per stack, in the order of ``stacks``.

    Parameters
    ----------
    annotations
        Kinds of annotation objects that point at each stack; empty when none are known.
    licenses
        The licence of each stack; empty when none are known.
    clinical
        Typed columns, parallel to ``stacks``. If SERIES has the same column (sex, age_years), the clinical value is
        used where there is one, otherwise the header's.
    """
    columns: dict[str, Any] = {name: stacks.column(name) for name in stacks.column_names if name in SERIES.names}
    columns["person_key"] = pa.array(person_keys, pa.string())
    columns["series_key"] = _keyed(stacks, "series_uid", "series", key)
    columns["study_key"] = _keyed(stacks, "study_uid", "study", key)
    columns["frame_of_reference_key"] = _keyed(stacks, "frame_of_reference_uid", "frame_of_reference", key)
    columns["study_day"] = pa.array(_study_days(stacks, person_keys), pa.int64())
    kinds = annotations or [()] * stacks.num_rows
    columns["annotations"] = pa.array([sorted(set(k)) for k in kinds], pa.list_(pa.string()))
    columns["license"] = pa.array(licenses or [None] * stacks.num_rows, pa.string())
    if clinical is not None:
        _add_clinical(columns, clinical)
    ordered = [c.name for c in SERIES_COLUMNS] + sorted(set(columns) - set(SERIES.names))
    return pa.table({name: columns[name] for name in ordered})


def accession_column(stacks: pa.Table, key: Key) -> pa.Array:
    """Return the keyed accession number of every stack row. Numbers of two sites never match; blank ones are null."""
    stated = zip(stacks.column("site").to_pylist(), stacks.column("accession_number").to_pylist(), strict=True)
    rows = [(site or "", (text or "").strip()) for site, text in stated]
    distinct = dict.fromkeys(row for row in rows if row[1])
    names = dict(zip(distinct, key.names_of("accession", distinct), strict=True))
    return pa.array([names.get(row) for row in rows], pa.string())


def date_column(stacks: pa.Table, column: str) -> pa.Array:
    """Return a column of DICOM dates as dates. Many stacks share a date, so each text is read once."""
    coded = stacks.column(column).combine_chunks().dictionary_encode()
    return pa.array(map(dicom_date, coded.dictionary.to_pylist()), pa.date32()).take(coded.indices)


def _keyed(stacks: pa.Table, column: str, kind: str, key: Key) -> pa.Array:
    coded = stacks.column(column).combine_chunks().dictionary_encode()
    return pa.array(key.names(kind, coded.dictionary.to_pylist()), pa.string()).take(coded.indices)


def _study_days(stacks: pa.Table, person_keys: Sequence[str]) -> list[int | None]:
    dates = date_column(stacks, "study_date").to_pylist()
    first: dict[str, date] = {}
    for person, day in zip(person_keys, dates, strict=True):
        if day is not None and (person not in first or day < first[person]):
            first[person] = day
    return [None if day is None else (day - first[person]).days for person, day in zip(person_keys, dates, strict=True)]


def _add_clinical(columns: dict[str, Any], clinical: pa.Table) -> None:
    for name in clinical.column_names:
        values = clinical.column(name)
        if name in columns:
            header = columns[name].to_pylist()
            stated = values.to_pylist()
            merged = [h if s is None else s for s, h in zip(stated, header, strict=True)]
            values = pa.array(merged, SERIES.field(name).type)
        columns[name] = values
    if "age_years" in clinical.column_names:
        columns["age_band"] = pa.array(
            [None if a is None else age_band(a) for a in columns["age_years"].to_pylist()], pa.string()
        )
