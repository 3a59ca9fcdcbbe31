"""Measure how intensities and geometry differ between splits and between sites, since models fail on such shifts."""

import warnings
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from builder.model.canonical import Json
from builder.report.bias import difference_of_means, moments
from builder.report.people import MISSING, is_number, levels, numbers

GEOMETRY = (
    *("spacing_slice_mm", "spacing_row_mm", "spacing_column_mm", "slice_thickness_mm"),
    *("slices", "rows", "columns"),
)
INTENSITIES = ("intensity_low", "intensity_median", "intensity_high")
"""1 %, 50 % and 99 % quantiles of the block means of a case's volume as stored in the archive."""

DIGITS = 3
"""Decimals to which values are rounded before comparison: vendors write the same spacing with more or fewer digits."""

FEWEST = 2
EXACT_UP_TO = 10_000
"""Largest product of two group sizes for which the p of their distance is exact (assuming no ties)."""

LOOK_P, LOOK_DISTANCE = 0.05, 0.1
"""A difference is worth a look below this p and from this distance. With many cases, even a tiny one has a small p."""

MOST_GROUPS = 40
"""A column with more groups is not compared."""


def shift(cases: pa.Table, *, by: Sequence[str], mask_below: int = 0) -> list[Json]:
    """Return one entry per quantity and grouping: the moments of each group, and how far apart the groups are.

    Parameters
    ----------
    cases
        One row per case with the quantities and the columns of ``by``.
    by
        Columns whose groups are compared, ``split`` first.

    Returns
    -------
    list
        ``modality`` (each is compared by itself, as the numbers of two mean different things), ``quantity``, ``by``,
        ``groups`` (name to moments), ``difference`` (the largest standardised difference of
        two groups), ``distance`` (the largest two-sample Kolmogorov-Smirnov statistic, 0 for equal distributions and 1
        for disjoint ones), ``between`` (the two groups of that distance) and ``p`` (the smallest p of these tests times
        their number; exact for small groups, where ties only make it larger, and asymptotic for large ones). Groups
        with fewer than two cases, or fewer than ``mask_below``, are not compared.
    """
    present = [name for name in by if name in cases.column_names]
    return [
        {"modality": modality, **entry}
        for grouping in present
        for modality, part in by_modality(cases)
        for entry in _by_group(part, grouping, mask_below)
    ]


def by_modality(cases: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield the cases of each modality by its name, "" where it is not known: their numbers mean different things."""
    if "modality" not in cases.column_names:
        yield "", cases
        return
    names = pc.fill_null(cases["modality"].cast(pa.string()), "")
    for name in sorted(set(names.to_pylist())):
        yield name, cases.filter(pc.equal(names, name))


def _by_group(cases: pa.Table, grouping: str, mask_below: int) -> Iterator[Json]:
    coded = levels(cases[grouping])
    names = [n for n in coded.names if n != MISSING]
    if not 2 <= len(names) <= MOST_GROUPS:
        return
    for quantity in (*GEOMETRY, *INTENSITIES):
        if quantity in cases.column_names and is_number(cases[quantity].type):
            values = numbers(cases[quantity])
            groups = {n: values[coded.codes == coded.names.index(n)] for n in names}
            yield _compared(quantity, grouping, groups, mask_below)


def is_worth_a_look(row: Json) -> bool:
    """Return whether an entry of ``shift`` is large and unlikely to be chance."""
    return row["p"] is not None and row["p"] < LOOK_P and row["distance"] >= LOOK_DISTANCE


def _kolmogorov_smirnov(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float]:
    """Return the distance of two groups, and the probability that groups drawn at random are as far apart."""
    from scipy import stats

    method: Literal["exact", "asymp"] = "exact" if len(first) * len(second) <= EXACT_UP_TO else "asymp"
    with warnings.catch_warnings():  # scipy warns when its exact p rounds above 1 and it falls back to the limit
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation unsuccessful", RuntimeWarning)
        found = stats.ks_2samp(first, second, method=method)
    return float(found.statistic), float(found.pvalue)


def _compared(quantity: str, by: str, groups: dict[str, NDArray[np.float64]], mask_below: int) -> Json:
    known = {n: v[~np.isnan(v)] for n, v in groups.items()}
    enough = {n: np.round(v, DIGITS) for n, v in known.items() if len(v) >= max(FEWEST, mask_below)}
    gaps = [difference_of_means(a, b) for a, b in combinations(enough.values(), 2)]
    tests = {(one, other): _kolmogorov_smirnov(enough[one], enough[other]) for one, other in combinations(enough, 2)}
    furthest = max(tests, key=lambda pair: tests[pair][0]) if tests else None
    return {
        "quantity": quantity,
        "by": by,
        "groups": {n: moments(v, mask_below) for n, v in groups.items()},
        "difference": max((g for g in gaps if g is not None), default=None),
        "distance": tests[furthest][0] if furthest is not None else None,
        "between": list(furthest) if furthest is not None else [],
        # Bonferroni: the smallest of several p is small by chance, so it is multiplied by their number.
        "p": min(1.0, len(tests) * min(p for _, p in tests.values())) if tests else None,
    }
