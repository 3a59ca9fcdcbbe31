"""Rows of a text table: its encoding, its separator, and the rows that do not fit the headings."""

import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from builder.clinical.cells import normal_text
from builder.errors import SpecError

SEPARATORS: Final = ("\t", ";", ",", "|")
_FIELD_LIMIT: Final = 1_000_000
_MOST_CELLS: Final = 100_000
_MOST_LINES: Final = 1_000_000
"""Lines of a text that may be blank but for a few."""
_SAMPLE: Final = 25
"""Number of rows below the headings that decide the separator."""
_ODD_WORD: Final = re.compile(
    r"[^\W\d_][¢£¤¥¦§¨¬¯¶¹³¼½¾¿†\u00b8\u02c6\u02dc‡‰ƒ\u201a\u201e][^\W\d_]"  # a sign between two letters
    r"|[a-zß-ÿ][ŠŽŸŒ]|£[a-zß-ÿ]{2}"  # a capital behind a small letter, or a sign that begins a word
    r"|[ÂÃ][\u00a1-\u00bf]"  # UTF-8 in a file that also holds other bytes
    r"|[À-ÖØ-öø-ÿ]{4}"  # letters of another script
)
"""What Windows-1252 makes of words in another encoding of one byte a letter, and words in it hardly ever have."""


@dataclass(frozen=True)
class TextRows:
    """Records of a text table, and what it was decoded as."""

    rows: tuple[tuple[str, ...], ...]
    encoding: str
    hinted: bool
    """Whether the first row is Excel's ``sep=;``, which is no row of the table."""


def text_rows(data: bytes, *, header_row: int, expected: Collection[str], encoding: str | None) -> TextRows:
    """Return the records of a text table.

    Parameters
    ----------
    expected
        Headings that the table should have; the separator is the one under which most of them are found.
    encoding
        Name of the text's encoding; told from the bytes without it.

    Raises
    ------
    SpecError
        When the bytes are no text, or a quoted cell is not closed.
    """
    text, found = _decoded(data, encoding)
    if "\0" in text:
        raise SpecError("clinical: found binary content, expected CSV, TSV, XLSX or Parquet")
    hint = re.match(r'"?sep=(.)"?[ ,;\t]*(?:\r\n|\r|\n)', text)
    lines = list(io.StringIO(text, newline=""))
    if len(lines) > _MOST_LINES and 10 * sum(map(str.isspace, lines)) > 9 * len(lines):
        raise SpecError(f"clinical: found {len(lines)} lines that are nearly all blank, expected a table; delete those")
    place = header_row if hint and header_row == 1 else header_row - 1
    _check_width(lines[: place + 1 + _SAMPLE])
    separator = hint[1] if hint else _separator(lines, place, expected)
    rows = tuple(_records(lines, separator, place))
    return TextRows(tuple(tuple(_unwrapped(cell) for cell in row) for row in rows), found, hint is not None)


def _check_width(lines: Sequence[str]) -> None:
    """Refuse a line that may have more cells than any table has columns, before it is split. Raises SpecError."""
    for number, line in enumerate(lines, start=1):
        most = max(line.count(separator) for separator in SEPARATORS) if len(line) > _MOST_CELLS else 0
        if most > _MOST_CELLS:
            raise SpecError(f"clinical: found a line {number} of {most} cells, expected at most {_MOST_CELLS}")


