"""Which numbers of a table a site may tell, so that no small one follows from the others.

A number below ``k`` is hidden, zero as well: a zero says of everybody in its margin that they are not there, and a zero
that becomes a gap in the next version says that somebody came. Others are hidden with it (complementary suppression,
Cox 1980, doi:10.1080/01621459.1980.10477481) until each hidden number has two *witnesses*: whole tables that agree with
everything told, now and before, in which it differs by ``k`` or more. The choice follows Kelly, Golden and Assad (1992,
doi:10.1002/net.3230220407), with whole numbers instead of flows, so that tables of any number of columns are covered.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from builder.errors import PrivacyError
from builder.federation.tables import (
    ANY,
    Counts,
    Disclosed,
    Integers,
    Pattern,
    matrix,
    patterns,
    together,
    vector,
    widened,
)
from builder.federation.witnesses import Known, Ranges, solve

SMALLEST_K: Final = 3
"""Below 3, a person of a cell of two could learn of the other."""


def suppress(
    counts: Counts,
    k: int,
    *,
    asked: Iterable[Sequence[str]] | None = None,
    told: Sequence[Disclosed] = (),
    withheld: Iterable[Pattern] = (),
) -> Disclosed:
    """Return what may be told of a table.

    Parameters
    ----------
    counts
        The table. It has the columns of all tables in ``told``.
    k
        Smallest number that may be told, and the distance to which no hidden number may be narrowed down.
    asked
        Sets of columns whose crossings are told; without it, all cells, margins and the total.
    told
        What was told before of these same persons. It is part of what everybody knows.
    withheld
        Patterns to hide whatever their numbers are, e.g. because their change since an earlier table is small.

    Returns
    -------
    Disclosed
        Every pattern asked for, with or without its number. The numbers that are told are true.

    Raises
    ------
    PrivacyError
        If what was told before would give a hidden number away, the table is too fine, or ``k`` is below 3.
    """
    if k < SMALLEST_K:
        raise PrivacyError(f"k: found {k}, expected {SMALLEST_K} or more: a person in a cell of two knows the other")
    columns = counts.columns
    if set(together([columns, *[table.columns for table in told]])) != set(columns):
        raise PrivacyError(
            "found a table told before with further columns, expected them in the counts of this one too"
        )
    wanted = set(patterns(columns, asked))
    facts = {widened(columns, p, table.columns): n for table in told for p, n in table.shown.items()}
    former = {widened(columns, p, table.columns) for table in told for p in table.hidden}
    every = sorted(wanted | former)
    hiding = _Hiding(counts, every, facts, k)
    beside = (former - wanted).union(withheld)
    hiding.hidden |= np.array([p in beside for p in every], dtype=bool) & ~hiding.fixed
    hiding.protect()
    visible = ~hiding.hidden & (hiding.values >= k)
    told_now = dict(zip(every, hiding.values.tolist(), strict=True))
    shown = {p: told_now[p] for p, seen in zip(every, visible.tolist(), strict=True) if seen and p in wanted}
    return Disclosed(columns, k, shown, tuple(p for p in every if p in wanted and p not in shown))


class _Hiding:
    """Patterns of a table, of which some are hidden; ``protect`` hides more until every one is unknown enough."""

    def __init__(self, counts: Counts, wanted: Sequence[Pattern], facts: Mapping[Pattern, int], k: int) -> None:
        from scipy.sparse import csr_array  # needs a while to load

        truth = vector(counts)
        told = sorted(facts)
        self.k, self.upper = k, float(truth.sum() + k)
        self.sums, self.fact_sums = (csr_array(matrix(counts.columns, p).astype(float)) for p in (wanted, told))
        self.fact_values = np.array([facts[p] for p in told], dtype=np.int64)
        if (self.fact_sums @ truth != self.fact_values).any():
            raise PrivacyError("found other numbers told before of the same persons, expected those of this table")
        self.values: Integers = (self.sums @ truth).astype(np.int64)
        # what everybody knows cannot be taken back
        self.fixed = np.array([p in facts for p in wanted], dtype=bool)
        self.hidden: NDArray[np.bool_] = (self.values < k) & ~self.fixed
        self.ranges = Ranges(self.sums)
        self.ranges.add(truth)
        # What is lost when a pattern is hidden: its persons, and a margin more than the cells that it sums.
        widths = np.array([sum(level == ANY for level in p) for p in wanted], dtype=float)
        self.price = (1.0 + self.values) * np.where(widths == len(counts.columns), 10_000.0, 4.0**widths)

    def protect(self) -> None:
        """Hide further patterns until the witnesses of every hidden one lie ``k`` apart."""
        while True:
            narrow = np.flatnonzero(self.hidden & (self.ranges.width() < self.k))
            if not len(narrow):
                return
            here = int(narrow[np.argmin(self.values[narrow])])
            value, high = int(self.values[here]), int(self.ranges.high[here])
            if value >= self.k:
                done = self._find(here, high=value - self.k) or self._find(here, low=value + self.k)
            else:
                done = self._find(here, low=self.k) if high < self.k else self._find(here, high=0)
            if not done and not self._is_wide(here):
                raise PrivacyError(
                    "found earlier tables that give away a hidden number of this one, expected none; tell nothing more "
                    "of these columns, or ask for less"
                )

    def _is_wide(self, here: int) -> bool:
        """Return whether the ends of what a pattern can be lie far enough apart while all that is shown stays shown."""
        for sign in (1.0, -1.0):
            self._find(here, toward=sign)
        return int(self.ranges.width()[here]) >= self.k

    def _find(self, here: int, *, low: float = -np.inf, high: float = np.inf, toward: float = 0.0) -> bool:
        """Find the witness with this pattern in these bounds that changes the fewest persons in patterns shown.

        With ``toward``, none is changed, and the witness is the one with the fewest (1) or most (-1) in the pattern.
        """
        from scipy.sparse import csr_array, eye_array, hstack, vstack

        shown = np.flatnonzero(~self.hidden & ~self.fixed)
        slack = eye_array(len(shown))
        beside = csr_array((len(self.fact_values) + 1, 2 * len(shown)))
        facts = vstack([self.fact_sums, self.sums[[here]]])
        rows = vstack([hstack([self.sums[shown], slack, -slack]), hstack([facts, beside])], format="csr")
        least, most = (np.concatenate([self.values[shown], self.fact_values, [end]]) for end in (low, high))
        price = self.price[shown]
        cells = self.sums.shape[1]
        cost = np.concatenate([toward * self.sums[[here]].toarray()[0], price, price])
        if toward:
            cost[cells:] = self.upper * len(self.values)
        witness = solve(cost, Known(rows, least, most), self.upper, whole=cells)
        if witness is None:
            return False
        self.hidden |= ((self.sums @ witness).astype(np.int64) != self.values) & ~self.fixed
        self.ranges.add(witness)
        return True
