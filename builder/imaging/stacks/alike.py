"""Deciding which parallel slices belong together, from how an attribute varies along their positions.

One series may hold two reconstructions whose slices interleave, and one volume may have an echo time that was rounded
in every second slice. The values alone do not tell these cases apart. The rules are:

* Values that differ only by rounding are one value.
* Two stated values of an attribute that makes an image (kernel, tube voltage, echo time, ...) separate slices.
* A value that only some slices state, and a value that only says how or when a slice was made (acquisition, time,
  description), separate slices only when each part is a whole stack by itself: the parts interleave, each is evenly
  spaced, and its slices are as thick as they are far apart. Joined, such parts would show the same tissue twice. When
  one part has gaps that the other fills, they are one volume.
* An attribute with a different value in most slices says nothing about stacks.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builder.imaging.rows import Row
from builder.imaging.stacks.spacing import SAME_POSITION_MM, SPACING_TOLERANCE

Rows: TypeAlias = list[Row]
Levels: TypeAlias = list[Any]
"""One value per row, after rounding; None for a row that states none."""

ROUNDING = 0.01
"""Largest relative difference that counts as rounding of one value; real protocols differ by more."""

CONTIGUOUS = 1.25
"""Largest distance between slices, in slice thicknesses, at which a part covers its range by itself."""


@dataclass(frozen=True)
class Trait:
    """An attribute that separates slices.

    Parameters
    ----------
    column
        Column of INSTANCES, which is also the name of the rule.
    least
        Absolute difference up to which two numbers are one value.
    in_blocks
        Whether values that change only once along the positions separate slices too. A scan with thicker slices in its
        upper half is one scan, and its spacing gives the verdict.
    """

    column: str
    least: float = 1e-3
    in_blocks: bool = True


MADE_BY = (
    Trait("echo_time", least=5e-3),
    Trait("b_value", least=0.5),
    Trait("kvp", least=0.5),
    Trait("convolution_kernel"),
    Trait("slice_thickness", in_blocks=False),
    Trait("flip_angle", least=0.05),
    Trait("inversion_time", least=0.5),
    Trait("scanning_sequence"),
)
"""Attributes that make an image: two stated values give two stacks."""

CAME_BY = (
    *("frame_of_reference_uid", "derived", "contrast_bolus_agent", "acquisition_number", "acquisition_time"),
    *("content_time", "series_time", "temporal_position", "series_number", "echo_number", "repetition_time"),
    *("sequence_name", "scan_options", "protocol_name", "series_description", "image_type", "instance_number"),
)
"""Attributes that say how or when a slice was made. Instance numbers separate passes: a pass ends where the positions
go back."""

REPEATED_BY = ("acquisition_number", "series_number")
"""Numbers that count scans. Two values are two CT scans: the table does not go back and forth within one volume."""


def by_making(trait: Trait) -> Callable[[Rows], list[Rows]]:
    """Return the function that cuts parallel slices by an attribute that makes an image and differs between them."""

    def cut(rows: Rows) -> list[Rows]:
        levels = levels_of(rows, trait)
        places = _places(rows)
        stated = {level for level in levels if level is not None}
        if places is None or places.max() == 0 or _is_own(levels, places):
            return [rows]
        if not trait.in_blocks and not _share(levels, places) and not _interleave(levels, places):
            return [rows]
        if len(stated) < 2 and not _makes_two(rows, levels, places, stated_twice=False):
            return [rows]
        return _gathered(rows, levels)

    return cut


def by_coming(column: str) -> Callable[[Rows], list[Rows]]:
    """Return the function that cuts parallel slices by how or when they were made, where that differs between them.

    It leaves repeats of one position together; ``builder.imaging.stacks.repeats`` separates those.
    """

    def cut(rows: Rows) -> list[Rows]:
        if column != "instance_number" and not _makes_parts(levels := [_value(row, column) for row in rows]):
            return [rows]
        places = _places(rows)
        if places is None or len(set(places.tolist())) < len(rows):
            return [rows]
        if column == "instance_number" and not _makes_parts(levels := _passes(rows, places)):
            return [rows]
        twice = column in REPEATED_BY and rows[0].modality == "CT" and None not in levels
        blocks = column == "contrast_bolus_agent" and not _interleave(levels, places)
        if blocks or _makes_two(rows, levels, places, stated_twice=twice):
            return _gathered(rows, levels)
        return [rows]

    return cut


def tolerated(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return a note for each attribute that makes an image but differs between the slices of a stack."""
    return tuple(f"{trait.column}_varies" for trait in MADE_BY if not says_one_thing(rows, trait.column))


def levels_of(rows: Sequence[Row], trait: Trait) -> Levels:
    """Return the values of a trait, with values that differ only by rounding replaced by the smallest of them."""
    values = [_value(row, trait.column) for row in rows]
    numbers = sorted({v for v in values if isinstance(v, (int, float))})
    first: dict[Any, Any] = {}
    for before, number in zip([None, *numbers], numbers, strict=False):
        near = before is not None and number - before <= max(trait.least, ROUNDING * abs(number))
        first[number] = first[before] if near else number
    return [first.get(v, v) for v in values]


