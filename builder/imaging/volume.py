"""A stack and its data sets become a volume: one array, one grid, one meaning of the numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.imaging.even import even_geometry, evened
from builder.imaging.mosaic import Tiles, cut_tiles, is_mosaic, tiles_of
from builder.imaging.multiframe import functional_group, resolve
from builder.imaging.options import REASONS, VolumeOptions, action_on, check_limits, check_voxels
from builder.imaging.parse import leniently
from builder.imaging.pictures import PICTURES, assemble_picture
from builder.imaging.pixels import PixelFormat, masked, native_values, pixel_format, stored_values
from builder.imaging.rescale import Rescale, padding_of, rescale_of
from builder.imaging.series import Stack
from builder.imaging.spacing import Verdict
from builder.imaging.suv import Calibration, calibrate
from builder.model.case import ValueDomain, Volume

PixelFill: TypeAlias = Callable[[str, memoryview], None]
"""Writes the native pixel bytes of the instance with this SOPInstanceUID into the memory given: the way around
data sets in memory for pixels that lie in a file."""

AIR_HU = -1024.0
INT16 = (-(2**15), 2**15 - 1)
UINT16 = (0, 2**16 - 1)
UINT8 = (0, 2**8 - 1)


@dataclass(frozen=True)
class _Slice:
    """Where one frame of an instance goes, and how its values are read."""

    channel: int
    index: int
    frame: int
    rescale: Rescale
    padding: tuple[int, int] | None


@dataclass(frozen=True)
class _Instance:
    """One data set, and the slices it holds."""

    uid: str
    dataset: Dataset
    form: PixelFormat
    slices: tuple[_Slice, ...]
    tiles: Tiles | None


@dataclass(frozen=True)
class _Meaning:
    """What the numbers become: the array's dtype, a factor on top of the rescale, the domain."""

    dtype: np.dtype[Any]
    factor: float
    domain: ValueDomain
    notes: tuple[str, ...]


@leniently()
def assemble(
    stack: Stack,
    datasets: Sequence[Dataset],
    options: VolumeOptions = VolumeOptions(),  # noqa: B008 (frozen)
    *,
    fill: PixelFill | None = None,
    calibration: Calibration | None = None,
) -> Volume:
    """Decode, rescale and order the slices of ``stack``.

    Parameters
    ----------
    stack
        From ``split_stacks``, admitted by ``admit``, with the UIDs the data sets carry.
    datasets
        The instances of the stack, in any order; others are passed over. De-identified or not.
    fill
        Reads native pixels where a data set has none in memory.
    calibration
        What turns a PET's values into SUV, when it was settled from headers before de-identification; by default it
        is settled from ``datasets``.

    Returns
    -------
    Volume
        int16 (or uint16, uint8) where every rescale is a whole offset that fits, else float32.

    Raises
    ------
    CaseError
        With the verdict's reason where the options exclude the stack, SOURCE_MISSING when an instance is absent,
        TOO_LARGE beyond the limits, UNDECODABLE_PIXELS, UNSUPPORTED_TRANSFER_SYNTAX, INCONSISTENT_PIXELS.
    """
    check_limits(stack, options)
    stack = _only(stack, datasets, options)
    if stack.verdict in PICTURES:
        return assemble_picture(stack, datasets, options)
    geometry = stack.geometry if stack.uneven is None else even_geometry(stack)
    if geometry is None:
        known = "; its slice axis has no known length" if stack.verdict == Verdict.SINGLE_SLICE else ""
        raise CaseError(Reason.UNKNOWN_GEOMETRY, f"{stack.verdict}: {stack.detail}{known}")
    check_voxels(geometry.shape[0] * geometry.shape[1] * geometry.shape[2] * len(stack.channels), options)
    instances = _gather(stack, datasets)
    meaning = _meaning(stack, instances, options, calibration)
    shape = (len(stack.channels), *stack.shape)
    voxels, padding, meaning = _voxels(instances, shape, meaning, fill)
    if padding is not None and options.padding == "fill":
        voxels[:, padding] = AIR_HU if meaning.domain == ValueDomain.HOUNSFIELD else 0
    notes = tuple(sorted({*stack.notes, *meaning.notes}))
    if stack.uneven is not None:
        voxels, padding = evened(voxels, padding, np.array(stack.offsets))
        notes = (*notes, f"resampled_from={stack.verdict}")
    return Volume(voxels, geometry, meaning.domain, stack.channels, padding, notes)


