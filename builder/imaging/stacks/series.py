"""Splitting the instances of a series into pure stacks, each with one verdict and the rule that separated it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.imaging.pixels.types import Projected, common_type, picture_type, slices_type
from builder.imaging.quantities.diffusion import b_value_of
from builder.imaging.rows import Row, rows_of
from builder.imaging.stacks.alike import Rows, tolerated
from builder.imaging.stacks.kinds import Kind, component_of, kind_of
from builder.imaging.stacks.moments import with_moments
from builder.imaging.stacks.repeats import Part, separate
from builder.imaging.stacks.rules import (
    ORIENTATION_TOLERANCE,
    frames_are_private,
    geometry_fault,
    pure_groups,
)
from builder.imaging.stacks.spacing import Verdict, judge
from builder.imaging.stacks.stack import AIR, COLOURS, PICTURES, Matrix, Stack

KINDS = {
    Kind.MULTIFRAME: Verdict.MULTIFRAME,
    Kind.MOSAIC: Verdict.MOSAIC,
    Kind.LOCALIZER: Verdict.LOCALIZER,
    Kind.PROJECTION: Verdict.PROJECTION,
    Kind.STILL: Verdict.STILL,
    Kind.CINE: Verdict.CINE,
    Kind.SECONDARY_CAPTURE: Verdict.SECONDARY_CAPTURE,
    Kind.WHOLE_SLIDE: Verdict.WHOLE_SLIDE,
    Kind.NOT_AN_IMAGE: Verdict.NOT_AN_IMAGE,
}


def split_stacks(instances: pa.Table) -> tuple[Stack, ...]:
    """Split the instances of one series into pure stacks, each with one verdict.

    Parameters
    ----------
    instances
        INSTANCES rows of one series in any order. Rows whose ``status`` is not ``instance`` are ignored.

    Returns
    -------
    tuple of Stack
        Ordered by the first instance of each; every instance is in exactly one stack.
    """
    return split_rows([row for row in rows_of(instances) if row.status in (None, "instance")])


def split_rows(rows: Rows) -> tuple[Stack, ...]:
    """Split rows, of instances or of frames of multi-frame objects, as ``split_stacks`` does."""
    rows = sorted(map(_with_b_value, with_moments(rows)), key=_order)
    found: list[Stack] = []
    for rule, group in pure_groups(rows):
        found.extend(_stacks(group, rule=rule))
    numbered = [replace(stack, number=index) for index, stack in enumerate(found)]
    return tuple(numbered)


def _with_b_value(row: Row) -> Row:
    b_value = b_value_of(row)
    return row if b_value == row.b_value else row._replace(b_value=b_value)  # most rows have none


def _order(row: Row) -> tuple[bool, int, str, int, str]:
    """Return a sort key, so that the result does not depend on the order in which rows arrive."""
    number = row.instance_number
    return (number is None, number or 0, row.sop_instance_uid or "", row.frame or 0, row.path or "")


def _stacks(rows: Rows, *, rule: str) -> list[Stack]:
    """Return the stacks of a pure group: one, or one per repeat when the repeats are not a time series."""
    kind = kind_of(rows[0])
    if kind != Kind.SLICE:
        return [_plain(rows, rule=rule, verdict=KINDS[kind], detail=_described(rows))]
    fault = geometry_fault(rows[0])
    if fault is not None:
        return [_plain(rows, rule=rule, verdict=Verdict.UNKNOWN_GEOMETRY, detail=fault)]
    directions = np.array([row.image_orientation_patient for row in rows])
    if np.abs(directions - directions[0]).max() > ORIENTATION_TOLERANCE:
        detail = f"{len(rows)} slices, no two parallel"
        return [_plain(rows, rule=rule, verdict=Verdict.MIXED_ORIENTATION, detail=detail)]
    axes = _axes(rows[0])
    places = [float(np.dot(np.array(row.image_position_patient), axes[2])) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: (places[index], _order(rows[index])))
    rows, along = [rows[index] for index in order], np.array([places[index] for index in order])
    parts = separate(rows, along)
    if len(parts) == 1:
        return [_slices(parts[0].rows, rule=rule, axes=axes)]
    return _repeated(parts, rule=rule, axes=axes)


def _repeated(parts: Sequence[Part], *, rule: str, axes: NDArray[np.float64]) -> list[Stack]:
    """Turn repeats of the same positions into one time series when they share a grid, else into one stack each."""
    stacks = [_slices(part.rows, rule=part.rule, axes=axes) for part in parts]
    first = stacks[0]
    if first.shape[0] == 1 and all(stack.shape[0] == 1 for stack in stacks):
        rows = [row for part in parts for row in part.rows]
        detail = f"{len(rows)} slices at one position, apart by {parts[0].rule}"
        return [_plain(rows, rule=rule, verdict=Verdict.DUPLICATE_POSITIONS, detail=detail)]
    equal = all(stack.affine is not None and stack.shape == first.shape for stack in stacks)
    if not parts[0].is_time or not equal or not _one_grid(stacks):
        return stacks
    detail = f"{len(parts)} time points by {parts[0].rule}, each {first.grid}: {first.detail}"
    return [
        replace(
            first, split_rule=rule, verdict=Verdict.TIME_SERIES, detail=detail,
            uids=tuple(uid for stack in stacks for uid in stack.uids),
            frame_numbers=tuple(numbers for stack in stacks for numbers in stack.frame_numbers),
            channels=tuple(f"t{index}" for index in range(len(stacks))),
            frames=sum(stack.frames for stack in stacks),
            number_type=common_type(stack.number_type for stack in stacks),
            number_type_sure=all(stack.number_type_sure for stack in stacks),
            voxel_bytes=max(stack.voxel_bytes for stack in stacks),
            notes=tuple(sorted({note for stack in stacks for note in stack.notes})),
            transfer_syntaxes=tuple(sorted({t for stack in stacks for t in stack.transfer_syntaxes})),
        )
    ]  # fmt: skip


def _one_grid(stacks: Sequence[Stack]) -> bool:
    grids = [stack.geometry for stack in stacks]
    first = grids[0]
    return first is not None and all(grid is not None and first.same_grid(grid) for grid in grids)


def _slices(rows: Sequence[Row], *, rule: str, axes: NDArray[np.float64]) -> Stack:
    """Make a stack of parallel slices that are sorted along the normal."""
    first = rows[0]
    down, across = (float(v) for v in first.pixel_spacing or ())
    positions = np.array([row.image_position_patient for row in rows], dtype=np.float64)
    verdict = judge(positions, axes=axes, pixel_mm=(down, across))
    stack = _plain(rows, rule=rule, verdict=verdict.verdict, detail=verdict.detail)
    step, notes = verdict.step_mm, verdict.notes
    if verdict.verdict == Verdict.SINGLE_SLICE:
        step, notes = _single_step(first, axes)
    distinct = len({(row.sop_instance_uid, row.frame) for row in rows})
    if distinct < len(rows):
        same = len(rows) - distinct + 1
        detail = f"{same} of {len(rows)} instances share a SOPInstanceUID"
        return replace(stack, verdict=Verdict.DUPLICATE_POSITIONS, detail=detail)
    if frames_are_private(list(rows)):
        notes = (*notes, "frame_of_reference_not_shared")
    notes = tuple(sorted({*notes, *tolerated(rows)}))
    stack = replace(stack, shape=(len(rows), first.rows or 0, first.columns or 0), notes=notes)
    if step is None:
        return stack
    affine = affine_of(positions[0], axes=axes, pixel_mm=(down, across), step_mm=step)
    if verdict.verdict not in (Verdict.IRREGULAR, Verdict.GAPPED):
        return replace(stack, affine=affine)
    offsets = (positions - positions[0]) @ axes[2] / float(step @ axes[2])
    own = (_single_step(row, axes) for row in rows)
    alone = tuple((None if axis is None else tuple(float(v) for v in axis), why) for axis, why in own)
    return replace(stack, uneven=affine, offsets=tuple(float(offset) for offset in offsets), slice_axes=alone)


def _single_step(row: Row, axes: NDArray[np.float64]) -> tuple[NDArray[np.float64] | None, tuple[str, ...]]:
    """Return the slice axis of a single slice from what the file states, with a note that names the source."""
    for name in ("spacing_between_slices", "slice_thickness"):
        step = getattr(row, name)
        if step and step > 0:
            return float(step) * axes[2], (f"slice_axis_from_{name}",)
    return None, ("slice_axis_unknown",)


def affine_of(
    origin: NDArray[np.float64],
    *,
    axes: NDArray[np.float64],
    pixel_mm: tuple[float, float],
    step_mm: NDArray[np.float64],
) -> Matrix:
    """Return the matrix that maps voxel (slice, row, column) to LPS mm (PS3.3 C.7.6.2.1.1).

    Parameters
    ----------
    origin
        ImagePositionPatient of slice 0, mm.
    axes
        Rows: unit vector along an image row (column index grows), along an image column (row index grows), normal.
    pixel_mm
        PixelSpacing: between rows, between columns.
    step_mm
        Vector from one slice to the next.
    """
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2] = step_mm, axes[1] * pixel_mm[0], axes[0] * pixel_mm[1]
    matrix[:3, 3] = origin
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in matrix)


def _axes(row: Row) -> NDArray[np.float64]:
    """Return three rows: the unit vectors along an image row and an image column, and the normal."""
    cosines = np.array(row.image_orientation_patient, dtype=np.float64)
    along, down = cosines[:3] / np.linalg.norm(cosines[:3]), cosines[3:] / np.linalg.norm(cosines[3:])
    normal = np.cross(along, down)
    return np.array([along, down, normal / np.linalg.norm(normal)])


def _plain(rows: Iterable[Row], *, rule: str, verdict: Verdict, detail: str) -> Stack:
    """Make a stack without a grid."""
    rows = list(rows)
    first = rows[0]
    number_type = _number_type(rows, verdict)
    return Stack(
        series_uid=first.series_uid or "", number=0, split_rule=rule, verdict=verdict, detail=detail, grid=verdict,
        uids=(tuple(row.sop_instance_uid or "" for row in rows),),
        frame_numbers=(tuple(row.frame or 0 for row in rows),) if first.frame is not None else (),
        shape=(sum(row.number_of_frames or 1 for row in rows), first.rows or 0, first.columns or 0),
        frame_of_reference=None if frames_are_private(rows) else _stated(rows, "frame_of_reference_uid"),
        frames=sum(row.number_of_frames or 1 for row in rows),
        channels=COLOURS if _is_colour(first, verdict) else ("image",), bits_allocated=first.bits_allocated or 16,
        number_type=number_type.name, number_type_sure=number_type.sure,
        voxel_bytes=np.dtype(number_type.name).itemsize + _is_padded(rows),
        tiles=first.tiles,
        echo_time=_stated(rows, "echo_time"), b_value=_stated(rows, "b_value"), component=component_of(first),
        modality=first.modality or "", sop_class_uid=first.sop_class_uid or "",
        transfer_syntaxes=tuple(sorted({row.transfer_syntax_uid or "" for row in rows})),
    )  # fmt: skip


def _stated(rows: Rows, column: str) -> Any:
    """Return the first value that a row states, or None when no row states one."""
    return next((getattr(row, column) for row in rows if getattr(row, column) is not None), None)


def _is_colour(row: Row, verdict: Verdict) -> bool:
    """Return whether a picture becomes red, green and blue channels."""
    colour = (row.samples_per_pixel or 1) == 3 or row.photometric_interpretation == "PALETTE COLOR"
    return colour and verdict in PICTURES


def _number_type(rows: Rows, verdict: Verdict) -> Projected:
    """Return the number type that the headers predict."""
    if verdict in PICTURES:
        return picture_type(rows[0])
    return slices_type(rows, AIR if rows[0].modality == "CT" else 0)


def _is_padded(rows: Rows) -> int:
    """Return 1 when a padding value is stated, because the mask takes one byte per voxel."""
    return int(any(row.pixel_padding_value is not None for row in rows))


def _described(rows: Rows) -> str:
    """Describe a group of pictures that are not slices by its numbers of instances and frames."""
    frames = sum(row.number_of_frames or 1 for row in rows)
    noun = "instance" if len(rows) == 1 else "instances"
    return f"{len(rows)} {noun}, {frames} frames" if frames != len(rows) else f"{len(rows)} {noun}"
