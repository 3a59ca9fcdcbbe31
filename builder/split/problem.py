"""What a split has to round: exact shares of cells, strata, levels and the total."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Problem:
    """What to round.

    Parameters
    ----------
    shares
        (cell, split) exact share of each cell, in ``scale``-ths of a person; every row sums to whole persons.
    scale
        Parts a person has.
    stratum_of
        (cell,) the stratum of each cell.
    levels_of
        (cell, width) the levels of each cell, padded with ``len(targets)``.
    targets
        (level, split) exact share of each level, in ``scale``-ths.
    total
        (split,) exact share of all persons, in ``scale``-ths.
    keep_total
        (split,) pair of bounds the total must keep, in persons.
    order
        (cell,) keyed rank of each cell: decides between equals.
    """

    shares: Integers
    scale: int
    stratum_of: Integers
    levels_of: Integers
    targets: Integers
    total: Integers
    keep_total: tuple[Integers, Integers]
    order: Integers