def estimate_bytes(stack: Stack) -> int:
    """Peak memory in bytes that ``assemble`` needs for ``stack``, from its headers alone: result, mask and one slice.

    Encoded pixels that the caller holds in memory come on top.
    """
    slices, rows, columns = stack.shape
    plane = rows * columns
    values = plane * slices * len(stack.channels) * stack.samples
    integer = stack.modality == "CT" or (stack.modality != "PT" and stack.bits_allocated <= 16)
    return values * (max(1, stack.bits_allocated // 8) if integer else 4) + plane * stack.samples * 16


def _only(stack: Stack, datasets: Sequence[Dataset], options: VolumeOptions) -> Stack:
    """The stack itself, or the one inside a multi-frame object, if the options admit it. Raises CaseError."""
    if action_on(stack, options) != "exclude" and stack.verdict in (Verdict.MULTIFRAME, Verdict.MOSAIC):
        found = resolve(stack, datasets)
        if len(found) != 1:
            names = ", ".join(sorted({f"{s.split_rule or 'instance'}: {s.verdict}" for s in found}))
            detail = f"{stack.verdict} with {len(found)} stacks ({names}), expected 1"
            raise CaseError(Reason.UNSUPPORTED_OBJECT, detail)
        stack = found[0]
    if action_on(stack, options) == "exclude":
        raise CaseError(REASONS[stack.verdict], f"{stack.verdict}: {stack.detail}")
    check_limits(stack, options)
    return stack


def _gather(stack: Stack, datasets: Sequence[Dataset]) -> list[_Instance]:
    """The instances with the slices each holds, in the order of the first. Raises CaseError."""
    by_uid: Mapping[str, Dataset] = {str(dataset.get("SOPInstanceUID", "")): dataset for dataset in datasets}
    places: dict[str, list[tuple[int, int, int]]] = {}
    for channel, uids in enumerate(stack.uids):
        frames = stack.frame_numbers[channel] if stack.frame_numbers else [0] * len(uids)
        for index, (uid, frame) in enumerate(zip(uids, frames, strict=True)):
            places.setdefault(uid, []).append((channel, index, frame))
    missing = sum(1 for uid in places if uid not in by_uid)
    if missing:
        raise CaseError(Reason.SOURCE_MISSING, f"{missing} of {len(places)} instances are absent")
    return [_instance(stack, uid, by_uid[uid], places[uid]) for uid in places]


def _instance(stack: Stack, uid: str, dataset: Dataset, places: Sequence[tuple[int, int, int]]) -> _Instance:
    """Format and rescale of one instance, checked against its stack. Raises CaseError."""
    form = pixel_format(dataset)
    tiles = tiles_of(dataset) if stack.frame_numbers and is_mosaic(dataset) else None
    size = (tiles.rows, tiles.columns) if tiles else (form.rows, form.columns)
    frames = len(tiles.positions) if tiles else form.frames
    if size != stack.shape[1:] or max(frame for _, _, frame in places) >= frames:
        found = f"{size[0]} x {size[1]}, {frames} frames"
        raise CaseError(Reason.INCONSISTENT_PIXELS, f"{found} in a stack of {stack.shape[1]} x {stack.shape[2]}")
    if form.samples != 1 or form.photometric == "PALETTE COLOR":
        raise CaseError(Reason.INCONSISTENT_PIXELS, f"{form.photometric} in a stack of slices")
    padding = padding_of(dataset, form)
    slices = []
    for channel, index, frame in places:
        values = functional_group(dataset, frame, "PixelValueTransformationSequence") or dataset
        slices.append(_Slice(channel, index, frame, rescale_of(values), padding))
    return _Instance(uid, dataset, form, tuple(slices), tiles)


# ---- what the numbers mean ------------------------------------------------------------------------------------------


def _meaning(
    stack: Stack, instances: Sequence[_Instance], options: VolumeOptions, calibration: Calibration | None
) -> _Meaning:
    """Domain and dtype from the headers."""
    if stack.modality == "PT":
        found = calibration or calibrate([i.dataset for i in instances])
        if found.domain != ValueDomain.SUV_BW and options.pet == "require_suv":
            raise CaseError(Reason.UNKNOWN_UNITS, "; ".join(found.notes) or f"found {found.domain}, expected SUVbw")
        if options.pet == "activity" and found.factor != 1.0:
            found = Calibration(1.0, ValueDomain.ACTIVITY)
        return _Meaning(np.dtype(np.float32), found.factor, found.domain, found.notes)
    stated = any(s.rescale.stated for i in instances for s in i.slices)
    kinds = {s.rescale.kind for i in instances for s in i.slices}
    notes: tuple[str, ...] = ()
    if stack.modality == "CT" and stated and kinds <= {"", "HU"}:
        domain = ValueDomain.HOUNSFIELD
    elif stack.modality == "MR" or stated:
        domain = ValueDomain.ARBITRARY
        notes = tuple(f"rescale_type={kind}" for kind in sorted(kinds - {"", "US"}))
    else:
        domain = ValueDomain.STORED
    return _Meaning(_dtype(instances), 1.0, domain, notes)


def _dtype(instances: Sequence[_Instance]) -> np.dtype[Any]:
    """The narrowest integer for whole offsets, float32 for everything else.

    16 stored bits and an offset may reach past int16; values that do are found while decoding.
    """
    if any(i.form.real or i.form.bits_allocated > 16 or not all(s.rescale.whole for s in i.slices) for i in instances):
        return np.dtype(np.float32)
    low = min(int(s.rescale.intercept) + i.form.limits[0] for i in instances for s in i.slices)
    high = max(int(s.rescale.intercept) + i.form.limits[1] for i in instances for s in i.slices)
    for kind, (least, most) in ((np.uint8, UINT8), (np.int16, INT16), (np.uint16, UINT16)):
        if least <= low and high <= most:
            return np.dtype(kind)
    return np.dtype(np.int16)


# ---- the voxels -----------------------------------------------------------------------------------------------------


def _voxels(
    instances: Sequence[_Instance], shape: tuple[int, ...], meaning: _Meaning, fill: PixelFill | None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None, _Meaning]:
    """Decode into one array; as float32 when a value turns out not to fit the integer the headers promised."""
    voxels = np.empty(shape, dtype=meaning.dtype)
    padding = np.zeros(shape[1:], dtype=np.bool_) if any(s.padding for i in instances for s in i.slices) else None
    for instance in instances:
        frames = _frames(instance, fill)
        for item in instance.slices:
            stored = frames[item.frame]
            if padding is not None and item.padding is not None:
                low, high = item.padding
                padding[item.index] |= stored == low if low == high else (stored >= low) & (stored <= high)
            if not _place(stored, voxels[item.channel, item.index], item.rescale, meaning.factor):
                wider = replace(meaning, dtype=np.dtype(np.float32), notes=(*meaning.notes, "beyond_int16"))
                return _voxels(instances, shape, wider, fill)
    if padding is not None and not padding.any():
        padding = None
    return voxels, padding, meaning


def _frames(instance: _Instance, fill: PixelFill | None) -> NDArray[Any]:
    """(frame, row, column) stored values of an instance; the tiles of a mosaic are its frames."""
    form = instance.form
    if fill is not None and form.native and "PixelData" not in instance.dataset:
        scratch = np.empty(form.frames * form.frame_values, dtype=form.dtype)
        fill(instance.uid, scratch.data.cast("B"))
        frames = masked(native_values(scratch.data.cast("B"), form), form)
    else:
        frames = stored_values(instance.dataset, form)
    return frames if instance.tiles is None else cut_tiles(frames[0], instance.tiles)


def _place(stored: NDArray[Any], target: NDArray[Any], rescale: Rescale, factor: float) -> bool:
    """Write rescaled values into ``target``; False when they do not fit its integers."""
    if rescale.table is not None:
        stored = rescale.looked_up(stored)
    if target.dtype.kind == "f":
        slope, intercept = rescale.slope * factor, rescale.intercept * factor
        np.multiply(stored, np.float64(slope), out=target, casting="same_kind")
        if intercept:
            target += np.float32(intercept)
        return True
    offset = int(rescale.intercept)
    limits = np.iinfo(target.dtype)
    if np.can_cast(stored.dtype, target.dtype) and offset == 0:
        target[...] = stored
        return True
    if int(stored.min()) + offset < limits.min or int(stored.max()) + offset > limits.max:
        return False
    # In range at the end, so arithmetic that wraps on the way (uint16 - 1024) comes out right.
    np.add(stored.astype(target.dtype, casting="unsafe", copy=False), np.array(offset).astype(target.dtype), out=target)
    return True
