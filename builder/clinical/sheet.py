"""Tables as files hold them: headings and rows of untyped cells, from CSV, TSV, XLSX, Parquet or BCR Biotab."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builder.clinical.cells import Cell, Unreadable, normal_text, text_of
from builder.clinical.delimited import text_rows
from builder.clinical.workbook import sheet_names, workbook_rows
from builder.errors import SpecError, counted

SIZE_LIMIT: Final = 512 * 2**20
"""Bytes of a table, and of what an XLSX or Parquet file inflates to."""

CELL_LIMIT: Final = 50_000_000

_FEW_ROWS: Final = 1_000_000
_ROWS_A_BYTE: Final = 16
"""Most rows of a longer Parquet file for each of its bytes: a table that names persons says something in every row."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row: its number in the file from 1, as many cells as there are headings, and what is wrong with all of it."""

    number: int
    cells: tuple[Cell, ...]
    fault: str | None = None


@dataclass(frozen=True)
class Sheet:
    """Headings and rows of a table.

    Parameters
    ----------
    encoding
        Of a text table.
    may_have_notes
        Whether a row with nothing but an id may be a note that somebody typed below the table.
    lost_heading
        What the first heading is that has no text; empty when all have one.
    """

    headings: tuple[str, ...]
    rows: tuple[Line, ...]
    encoding: str = ""
    may_have_notes: bool = True
    lost_heading: str = ""

    def texts(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Number and text cells of every row, "" for an empty cell: for tables of which no row may be lost.

        Raises
        ------
        SpecError
            When a row does not fit the headings, or a cell has no text that can be read.
        """
        for line in self.rows:
            try:
                if line.fault is not None:
                    raise ValueError(line.fault)
                yield line.number, tuple(text_of(cell) or "" for cell in line.cells)
            except ValueError as error:
                raise SpecError(f"found {error} in row {line.number}, expected a text in every cell") from None


def sheets_of(data: bytes) -> tuple[str, ...]:
    """Return the names of a workbook's sheets, in their order; none for the other formats.

    Raises
    ------
    SpecError
        When a workbook is damaged or too large.
    """
    return sheet_names(data, size_limit=SIZE_LIMIT) if data[:4] == b"PK\x03\x04" else ()


def read_sheet(
    data: bytes,
    sheet: str | None = None,
    *,
    header_row: int = 1,
    expected: Collection[str] = (),
    encoding: str | None = None,
) -> Sheet:
    """Return the table in a file. The content decides the format.

    The two further heading rows of BCR Biotab files (aliases, CDE ids) are skipped.

    Parameters
    ----------
    expected
        Headings the table should have. They tell the separator of a text table, and a Parquet file is read no further
        than them.

    Raises
    ------
    SpecError
        When the file is none of the formats, is damaged or too large, or has no such sheet or heading row.
    """
    if len(data) > SIZE_LIMIT:
        raise SpecError(f"clinical: found a table of {len(data)} bytes, expected at most {SIZE_LIMIT}")
    if data[:4] != b"PAR1":
        _refuse_others(data)
    _refuse_options(data, sheet, header_row, encoding)
    if data[:4] == b"PAR1":
        return _parquet_sheet(data, expected)
    if data[:4] == b"PK\x03\x04":
        rows = workbook_rows(data, sheet, size_limit=SIZE_LIMIT, cell_limit=CELL_LIMIT)
        return _sheet(rows, header_row - 1, is_text=False)
    found = text_rows(data, header_row=header_row, expected=expected, encoding=encoding)
    place = header_row if found.hinted and header_row == 1 else header_row - 1
    return _sheet(found.rows, place, is_text=True, encoding=found.encoding)


def _refuse_options(data: bytes, sheet: str | None, header_row: int, encoding: str | None) -> None:
    """Raise SpecError for an option that a file of this format would pass over without a word."""
    is_parquet, is_workbook = data[:4] == b"PAR1", data[:4] == b"PK\x03\x04"
    format_name = "a Parquet file" if is_parquet else "a workbook" if is_workbook else "a text table"
    for name, value, has in (
        ("sheet", sheet, is_workbook),
        ("header_row", header_row if header_row != 1 else None, not is_parquet),
        ("encoding", encoding, not is_parquet and not is_workbook),
    ):
        if value is not None and not has:
            raise SpecError(
                f"clinical: found {format_name}, which has no {name}, expected a file that has one; take "
                f"{name}: {value} out of the spec, or check the url"
            )


_OTHERS: Final = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old workbook (XLS)", "save it as XLSX or CSV in a spreadsheet"),
    (b"\x1f\x8b", "a gzip-compressed file", "decompress it"),
    (b"BZh", "a bzip2-compressed file", "decompress it"),
    (b"\xfd7zXZ\x00", "an xz-compressed file", "decompress it"),
    (b"\x28\xb5\x2f\xfd", "a zstd-compressed file", "decompress it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"%PDF", "a PDF", "export the table as CSV"),
    (b"{\\rtf", "a text document (RTF)", "save the table as CSV"),
    (b"SQLite format 3\x00", "an SQLite database", "export the table as CSV"),
    (b"$FL2", "an SPSS file", "export the table as CSV"),
    (b"<stata", "a Stata file", "export the table as CSV"),
    (b"\xff\xfe\x00\x00", "text in UTF-32", "save it as UTF-8"),
    (b"\x00\x00\xfe\xff", "text in UTF-32", "save it as UTF-8"),
)
"""First bytes of formats that people mistake for a supported one, what they are, and what to do."""


def _refuse_others(data: bytes) -> None:
    """Raise SpecError for a known format that is not supported."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    found = next((entry[1:] for entry in _OTHERS if data.startswith(entry[0])), None)
    if start.startswith((b"<html", b"<!doctype html", b"<table", b"<?xml")):
        found = ("a web page or XML", "open it in a spreadsheet and save it as XLSX or CSV")
    elif start.startswith((b"[{", b'{"')):
        found = ("JSON", "save the table as CSV")
    if found is not None:
        raise SpecError(f"clinical: found {found[0]}, expected CSV, TSV, XLSX or Parquet; {found[1]}")


def _sheet(lines: Sequence[Sequence[Cell]], place: int, *, is_text: bool, encoding: str = "") -> Sheet:
    if len(lines) <= place:
        raise SpecError(
            f"clinical: found {counted(len(lines), 'row')} in a table, expected headings in row {place + 1}"
        )
    headings = tuple("" if cell is None else _heading(cell) for cell in lines[place])
    width = len(headings)
    headings = headings[: max((place + 1 for place, heading in enumerate(headings) if heading), default=0)]
    start = place + 1 + (2 if _is_biotab(lines, place) else 0)
    rows = tuple(
        Line(n, _fitted(line, len(headings)), _overlong(line, width) if is_text else None)
        for n, line in enumerate(lines[start:], start=start + 1)
        if line  # one stray cell far below leaves a million rows without any
    )
    lost = next((cell.problem for cell in lines[place] if isinstance(cell, Unreadable)), "")
    return Sheet(headings, rows, encoding, lost_heading=lost)


def _heading(cell: Cell) -> str:
    return "" if isinstance(cell, Unreadable) else normal_text(str(getattr(cell, "text", cell)))


def _is_biotab(lines: Sequence[Sequence[Cell]], place: int) -> bool:
    ids = lines[place + 2] if len(lines) > place + 2 else ()
    return bool(ids) and all(str(cell).startswith("CDE_ID:") for cell in ids)


def _fitted(line: Sequence[Cell], length: int) -> tuple[Cell, ...]:
    """As many cells as there are headings; texts in their normal form, and None for what is blank."""
    cells = tuple(normal_text(cell) or None if isinstance(cell, str) else cell for cell in line[:length])
    return cells + (None,) * (length - len(cells))


def _overlong(line: Sequence[Cell], width: int) -> str | None:
    """Refuse a text row with more cells than headings: one cell was split, and nobody can say which."""
    if any(str(cell or "").strip() for cell in line[width:]):
        return f"a row of {len(line)} cells under {width} headings: is a separator inside a cell not quoted?"
    return None


def _parquet_sheet(data: bytes, expected: Collection[str]) -> Sheet:
    try:
        texts = [f.name for f in pq.read_schema(pa.BufferReader(data)) if pa.types.is_string(f.type)]
        # As dictionaries, so that a value that is repeated a million times is not written out before it is measured.
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
        facts = file.metadata
        size = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
        names = tuple(file.schema_arrow.names)
        wanted = [i for i, name in enumerate(names) if normal_text(name) in expected or not expected]
        many = facts.num_rows > max(_FEW_ROWS, _ROWS_A_BYTE * len(data))
        if size > SIZE_LIMIT or many or facts.num_rows * max(len(wanted), 1) > CELL_LIMIT:
            raise SpecError(
                f"clinical: found a Parquet file of {facts.num_rows} rows and {size} bytes, which is too large"
            )
        nested = [names[i] for i in wanted if not _is_plain(file.schema_arrow.field(i).type)]
        if nested:
            raise SpecError(
                f"clinical: found nested or binary values in the Parquet column {nested[0]!r}, expected one value a row"
            )
        table = file.read()
        written_out = sum(_size_of_texts(table.column(i)) for i in wanted)
        if written_out > SIZE_LIMIT:
            raise SpecError(
                f"clinical: found a Parquet file with {written_out} bytes of text, expected at most {SIZE_LIMIT}"
            )
        columns = [_values(table.column(i)) if i in wanted else [None] * table.num_rows for i in range(len(names))]
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise SpecError(
            f"clinical: found a Parquet file that cannot be read ({type(error).__name__}); is it complete?"
        ) from error
    rows = tuple(Line(n, cells) for n, cells in enumerate(zip(*columns, strict=True), start=1))
    return Sheet(tuple(map(normal_text, names)), rows, may_have_notes=False)


def _size_of_texts(column: pa.ChunkedArray) -> int:
    """Return the bytes of all texts of a column of dictionaries."""
    chunks = [c for c in column.chunks if pa.types.is_dictionary(c.type) and pa.types.is_string(c.type.value_type)]
    sizes = (pc.sum(pc.take(pc.binary_length(c.dictionary), c.indices)).as_py() for c in chunks)
    return sum(size or 0 for size in sizes)


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    tests = (
        pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string,
        pa.types.is_string_view, pa.types.is_date, pa.types.is_timestamp, pa.types.is_time, pa.types.is_decimal,
        pa.types.is_null,
    )  # fmt: skip
    return any(test(kind) for test in tests)


def _values(column: pa.ChunkedArray) -> list[Cell]:
    """Return a column's values; times are cut to microseconds, and keep their wall clock but not their time zone."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
        values: list[Cell] = [None if v is None else v.replace(tzinfo=None) for v in column.to_pylist()]
        return values
    if pa.types.is_time(kind):
        column = column.cast(pa.time64("us"), safe=False)
    return [normal_text(v) or None if isinstance(v, str) else v for v in column.to_pylist()]