def _decoded(data: bytes, encoding: str | None) -> tuple[str, str]:
    """Decode UTF-8 if it is valid, UTF-16 by its mark or zero bytes, else Windows-1252, which spreadsheets write."""
    try:
        if encoding is not None:
            return data.decode(encoding).removeprefix("\ufeff"), encoding
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return data.decode("utf-16"), "utf-16"
        wide = _wide(data)
        if wide is not None:
            return data.decode(wide), wide
        try:
            return data.decode("utf-8-sig"), "utf-8"
        except UnicodeDecodeError:
            return _western(data.decode("cp1252")), "cp1252"
    except LookupError:
        raise SpecError(f"clinical: found the encoding {encoding!r}, expected a name such as cp1250") from None
    except UnicodeDecodeError as error:
        expected = encoding or ("UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "UTF-8 or Windows-1252")
        raise SpecError(
            f"clinical: found bytes at {error.start} that are not {expected}; state the table's encoding"
        ) from None


def _western(text: str) -> str:
    """Decode Windows-1252. Raises SpecError if its letters make no words, as happens with Mac Roman."""
    odd = _ODD_WORD.search(text)
    if odd is None:
        return text
    line = text.count("\n", 0, odd.start()) + 1
    raise SpecError(
        f"clinical: found bytes in line {line} that are neither UTF-8 nor words in Windows-1252, expected one of "
        "them or UTF-16; state the table's encoding, such as cp1250 or mac_roman, or cp1252 if it is right"
    )


def _wide(data: bytes) -> str | None:
    """Return whether this is UTF-16 without a mark: western text has a zero in nearly every second byte."""
    start = data[:400]
    if len(start) < 8 or len(data) % 2:
        return None
    if start[1::2].count(0) > 0.8 * len(start[1::2]) and not start[0::2].count(0):
        return "utf-16-le"
    if start[0::2].count(0) > 0.8 * len(start[0::2]) and not start[1::2].count(0):
        return "utf-16-be"
    return None


def _separator(lines: Sequence[str], place: int, expected: Collection[str]) -> str:
    """Return the separator under which most expected headings are found, then the one most rows agree on."""

    def fit(separator: str) -> tuple[int, float, int]:
        rows = _sample(lines, separator, place + 1 + _SAMPLE)[place:]
        if not rows:
            return (0, 0.0, 0)
        headings = [normal_text(cell) for cell in rows[0]]
        body = [row for row in rows[1:] if row]
        alike = sum(len(row) == len(headings) for row in body) / len(body) if body and len(headings) > 1 else 0.0
        return (len({*headings} & {*expected}), alike, len(headings))

    return max(SEPARATORS, key=fit)


def _sample(lines: Sequence[str], separator: str, count: int) -> list[list[str]]:
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t", strict=False)
    rows = []
    try:
        for row in reader:
            rows.append(row)
            if len(rows) == count:
                break
    except csv.Error:
        pass  # the strict reading that follows says what is wrong
    return rows


def _records(lines: Sequence[str], separator: str, place: int) -> Iterator[list[str]]:
    """Yield all records. An unclosed quote is refused, because it swallows the rows behind it."""
    previous = csv.field_size_limit(_FIELD_LIMIT)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t", strict=True)
    start, number, width = 0, 0, 0
    try:
        for row in reader:
            if number == place:
                width = len(row)
            spanned = lines[start : reader.line_num]
            if len(spanned) > 1 and number > place and _are_rows(spanned, separator, width):
                raise SpecError(_open_quote(start))
            yield row
            start, number = reader.line_num, number + 1
    except csv.Error as error:
        if "field larger" in str(error):
            raise SpecError(
                f"clinical: found a cell of more than {_FIELD_LIMIT} characters in line {start + 1}"
            ) from error
        raise SpecError(_open_quote(start)) from error
    finally:
        csv.field_size_limit(previous)


def _are_rows(lines: Sequence[str], separator: str, width: int) -> bool:
    """Return whether each line of one record would be a row of its own, which means that a quote was left open."""
    return width > 1 and all(line.count(separator) == width - 1 for line in lines)


def _open_quote(start: int) -> str:
    return (
        f"clinical: found a quote in line {start + 1} of the table that is not closed in its cell, "
        "expected every quoted cell to be closed and quotes inside one to be doubled"
    )


def _unwrapped(cell: str) -> str:
    """Turn ``="0017"``, which keeps spreadsheets from reading an id as a number, into 0017."""
    found = re.fullmatch(r'\s*="([^"]*)"\s*', cell)
    return found[1] if found else cell
