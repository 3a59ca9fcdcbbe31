"""Separating several slices at one position: find the column that tells them apart, and whether it is time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.imaging.rows import Row
from builder.imaging.stacks.spacing import SAME_POSITION_MM

TIME_RULES = (
    *("temporal_position", "frame_reference_time", "trigger_time", "acquisition_number", "acquisition_datetime"),
    *("acquisition_time", "content_time", "series_time", "instance_number"),
)
"""Columns whose values follow one another in time. Repeats that these tell apart form a time series."""

KEYS = (
    *("temporal_position", "frame_reference_time", "trigger_time", "acquisition_number", "acquisition_datetime"),
    *("acquisition_time", "content_time", "series_time"),
    *("inversion_time", "flip_angle", "convolution_kernel", "slice_thickness", "image_type", "dimension"),
    *("diffusion_direction", "series_number", "echo_number", "contrast_bolus_agent", "series_description"),
)
"""Columns that may tell repeats apart by equal values, the strongest evidence first.

Times are moments (``builder.imaging.stacks.moments``). ``dimension`` and ``diffusion_direction`` exist only for frames
of multi-frame objects (``builder.imaging.multiframe``). Series Number separates copies that share a SeriesInstanceUID.
"""

COUNTERS = frozenset({"acquisition_number", "series_number"})
"""Counters that may restart. The moments of the repeats give their order instead when they do not overlap."""

RANKS = (
    *("frame_reference_time", "trigger_time", "acquisition_datetime", "acquisition_time", "content_time"),
    "instance_number",
)
"""Columns that may tell repeats apart by their order at each position, if all positions repeat equally often."""


@dataclass(frozen=True)
class Part:
    """One repeat of a stack's positions: its rows in the order given, and the rule that separated it ("" for none)."""

    rows: tuple[Row, ...]
    rule: str = ""
    is_time: bool = False


def separate(rows: Sequence[Row], along: NDArray[np.float64]) -> tuple[Part, ...]:
    """Divide parallel slices into parts that hold every position at most once.

    Parameters
    ----------
    rows
        Slices sorted along the normal.
    along
        (n,) mm along the normal, ascending.

    Returns
    -------
    tuple of Part
        In the order of the values that tell them apart. When no column does, one part holds everything.
    """
    slots = np.concatenate([[0], np.cumsum(np.diff(along) >= SAME_POSITION_MM)])
    copies = np.bincount(slots)
    if copies.max() == 1:
        return (Part(tuple(rows)),)
    for names in (*((key,) for key in KEYS), *combinations(KEYS, 2)):
        parts = _by_values(rows, slots, names)
        if len(parts) == copies.max():
            time = any(name in TIME_RULES for name in names)
            parts = _by_moment(parts) if COUNTERS.intersection(names) else parts
            return tuple(Part(part, "+".join(names), time) for part in parts)
    if copies.min() == copies.max():
        for name in RANKS:
            ranked = list(_by_rank(rows, slots, name))
            if ranked:
                return tuple(Part(part, f"order of {name}", name in TIME_RULES) for part in ranked)
    return (Part(tuple(rows)),)


def _by_values(rows: Sequence[Row], slots: NDArray[np.int64], names: Sequence[str]) -> list[tuple[Row, ...]]:
    """Group rows by equal values, in ascending order; return nothing when a group holds a position twice."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(tuple(getattr(row, name) for name in names), []).append(index)
    if any(len(set(slots[group])) < len(group) for group in groups.values()):
        return []
    ordered = sorted(groups, key=lambda values: tuple((v is None, 0 if v is None else v) for v in values))
    return [tuple(rows[i] for i in groups[key]) for key in ordered]


def _by_moment(parts: list[tuple[Row, ...]]) -> list[tuple[Row, ...]]:
    """Order parts by acquisition when each ends before the next begins; otherwise return them as they are."""
    spans: list[tuple[float, float]] = []
    for part in parts:
        moments = [moment for row in part if isinstance(moment := row.acquisition_time, float)]
        if len(moments) < len(part):
            return parts
        spans.append((min(moments), max(moments)))
    ordered = sorted(range(len(parts)), key=lambda index: spans[index])
    if any(spans[a][1] >= spans[b][0] for a, b in pairwise(ordered)):
        return parts
    return [parts[index] for index in ordered]


def _by_rank(rows: Sequence[Row], slots: NDArray[np.int64], name: str) -> Iterator[tuple[Row, ...]]:
    """Yield the first, second, ... row of every position by value; yield nothing when values are missing or equal."""
    positions: list[list[Row]] = [[] for _ in range(int(slots[-1]) + 1)]
    for slot, row in zip(slots, rows, strict=True):
        positions[slot].append(row)
    if any(
        None in (values := [getattr(row, name) for row in group]) or len(set(values)) < len(values)
        for group in positions
    ):
        return
    ordered = [sorted(group, key=lambda row: getattr(row, name)) for group in positions]
    yield from zip(*ordered, strict=True)
