"""What became of a table's cells: counts by column, and the cells that were not taken."""

from collections import Counter
from dataclasses import dataclass, field, replace

from builder.clinical.cells import Cell, text_of


@dataclass(frozen=True, slots=True)
class CellIssue:
    """A cell whose value was not taken: row of the file from 1, column of the dataset, and what was wrong.

    ``value`` is what the cell shows. It is private, and part of neither ``repr`` nor comparison.
    """

    row: int
    column: str
    problem: str
    value: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the cells of one column.

    Parameters
    ----------
    column, heading
        Its name in the dataset (the heading again for a column that rows are joined by), and in the file.
    filled, lost
        Cells that hold something, and those of them that could not be taken.
    problems
        Why they could not, most frequent first, with the number of cells.
    unmet
        Declared levels that no cell has.
    near
        Those of them that a cell which was not taken differs from by case or white space only.
    """

    column: str
    heading: str
    filled: int
    lost: int
    problems: tuple[tuple[str, int], ...] = ()
    unmet: tuple[str, ...] = ()
    near: tuple[str, ...] = ()


@dataclass
class Count:
    """A tally in the making."""

    filled: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)
    untaken: set[str] = field(default_factory=set)

    def miss(self, issue: CellIssue, cell: Cell) -> CellIssue:
        """Count a cell that was not taken; returns the issue with what the cell shows."""
        try:
            shown = text_of(cell) or ""
        except ValueError:
            shown = ""
        self.filled += 1
        self.problems[issue.problem] += 1
        self.untaken.add(shown)
        return replace(issue, value=shown)

    def tally(self, name: str, heading: str, levels: tuple[str, ...] = ()) -> Tally:
        """Return the counts as they are now."""
        unmet = tuple(level for level in levels if level not in self.seen)
        loose = {_loose(text) for text in self.untaken}
        return Tally(
            name,
            heading,
            self.filled,
            sum(self.problems.values()),
            tuple(sorted(self.problems.items(), key=lambda item: (-item[1], item[0]))),
            unmet,
            tuple(level for level in unmet if _loose(level) in loose),
        )


def _loose(text: str) -> str:
    return " ".join(text.casefold().split())
