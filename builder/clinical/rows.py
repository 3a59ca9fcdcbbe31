"""Rows of a clinical table as its declaration types them, with every cell accounted for."""

import datetime
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

import pyarrow as pa

from builder.clinical.cells import Cell, Unreadable, is_empty, text_of
from builder.clinical.column import ClinicalColumn
from builder.clinical.dates import date_of, days_since_first_study
from builder.clinical.events import derive, event_columns
from builder.clinical.order import date_readings
from builder.clinical.phenotypes import Happened, happened
from builder.clinical.sheet import Line, Sheet, read_sheet, sheets_of
from builder.clinical.table import ClinicalTable, Fact
from builder.clinical.tally import CellIssue, Count, Tally
from builder.clinical.units import Units
from builder.clinical.values import Raw, Value, check_range, value_of
from builder.errors import SpecError
from builder.model.patterns import first_group

WHOLE_ROW: Final = "(whole row)"
_TYPES = {
    "category": pa.string(),
    "text": pa.string(),
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "date": pa.int64(),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    Parameters
    ----------
    number
        Its number in the file, from 1.
    keys
        What it names of an image, in the order of ``ClinicalTable.joins``; private.
    values
        In the order of the declared columns; dates are still dates.
    rank
        The cell that ``pick.by`` compares; None when it holds nothing.
    known
        The date in the column ``dated_by``: when the row's values were known. None where it holds no date.
    coded
        What it says of each of ``ClinicalTable.phenotypes``.
    """

    number: int
    keys: tuple[str, ...] = field(repr=False)
    values: tuple[Raw, ...] = field(repr=False)
    rank: Cell = field(default=None, repr=False)
    known: datetime.date | None = field(default=None, repr=False)
    coded: tuple[Happened, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Rows:
    """A table's rows, private.

    Parameters
    ----------
    not_persons
        Numbers of rows that are nobody's: a key is empty, or there is nothing but a note.
    passed_over
        How many rows do not meet ``pick.where``.
    """

    rows: tuple[Row, ...]
    issues: tuple[CellIssue, ...]
    not_persons: tuple[int, ...]
    tallies: tuple[Tally, ...]
    passed_over: int = 0
    encoding: str = ""


def read_rows(data: bytes, options: ClinicalTable) -> Rows:
    """Type the rows of a table by its declaration.

    Raises
    ------
    SpecError
        When a heading is missing or there twice, or the file is none of the formats.
    """
    sheet = read_sheet(
        data,
        options.sheet,
        header_row=options.header_row,
        expected={*options.headings},
        encoding=options.encoding,
    )
    _check_headings(sheet, options, data)
    return _Typing(options, sheet, _places(sheet, options)).rows()


def schema(options: ClinicalTable) -> pa.Schema:
    """Return the Arrow schema of a joined table: ``person_id``, the declared columns and of events, with units."""
    fields = [pa.field("person_id", pa.string())]
    for name, column in options.columns.items():
        unit = "d" if column.type == "date" else column.unit
        fields.append(pa.field(name, _TYPES[column.type], metadata={"unit": unit} if unit else None))
    for name, event in options.events.items():
        event_name, time = event_columns(name)
        fields += [pa.field(event_name, pa.bool_()), _timed(time, options.columns[event.time])]
    return pa.schema([*fields, *(pa.field(name, pa.bool_()) for name in options.phenotypes)])


def finish_row(
    row: Row, options: ClinicalTable, first_study: datetime.date | None
) -> tuple[dict[str, Value], tuple[CellIssue, ...]]:
    """Return a row's values for one person: dates as days since the person's first study, and its events."""
    values: dict[str, Value] = {}
    issues = []
    for (name, column), raw in zip(options.columns.items(), row.values, strict=True):
        if not isinstance(raw, datetime.date):
            values[name] = raw
            continue
        values[name] = days_since_first_study(raw, first_study)
        try:
            check_range(values[name], column)
        except ValueError as error:
            values[name] = None
            issues.append(CellIssue(row.number, name, str(error), raw.isoformat()))
    for name, event in options.events.items():
        told, time = event_columns(name)
        try:
            values[told], values[time] = derive(event, values) or (None, None)
        except ValueError as error:
            values[told] = values[time] = None
            issues.append(CellIssue(row.number, told, str(error)))
    return values, tuple(issues)


def _timed(name: str, column: ClinicalColumn) -> pa.Field:
    unit = "d" if column.type == "date" else column.unit
    return pa.field(name, pa.float64(), metadata={"unit": unit} if unit else None)


def _check_headings(sheet: Sheet, options: ClinicalTable, data: bytes) -> None:
    """Refuse a row that has none of the declared headings: perhaps a row of data, which no message may show."""
    known = {heading.casefold() for heading in sheet.headings}
    if known & {heading.casefold() for heading in options.headings}:
        return
    sheets = sheets_of(data)
    other = f"; the workbook has the sheets {', '.join(sheets)}" if len(sheets) > 1 else ""
    raise SpecError(
        f"clinical: found none of the declared headings in row {options.header_row}, expected "
        f"{', '.join(map(repr, options.headings))}; check header_row, sheet and the headings{other}"
        f"{_lost_headings(sheet)}"
    )


def _lost_headings(sheet: Sheet) -> str:
    """Return what is wrong with headings that cannot be read, the first of them, for the end of a message."""
    return f"; a heading is {sheet.lost_heading}" if sheet.lost_heading else ""


def _places(sheet: Sheet, options: ClinicalTable) -> dict[str, int]:
    """Map every heading that the declaration names to its column position."""
    known = [heading for heading in sheet.headings if heading]
    faults = []
    for heading in options.headings:
        count = sheet.headings.count(heading)
        if count > 1:
            faults.append(f"clinical: found {count} columns with the heading {heading!r}, expected one")
        elif count == 0:
            folded = {h.casefold(): h for h in known}
            near = [folded[h] for h in difflib.get_close_matches(heading.casefold(), folded, n=1)]
            hint = f"; did you mean {near[0]!r}?" if near else f", expected one of {', '.join(map(repr, known[:20]))}"
            faults.append(f"clinical: found no column with the heading {heading!r}{hint}{_lost_headings(sheet)}")
    if faults:
        raise SpecError("\n".join(faults))
    return {heading: sheet.headings.index(heading) for heading in options.headings}


class _Typing:
    """Typing of one sheet: holds the counts while the rows go by."""

    def __init__(self, options: ClinicalTable, sheet: Sheet, places: Mapping[str, int]) -> None:
        self.options, self.sheet, self.places = options, sheet, places
        self.issues: list[CellIssue] = []
        self.joined = {heading: Count() for heading in options.joins}
        self.counts = {name: Count() for name in options.columns}
        self.units = {
            name: Units(column.unit or "", column.unit_names)
            for name, column in options.columns.items()
            if column.unit_from is not None
        }
        self.dates: Callable[[Cell], datetime.date] = self._date_key()

    def rows(self) -> Rows:
        found: list[Row] = []
        others: list[int] = []
        passed = 0
        for line in self.sheet.rows:
            if all(is_empty(cell) for cell in line.cells):
                continue  # an empty line is no row
            if line.fault is not None:
                self._lose(line)
                continue
            keys = self._keys(line)
            if keys is None:
                others.append(line.number)
            elif not self._meets(line):
                passed += 1
            else:
                told = (self._values(line), self._rank(line), self._known(line), self._coded(line))
                found.append(Row(line.number, keys, *told))
        strange = [f"{name}: {fault}" for name, units in self.units.items() for fault in units.faults()]
        if strange:
            raise SpecError(
                "\n".join(f"clinical: {line}; say in unit_names what it is, or pick other rows" for line in strange)
            )
        return Rows(tuple(found), tuple(self.issues), tuple(others), self._tallies(), passed, self.sheet.encoding)

    def _lose(self, line: Line) -> None:
        """Count a lost cell in every declared column, for a row from which nothing can be taken."""
        fault = line.fault or ""
        self.issues.append(CellIssue(line.number, WHOLE_ROW, fault))
        for name in self.options.columns:
            self.counts[name].filled += 1
            self.counts[name].problems[fault] += 1

    def _keys(self, line: Line) -> tuple[str, ...] | None:
        """Return what a row names of an image; None if a part of it is missing or the row is only a note."""
        places = [self.places[heading] for heading in self.options.joins]
        others = [cell for i, cell in enumerate(line.cells) if i not in places]
        if self.sheet.may_have_notes and others and all(map(is_empty, others)):
            return None
        keys = []
        for (heading, fact), place in zip(self.options.joins.items(), places, strict=True):
            try:
                key = self._key(line.cells[place], fact)
            except ValueError as error:
                self.issues.append(
                    self.joined[heading].miss(CellIssue(line.number, heading, str(error)), line.cells[place])
                )
                return None
            if key is None:
                return None
            self.joined[heading].filled += 1
            keys.append(key)
        return tuple(keys)

    def _key(self, cell: Cell, fact: Fact) -> str | None:
        text = text_of(cell, self.options.missing)
        if text is None:
            return None
        if fact == "person":
            return _person(text, self.options.person_pattern)
        if fact == "date":
            return self.dates(cell).isoformat()
        if fact == "file":
            return text.replace("\\", "/").removeprefix("./").strip("/") or None
        return text

    def _date_key(self) -> Callable[[Cell], datetime.date]:
        """Return how the column with the date of the study is read. Raises SpecError where that is not certain."""
        heading = next((h for h, fact in self.options.joins.items() if fact == "date"), None)
        if heading is None:
            return date_of
        place = self.places[heading]
        filled = (line.cells[place] for line in self.sheet.rows)
        cells = [c for c in filled if not (isinstance(c, Unreadable) or is_empty(c, self.options.missing))]
        found = date_readings(cells, declared_as(self.options, heading))
        if len(found) > 1 and all(all(read(c) == found[0](c) for read in found) for c in cells):
            found = found[:1]
        if len(found) != 1:
            raise SpecError(
                f"clinical: found dates in {heading!r} that can be read in {len(found) or 'no'} ways, expected one; "
                "declare a column of type date from it, with its format"
            )
        read = found[0]

        def day(cell: Cell) -> datetime.date:
            found: datetime.date = read(cell).low[0].date()
            return found

        return day

    def _meets(self, line: Line) -> bool:
        pick = self.options.pick
        if pick is None:
            return True
        for heading in pick.where:
            try:
                text = text_of(line.cells[self.places[heading]], self.options.missing)
            except ValueError as error:
                self.issues.append(CellIssue(line.number, heading, str(error)))
                return False
            if text not in pick.accepted(heading):
                return False
        return True

    def _rank(self, line: Line) -> Cell:
        pick = self.options.pick
        if pick is None or pick.by is None:
            return None
        cell = line.cells[self.places[pick.by]]
        if isinstance(cell, Unreadable):
            raise SpecError(
                f"clinical: pick.by {pick.by!r}: found {cell.problem} (first in row {line.number}), expected values "
                "that can be compared, or empty cells"
            )
        return None if is_empty(cell, self.options.missing) else cell

    def _known(self, line: Line) -> datetime.date | None:
        heading = self.options.dated_by
        if heading is None or is_empty(cell := line.cells[self.places[heading]], self.options.missing):
            return None
        try:
            return date_of(cell, self.options.date_format)
        except ValueError as error:
            self.issues.append(CellIssue(line.number, heading, str(error)))
            return None

    def _coded(self, line: Line) -> tuple[Happened, ...]:
        cells = {heading: line.cells[self.places[heading]] for heading in self.options.coded}
        return tuple(happened(p, cells, self.options.missing) for p in self.options.phenotypes.values())

    def _values(self, line: Line) -> tuple[Raw, ...]:
        values: list[Raw] = []
        for name, column in self.options.columns.items():
            cell = line.cells[self.places[column.source]]
            value: Raw = None
            if not is_empty(cell, self.options.missing):
                count = self.counts[name]
                try:
                    value = value_of(cell, column, count.seen, lambda number: self._in_unit(number, name, line))  # noqa: B023
                    count.filled += 1
                except ValueError as error:
                    self.issues.append(count.miss(CellIssue(line.number, name, str(error)), cell))
            values.append(value)
        return tuple(values)

    def _in_unit(self, number: Decimal, name: str, line: Line) -> Decimal:
        """Return a number in the unit of its column. Raises ValueError where the row's own does not convert."""
        heading = self.options.columns[name].unit_from
        if heading is None:
            return number
        return self.units[name].convert(number, line.cells[self.places[heading]], self.options.missing, line.number)

    def _tallies(self) -> tuple[Tally, ...]:
        keys = (count.tally(heading, heading) for heading, count in self.joined.items())
        columns = (
            self.counts[name].tally(name, column.source, tuple(column.mapping or ()))
            for name, column in self.options.columns.items()
        )
        return (*keys, *columns)


def declared_as(options: ClinicalTable, heading: str) -> ClinicalColumn | None:
    """Return the declaration of the column with a heading, a date before anything else."""
    found = [column for column in options.columns.values() if column.source == heading]
    return next((column for column in found if column.type == "date"), found[0] if found else None)


def _person(text: str, pattern: str | None) -> str | None:
    if pattern is None:
        return text
    return first_group(pattern, text)