def _value(row: Row, column: str) -> Any:
    """Return a cell, with case and spacing of text normalised; ``derived`` is read from Image Type."""
    if column == "derived":
        return "DERIVED" in (row.image_type or "").upper().split("\\") or None
    value = getattr(row, column)
    return " ".join(value.upper().split()) or None if isinstance(value, str) else value


def _makes_parts(levels: Levels) -> bool:
    """Return whether values divide the slices into at least two parts of at least two slices each."""
    counts = Counter(levels)
    return 2 <= len(counts) <= len(levels) / 2 and min(counts.values()) >= 2


def says_one_thing(rows: Sequence[Row], column: str) -> bool:
    """Return whether all rows have one value, apart from case and spacing."""
    name = "image_type" if column == "derived" else column
    raw = [getattr(row, name) for row in rows]
    if raw.count(raw[0]) == len(raw):
        return True
    first = _value(rows[0], column)
    return all(_value(row, column) == first for row in rows)


def _gathered(rows: Rows, levels: Levels) -> list[Rows]:
    groups: dict[Any, Rows] = {}
    for row, level in zip(rows, levels, strict=True):
        groups.setdefault(level, []).append(row)
    return list(groups.values())


def _places(rows: Rows) -> NDArray[np.int64] | None:
    """Return the rank of each row's position along the common normal, from 0; None when positions are unknown."""
    along = _along(rows)
    if along is None:
        return None
    order = np.argsort(along, kind="stable")
    steps = np.concatenate([[0], np.cumsum(np.diff(along[order]) >= SAME_POSITION_MM)])
    places = np.empty(len(rows), dtype=np.int64)
    places[order] = steps
    return places


def _along(rows: Rows) -> NDArray[np.float64] | None:
    """Return the (n,) positions in mm along the normal of the first row; None when they are unknown."""
    cosines, positions = rows[0].image_orientation_patient, [row.image_position_patient for row in rows]
    if not cosines or len(cosines) != 6 or any(not p or len(p) != 3 for p in positions):
        return None
    normal = np.cross(cosines[:3], cosines[3:])
    length = float(np.linalg.norm(normal))
    return np.array(positions) @ (normal / length) if length > 0 else None


def _passes(rows: Rows, places: NDArray[np.int64]) -> Levels:
    """Return how often positions went back before each slice, in instance number order; None without the numbers."""
    if any(row.instance_number is None for row in rows):
        return [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda index: rows[index].instance_number or 0)
    steps = np.diff(places[order])
    back = steps < 0 if np.median(steps) > 0 else steps > 0
    passes = np.empty(len(rows), dtype=np.int64)
    passes[order] = np.concatenate([[0], np.cumsum(back)])
    return [int(number) for number in passes]


def _is_own(levels: Levels, places: NDArray[np.int64]) -> bool:
    """Return whether most positions have a value of their own, as an effective echo or inversion time may."""
    stated = {level for level in levels if level is not None}
    apart = len({(level, place) for level, place in zip(levels, places.tolist(), strict=True)}) == places.max() + 1
    return bool(apart) and len(stated) > max(3, (places.max() + 1) / 4)


def _share(levels: Levels, places: NDArray[np.int64]) -> bool:
    """Return whether any position has several values."""
    pairs = set(zip(places.tolist(), levels, strict=True))
    return len(pairs) > len({place for place, _ in pairs})


def _interleave(levels: Levels, places: NDArray[np.int64]) -> bool:
    """Return whether a value comes back after another one along the positions."""
    ordered = [levels[i] for i in np.argsort(places, kind="stable")]
    changes = sum(a != b for a, b in pairwise(ordered))
    return bool(changes > len(set(levels)) - 1)


def _makes_two(rows: Rows, levels: Levels, places: NDArray[np.int64], *, stated_twice: bool) -> bool:
    """Return whether rows of different values are stacks by themselves rather than parts of one volume.

    ``stated_twice`` says that the attribute alone proves two stacks, so that slice thickness is not compared.
    """
    if _share(levels, places):
        return True
    return _interleave(levels, places) and all(
        _is_whole(part, any_thickness=stated_twice) for part in _gathered(rows, levels)
    )


def _is_whole(part: Rows, *, any_thickness: bool) -> bool:
    """Return whether slices are evenly spaced and thick enough to cover the space between them."""
    along = _along(part)
    if along is None or len(part) < 2:
        return False
    gaps = np.diff(np.sort(along))
    gap = float(np.median(gaps))
    if gap < SAME_POSITION_MM or np.abs(gaps - gap).max() > SPACING_TOLERANCE * gap:
        return False
    thick = [row.slice_thickness or row.spacing_between_slices for row in part]
    known = [t for t in thick if t and t > 0]
    return any_thickness or (bool(known) and gap <= CONTIGUOUS * float(np.median(known)))
