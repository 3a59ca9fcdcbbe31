"""The rules that cut a series into groups that no stack may mix: each has a name and a function that divides rows."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import mul
from typing import Any

from builder.imaging.rows import Row
from builder.imaging.stacks.alike import CAME_BY, MADE_BY, Rows, by_coming, by_making, says_one_thing
from builder.imaging.stacks.kinds import Kind, component_of, kind_of

ORIENTATION_TOLERANCE = 1e-3
"""Largest difference of a direction cosine (0020,0037) within one stack: 0.06 degrees, above vendors' rounding."""

PIXEL_TOLERANCE = 1e-3
"""Largest relative difference of PixelSpacing (0028,0030) within one stack."""

UNIT_TOLERANCE = 1e-2
"""Largest deviation of direction cosines from unit length and right angle. Files with three decimals pass."""

NOT_FINITE = "position, orientation or spacing is not finite"


def pure_groups(rows: Rows) -> list[tuple[str, Rows]]:
    """Cut rows by all rules, and return each group with the last rule that cut it off."""
    groups: list[tuple[str, Rows]] = [("", rows)] if rows else []
    for rule, cut in RULES:
        groups = [
            (rule if len(parts) > 1 else before, part) for before, group in groups for parts in [cut(group)]
            for part in parts
        ]  # fmt: skip
    return groups


def geometry_fault(row: Row) -> str | None:
    """Return why the position of a slice is unknown, or None when it is known."""
    position, cosines, spacing = (
        row.image_position_patient, row.image_orientation_patient, row.pixel_spacing
    )  # fmt: skip
    if not position or not cosines:
        return "no ImagePositionPatient or ImageOrientationPatient"
    if len(position) != 3 or len(cosines) != 6:
        return f"{len(position)} position and {len(cosines)} orientation values, expected 3 and 6"
    if not spacing or len(spacing) != 2 or min(spacing) <= 0:
        return "no positive PixelSpacing"
    if not all(map(math.isfinite, position)):
        return NOT_FINITE
    return _plane_fault(tuple(cosines), tuple(spacing))


@lru_cache(maxsize=256)  # the slices of a series share one plane
def _plane_fault(cosines: tuple[float, ...], spacing: tuple[float, ...]) -> str | None:
    if not all(map(math.isfinite, (*cosines, *spacing))):
        return NOT_FINITE
    along, down = cosines[:3], cosines[3:]
    lengths = math.hypot(*along), math.hypot(*down)
    if max(abs(n - 1) for n in lengths) > UNIT_TOLERANCE or abs(sum(map(mul, along, down))) > UNIT_TOLERANCE:
        return "direction cosines are not perpendicular unit vectors"
    return None


def frames_are_private(rows: Rows) -> bool:
    """Return whether every one of several instances has its own frame of reference.

    Some anonymisers leave files like this (seen in LIDC-IDRI), and the UID then says nothing.
    """
    frames = [row.frame_of_reference_uid for row in rows]
    return len(rows) > 2 and None not in frames and len(set(frames)) == len(frames)


def _by(*names: str) -> Callable[[Rows], list[Rows]]:
    """Return a function that cuts rows by equal values of columns."""
    return lambda rows: _gather(rows, lambda row: tuple(getattr(row, name) for name in names))


def _gather(rows: Rows, key: Callable[[Row], Any]) -> list[Rows]:
    """Group rows by equal keys, in order of first appearance."""
    groups: dict[Any, Rows] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def _by_frame_of_reference(rows: Rows) -> list[Rows]:
    """Cut by frame of reference, unless every instance states its own, which makes the UID meaningless."""
    if frames_are_private(rows):
        return [rows]
    stated = {row.frame_of_reference_uid for row in rows} - {None}
    if len(stated) < 2:
        return [rows]  # when only some rows state it, builder.imaging.stacks.alike decides by their positions
    return _gather(rows, lambda row: row.frame_of_reference_uid)


def _by_orientation(rows: Rows) -> list[Rows]:
    """Cut by orientation; radial stacks, whose slices all differ, stay together and get a verdict of their own."""
    groups = _near(rows, "image_orientation_patient", tolerance=lambda _: ORIENTATION_TOLERANCE)
    lonely = sum(1 for group in groups if len(group) == 1)
    return [rows] if len(groups) > 3 and lonely == len(groups) else groups


def _by_pixel_spacing(rows: Rows) -> list[Rows]:
    return _near(rows, "pixel_spacing", tolerance=lambda first: PIXEL_TOLERANCE * max(first))


def _near(rows: Rows, name: str, *, tolerance: Callable[[Sequence[float]], float]) -> list[Rows]:
    """Group rows whose vectors lie within a tolerance of the first row of their group."""
    groups: list[Rows] = []
    for row in rows:
        for group in groups:
            first, own = getattr(group[0], name), getattr(row, name)
            if first == own or (
                first and own and len(first) == len(own)
                and max(abs(a - b) for a, b in zip(first, own, strict=True)) <= tolerance(first)
            ):  # fmt: skip
                group.append(row)
                break
        else:
            groups.append([row])
    return groups


def _by_image_type(rows: Rows) -> list[Rows]:
    """Cut rows of one kind by what they show according to their Image Type.

    For slices, magnitude is left out because it is the default, and DERIVED because a derived image may show the same
    quantity.
    """
    if kind_of(rows[0]) != Kind.SLICE:
        return _gather(rows, component_of)
    plain = {"DERIVED", "M", "MAGNITUDE", "MAG"}
    return _gather(rows, lambda row: tuple(token for token in component_of(row) if token not in plain))


def _of_slices(column: str, cut: Callable[[Rows], list[Rows]]) -> Callable[[Rows], list[Rows]]:
    """Return a cut that is applied only to slices with known positions that differ in a column."""

    def applied(rows: Rows) -> list[Rows]:
        if says_one_thing(rows, column) or kind_of(rows[0]) != Kind.SLICE or geometry_fault(rows[0]) is not None:
            return [rows]
        return cut(rows)

    return applied


def _by_geometry(rows: Rows) -> list[Rows]:
    """Cut slices by whether their positions are known; rows of any other kind stay together."""
    return [rows] if kind_of(rows[0]) != Kind.SLICE else _gather(rows, lambda row: geometry_fault(row) is None)


def _one_each(rows: Rows) -> list[Rows]:
    """Put each picture that is not a slice in a group of its own."""
    if kind_of(rows[0]) in {Kind.SLICE, Kind.NOT_AN_IMAGE, Kind.MULTIFRAME, Kind.MOSAIC}:
        return [rows]
    return [[row] for row in rows]


RULES: tuple[tuple[str, Callable[[Rows], list[Rows]]], ...] = (
    ("object", lambda rows: _gather(rows, kind_of)),
    ("modality", _by("modality")),
    ("frame_of_reference", _by_frame_of_reference),
    ("image_type", _by_image_type),
    ("geometry", _by_geometry),
    ("size", lambda rows: _gather(rows, lambda row: (row.rows, row.columns, row.samples_per_pixel or 1))),
    ("orientation", _by_orientation),
    ("pixel_spacing", _by_pixel_spacing),
    *((trait.column, _of_slices(trait.column, by_making(trait))) for trait in MADE_BY),
    *((column.removesuffix("_uid"), _of_slices(column, by_coming(column))) for column in CAME_BY),
    ("instance", _one_each),
)
"""All cuts in order, each with its name in ``split_rule`` and the function that divides rows.

``builder.imaging.stacks.alike`` has the cuts that look at positions. ``builder.imaging.stacks.repeats`` has the rules
that tell repeats of one position apart (time, acquisition, phase, description), which run later.
"""
