"""A stack and its data sets become a volume: one array, one grid, one meaning of the numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.imaging.options import REASONS, VolumeOptions, action_on, check_limits
from builder.imaging.pixels import PixelFormat, masked, native_values, pixel_format, stored_values
from builder.imaging.rescale import Rescale, padding_of, rescale_of
from builder.imaging.series import Stack
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
    """One instance and where its values go."""

    uid: str
    channel: int
    index: int
    dataset: Dataset
    form: PixelFormat
    rescale: Rescale
    padding: tuple[int, int] | None


@dataclass(frozen=True)
class _Meaning:
    """What the numbers become: the array's dtype, a factor on top of the rescale, the domain."""

    dtype: np.dtype[Any]
    factor: float
    domain: ValueDomain
    notes: tuple[str, ...]


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
    if action_on(stack, options) == "exclude":
        raise CaseError(REASONS[stack.verdict], f"{stack.verdict}: {stack.detail}")
    check_limits(stack, options)
    geometry = stack.geometry
    if geometry is None:
        raise CaseError(Reason.UNKNOWN_GEOMETRY, f"{stack.verdict}: {stack.detail}")
    slices = _gather(stack, datasets)
    meaning = _meaning(stack, slices, options, calibration)
    shape = (len(stack.channels), *stack.shape)
    voxels, padding, meaning = _voxels(slices, shape, meaning, fill)
    if padding is not None and options.padding == "fill":
        voxels[:, padding] = AIR_HU if meaning.domain == ValueDomain.HOUNSFIELD else 0
    notes = tuple(sorted({*stack.notes, *meaning.notes}))
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


def _gather(stack: Stack, datasets: Sequence[Dataset]) -> list[_Slice]:
    """The slices in order, each with its format and rescale. Raises CaseError."""
    by_uid: Mapping[str, Dataset] = {str(dataset.get("SOPInstanceUID", "")): dataset for dataset in datasets}
    wanted = [(uid, channel, index) for channel, uids in enumerate(stack.uids) for index, uid in enumerate(uids)]
    missing = sum(1 for uid, _, _ in wanted if uid not in by_uid)
    if missing:
        raise CaseError(Reason.SOURCE_MISSING, f"{missing} of {len(wanted)} slices are absent")
    slices = []
    for uid, channel, index in wanted:
        dataset = by_uid[uid]
        form = pixel_format(dataset)
        if (form.rows, form.columns, form.frames, form.samples) != (*stack.shape[1:], 1, 1):
            found = f"{form.rows} x {form.columns}, {form.frames} frames, {form.samples} samples"
            raise CaseError(Reason.INCONSISTENT_PIXELS, f"{found} in a stack of {stack.shape[1]} x {stack.shape[2]}")
        slices.append(_Slice(uid, channel, index, dataset, form, rescale_of(dataset), padding_of(dataset, form)))
    return slices


# ---- what the numbers mean ------------------------------------------------------------------------------------------


def _meaning(
    stack: Stack, slices: Sequence[_Slice], options: VolumeOptions, calibration: Calibration | None
) -> _Meaning:
    """Domain and dtype from the headers."""
    if stack.modality == "PT":
        found = calibration or calibrate([s.dataset for s in slices])
        if found.domain != ValueDomain.SUV_BW and options.pet == "require_suv":
            raise CaseError(Reason.UNKNOWN_UNITS, "; ".join(found.notes) or f"found {found.domain}, expected SUVbw")
        if options.pet == "activity" and found.factor != 1.0:
            found = Calibration(1.0, ValueDomain.ACTIVITY)
        return _Meaning(np.dtype(np.float32), found.factor, found.domain, found.notes)
    stated = any(s.rescale.stated for s in slices)
    kinds = {s.rescale.kind for s in slices}
    notes: tuple[str, ...] = ()
    if stack.modality == "CT" and stated and kinds <= {"", "HU"}:
        domain = ValueDomain.HOUNSFIELD
    elif stack.modality == "MR" or stated:
        domain = ValueDomain.ARBITRARY
        notes = tuple(f"rescale_type={kind}" for kind in sorted(kinds - {"", "US"}))
    else:
        domain = ValueDomain.STORED
    return _Meaning(_dtype(slices), 1.0, domain, notes)


def _dtype(slices: Sequence[_Slice]) -> np.dtype[Any]:
    """The narrowest integer for whole offsets, float32 for everything else.

    16 stored bits and an offset may reach past int16; values that do are found while decoding.
    """
    if any(s.form.real or not s.rescale.whole or s.form.bits_allocated > 16 for s in slices):
        return np.dtype(np.float32)
    low = min(int(s.rescale.intercept) + s.form.limits[0] for s in slices)
    high = max(int(s.rescale.intercept) + s.form.limits[1] for s in slices)
    for kind, (least, most) in ((np.uint8, UINT8), (np.int16, INT16), (np.uint16, UINT16)):
        if least <= low and high <= most:
            return np.dtype(kind)
    return np.dtype(np.int16)


# ---- the voxels -----------------------------------------------------------------------------------------------------


def _voxels(
    slices: Sequence[_Slice], shape: tuple[int, ...], meaning: _Meaning, fill: PixelFill | None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None, _Meaning]:
    """Decode into one array; as float32 when a value turns out not to fit the integer the headers promised."""
    voxels = np.empty(shape, dtype=meaning.dtype)
    padding = np.zeros(shape[1:], dtype=np.bool_) if any(s.padding for s in slices) else None
    for item in slices:
        stored = _stored(item, fill)
        if padding is not None and item.padding is not None:
            low, high = item.padding
            padding[item.index] |= stored == low if low == high else (stored >= low) & (stored <= high)
        if not _place(stored, voxels[item.channel, item.index], item.rescale, meaning.factor):
            notes = (*meaning.notes, "beyond_int16")
            return _voxels(slices, shape, _Meaning(np.dtype(np.float32), meaning.factor, meaning.domain, notes), fill)
    if padding is not None and not padding.any():
        padding = None
    return voxels, padding, meaning


def _stored(item: _Slice, fill: PixelFill | None) -> NDArray[Any]:
    """(row, column) stored values of one slice."""
    form = item.form
    if fill is not None and form.native and "PixelData" not in item.dataset:
        scratch = np.empty(form.frame_values, dtype=form.dtype)
        fill(item.uid, scratch.data.cast("B"))
        frame: NDArray[Any] = masked(native_values(scratch.data.cast("B"), form)[0], form)
        return frame
    frame = stored_values(item.dataset, form)[0]
    return frame


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
