"""Rows of an XLSX sheet: cells as a reader sees them, merged ones filled, formulas without a saved value marked."""

import datetime
import io
import operator
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Final
from xml.etree import ElementTree

from builder.clinical.cells import Cell, Number, Unreadable
from builder.errors import BuilderError, SpecError

UNSAVED: Final = "a formula without a saved value: open the file in a spreadsheet and save it"
_NAMESPACE: Final = "{*}"
_FIRST_YEAR: Final = 1900
"""Of dates in a spreadsheet, whatever day it counts from."""
_MOST_GAPS: Final = 2_000_000
_GAPS_A_CELL: Final = 100
"""Cells that rows may reach over, for each that they hold, once they reach over many."""
_MAX_ROWS: Final = 1_048_576
"""Rows an XLSX sheet can have (ECMA-376)."""


@dataclass(frozen=True, slots=True)
class _Area:
    """A range of cells, from 0, ends included."""

    top: int
    left: int
    bottom: int
    right: int

    def cells(self, rows: int) -> int:
        """Return how many cells of the area lie in a sheet of so many rows."""
        return (min(self.bottom, rows) - self.top + 1) * (self.right - self.left + 1)


@dataclass(frozen=True)
class _Layout:
    """What openpyxl's streaming reader does not tell: merged ranges and cells whose formula has no saved value."""

    merged: tuple[_Area, ...]
    unsaved: frozenset[tuple[int, int]]
    spilt: tuple[_Area, ...]
    """Ranges that one unsaved formula fills, which stands in their first cell alone."""


def sheet_names(data: bytes, *, size_limit: int) -> tuple[str, ...]:
    """Return the names of the sheets with cells, in order. Raises SpecError if the file is damaged or too large."""
    from openpyxl.reader.excel import ExcelReader

    with _opened(data, size_limit), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = ExcelReader(io.BytesIO(data), read_only=True, data_only=True)
        reader.read()
        names = tuple(page.title for page in reader.wb.worksheets)
        reader.wb.close()
        return names


def workbook_rows(data: bytes, sheet: str | None, *, size_limit: int, cell_limit: int) -> list[list[Cell]]:
    """Return the rows of one sheet, the first one without a name.

    Raises
    ------
    SpecError
        When the file is damaged or too large, or has no such sheet.
    """
    with _opened(data, size_limit) as archive:
        rows, layout = _stream(data, sheet, cell_limit, archive)
    for row, column in layout.unsaved:
        if row < len(rows):
            rows[row] += [None] * (column + 1 - len(rows[row]))
            rows[row][column] = Unreadable(UNSAVED)
    covered = 0
    for area in (*layout.spilt, *layout.merged):
        covered = _within(covered + area.cells(len(rows)), cell_limit)
    for area in layout.spilt:
        _spill(rows, area)
    for area in layout.merged:
        _fill(rows, area)
    return rows


