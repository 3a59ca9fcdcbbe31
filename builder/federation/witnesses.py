"""Tables that somebody who knows only what was told could take for the true one: they prove what stays unknown."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import PrivacyError
from builder.federation.tables import Integers

Floats = NDArray[np.float64]
Sparse = Any
"""``scipy.sparse.csr_array``, whose module is imported where it is needed."""


@dataclass(frozen=True, eq=False)
class Known:
    """Linear facts about whole numbers that are not negative.

    Parameters
    ----------
    rows
        (fact, number) coefficients.
    low, high
        (fact,) bounds of each sum.
    """

    rows: Sparse
    low: Floats
    high: Floats


@dataclass(eq=False)
class Ranges:
    """How far apart the witnesses found so far lie in each sum.

    Parameters
    ----------
    sums
        (sum, number) coefficients.
    """

    sums: Sparse
    low: Integers = field(init=False)
    high: Integers = field(init=False)

    def __post_init__(self) -> None:
        self.low = np.full(self.sums.shape[0], np.iinfo(np.int64).max // 4)
        self.high = np.full(self.sums.shape[0], -(np.iinfo(np.int64).max // 4))

    def add(self, witness: Integers) -> None:
        """Count a witness."""
        values = (self.sums @ witness.astype(float)).round().astype(np.int64)
        self.low, self.high = np.minimum(self.low, values), np.maximum(self.high, values)

    def width(self) -> Integers:
        """Return (sum,) the distance between the farthest witnesses; negative before the first."""
        return self.high - self.low


def solve(cost: Floats, known: Known, upper: float, *, whole: int) -> Integers | None:
    """Return the cheapest whole numbers that agree with what is known, or None if there are none.

    Parameters
    ----------
    cost
        (column,) of the numbers and, behind them, of slack columns that ``known.rows`` has too.
    upper
        Most that a number can be.
    whole
        How many of the columns are numbers.

    Raises
    ------
    PrivacyError
        If the solver gives up, or what it found does not agree to the digit: nothing is told that is not proved.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # needs half a second to load

    answer = milp(
        cost,
        constraints=LinearConstraint(known.rows, known.low, known.high),
        integrality=np.ones(len(cost), dtype=np.int64),
        bounds=Bounds(np.zeros(len(cost)), np.full(len(cost), upper)),
        options={"mip_rel_gap": 0.02, "time_limit": 60.0},
    )
    if answer.status == 2:  # infeasible
        return None
    if answer.x is None:
        raise PrivacyError("the table is too fine to prove what it hides; cross fewer columns or use wider bands")
    found = np.rint(answer.x)
    sums = known.rows @ found
    if (found < 0).any() or (sums < known.low - 1e-6).any() or (sums > known.high + 1e-6).any():
        raise PrivacyError("the solver found no whole numbers; cross fewer columns or use wider bands")
    return found[:whole].astype(np.int64)
