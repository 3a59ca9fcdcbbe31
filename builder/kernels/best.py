"""Keeping the few best of many scores for each of some columns, as scores come in.

Scores are whole numbers below 2 ** 25 in size. A score and the number of its owner make one integer, so that integers
sort the best first and, of equal ones, the lowest owner. What is kept does not depend on the order of the scores.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.model.compiled import compiled

Places = NDArray[np.int64]

ROOM = 4
"""How many times as many scores are noted as are kept, before all but the best are dropped."""

BITS, OWNER = 32, (1 << 32) - 1
"""Bits of an owner in an integer."""

HIGH = 1 << 25


@dataclass(frozen=True, eq=False)
class Best:
    """The best owners of each column so far.

    Parameters
    ----------
    keys, held
        (column, ROOM * most) integers of scores and owners, and how many of them each column has.
    least
        The lowest score that is still noted for each column.
    seen
        False for every owner, except while owners are told apart.
    """

    keys: Places
    held: Places
    least: NDArray[np.float32]
    seen: NDArray[np.bool_]

    @classmethod
    def of(cls, columns: int, most: int, *, owners: int, lowest: float) -> "Best":
        """Return nothing yet for so many columns, of which each keeps ``most`` of so many owners."""
        keys, held = np.empty((columns, ROOM * most), np.int64), np.zeros(columns, np.int64)
        return cls(keys, held, np.full(columns, lowest, np.float32), np.zeros(owners, bool))

    def add(self, scores: NDArray[np.float32], owners: Places, columns: Places, barred: tuple[Places, Places]) -> None:
        """Note (row, column) scores.

        Parameters
        ----------
        owners, columns
            The owner of each row, and the number of each column. Of several rows of one owner the best counts.
        barred
            Groups of all owners and of all columns: an owner is not noted for a column of its group.
        """
        _add(scores, owners, columns, *barred, self.keys, self.held, self.least, self.seen)

    def pairs(self) -> Places:
        """Return the (pair, 2) owners that are kept and their columns, by column and then the best first."""
        for column in range(len(self.held)):
            _drop(column, self.keys, self.held, self.least, self.seen)
        kept = np.arange(self.keys.shape[1]) < self.held[:, None]
        return np.stack([self.keys[kept] & OWNER, np.nonzero(kept)[0]], axis=1)


@compiled
def _add(
    scores: Any, owners: Any, columns: Any, groups: Any, own: Any, keys: Any, held: Any, least: Any, seen: Any
) -> None:
    floors = least[columns]
    for row in range(scores.shape[0]):
        line, owner = scores[row], owners[row]
        for at in range(columns.shape[0]):
            if line[at] >= floors[at] and groups[owner] != own[columns[at]]:
                column = columns[at]
                keys[column, held[column]] = ((HIGH - np.int64(line[at])) << BITS) | owner
                held[column] += 1
                if held[column] == keys.shape[1]:
                    _drop(column, keys, held, least, seen)
                    floors[at] = least[column]


@compiled
def _drop(column: Any, keys: Any, held: Any, least: Any, seen: Any) -> None:
    """Drop all but the best integers of a column, sorted, and one owner's but for its best."""
    ordered, most, kept = np.sort(keys[column, : held[column]]), keys.shape[1] // ROOM, 0
    for key in ordered:
        if kept < most and not seen[key & OWNER]:
            keys[column, kept] = key
            kept += 1
        seen[key & OWNER] = True
    for key in ordered:
        seen[key & OWNER] = False
    held[column] = kept
    if kept == most:
        least[column] = HIGH - (keys[column, most - 1] >> BITS)
