"""How intensities and geometry differ between splits and between sites: what a model could stumble over."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.report.bias import difference_of_means, moments
from builder.report.people import MISSING, is_number, levels, numbers

Json = Any

GEOMETRY = (
    *("spacing_slice_mm", "spacing_row_mm", "spacing_column_mm", "slice_thickness_mm"),
    *("slices", "rows", "columns"),
)
INTENSITIES = ("intensity_low", "intensity_median", "intensity_high")
"""1 %, 50 % and 99 % of the block means of a case's volume as the archive holds it."""

DIGITS = 3
"""Decimals that are compared: makers write one spacing with more or fewer digits, and that is no difference."""

FEWEST = 2
MOST_GROUPS = 40
"""A column of more groups gets no table."""


def shift(cases: pa.Table, *, by: Sequence[str], mask_below: int = 0) -> list[Json]:
    """One entry a quantity and grouping: moments a group, and how far apart the groups lie.

    Parameters
    ----------
    cases
        One row a case with the quantities and the columns of ``by``.
    by
        Columns whose groups are compared, ``split`` first.

    Returns
    -------
    list
        ``quantity``, ``by``, ``groups`` (name to moments), ``difference``: the largest standardised difference of two
        groups, ``distance``: the largest two-sample Kolmogorov-Smirnov statistic, 0 for equal distributions and 1 for
        disjoint ones, with its two groups, and ``p``: the smallest p of these tests times their number. Groups below
        two cases, or below ``mask_below``, are not compared.
    """
    entries = []
    for grouping in by:
        if grouping not in cases.column_names:
            continue
        coded = levels(cases[grouping])
        names = [n for n in coded.names if n != MISSING]
        if not 2 <= len(names) <= MOST_GROUPS:
            continue
        for quantity in (*GEOMETRY, *INTENSITIES):
            if quantity in cases.column_names and is_number(cases[quantity].type):
                values = numbers(cases[quantity])
                groups = {n: values[coded.codes == coded.names.index(n)] for n in names}
                entries.append(_compared(quantity, grouping, groups, mask_below))
    return entries


def _kolmogorov_smirnov(first: NDArray[np.float64], second: NDArray[np.float64]) -> Any:
    from scipy import stats

    return stats.ks_2samp(first, second, method="asymp")  # the exact one gives up on ties


def _compared(quantity: str, by: str, groups: dict[str, NDArray[np.float64]], mask_below: int) -> Json:
    known = {n: v[~np.isnan(v)] for n, v in groups.items()}
    enough = {n: np.round(v, DIGITS) for n, v in known.items() if len(v) >= max(FEWEST, mask_below)}
    gaps = [difference_of_means(a, b) for a, b in combinations(enough.values(), 2)]
    tests = {
        (one, other): _kolmogorov_smirnov(enough[one], enough[other])
        for one, other in combinations(enough, 2)
    }
    furthest = max(tests, key=lambda pair: tests[pair].statistic) if tests else None
    return {
        "quantity": quantity,
        "by": by,
        "groups": {n: moments(v, mask_below) for n, v in groups.items()},
        "difference": max((g for g in gaps if g is not None), default=None),
        "distance": float(tests[furthest].statistic) if furthest is not None else None,
        "between": list(furthest) if furthest is not None else [],
        "p": min(1.0, len(tests) * min(float(t.pvalue) for t in tests.values())) if tests else None,
    }
