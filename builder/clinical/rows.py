"""Clinical tables as typed, ranged columns, one row a person."""

import datetime
import difflib
import math
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from builder.clinical.events import derive, event_columns
from builder.clinical.sheet import Cell, Sheet, read_sheet
from builder.clinical.table import ClinicalColumn, ClinicalTable
from builder.errors import SpecError

_TRUE, _FALSE = frozenset({"true", "yes", "y", "1"}), frozenset({"false", "no", "n", "0"})
_TYPES = {
    "category": pa.string(),
    "text": pa.string(),
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "date": pa.int64(),
}


@dataclass(frozen=True)
class CellIssue:
    """A cell whose value was not taken: row of the file from 1, column of the dataset, and what was wrong."""

    row: int
    column: str
    problem: str


@dataclass(frozen=True)
class ClinicalRows:
    """What a clinical table says, private for it is named by PatientID.

    Parameters
    ----------
    table
        ``person_id`` and the declared columns, one row a person, sorted by id.
    issues
        Cells that became missing because they could not be typed or were out of range.
    not_persons
        Numbers of rows (from 1, as in the file) that are no person's: no id, or nothing but a note.
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
    """Type a clinical table's rows by its declaration.

    Parameters
    ----------
    study_dates
        PatientID to the date of the person's first study: the zero of every ``date`` column. A person without one has
        no day offsets.

    Raises
    ------
    SpecError
        When a heading is not in the table or twice in it, or the file is none of the formats.
    """
    sheet = read_sheet(data, options.sheet, header_row=options.header_row)
    places = _places(sheet, options)
    rows, not_persons = _person_rows(sheet, options, places)
    issues: list[CellIssue] = []
    typed: dict[str, dict[str, Any]] = {}
    ambiguous = []
    for person, candidates in sorted(rows.items()):
        day = (study_dates or {}).get(person)
        values = [(row, _typed(row, options, places, day)) for row in _picked(candidates, options, places)]
        issues += [issue for _, (_, found) in values for issue in found]
        distinct = {tuple(cells.items()) for _, (cells, _) in values}
        if len(distinct) == 1:
            typed[person] = values[0][1][0]
        else:
            ambiguous.append(person)
    return ClinicalRows(
        table=_table(typed, options),
        issues=tuple(sorted(issues, key=lambda issue: (issue.row, issue.column))),
        not_persons=tuple(not_persons),
        ambiguous=tuple(ambiguous),
    )


def schema(options: ClinicalTable) -> pa.Schema:
    """Arrow schema of ``ClinicalRows.table``: ``person_id``, the declared columns and those of events, with units."""
    fields = [pa.field("person_id", pa.string())]
    for name, column in options.columns.items():
        unit = "d" if column.type == "date" else column.unit
        fields.append(pa.field(name, _TYPES[column.type], metadata={"unit": unit} if unit else None))
    for name, event in options.events.items():
        happened, time = event_columns(name)
        fields += [pa.field(happened, pa.bool_()), _timed(time, options.columns[event.time])]
    return pa.schema(fields)


def _timed(name: str, column: ClinicalColumn) -> pa.Field:
    unit = "d" if column.type == "date" else column.unit
    return pa.field(name, pa.float64(), metadata={"unit": unit} if unit else None)


_Row: TypeAlias = tuple[int, Sequence[Cell]]


def _places(sheet: Sheet, options: ClinicalTable) -> dict[str, int]:
    """Heading to column position, for every heading the declaration names."""
    wanted = [options.person_id, *(column.source for column in options.columns.values())]
    wanted += [options.pick.by] if options.pick else []
    faults = []
    for heading in dict.fromkeys(wanted):
        count = sheet.headings.count(heading)
        if count > 1:
            faults.append(f"clinical: found {count} columns with the heading {heading!r}, expected one")
        elif count == 0:
            near = difflib.get_close_matches(heading, [h for h in sheet.headings if h], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            faults.append(f"clinical: found no column with the heading {heading!r}{hint}")
    if faults:
        raise SpecError("\n".join(faults))
    return {heading: sheet.headings.index(heading) for heading in wanted}


def _person_rows(
    sheet: Sheet, options: ClinicalTable, places: Mapping[str, int]
) -> tuple[dict[str, list[_Row]], list[int]]:
    """Rows by person id, and the numbers of the rows that are no person's."""
    rows: dict[str, list[_Row]] = {}
    others = []
    for number, cells in sheet.rows:
        if all(_text(cell) is None for cell in cells):
            continue  # an empty line is no row
        place = places[options.person_id]
        person = _person(_text(cells[place], options.missing), options.person_pattern)
        alone = len(sheet.headings) > 1 and all(_text(c) is None for i, c in enumerate(cells) if i != place)
        if person is None or alone:
            others.append(number)
        else:
            rows.setdefault(person, []).append((number, cells))
    return rows, others