@contextmanager
def _opened(data: bytes, size_limit: int) -> Iterator[zipfile.ZipFile]:
    """Open a workbook's archive within limits; what is wrong with the file becomes a SpecError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inflated = sum(info.file_size for info in archive.infolist())
            if inflated > size_limit:
                raise SpecError(
                    f"clinical: found an XLSX that inflates to {inflated} bytes, expected at most {size_limit}"
                )
            yield archive
    except (BuilderError, MemoryError):
        raise
    except Exception as error:  # openpyxl, lxml and zipfile document few of what damaged bytes make them raise
        raise SpecError(
            f"clinical: found a ZIP file that is no XLSX, or a damaged one ({type(error).__name__}), expected a "
            "workbook; unpack it, or open it in a spreadsheet and save it again"
        ) from error


def shown_text(value: int | float, form: str) -> str | None:
    """Return the text of a whole number under a number format such as ``0000`` or ``"P-"000``.

    Only formats of digits and fixed characters are applied, since these are what identifiers are shown with. Under
    any other format the number is shown plainly. None for a number of more than 15 digits.
    """
    if float(value).is_integer() and abs(value) >= 1e15:
        return None
    plain = str(int(value)) if float(value).is_integer() else str(value)
    if value < 0 or not float(value).is_integer() or len(form) > _LONGEST_FORMAT:
        return plain
    tokens = ["0" if token.lower() == "general" else token for token in _TOKEN.findall(_section(form, value))]
    tokens = [token for token in tokens if not _SHOWS_NOTHING.fullmatch(token)]
    digits = [i for i, token in enumerate(tokens) if token in ("0", "#", "?")]
    simple = all(t in "0#?-() :/" or t[0] in '"\\_' for t in tokens)
    return _filled(tokens, digits, plain) if digits and simple else plain


_LONGEST_FORMAT: Final = 255
_TOKEN: Final = re.compile(r'"[^"]*"|\\.|_.|\*.|\[[^\]]*\]|(?i:general)|.')
_CONDITION: Final = re.compile(r"\[(<=|>=|<>|=|<|>)\s*(-?\d{1,15}(?:\.\d{1,15})?)\]")
_SHOWS_NOTHING: Final = re.compile(
    r"\*.|\[(?:\$-[0-9a-f]{1,4}|black|blue|cyan|green|magenta|red|white|yellow|color ?\d+|[<>=]+\s*-?[\d.]+)\]",
    re.IGNORECASE,
)
"""Fillers in a number format, and brackets with locale, colour and condition."""
_HOLDS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt, "<=": operator.le, "=": operator.eq, "<>": operator.ne, ">=": operator.ge, ">": operator.gt,
}  # fmt: skip


def _section(form: str, value: float) -> str:
    """The part of a format that shows a number which is not negative: by the parts' conditions, or as zero."""
    sections = re.split(r';(?=(?:[^"]*"[^"]*")*[^"]*$)', form)
    conditions = [_CONDITION.search(section) for section in sections]
    if not any(conditions):
        return sections[2] if value == 0 and len(sections) > 2 else sections[0]
    for section, found in zip(sections, conditions, strict=True):
        if found is None or _HOLDS[found[1]](value, float(found[2])):
            return section
    return ""


def _filled(tokens: Sequence[str], digits: Sequence[int], plain: str) -> str:
    """Put the digits of a number into a format's places from the right; the first place takes the rest."""
    left = plain
    out: list[str] = []
    for i in range(len(tokens) - 1, -1, -1):
        token = tokens[i]
        if i in digits:
            taken = left if i == digits[0] else left[-1:]
            left = "" if i == digits[0] else left[:-1]
            out.append(taken or ("0" if token == "0" else ""))
        elif token[0] in '"\\':
            out.append(token.strip('"') if token[0] == '"' else token[1:])
        elif token[0] == "_":
            out.append(" ")
        else:
            out.append(token)
    return "".join(reversed(out)).strip()


def _stream(
    data: bytes, sheet: str | None, cell_limit: int, archive: zipfile.ZipFile
) -> tuple[list[list[Cell]], _Layout]:
    """Return the rows of a sheet, and what its XML says of them."""
    from openpyxl.reader.excel import ExcelReader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and extensions, which say nothing about values
        reader = ExcelReader(io.BytesIO(data), read_only=True, data_only=True)
        reader.read()
        book = reader.wb
        pages = [page.title for page in book.worksheets]
        if sheet is not None and sheet not in pages:
            raise SpecError(f"clinical: found the sheets {', '.join(pages)}, expected one called {sheet!r}")
        shown = [page.title for page in book.worksheets if page.sheet_state == "visible"]
        name = (shown or pages)[0] if sheet is None else sheet
        path = next(rel.target for found, rel in reader.parser.find_sheets() if found.name == name)
        with archive.open(path) as stream:
            layout = _layout(stream, cell_limit)
        page = book[name]
        page.reset_dimensions()  # writers often state wrong ones
        rows: list[list[Cell]] = []
        count = 0
        for line in page.iter_rows(max_row=_MAX_ROWS):
            count += len(line) + 1
            if count > cell_limit:
                raise SpecError(f"clinical: found an XLSX sheet of more than {cell_limit} cells")
            rows.append([_cell(cell) for cell in line])
        book.close()
    return rows, layout


def _cell(cell: Any) -> Cell:
    value = cell.value
    if cell.data_type == "e":
        return Unreadable("an error of the spreadsheet")
    if isinstance(value, bool):
        return Number(value, "TRUE" if value else "FALSE")
    if isinstance(value, int | float):
        return Number(value, shown_text(value, cell.number_format or "General"))
    if isinstance(value, datetime.timedelta):
        return str(value)
    if isinstance(value, datetime.datetime) and value.year < _FIRST_YEAR:
        return Unreadable("a negative number in the form of a date")
    found: Cell = value
    return found


