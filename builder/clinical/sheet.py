"""Tables as files hold them: headings and rows of untyped cells, from CSV, TSV, XLSX, Parquet or BCR Biotab."""

import csv
import datetime
import io
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from xml.etree.ElementTree import ParseError

import pyarrow as pa
import pyarrow.parquet as pq

from builder.errors import SpecError

SIZE_LIMIT: Final = 512 * 2**20
"""Bytes of a table, and of what an XLSX inflates to."""

CELL_LIMIT: Final = 200_000_000
_FIELD_LIMIT: Final = 1_000_000

Cell: TypeAlias = str | int | float | bool | datetime.date | datetime.datetime | datetime.time | None


@dataclass(frozen=True)
class Sheet:
    """Headings, and rows with their number in the file (from 1); every row is as long as the headings."""

    headings: tuple[str, ...]
    rows: tuple[tuple[int, tuple[Cell, ...]], ...]


def read_sheet(data: bytes, sheet: str | None = None, *, header_row: int = 1) -> Sheet:
    """The table in a file, its format told by content.

    The two further heading rows of BCR Biotab files (aliases, CDE ids) are skipped.

    Raises
    ------
    SpecError
        When the file is none of the formats, is damaged or too large, or has no such sheet or heading row.
    """
    if len(data) > SIZE_LIMIT:
        raise SpecError(f"clinical: found a table of {len(data)} bytes, expected at most {SIZE_LIMIT}")
    if data[:4] == b"PAR1":
        return _parquet_sheet(data)
    lines = _xlsx_rows(data, sheet) if data[:4] == b"PK\x03\x04" else _text_rows(data)
    if len(lines) < header_row:
        raise SpecError(f"clinical: found {len(lines)} rows in a table, expected headings in row {header_row}")
    headings = tuple("" if cell is None else str(cell).strip() for cell in lines[header_row - 1])
    while headings and not headings[-1]:
        headings = headings[:-1]
    start = header_row + (2 if _is_biotab(lines, header_row) else 0)
    rows = tuple((n, _fitted(line, len(headings))) for n, line in enumerate(lines[start:], start=start + 1))
    return Sheet(headings, rows)


def _is_biotab(lines: Sequence[Sequence[Cell]], header_row: int) -> bool:
    ids = lines[header_row + 1] if len(lines) > header_row + 1 else ()
    return bool(ids) and all(str(cell).startswith("CDE_ID:") for cell in ids)


def _fitted(line: Sequence[Cell], length: int) -> tuple[Cell, ...]:
    return tuple(line[:length]) + (None,) * (length - len(line))


def _parquet_sheet(data: bytes) -> Sheet:
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise SpecError("clinical: found a Parquet file that cannot be read; is it complete?") from error
    columns = [column.to_pylist() for column in table.columns]
    return Sheet(tuple(table.column_names), tuple(enumerate(zip(*columns, strict=True), start=1)))


def _xlsx_rows(data: bytes, sheet: str | None) -> list[tuple[Any, ...]]:
    import openpyxl

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inflated = sum(info.file_size for info in archive.infolist())
        if inflated > SIZE_LIMIT:
            raise SpecError(f"clinical: found an XLSX that inflates to {inflated} bytes, expected at most {SIZE_LIMIT}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and extensions, which say nothing about values
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            page = _page(book, sheet)
            page.reset_dimensions()  # writers often state wrong ones
            rows = list(page.iter_rows(values_only=True, max_row=CELL_LIMIT // 100))
            book.close()
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, TypeError, ParseError, OSError) as error:
        raise SpecError(f"clinical: found an XLSX that cannot be read ({type(error).__name__})") from error
    return rows


def _page(book: Any, sheet: str | None) -> Any:
    names = book.sheetnames
    if sheet is not None and sheet not in names:
        raise SpecError(f"clinical: found the sheets {', '.join(names)}, expected one called {sheet!r}")
    return book[sheet if sheet is not None else names[0]]


def _text_rows(data: bytes) -> list[list[str]]:
    text = _decoded(data)
    if "\0" in text:
        raise SpecError("clinical: found binary content, expected CSV, TSV, XLSX or Parquet")
    first = text.split("\n", 1)[0]
    separator = max(("\t", ";", ",", "|"), key=first.count)
    previous = csv.field_size_limit(_FIELD_LIMIT)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=False))
    except csv.Error as error:
        raise SpecError(f"clinical: found a text table that cannot be read ({error})") from error
    finally:
        csv.field_size_limit(previous)


def _decoded(data: bytes) -> str:
    """UTF-8 or UTF-16 by mark, UTF-8 if it is valid, else Windows-1252 (which spreadsheets write)."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")
