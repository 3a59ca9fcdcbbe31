"""Tables and declarations for the tests of clinical tables."""

import datetime
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
from openpyxl.worksheet.formula import ArrayFormula

from builder.clinical import ClinicalTable, Images, TableMatch, join, read_rows


def declared(**options: Any) -> ClinicalTable:
    """A table's declaration with the usual url and id."""
    options.setdefault("url", "table.csv")
    if "by" not in options:
        options.setdefault("person_id", "id")
    return ClinicalTable.model_validate(options)


def met(
    data: bytes,
    options: ClinicalTable,
    persons: Iterable[str] = (),
    *,
    ids: Mapping[str, Sequence[str]] | None = None,
    studies: Mapping[str, datetime.date] | None = None,
    until_study: bool = False,
) -> TableMatch:
    """A table against persons of one stack each: ``ids`` gives a person several PatientIDs, ``studies`` a date."""
    names = sorted(persons or ids or ())
    days = dict(studies or {})
    images = Images(
        persons=names,
        units=names,
        keys={"person": [tuple((ids or {}).get(name, (name,))) for name in names]},
        study_dates=[days.get(name) for name in names],
        first_studies=days,
        until_study=until_study,
    )
    rows = read_rows(data, options)
    return TableMatch(options, rows, join(rows, options, images))


def said(match: TableMatch) -> list[Mapping[str, Any] | None]:
    """What the table says of each person, in their order."""
    return [None if values is None else dict(values) for values in match.joined.values]


def workbook(
    *rows: Sequence[Any],
    formats: Mapping[str, str] | None = None,
    merged: Sequence[str] = (),
    formulas: Mapping[str, str] | None = None,
) -> bytes:
    """An XLSX file of one sheet; ``formulas`` maps ranges to array formulas."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in rows:
        sheet.append(list(row))
    for name, form in (formats or {}).items():
        sheet[name].number_format = form
    for area in merged:
        sheet.merge_cells(area)
    for area, formula in (formulas or {}).items():
        sheet[area.partition(":")[0]] = ArrayFormula(area, formula)
    return saved(book)


def saved(book: openpyxl.Workbook) -> bytes:
    """A workbook's bytes."""
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def parquet(**columns: Any) -> bytes:
    """A Parquet file."""
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()
