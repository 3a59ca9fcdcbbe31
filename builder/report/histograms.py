"""Histograms of sizes, spacings, intensities and ages: each modality by itself, with small bins pooled."""

import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.model.canonical import Json
from builder.report.people import is_number, numbers
from builder.report.shift import GEOMETRY, INTENSITIES, by_modality

MOST_BINS = 16
"""Most bins of a histogram."""

ALIKE = 1e-3
"""Values that differ by less than this share are one: makers write the same spacing with more or fewer digits."""

Edges = Callable[[NDArray[np.float64]], list[float]]
"""A function from values to the edges of their bins."""

AGE = "age_years"
AGE_WIDTH = 10
OLDEST = 90
"""Ages above 89 are released as 90 (45 CFR 164.514), so that the last bin begins there and has no upper end."""


def histograms(cases: pa.Table, persons: pa.Table, *, mask_below: int = 0) -> list[Json]:
    """Return one entry per quantity and modality, and one for the ages of persons.

    Parameters
    ----------
    cases
        One row per case with the quantities as acquired, and ``modality`` if it is known.
    mask_below
        Smallest count that is shown. Smaller bins are joined with their neighbours; fewer values than that are not
        shown at all.

    Returns
    -------
    list
        ``quantity``, ``modality`` ("" for ages and where it is not known), ``of`` (cases or persons), ``known`` and
        ``missing`` (how many), ``edges`` and ``counts``. A bin holds the values from its lower edge up to, but without,
        its upper edge.
    """
    entries = [
        _entry(quantity, modality, "cases", numbers(part[quantity]), _nice_edges, mask_below)
        for modality, part in by_modality(cases)
        for quantity in (*GEOMETRY, *INTENSITIES)
        if quantity in part.column_names and is_number(part[quantity].type)
    ]
    if AGE in persons.column_names and is_number(persons[AGE].type):
        entries.append(_entry(AGE, "", "persons", numbers(persons[AGE]), _decades, mask_below))
    return [entry for entry in entries if entry["counts"]]


def _entry(quantity: str, modality: str, of: str, values: NDArray[np.float64], edges_of: Edges, below: int) -> Json:
    known = values[np.isfinite(values)]
    missing = len(values) - len(known)
    counts: list[int] = []
    edges: list[float] = []
    if len(known) >= max(1, below) and not 0 < missing < below:  # the sum of the bins would tell how many are missing
        edges = edges_of(known)
        found = np.histogram(np.clip(known, edges[0], np.nextafter(edges[-1], -math.inf)), bins=edges)[0]
        counts, edges = _pooled([int(n) for n in found], edges, below)
    return {
        "quantity": quantity,
        "modality": modality,
        "of": of,
        "known": len(known),
        "missing": missing,
        "edges": edges,
        "counts": counts,
    }


def _pooled(counts: list[int], edges: list[float], below: int) -> tuple[list[int], list[float]]:
    """Join each bin that holds something, but less than ``below``, with the smaller of its neighbours."""
    counts, edges = [*counts], [*edges]
    while len(counts) > 1:
        small = [place for place, count in enumerate(counts) if 0 < count < below]
        if not small:
            break
        place = min(small, key=lambda n: counts[n])
        beside = [n for n in (place - 1, place + 1) if 0 <= n < len(counts)]
        other = min(beside, key=lambda n: (counts[n] == 0, counts[n]))
        first = min(place, other)
        counts[first : first + 2] = [counts[place] + counts[other]]
        del edges[first + 1]
    return counts, edges


def _nice_edges(values: NDArray[np.float64]) -> list[float]:
    """Return edges at multiples of 1, 2 or 5 times a power of ten, so that the bins say nothing of single values."""
    low, high = float(values.min()), float(values.max())
    most = max(abs(low), abs(high))
    if high - low <= ALIKE * most:
        width = 10.0 ** math.floor(math.log10(most)) if most else 1.0
    else:
        width = _nice((high - low) / (MOST_BINS - 2))
    first, last = math.floor(low / width), math.floor(high / width) + 1
    return [round(n * width, 10) for n in range(first, last + 1)]


def _nice(width: float) -> float:
    power = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= width * (1 - 1e-9))


def _decades(values: NDArray[np.float64]) -> list[float]:
    low = AGE_WIDTH * math.floor(float(values.min()) / AGE_WIDTH)
    high = min(OLDEST, AGE_WIDTH * math.floor(float(values.max()) / AGE_WIDTH))
    return [float(n) for n in range(min(low, high), high + AGE_WIDTH + 1, AGE_WIDTH)]