def _person(text: str | None, pattern: str | None) -> str | None:
    if text is None or pattern is None:
        return text
    found = re.fullmatch(pattern, text)
    if not found:
        return None
    return found.group(1) if found.re.groups else text


def _picked(rows: Sequence[_Row], options: ClinicalTable, places: Mapping[str, int]) -> list[_Row]:
    """The rows that count for one person: all of them, or those the pick rule takes (several when they tie)."""
    if options.pick is None or len(rows) == 1:
        return list(rows)
    place = places[options.pick.by]
    ranked = [(rank, row) for row in rows if (rank := _rank(row[1][place], options.missing)) is not None]
    if not ranked:
        return list(rows)
    best = (min if options.pick.take == "min" else max)(rank for rank, _ in ranked)
    return [row for rank, row in ranked if rank == best]


def _rank(cell: Cell, missing: Collection[str]) -> tuple[int, float, str] | None:
    """Numbers by value before texts (and dates in ISO form) by code points."""
    text = _text(cell, missing)
    if text is None:
        return None
    number = _number(text)
    return (1, 0.0, text) if number is None else (0, number, "")


def _typed(
    row: _Row, options: ClinicalTable, places: Mapping[str, int], day: datetime.date | None
) -> tuple[dict[str, Any], list[CellIssue]]:
    number, cells = row
    values: dict[str, Any] = {}
    issues = []
    for name, column in options.columns.items():
        cell = cells[places[column.source]]
        values[name] = None
        if _text(cell, options.missing) is None:
            continue
        try:
            values[name] = _value(cell, column, day)
        except ValueError as error:
            issues.append(CellIssue(number, name, str(error)))
    for name, event in options.events.items():
        happened, time = event_columns(name)
        try:
            values[happened], values[time] = derive(event, values) or (None, None)
        except ValueError as error:
            values[happened] = values[time] = None
            issues.append(CellIssue(number, happened, str(error)))
    return values, issues


def _value(cell: Cell, column: ClinicalColumn, day: datetime.date | None) -> Any:
    """The typed value of a cell that is not missing. Raises ValueError with the problem, never the value."""
    text = _text(cell) or ""
    if column.levels is not None:
        levels = column.levels if isinstance(column.levels, Mapping) else {level: level for level in column.levels}
        if text not in levels:
            raise ValueError("none of the declared levels")
        text = levels[text]
    if column.type in ("category", "text"):
        return text
    if column.type == "boolean":
        if text.casefold() not in _TRUE | _FALSE:
            raise ValueError("neither true nor false")
        return text.casefold() in _TRUE
    number = _days(cell, text, column.format, day) if column.type == "date" else _number(text)
    if number is None:
        if column.type == "date":
            return None
        raise ValueError("not a number")
    if column.type == "integer" and number != int(number):
        raise ValueError("not a whole number")
    low, high = column.min, column.max
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"out of the range {low} to {high}")
    if column.type == "number":
        return number
    if abs(number) >= 2**63:
        raise ValueError("out of range")
    return int(number)


def _number(text: str) -> float | None:
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _days(cell: Cell, text: str, form: str | None, day: datetime.date | None) -> float | None:
    """Days from ``day`` to the date in a cell; None without a ``day``."""
    if isinstance(cell, datetime.datetime):
        found = cell.date()
    elif isinstance(cell, datetime.date):
        found = cell
    else:
        try:
            found = datetime.datetime.strptime(text, form).date() if form else _iso_date(text)
        except ValueError:
            raise ValueError(f"not a date of the form {form or 'YYYY-MM-DD'}") from None
    return float((found - day).days) if day else None


def _iso_date(text: str) -> datetime.date:
    """ISO 8601, and the unpadded form of BCR Biotab (2010-7-22)."""
    parts = re.fullmatch(r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ].*)?", text, re.ASCII)
    if parts:
        return datetime.date(int(parts[1]), int(parts[2]), int(parts[3]))
    return datetime.date.fromisoformat(text)


def _text(cell: Cell, missing: Collection[str] = ()) -> str | None:
    """A cell as text (whole floats without their ``.0``, as spreadsheets show them); None when it holds nothing."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        cell = int(cell)
    text = unicodedata.normalize("NFC", str(cell)).strip()
    return None if text == "" or text in missing else text


def _table(typed: Mapping[str, Mapping[str, Any]], options: ClinicalTable) -> pa.Table:
    rows: Iterator[dict[str, Any]] = ({"person_id": person, **values} for person, values in typed.items())
    return pa.Table.from_pylist(list(rows), schema=schema(options))
