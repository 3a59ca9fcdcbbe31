"""One table on its own: its rows by the person ids that it names."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from builder.clinical.joining import Images, Joined, join
from builder.clinical.rows import Rows, read_rows, schema
from builder.clinical.table import ClinicalTable
from builder.clinical.tally import CellIssue


@dataclass(frozen=True)
class ClinicalRows:
    """What a clinical table says, private since it is named by PatientID.

    Parameters
    ----------
    table
        ``person_id`` and the declared columns, one row a person, sorted by id.
    issues
        Cells that became missing because they could not be typed or were out of range.
    not_persons
        Numbers of rows (from 1, as in the file) that are nobody's: no id, or nothing but a note.
    ambiguous
        Ids with several rows that disagree; they are not in ``table``.
    """

    table: pa.Table
    issues: tuple[CellIssue, ...]
    not_persons: tuple[int, ...]
    ambiguous: tuple[str, ...]


def read_table(
    data: bytes, options: ClinicalTable, *, study_dates: Mapping[str, datetime.date] | None = None
) -> ClinicalRows:
    """Type a table by its declaration, one row for each person id in it.

    Parameters
    ----------
    study_dates
        PatientID to the date of the person's first study: the zero of every ``date`` column. A person without one has
        no day offsets.

    Raises
    ------
    SpecError
        When a heading is not in the table or twice in it, the file is none of the formats, or ``pick`` compares values
        that have no order.
    """
    rows = read_rows(data, options)
    place = next(i for i, fact in enumerate(options.joins.values()) if fact == "person")
    ids = sorted({row.keys[place] for row in rows.rows})
    days = dict(study_dates or {})
    images = Images(
        persons=ids,
        units=ids,
        keys={"person": [(i,) for i in ids]},
        study_dates=[days.get(i) for i in ids],
        first_studies=days,
    )
    return _as_table(rows, join(rows, options, images), ids, options)


def _as_table(rows: Rows, joined: Joined, ids: list[str], options: ClinicalTable) -> ClinicalRows:
    found = [{"person_id": i, **said} for i, said in zip(ids, joined.values, strict=True) if said is not None]
    issues = sorted({*rows.issues, *joined.issues}, key=lambda issue: (issue.row, issue.column))
    return ClinicalRows(
        table=pa.Table.from_pylist(found, schema=schema(options)),
        issues=tuple(issues),
        not_persons=rows.not_persons,
        ambiguous=joined.ambiguous,
    )
