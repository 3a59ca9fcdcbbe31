"""Tables of counts that cross a few columns, and what is told of them: patterns with a number, or without one."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from builder.errors import PrivacyError, SpecError, counted

ANY: Final = "*"
"""What stands in a pattern for every level of a column."""

MOST_CELLS: Final = 2000
"""Most combinations of levels that the columns of a table may have together."""

Pattern = tuple[str, ...]
"""One level or ``ANY`` a column: a cell, a margin, or (``ANY`` alone) the total."""

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """A column with a closed list of levels, which no row of the archive can add to.

    Parameters
    ----------
    name
        As the spec names it.
    levels
        All levels that a row may have, those for "missing" and "other" included.
    meaning
        What decides the level of a row (edges of bands, groups of values). Two columns of one name are the same only
        if they mean the same.
    """

    name: str
    levels: tuple[str, ...]
    meaning: str = ""

    def __post_init__(self) -> None:
        if not self.levels or len(set(self.levels)) < len(self.levels) or ANY in self.levels:
            raise SpecError(
                f"column {self.name}: found levels that repeat, are {ANY!r} or none, expected distinct ones"
            )


@dataclass(frozen=True)
class Counts:
    """How many persons lie in each cell. Private: it never leaves a site.

    Parameters
    ----------
    columns
        In order of importance.
    cells
        One level a column to persons; cells that it does not name have none.
    """

    columns: tuple[Column, ...]
    cells: Mapping[Pattern, int]


@dataclass(frozen=True)
class Disclosed:
    """What a site tells of a table.

    Parameters
    ----------
    columns
        As in the table.
    k
        Smallest number that is told.
    shown
        Pattern to persons.
    hidden
        Patterns whose number is not told, sorted. Which of them are small cannot be seen.
    """

    columns: tuple[Column, ...]
    k: int
    shown: Mapping[Pattern, int]
    hidden: tuple[Pattern, ...]


def count(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Counts:
    """Count rows of one level a column.

    Raises
    ------
    SpecError
        If a row has a level that its column does not list.
    """
    known = [frozenset(column.levels) for column in columns]
    cells: dict[Pattern, int] = {}
    for row in rows:
        wrong = [c.name for c, levels, value in zip(columns, known, row, strict=True) if value not in levels]
        if wrong:
            raise SpecError(f"column {wrong[0]}: found a value beside its levels, expected one of them; add a level")
        cells[tuple(row)] = cells.get(tuple(row), 0) + 1
    return Counts(tuple(columns), cells)


def patterns(columns: Sequence[Column], asked: Iterable[Sequence[str]] | None = None) -> list[Pattern]:
    """Return the patterns of a table: its cells, all margins and the total, or those that ``asked`` names.

    Parameters
    ----------
    asked
        Sets of columns that are crossed, e.g. ``[(), ("sex",), ("sex", "grade")]``; others are ``ANY``.
    """
    check_size(columns)
    if asked is None:
        return list(product(*[(*column.levels, ANY) for column in columns]))
    wanted = {frozenset(names) for names in asked}
    strange = sorted(set().union(*wanted) - {column.name for column in columns})
    if strange:
        raise SpecError(f"asked: found the columns {strange}, expected some of {[c.name for c in columns]}")
    found: set[Pattern] = set()
    for names in wanted:
        found.update(product(*[column.levels if column.name in names else (ANY,) for column in columns]))
    return sorted(found)


def check_size(columns: Sequence[Column]) -> None:
    """Raise PrivacyError if columns cross into more cells than can be proved to be safe."""
    cells = 1
    for column in columns:
        cells *= len(column.levels)
    if cells > MOST_CELLS:
        raise PrivacyError(
            f"found {counted(cells, 'cell')} of {' x '.join(c.name for c in columns)}, expected at most "
            f"{MOST_CELLS:,}: strata this fine would single persons out; cross fewer columns or use wider bands"
        )


def matrix(columns: Sequence[Column], wanted: Sequence[Pattern]) -> NDArray[np.bool_]:
    """Return (pattern, cell) which cells each pattern sums; cells are in the order of ``cells_of``."""
    shape = [len(c.levels) for c in columns]
    codes = np.indices(shape).reshape(len(columns), int(np.prod(shape, dtype=np.int64)))
    inside = np.ones((len(wanted), codes.shape[1] if len(columns) else 1), dtype=bool)
    for place, column in enumerate(columns):
        code = {level: i for i, level in enumerate(column.levels)}
        own = np.array([-1 if p[place] == ANY else code[p[place]] for p in wanted], dtype=np.int64)
        inside &= (own[:, None] == codes[place][None, :]) | (own < 0)[:, None]
    return inside


def cells_of(columns: Sequence[Column]) -> list[Pattern]:
    """Return every combination of levels, the last column fastest."""
    return list(product(*[column.levels for column in columns]))


def vector(counts: Counts) -> Integers:
    """Return (cell,) the counts in the order of ``cells_of``."""
    return np.array([counts.cells.get(cell, 0) for cell in cells_of(counts.columns)], dtype=np.int64)


def widened(columns: Sequence[Column], pattern: Pattern, own: Sequence[Column]) -> Pattern:
    """Return a pattern over ``own`` columns as one over more ``columns``."""
    levels = {column.name: level for column, level in zip(own, pattern, strict=True)}
    return tuple(levels.get(column.name, ANY) for column in columns)


def together(tables: Iterable[Sequence[Column]]) -> tuple[Column, ...]:
    """Return the columns of several tables, each once.

    Raises
    ------
    PrivacyError
        If a column has other levels, or means something else, than in another table: the difference of two
        overlapping levels can be a single person.
    """
    found: dict[str, Column] = {}
    for columns in tables:
        for column in columns:
            if found.setdefault(column.name, column) != column:
                raise PrivacyError(
                    f"column {column.name}: found other levels than it was told with before, expected the same ones: "
                    "the difference of two overlapping bands or groups can be a single person; ask with the levels of "
                    "the earlier table"
                )
    return tuple(found.values())


def part(table: Disclosed, names: Collection[str]) -> Disclosed:
    """Return what a table says of some of its columns, and of all persons."""
    places = [place for place, column in enumerate(table.columns) if column.name in names]
    beside = [place for place in range(len(table.columns)) if place not in places]

    def kept(pattern: Pattern) -> bool:
        return all(pattern[place] == ANY for place in beside)

    def cut(pattern: Pattern) -> Pattern:
        return tuple(pattern[place] for place in places)

    shown = {cut(pattern): number for pattern, number in table.shown.items() if kept(pattern)}
    hidden = tuple(sorted(cut(pattern) for pattern in table.hidden if kept(pattern)))
    return Disclosed(tuple(table.columns[place] for place in places), table.k, shown, hidden)
