"""Make the archive's clinical table, with gaps, several missing codes, a footnote, and people without images."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from builder.model.keyed import Key
from builder.phantom.people import Person

COLUMNS = (
    "Patient ID",
    "Sex",
    "Age",
    "Race",
    "Grade",
    "Recurrence",
    "Follow-up (days)",
    "Diagnosis date",
    "Notes",
)
MISSING_CODES = ("", "--", "N/A", "999")
"""Codes that the table uses for unknown values; ``999`` in number columns only."""
GAP_PROBABILITY = 0.04


@dataclass(frozen=True)
class ClinicalTable:
    """The CSV's text and, for the answer key, the persons it lists and the number of missing cells per column."""

    text: str
    persons: tuple[int, ...]
    missing: dict[str, int]


def clinical_table(people: Sequence[tuple[str, Person]], key: Key, *, token: str | None) -> ClinicalTable:
    """Return a table with one row per person and one for somebody without images, then a footnote.

    ``people`` pairs PatientID and person; from six persons on, the last one has no row.
    """
    known = people[:-1] if len(people) >= 6 else people
    rows = [_row(patient_id, person, key, token=token) for patient_id, person in known]
    prefix = "" if token is None else f"{token}-"
    rows.append([f"{prefix}PH-9001", "F", "55", "White", "Low", "No", "400", "2015-03-02", token or "no imaging"])
    missing = {
        column: sum(row[index] in MISSING_CODES for row in rows)
        for index, column in enumerate(COLUMNS)
        if column not in ("Patient ID", "Notes")
    }
    footnote = "* Age in years at diagnosis; 999, -- and N/A mean not recorded"
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([list(COLUMNS), *rows, [footnote, *[""] * (len(COLUMNS) - 1)]])
    return ClinicalTable(stream.getvalue(), tuple(person.number for _, person in known), missing)


def _row(patient_id: str, person: Person, key: Key, *, token: str | None) -> list[str]:
    rng = np.random.Generator(np.random.PCG64(key.number("clinical", str(person.number))))
    day = date(person.year, 1, 1) + timedelta(days=person.day)
    cells = [
        patient_id,
        person.sex,
        str(person.age_years),
        person.race,
        person.grade,
        "Yes" if person.recurrence else "No",
        str(person.follow_up_days),
        day.isoformat(),
        token or ("second opinion" if person.number % 7 == 0 else ""),
    ]
    for index in range(1, 7):
        code = MISSING_CODES[int(rng.integers(len(MISSING_CODES) if COLUMNS[index] in _NUMBERS else 3))]
        if rng.random() < GAP_PROBABILITY or (person.number, index) in _CERTAIN_GAPS:
            cells[index] = code
    return cells


_NUMBERS = ("Age", "Follow-up (days)")
_CERTAIN_GAPS = {(2, 3), (3, 2), (4, 4)}
"""(person, column): gaps that even a tiny archive has."""
