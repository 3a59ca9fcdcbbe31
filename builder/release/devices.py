"""Rules that tell by the header which images show text, and where: a table that people can extend."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, cast

from pydicom import Dataset

from builder.errors import SpecError
from builder.release.conditions import Test, parse_condition
from builder.storage import read_at

COLUMNS = ("when", "action", "row_from", "row_to", "column_from", "column_to", "source")
"""``when`` is a condition (``conditions``), the numbers are half-open pixel indices for ``blank``. A negative one
counts from the far edge, and an empty end is that edge. ``source`` says where the line is from."""

Action = Literal["blank", "outside_regions", "clean", "look"]
ACTIONS: tuple[Action, ...] = ("blank", "outside_regions", "clean", "look")
"""``blank``: rectangles that hold text; ``outside_regions``: text stands outside the ultrasound regions that the image
states; ``clean``: no text; ``look``: may show text anywhere."""

OWN = Path(__file__).with_name("devices.csv")
Ends = tuple[int, int | None, int, int | None]


@dataclass(frozen=True)
class Rule:
    """What to do with images that a condition fits."""

    action: Action
    ends: tuple[Ends, ...] = ()

    def boxes(self, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
        """Return the rectangles in an image of ``size`` (rows, columns); those outside of it are left out."""
        found = []
        for row_from, row_to, column_from, column_to in self.ends:
            top, bottom = _range(row_from, row_to, size[0])
            left, right = _range(column_from, column_to, size[1])
            if top < bottom and left < right:
                found.append((top, bottom, left, right))
        return found


def _range(start: int, stop: int | None, length: int) -> tuple[int, int]:
    first = max(start + length, 0) if start < 0 else start
    last = length if stop is None else stop + length if stop < 0 else stop
    return first, min(last, length)


@dataclass(frozen=True)
class Devices:
    """Rules in order, each with its condition: the first that fits an image decides about it."""

    rules: tuple[tuple[Test, Rule], ...]
    tables: tuple[bytes, ...]

    def rule_for(self, header: Dataset) -> Rule:
        """Return the rule for an image; ``look`` if none fits."""
        return next((rule for test, rule in self.rules if test(header)), Rule("look"))

    @property
    def sha256(self) -> str:
        """The digest of all tables."""
        return hashlib.sha256(self.packed).hexdigest()

    @property
    def packed(self) -> bytes:
        """All tables in one file; ``unpack_devices`` is the inverse."""
        return json.dumps([table.decode("utf-8-sig") for table in self.tables]).encode()


def unpack_devices(data: bytes) -> Devices:
    """Read rules that ``Devices.packed`` wrote."""
    return parse_devices([table.encode() for table in json.loads(data)])


def read_devices(url: str | None) -> Devices:
    """Read a table of rules, which are asked first, and then the package's own.

    Raises
    ------
    SpecError
        If a table is not there, or a line is no rule.
    """
    return parse_devices([*([_read(url)] if url else []), OWN.read_bytes()])


def _read(url: str) -> bytes:
    try:
        return read_at(url)
    except (FileNotFoundError, IsADirectoryError):
        raise SpecError(
            "release.text.devices: found no file there, expected a table of rules; check the path"
        ) from None


def parse_devices(tables: Sequence[bytes]) -> Devices:
    """Return the rules of tables, in their order. Raises SpecError as ``read_devices``."""
    rules = [rule for number, table in enumerate(tables, start=1) for rule in _rules(table, number)]
    return Devices(tuple(rules), tuple(tables))


def _rules(table: bytes, number: int) -> Iterable[tuple[Test, Rule]]:
    where = f"release.text.devices, table {number}"
    try:
        rows = list(csv.reader(io.StringIO(table.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise SpecError(f"{where}: found a file that is no CSV in UTF-8, expected one") from None
    if not rows or tuple(rows[0]) != COLUMNS:
        raise SpecError(f"{where}: found another first line, expected the headings {','.join(COLUMNS)}")
    lines = [(line, row) for line, row in enumerate(rows[1:], start=2) if any(cell.strip() for cell in row)]
    for when, group in groupby(lines, key=lambda pair: pair[1][0].strip()):
        parsed = [_line(row, f"{where}, line {line}") for line, row in group]
        if len({action for action, _ in parsed}) > 1:
            raise SpecError(f"{where}: found several actions for {when!r}, expected one")
        try:
            test = parse_condition(when)
        except ValueError as error:
            raise SpecError(f"{where}: when {when!r}: {error}") from None
        yield test, Rule(parsed[0][0], tuple(ends for _, ends in parsed if ends is not None))


def _line(row: Sequence[str], where: str) -> tuple[Action, Ends | None]:
    cells = [cell.strip() for cell in row]
    if len(cells) != len(COLUMNS) or cells[1] not in ACTIONS:
        raise SpecError(f"{where}: found no rule, expected {','.join(COLUMNS)} with an action of {', '.join(ACTIONS)}")
    numbers = cells[2:6]
    if cells[1] != "blank":
        if any(numbers):
            raise SpecError(f"{where}: found numbers with {cells[1]}, expected them only with blank")
        return cast(Action, cells[1]), None
    try:
        row_from, row_to, column_from, column_to = (int(text) if text else None for text in numbers)
    except ValueError:
        raise SpecError(f"{where}: found a range that is no whole number, expected rows and columns") from None
    if row_from is None or column_from is None:
        raise SpecError(f"{where}: found blank without row_from or column_from, expected both")
    return "blank", (row_from, row_to, column_from, column_to)
