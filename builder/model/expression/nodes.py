"""The nodes of an expression, which compute one boolean per row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

COMPARISONS = {
    "=": pc.equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


@dataclass(frozen=True)
class Column:
    """A column, and the family of its type: number, text, bool, date, texts."""

    name: str
    family: str
    at: int

    def evaluate(self, table: pa.Table) -> Any:
        values = table.column(self.name)
        return values.cast(pa.string()) if pa.types.is_dictionary(values.type) else values


_STORED = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
"""Types of literals. Without them pyarrow looks, each time, for libraries whose values a scalar might be."""


@dataclass(frozen=True)
class Literal:
    """A constant."""

    value: str | int | float | bool
    family: str
    at: int

    def evaluate(self, table: pa.Table) -> Any:
        return pa.scalar(self.value, _STORED[type(self.value)])


Operand: TypeAlias = Column | Literal


@dataclass(frozen=True)
class Constant:
    """``true`` or ``false`` as a whole test."""

    value: bool

    def evaluate(self, table: pa.Table) -> Any:
        return pa.repeat(pa.scalar(self.value), table.num_rows)


@dataclass(frozen=True)
class Both:
    """Every part is true."""

    parts: "tuple[Node, ...]"

    def evaluate(self, table: pa.Table) -> Any:
        found = self.parts[0].evaluate(table)
        for part in self.parts[1:]:
            found = pc.and_(found, part.evaluate(table))
        return found


@dataclass(frozen=True)
class Either:
    """Some part is true."""

    parts: "tuple[Node, ...]"

    def evaluate(self, table: pa.Table) -> Any:
        found = self.parts[0].evaluate(table)
        for part in self.parts[1:]:
            found = pc.or_(found, part.evaluate(table))
        return found


@dataclass(frozen=True)
class Not:
    """The part is false."""

    part: "Node"

    def evaluate(self, table: pa.Table) -> Any:
        return pc.invert(self.part.evaluate(table))


@dataclass(frozen=True)
class Compare:
    """Two operands and a sign; false where one is missing."""

    left: Operand
    sign: str
    right: Operand
    ignore_case: bool = False

    def evaluate(self, table: pa.Table) -> Any:
        left, right = self.left.evaluate(table), self.right.evaluate(table)
        if self.ignore_case:
            left, right = pc.utf8_lower(left), pc.utf8_lower(right)
        if self.left.family == "date" or self.right.family == "date":
            left, right = (x.cast(pa.date32()) for x in (left, right))
        found = pc.fill_null(COMPARISONS[self.sign](left, right), False)
        for operand, values in ((self.left, left), (self.right, right)):
            if operand.family == "number" and isinstance(operand, Column):
                found = pc.and_(found, pc.invert(missing(values)))  # NaN != 1 would be true
        return found


@dataclass(frozen=True)
class Member:
    """The column is one of some literals; false where it is missing."""

    column: Column
    values: tuple[Literal, ...]
    ignore_case: bool = False

    def evaluate(self, table: pa.Table) -> Any:
        ignore = self.ignore_case
        return Either(tuple(Compare(self.column, "=", value, ignore) for value in self.values)).evaluate(table)


@dataclass(frozen=True)
class Missing:
    """The column has no value (null or NaN)."""

    column: Column

    def evaluate(self, table: pa.Table) -> Any:
        return missing(self.column.evaluate(table))


@dataclass(frozen=True)
class Search:
    """A text search in the column; false where it is missing."""

    column: Column
    way: str
    pattern: str
    ignore_case: bool = False

    def evaluate(self, table: pa.Table) -> Any:
        values = self.column.evaluate(table)
        if self.column.family == "texts":
            return pa.array([self._is_in(row or ()) for row in values.to_pylist()], pa.bool_())
        search = {
            "matches": pc.match_substring_regex,
            "startswith": pc.starts_with,
            "contains": pc.match_substring,
        }[self.way]
        return pc.fill_null(search(values, self.pattern, ignore_case=self.ignore_case), False)

    def _is_in(self, row: Sequence[str | None]) -> bool:
        if not self.ignore_case:
            return self.pattern in row
        return self.pattern.lower() in (value.lower() for value in row if value is not None)


@dataclass(frozen=True)
class Present:
    """A test that is turned round only where the column has a value: ``not in``, ``not between``, ``not matches``."""

    column: Column
    part: "Node"

    def evaluate(self, table: pa.Table) -> Any:
        return pc.and_(pc.invert(self.part.evaluate(table)), pc.invert(Missing(self.column).evaluate(table)))


@dataclass(frozen=True)
class Flag:
    """A boolean column as a test; false where it is missing."""

    column: Column

    def evaluate(self, table: pa.Table) -> Any:
        return pc.fill_null(self.column.evaluate(table), False)


Node: TypeAlias = Constant | Both | Either | Not | Compare | Member | Missing | Search | Present | Flag


def missing(values: Any) -> Any:
    return pc.is_null(values, nan_is_null=pa.types.is_floating(values.type))
