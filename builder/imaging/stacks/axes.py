"""Stacks of one series that share a grid and differ in one quantity become one volume with a named channel each."""

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from builder.imaging.pixels.types import common_type
from builder.imaging.stacks.options import Axis, VolumeOptions
from builder.imaging.stacks.series import Stack, split_stacks
from builder.imaging.stacks.spacing import Verdict

PREFIXES: dict[Axis, str] = {"echo_time": "te", "b_value": "b", "component": ""}
"""Channel names are these and the value: ``te20`` (ms), ``b1000`` (s/mm2), ``magnitude``."""


def stacks_for(instances: pa.Table, options: VolumeOptions) -> tuple[Stack, ...]:
    """``split_stacks``, and the stacks that differ only in ``options.join`` put together again as channels.

    Parameters
    ----------
    instances
        INSTANCES rows of one series, in any order.

    Returns
    -------
    tuple of Stack
        Joined ones have the verdict ``channels`` and stand where the first of them stood. Stacks are joined when all
        that belong together are regular or sheared, or time series that the options keep, and lie on one grid;
        otherwise they stay apart.
    """
    return joined(split_stacks(instances), options)


def joined(stacks: Sequence[Stack], options: VolumeOptions) -> tuple[Stack, ...]:
    """The stacks of one series, or of one multi-frame object, with those put together that ``options.join`` names."""
    if not options.join:
        return tuple(stacks)
    groups: dict[tuple[object, ...], list[Stack]] = {}
    for stack in stacks:
        groups.setdefault(_kinship(stack, options), []).append(stack)
    found = [stack for group in groups.values() for stack in _joined(group, options.join)]
    ordered = sorted(found, key=lambda stack: stack.number)
    return tuple(replace(stack, number=number) for number, stack in enumerate(ordered))


def _kinship(stack: Stack, options: VolumeOptions) -> tuple[object, ...]:
    """What two stacks must share to be channels of one volume; a stack that cannot be one is its own kin."""
    kept = stack.verdict == Verdict.TIME_SERIES and options.time_series == "keep"
    if stack.verdict not in (Verdict.REGULAR, Verdict.SHEARED) and not kept:
        return (stack.number,)
    fixed = tuple(None if axis in options.join else getattr(stack, axis) for axis in PREFIXES)
    return (stack.modality, stack.shape, stack.channels, stack.frame_of_reference, fixed)


def _joined(group: Sequence[Stack], axes: Sequence[Axis]) -> Sequence[Stack]:
    """One stack with a channel each, or the stacks as they are."""
    values = [tuple(getattr(stack, axis) for axis in axes) for stack in group]
    if len(group) < 2 or any(None in v for v in values) or len(set(values)) < len(group) or not _one_grid(group):
        return group
    ordered = [stack for _, stack in sorted(zip(values, group, strict=True), key=lambda pair: pair[0])]
    first = ordered[0]
    names = tuple(name for stack in ordered for name in _names(stack, axes))
    return [
        replace(
            first, number=min(stack.number for stack in group), verdict=Verdict.CHANNELS, split_rule="",
            detail=f"{len(group)} stacks by {', '.join(axes)}, each {first.grid}: {first.detail}", channels=names,
            uids=tuple(uid for stack in ordered for uid in stack.uids),
            frame_numbers=tuple(frames for stack in ordered for frames in stack.frame_numbers),
            frames=sum(stack.frames for stack in ordered),
            number_type=common_type(stack.number_type for stack in ordered),
            number_type_sure=all(stack.number_type_sure for stack in ordered),
            voxel_bytes=max(stack.voxel_bytes for stack in ordered),
            transfer_syntaxes=tuple(sorted({t for stack in ordered for t in stack.transfer_syntaxes})),
            notes=tuple(sorted({note for stack in ordered for note in stack.notes})),
        )
    ]  # fmt: skip


def _names(stack: Stack, axes: Sequence[Axis]) -> list[str]:
    """``te20``; of a time series ``te20_t0``, ``te20_t1``, ..."""
    own = "_".join(_name(stack, axis) for axis in axes)
    return [own if len(stack.channels) == 1 else f"{own}_{channel}" for channel in stack.channels]


def _name(stack: Stack, axis: Axis) -> str:
    if axis == "component":
        return "-".join("".join(c for c in token.lower() if c.isalnum()) for token in stack.component) or "image"
    return f"{PREFIXES[axis]}{getattr(stack, axis):g}"


def _one_grid(group: Sequence[Stack]) -> bool:
    grids = [stack.geometry for stack in group]
    first = grids[0]
    return first is not None and all(grid is not None and first.same_grid(grid) for grid in grids)