def _layout(stream: IO[bytes], cell_limit: int) -> _Layout:
    merged: list[_Area] = []
    spilt: list[_Area] = []
    unsaved: set[tuple[int, int]] = set()
    row = column = -1
    covered = real = reached = 0
    for event, element in ElementTree.iterparse(stream, events=("start", "end")):
        tag = element.tag.rpartition("}")[2]
        if event == "start":
            if tag == "row":
                row, column = _below(row, int(element.get("r") or row + 2) - 1), -1
            elif tag == "c":
                column = _position(element.get("r") or "")[1] if element.get("r") else column + 1
        elif tag == "c":
            real += 1
            if _is_unsaved(element):
                unsaved.add((row, column))
                formula = element.find(f"{_NAMESPACE}f")
                if formula is not None and formula.get("t") in ("array", "dataTable") and formula.get("ref"):
                    spilt.append(_area(formula.get("ref") or ""))
        elif tag == "mergeCell":
            merged.append(_area(element.get("ref") or ""))
            covered = _within(covered + merged[-1].cells(max(row, 0)), cell_limit)
        elif tag == "row":
            element.clear()
            reached = _filled_enough(reached + column + 1, real)
    return _Layout(tuple(merged), frozenset(unsaved), tuple(spilt))


def _below(above: int, row: int) -> int:
    """Return the number of a row, from 0, that stands below another; whoever read on would fill the gap once more."""
    if row <= above:
        raise SpecError(
            f"clinical: found row {row + 1} after row {above + 1} in an XLSX sheet, expected rows in ascending order; "
            "open the file in a spreadsheet and save it again"
        )
    return row


def _filled_enough(reached: int, real: int) -> int:
    """Return how many cells rows reach over; whoever reads them fills the gaps, which takes time and memory."""
    if reached > _MOST_GAPS and reached > _GAPS_A_CELL * real:
        raise SpecError(
            f"clinical: found an XLSX sheet whose rows reach over {reached} cells and hold {real}, expected a table "
            "without cells far to the right; delete those, or save the table as CSV"
        )
    return reached


def _within(covered: int, cell_limit: int) -> int:
    if covered > cell_limit:
        raise SpecError(
            f"clinical: found an XLSX sheet whose merged cells and array formulas cover more than {cell_limit} cells, "
            "expected fewer; unmerge them"
        )
    return covered


def _is_unsaved(cell: ElementTree.Element) -> bool:
    """Return whether this is a formula whose result was not saved; an empty text (``t="str"``) is a result."""
    if cell.find(f"{_NAMESPACE}f") is None or cell.get("t") == "str":
        return False
    value = cell.find(f"{_NAMESPACE}v")
    return value is None or not value.text


def _position(name: str) -> tuple[int, int]:
    """Return the row and column, from 0, of a cell's name such as B12. Raises ValueError."""
    found = re.fullmatch(r"\$?([A-Z]{1,3})\$?(\d{1,7})", name)
    if not found:
        raise ValueError("a cell without a position")
    column = 0
    for letter in found[1]:
        column = column * 26 + ord(letter) - 64
    return int(found[2]) - 1, column - 1


def _area(name: str) -> _Area:
    first, _, last = name.partition(":")
    top, left = _position(first)
    bottom, right = _position(last or first)
    return _Area(top, left, bottom, right)


def _spill(rows: list[list[Cell]], area: _Area) -> None:
    """Mark the cells that an unsaved formula would fill; a cell with a value of its own keeps it."""
    for row in rows[area.top : area.bottom + 1]:
        row += [None] * (area.right + 1 - len(row))
        for column in range(area.left, area.right + 1):
            row[column] = Unreadable(UNSAVED) if row[column] is None else row[column]


def _fill(rows: list[list[Cell]], area: _Area) -> None:
    """Give every cell of a merged range its value, save where the range is all that the row holds: a title or note."""
    if area.top >= len(rows) or area.left >= len(rows[area.top]):
        return
    value = rows[area.top][area.left]
    for row in rows[area.top : area.bottom + 1]:
        others = [c for i, c in enumerate(row) if c is not None and not area.left <= i <= area.right]
        right = area.right if others else area.left
        row += [None] * (right + 1 - len(row))
        for column in range(area.left, right + 1):
            row[column] = value
