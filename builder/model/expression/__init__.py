"""The small language that selects rows of a table: ``age_years >= 18 and vendor in ['siemens', 'ge']``.

::

    either     = both { "or" both }
    both       = negation { "and" negation }
    negation   = "not" negation | test
    test       = "(" either ")" | "true" | "false" | boolean column | operand comparison
    comparison = ("=" | "==" | "!=" | "<" | "<=" | ">" | ">=") operand ["ignoring case"]
               | ["not"] "in" "[" literal { "," literal } "]" ["ignoring case"]
               | ["not"] "between" literal "and" literal         both ends included
               | "is" ["not"] "missing"
               | ["not"] "matches" text ["ignoring case"]        an RE2 regular expression found anywhere
               | ["not"] "startswith" text ["ignoring case"]
               | ["not"] "contains" text ["ignoring case"]       part of a text, or an element of a list of texts
    operand    = column | literal
    literal    = number | 'text' | "text" | "true" | "false"
    column     = name | `any name`

A comparison with a missing value is false, whatever the operator, so ``not (age_years > 18)`` is true where the age is
missing. Keywords may be written in capitals. Types are checked against the schema before anything is computed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from builder.errors import SpecError
from builder.model.expression.nodes import Both, Column, Compare, Either, Literal, Member, Node, Not, Present
from builder.model.expression.parse import parse, suggest
from builder.model.expression.parse import withhold_literals as withhold_literals

_MAXIMUM_TEXT = 10_000


@dataclass(frozen=True)
class Expression:
    """A checked expression.

    Parameters
    ----------
    text
        As written.
    columns
        Names it reads, sorted.
    """

    text: str
    columns: tuple[str, ...]
    _root: "Node"

    def mask(self, table: pa.Table) -> pa.BooleanArray:
        """Return a mask that is true for the rows that fulfil the expression, and never null.

        Raises
        ------
        SpecError
            When ``table`` lacks a column, or has it in a type the comparison does not fit.
        """
        missing = [name for name in self.columns if name not in table.schema.names]
        if missing:
            raise SpecError(f"{self.text!r}: found no column {missing[0]!r}{suggest(missing[0], table.schema.names)}")
        try:
            found = self._root.evaluate(table)
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            raise SpecError(f"{self.text!r}: the table's types are not those it was checked with ({error})") from error
        return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found

    @property
    def texts(self) -> tuple[tuple[str, str], ...]:
        """Columns and the texts they are compared with for equality, in the order they are written."""
        return tuple(_texts(self._root))

    def filter(self, table: pa.Table) -> pa.Table:
        """Return the rows of ``table`` that fulfil the expression, in their order. Raises SpecError as ``mask``."""
        return table.filter(self.mask(table))


def _texts(node: object) -> Iterator[tuple[str, str]]:
    match node:
        case Compare(Column(name=name), "=" | "==", Literal(value=str() as value)):
            yield name, value
        case Compare(Literal(value=str() as value), "=" | "==", Column(name=name)):
            yield name, value
        case Member(Column(name=name), values):
            yield from ((name, literal.value) for literal in values if isinstance(literal.value, str))
        case Both(parts) | Either(parts):
            for part in parts:
                yield from _texts(part)
        case Not(part) | Present(part=part):
            yield from _texts(part)


def compile(text: str, schema: pa.Schema) -> Expression:
    """Parse ``text`` and check it against ``schema``.

    Raises
    ------
    SpecError
        ``column N: what was found, what was expected``, with the nearest valid name for an unknown column.
    """
    if len(text) > _MAXIMUM_TEXT:
        raise SpecError(f"found an expression of {len(text)} characters, expected at most {_MAXIMUM_TEXT}")
    root, columns = parse(text, schema)
    return Expression(text, columns, root)
