"""Joining stacks of one series that share a grid and differ in one quantity into one volume with named channels."""

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from builder.imaging.pixels.types import common_type
from builder.imaging.stacks.options import Axis, VolumeOptions
from builder.imaging.stacks.series import split_stacks
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.stacks.stack import Stack

PREFIXES: dict[Axis, str] = {"echo_time": "te", "b_value": "b", "component": ""}
"""Prefixes of channel names, before the value: ``te20`` (ms), ``b1000`` (s/mm2), ``magnitude``."""


def stacks_for(instances: pa.Table, options: VolumeOptions) -> tuple[Stack, ...]:
    """Split a series into stacks, then join those that differ only in ``options.join`` as channels.

    Parameters
    ----------
    instances
        INSTANCES rows of one series, in any order.

    Returns
    -------
    tuple of Stack
        A joined stack has the verdict ``channels`` and takes the place of its first member. Stacks are joined when all
        members are regular or sheared, or time series that the options keep, and share one grid; otherwise they stay
        separate.
    """
    return joined(split_stacks(instances), options)


def joined(stacks: Sequence[Stack], options: VolumeOptions) -> tuple[Stack, ...]:
    """Join the stacks of one series, or of one multi-frame object, along the axes in ``options.join``."""
    if not options.join:
        return tuple(stacks)
    groups: dict[tuple[object, ...], list[Stack]] = {}
    for stack in stacks:
        groups.setdefault(_kinship(stack, options), []).append(stack)
    found = [stack for group in groups.values() for stack in _joined(group, options.join)]
    ordered = sorted(found, key=lambda stack: stack.number)
    return tuple(replace(stack, number=number) for number, stack in enumerate(ordered))


def _kinship(stack: Stack, options: VolumeOptions) -> tuple[object, ...]:
    """Return the key that channels of one volume must share; a stack that cannot be a channel gets a key of its own."""
    kept = stack.verdict == Verdict.TIME_SERIES and options.time_series == "keep"
    if stack.verdict not in (Verdict.REGULAR, Verdict.SHEARED) and not kept:
        return (stack.number,)
    fixed = tuple(None if axis in options.join else getattr(stack, axis) for axis in PREFIXES)
    return (stack.modality, stack.shape, stack.channels, stack.frame_of_reference, fixed)


def _joined(group: Sequence[Stack], axes: Sequence[Axis]) -> Sequence[Stack]:
    """Join a group into one stack with a channel per member, or return the stacks as they are."""
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
    """Return the channel names of a stack: ``te20``, or ``te20_t0``, ``te20_t1``, ... for a time series."""
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
