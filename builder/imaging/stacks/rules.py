"""The rules that cut a series into groups that no stack may mix: each a name and a way to divide rows."""

import math
from collections.abc import Callable, Sequence
from operator import mul
from typing import Any, TypeAlias

from builder.imaging.stacks.kinds import Kind, component_of, kind_of

Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = list[Row]

ORIENTATION_TOLERANCE = 1e-3
"""Largest difference of a direction cosine (0020,0037) within one stack: 0.06 degrees, above vendors' rounding."""

PIXEL_TOLERANCE = 1e-3
"""Largest relative difference of PixelSpacing (0028,0030) within one stack."""

UNIT_TOLERANCE = 1e-2
"""How far direction cosines may be from unit length and perpendicular: a file that states three decimals passes."""


def pure_groups(rows: Rows) -> list[tuple[str, Rows]]:
    """Groups that no rule can mix, each with the last rule that cut it off."""
    groups: list[tuple[str, Rows]] = [("", rows)] if rows else []
    for rule, cut in RULES:
        groups = [
            (rule if len(parts) > 1 else before, part) for before, group in groups for parts in [cut(group)]
            for part in parts
        ]  # fmt: skip
    return groups


def geometry_fault(row: Row) -> str | None:
    """Why a slice's place in space is not known; None when it is."""
    position, cosines, spacing = (
        row["image_position_patient"], row["image_orientation_patient"], row["pixel_spacing"]
    )  # fmt: skip
    if not position or not cosines:
        return "no ImagePositionPatient or ImageOrientationPatient"
    if len(position) != 3 or len(cosines) != 6:
        return f"{len(position)} position and {len(cosines)} orientation values, expected 3 and 6"
    if not spacing or len(spacing) != 2 or min(spacing) <= 0:
        return "no positive PixelSpacing"
    if not all(map(math.isfinite, (*position, *cosines, *spacing))):
        return "position, orientation or spacing is not finite"
    along, down = cosines[:3], cosines[3:]
    lengths = math.hypot(*along), math.hypot(*down)
    if max(abs(n - 1) for n in lengths) > UNIT_TOLERANCE or abs(sum(map(mul, along, down))) > UNIT_TOLERANCE:
        return "direction cosines are not perpendicular unit vectors"
    return None


def frames_are_private(rows: Rows) -> bool:
    """Whether no two of several instances share a frame of reference (an anonymiser's trace, seen in LIDC-IDRI)."""
    frames = [row["frame_of_reference_uid"] for row in rows]
    return len(rows) > 2 and None not in frames and len(set(frames)) == len(frames)


def _by(*names: str) -> Callable[[Rows], list[Rows]]:
    """Cut by equal values of columns."""
    return lambda rows: _gather(rows, lambda row: tuple(row[name] for name in names))


def _gather(rows: Rows, key: Callable[[Row], Any]) -> list[Rows]:
    """Rows with equal keys together, in order of first appearance."""
    groups: dict[Any, Rows] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def _by_frame_of_reference(rows: Rows) -> list[Rows]:
    """Cut by frame of reference, unless every instance states its own: then the UID says nothing."""
    if frames_are_private(rows):
        return [rows]
    return _gather(rows, lambda row: row["frame_of_reference_uid"])


def _by_orientation(rows: Rows) -> list[Rows]:
    """Cut by orientation; instances that all point elsewhere (radial stacks) stay together to be named as such."""
    groups = _near(rows, "image_orientation_patient", tolerance=lambda _: ORIENTATION_TOLERANCE)
    lonely = sum(1 for group in groups if len(group) == 1)
    return [rows] if len(groups) > 3 and lonely == len(groups) else groups


def _by_pixel_spacing(rows: Rows) -> list[Rows]:
    return _near(rows, "pixel_spacing", tolerance=lambda first: PIXEL_TOLERANCE * max(first))


def _near(rows: Rows, name: str, *, tolerance: Callable[[Sequence[float]], float]) -> list[Rows]:
    """Rows whose vectors lie within a tolerance of the first of their group."""
    groups: list[Rows] = []
    for row in rows:
        for group in groups:
            first, own = group[0][name], row[name]
            if first == own or (
                first and own and len(first) == len(own)
                and max(abs(a - b) for a, b in zip(first, own, strict=True)) <= tolerance(first)
            ):  # fmt: skip
                group.append(row)
                break
        else:
            groups.append([row])
    return groups


def _by_geometry(rows: Rows) -> list[Rows]:
    return _gather(rows, lambda row: kind_of(row) != Kind.SLICE or geometry_fault(row) is None)


def _one_each(rows: Rows) -> list[Rows]:
    """Pictures that are no slices stand for themselves."""
    if kind_of(rows[0]) in {Kind.SLICE, Kind.NOT_AN_IMAGE, Kind.MULTIFRAME, Kind.MOSAIC}:
        return [rows]
    return [[row] for row in rows]


RULES: tuple[tuple[str, Callable[[Rows], list[Rows]]], ...] = (
    ("object", lambda rows: _gather(rows, kind_of)),
    ("modality", _by("modality")),
    ("frame_of_reference", _by_frame_of_reference),
    ("image_type", lambda rows: _gather(rows, component_of)),
    ("geometry", _by_geometry),
    ("size", _by("rows", "columns", "samples_per_pixel")),
    ("orientation", _by_orientation),
    ("pixel_spacing", _by_pixel_spacing),
    ("echo_time", _by("echo_number", "echo_time")),
    ("b_value", _by("b_value")),
    ("instance", _one_each),
)
"""Every cut, in order: its name in ``split_rule`` and how it divides. Rules that tell repeats of one position apart
(time, acquisition, phase, kernel) follow in ``builder.imaging.stacks.repeats``."""
