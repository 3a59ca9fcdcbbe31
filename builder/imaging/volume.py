"""Assembling a stack and its data sets into a volume: one array, one grid, one meaning of the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pydicom.dataset import Dataset

from builder.decode.format import FORMAT_COLUMNS, PixelFormat, checked_format, pixel_format
from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing
from builder.imaging.multiframe import PIXEL_VALUES, functional_group, settle, value_items
from builder.imaging.parse import leniently
from builder.imaging.pictures import assemble_picture
from builder.imaging.pixels.rescale import check_alike, linear_rescale, padding_of, padding_range, rescale_of
from builder.imaging.pixels.stored import stream_notes
from builder.imaging.pixels.values import Instance, PixelFill, Slice, decode, dtype_of
from builder.imaging.quantities.philips import APPLIED, NO_SCALES, Scales, scales_of
from builder.imaging.quantities.suv import Calibration, calibrate
from builder.imaging.rows import noted_columns
from builder.imaging.stacks.even import even_geometry, evened
from builder.imaging.stacks.options import REASONS, VolumeOptions, action_on, check_limits, check_voxels
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.stacks.stack import AIR, PICTURES, Stack
from builder.model.case import ValueDomain, Volume

FLOAT32_MAX = float(np.finfo(np.float32).max)

VALUE_COLUMNS = (
    *("pixel_padding_value", "pixel_padding_range_limit", "rescale_slope", "rescale_intercept", "rescale_type"),
)
ROW_COLUMNS = ("sop_instance_uid", "detail", *FORMAT_COLUMNS, *VALUE_COLUMNS)
"""Columns of INSTANCES that ``assemble_indexed`` reads."""


@dataclass(frozen=True)
class _Meaning:
    """The factor to apply after the rescale, and what the resulting numbers mean."""

    factor: float
    domain: ValueDomain
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Archived:
    """What the objects of an archive state, for data sets that were de-identified after it was read.

    Parameters
    ----------
    calibration
        Turns the values of a PET into SUV; None determines it from the data sets.
    scales
        The private scale of a Philips MR, with the same rule.
    datasets
        The data sets as the archive holds them, in the order of the de-identified ones. Both must agree about their
        numbers: de-identification drops values that it cannot read, and a dropped rescale would otherwise count as no
        rescale.
    """

    calibration: Calibration | None = None
    scales: Scales | None = None
    datasets: Sequence[Dataset] = ()


@leniently()
def assemble(
    stack: Stack,
    datasets: Sequence[Dataset],
    options: VolumeOptions = VolumeOptions(),
    *,
    fill: PixelFill | None = None,
    archived: Archived = Archived(),
    number_type: str = "",
) -> Volume:
    """Decode, rescale and order the slices of ``stack``.

    Parameters
    ----------
    stack
        A stack from ``split_stacks``, admitted by ``admit``, with the UIDs of the data sets.
    datasets
        The instances of the stack, in any order, de-identified or not. Other instances are ignored.
    fill
        Reads native pixels when a data set has none in memory.
    archived
        What was read from the archive's objects, when ``datasets`` are de-identified.
    number_type
        Type of the voxels that the plan chose for all images of a dataset; "" for the image's own type.

    Returns
    -------
    Volume
        int16 (or uint16, uint8) when every rescale is a whole offset that fits, else float32.

    Raises
    ------
    CaseError
        The verdict's reason when the options exclude the stack; SOURCE_MISSING, TOO_LARGE, UNDECODABLE_PIXELS,
        UNSUPPORTED_TRANSFER_SYNTAX or INCONSISTENT_PIXELS.
    """
    stack = settle(stack, datasets, options)
    for dataset, original in zip(datasets, archived.datasets, strict=bool(archived.datasets)):
        _check_kept(dataset, original)
    if stack.verdict in PICTURES:
        return _conformed(assemble_picture(stack, datasets, options), number_type)
    instances = _gather(stack, datasets)
    if stack.modality == "PT":
        found = archived.calibration or _calibrated(instances, options)
        meaning = _activity(found, options)
    else:
        instances, notes = _scaled(instances, archived.scales or scales_of(datasets), options)
        meaning = _meaning(stack, instances, notes)
    volume = _volume(stack, instances, meaning=meaning, options=options, fill=fill, number_type=number_type)
    return _conformed(volume, number_type)


def assemble_indexed(
    stack: Stack,
    rows: pa.Table,
    options: VolumeOptions = VolumeOptions(),
    *,
    fill: PixelFill,
    calibration: Calibration | None = None,
    scales: Scales = NO_SCALES,
    number_type: str = "",
) -> Volume:
    """Do what ``assemble`` does from index rows and native pixel bytes, without parsing any header again.

    Parameters
    ----------
    stack
        CT or MR slices, or PET slices with a ``calibration``; one slice per instance.
    rows
        INSTANCES rows of its instances, in any order.
    fill
        Reads the native pixels of an instance, at ``pixel_offset`` of its file.
    scales
        The private scale of a Philips MR. It must cover every instance when the options apply it.

    Raises
    ------
    CaseError
        As ``assemble``. Also UNSUPPORTED_TRANSFER_SYNTAX when an instance is not native; use ``assemble`` for it.
    """
    check_limits(stack, options)
    if action_on(stack, options) == "exclude":
        raise CaseError(REASONS[stack.verdict], f"{stack.verdict}: {stack.detail}")
    held = {row["sop_instance_uid"]: row for row in rows.select(list(ROW_COLUMNS)).to_pylist()}
    instances = [
        _indexed(stack, uid, held, channel=channel, index=index)
        for channel, uids in enumerate(stack.uids)
        for index, uid in enumerate(uids)
    ]
    if stack.modality == "PT":
        meaning = _activity(calibration or Calibration(1.0, ValueDomain.ARBITRARY, ("pet_not_calibrated",)), options)
    else:
        instances, notes = _scaled(instances, scales, options)
        meaning = _meaning(stack, instances, notes)
    volume = _volume(stack, instances, meaning=meaning, options=options, fill=fill, number_type=number_type)
    return _conformed(volume, number_type)


def estimate_bytes(stack: Stack) -> int:
    """Estimate from the headers the peak memory in bytes that ``assemble`` needs for ``stack``.

    This covers the result with its padding mask, what is decoded at a time, and the source of a resampled stack. It
    does not cover files that the caller holds in memory.
    """
    slices, rows, columns = stack.shape
    plane = rows * columns * (len(stack.channels) if stack.verdict in PICTURES else 1)
    values = rows * columns * slices * len(stack.channels)
    total = values * stack.voxel_bytes
    if stack.frame_numbers or stack.verdict in (Verdict.MULTIFRAME, Verdict.MOSAIC, Verdict.CINE):
        total += values * max(1, stack.bits_allocated // 8)
    if stack.uneven is not None:
        total += int(total / slices * (stack.offsets[-1] + 1))
    return total + 2 * plane * max(1, stack.bits_allocated // 8)


def _volume(
    stack: Stack,
    instances: Sequence[Instance],
    *,
    meaning: _Meaning,
    options: VolumeOptions,
    fill: PixelFill | None,
    number_type: str,
) -> Volume:
    """Decode into a volume on the stack's grid."""
    geometry = stack.geometry if stack.uneven is None else even_geometry(stack)
    if geometry is None:
        known = "; its slice axis has no known length" if stack.verdict == Verdict.SINGLE_SLICE else ""
        raise CaseError(Reason.UNKNOWN_GEOMETRY, f"{stack.verdict}: {stack.detail}{known}")
    check_voxels(geometry.shape[0] * geometry.shape[1] * geometry.shape[2] * len(stack.channels), options)
    _check_values(instances)
    filling = None
    if options.padding == "fill":
        filling = float(AIR) if meaning.domain == ValueDomain.HOUNSFIELD else 0.0
    dtype = dtype_of(instances, filling) if stack.modality != "PT" else np.dtype(np.float32)
    if number_type and np.can_cast(dtype, number_type):
        dtype = np.dtype(number_type)
    shape = (len(stack.channels), *stack.shape)
    voxels, padding = decode(instances, shape, dtype=dtype, factor=meaning.factor, fill=fill, filling=filling)
    wider = ("beyond_int16",) if voxels.dtype != dtype else ()
    streams = {note for i in instances if i.dataset is not None for note in stream_notes(i.dataset, i.form)}
    notes = tuple(sorted({*stack.notes, *meaning.notes, *wider, *streams}))
    if stack.uneven is not None:
        voxels, padding = evened(voxels, padding, np.array(stack.offsets))
        notes = (*notes, f"resampled_from={stack.verdict}")
    return Volume(voxels, geometry, meaning.domain, stack.channels, padding, notes)


def _conformed(volume: Volume, number_type: str) -> Volume:
    """Cast the volume to its dataset's type. Raise CaseError INCONSISTENT_PIXELS when that would change a value."""
    if not number_type or volume.voxels.dtype == number_type:
        return volume
    with np.errstate(invalid="ignore"):
        voxels = volume.voxels.astype(number_type)
    if not np.array_equal(voxels, volume.voxels):
        raise CaseError(
            Reason.INCONSISTENT_PIXELS,
            f"found {volume.voxels.dtype} values that {number_type} does not hold, expected {number_type} as the "
            "headers of the dataset's images say; add the transform intensity with a dtype",
        )
    return replace(volume, voxels=voxels)


def _gather(stack: Stack, datasets: Sequence[Dataset]) -> list[Instance]:
    """Return the instances with the slices that each holds, in the order of their first slices. May raise CaseError."""
    by_uid: Mapping[str, Dataset] = {str(dataset.get("SOPInstanceUID", "")): dataset for dataset in datasets}
    places: dict[str, list[tuple[int, int, int]]] = {}
    for channel, uids in enumerate(stack.uids):
        frames = stack.frame_numbers[channel] if stack.frame_numbers else [0] * len(uids)
        for index, (uid, frame) in enumerate(zip(uids, frames, strict=True)):
            places.setdefault(uid, []).append((channel, index, frame))
    missing = sum(1 for uid in places if uid not in by_uid)
    if missing:
        raise CaseError(Reason.SOURCE_MISSING, f"{missing} of {len(places)} instances are absent")
    return [_instance(stack, by_uid[uid], uid=uid, places=places[uid]) for uid in places]


def _instance(stack: Stack, dataset: Dataset, *, uid: str, places: Sequence[tuple[int, int, int]]) -> Instance:
    """Read format and rescale of one instance, and check them against its stack. May raise CaseError."""
    form = pixel_format(dataset)
    across = max(1, stack.tiles)
    down = max(1, form.rows // max(1, stack.shape[1])) if stack.tiles else 1
    frames = down * across if stack.tiles else form.frames
    _check_place(form, stack, (form.rows // down, form.columns // across), frames)
    if max(frame for _, _, frame in places) >= frames:
        raise CaseError(Reason.INCONSISTENT_PIXELS, f"found {frames} frames, expected those of the stack")
    padding = padding_of(dataset, form)
    slices = []
    with parsing(Reason.INCONSISTENT_PIXELS, "found functional groups that do not parse"):
        for channel, index, frame in places:
            values = functional_group(dataset, frame, PIXEL_VALUES) or dataset
            slices.append(Slice(channel, index, frame, rescale_of(values), padding))
    return Instance(uid, form, tuple(slices), dataset, (down, across) if stack.tiles else None)


def _indexed(stack: Stack, uid: str, held: Mapping[str, dict[str, Any]], *, channel: int, index: int) -> Instance:
    """Make one instance from its index row. May raise CaseError."""
    row = held.get(uid)
    if row is None:
        raise CaseError(Reason.SOURCE_MISSING, "an instance of the stack has no row")
    _check_noted(row)
    form = checked_format(
        row, syntax=row["transfer_syntax_uid"] or "", photometric=row["photometric_interpretation"] or ""
    )
    if not form.native:
        raise CaseError(Reason.UNSUPPORTED_TRANSFER_SYNTAX, "encoded pixels, expected native ones")
    _check_place(form, stack, (form.rows, form.columns), form.frames)
    if form.frames != 1:
        raise CaseError(Reason.INCONSISTENT_PIXELS, f"found {form.frames} frames in a slice, expected 1")
    rescale = linear_rescale(row["rescale_slope"], row["rescale_intercept"], row["rescale_type"])
    padding = padding_range(row["pixel_padding_value"], row["pixel_padding_range_limit"], form)
    return Instance(uid, form, (Slice(channel, index, 0, rescale, padding),))


def _calibrated(instances: Sequence[Instance], options: VolumeOptions) -> Calibration:
    headers = [i.dataset for i in instances if i.dataset is not None]
    return calibrate(headers, weight_kg=options.pet_weight_kg)


def _check_noted(row: Mapping[str, Any]) -> None:
    """Refuse a row with values that the index could not read, because their null would count as absent."""
    noted = noted_columns(row["detail"])
    for names, reason in ((FORMAT_COLUMNS, Reason.UNDECODABLE_PIXELS), (VALUE_COLUMNS, Reason.INCONSISTENT_PIXELS)):
        damaged = sorted(noted.intersection(names))
        if damaged:
            raise CaseError(reason, f"found values of {', '.join(damaged)} that cannot be read, expected numbers")


def _check_place(form: PixelFormat, stack: Stack, size: tuple[int, int], frames: int) -> None:
    """Refuse an instance whose pixels do not have the form of a slice of its stack."""
    if size != stack.shape[1:]:
        found = f"{size[0]} x {size[1]}, {frames} frames"
        raise CaseError(Reason.INCONSISTENT_PIXELS, f"{found} in a stack of {stack.shape[1]} x {stack.shape[2]}")
    if form.samples != 1 or form.photometric == "PALETTE COLOR":
        raise CaseError(Reason.INCONSISTENT_PIXELS, f"{form.photometric} in a stack of slices")


def _check_values(instances: Sequence[Instance]) -> None:
    """Refuse slices whose values do not share one meaning, or do not fit a float32. May raise CaseError."""
    check_alike([s.rescale for i in instances for s in i.slices])
    for instance in instances:
        largest = max(map(abs, instance.form.limits))
        reach = max(abs(s.rescale.slope) * largest + abs(s.rescale.intercept) for s in instance.slices)
        if reach > FLOAT32_MAX and not instance.form.real:
            detail = f"found a rescale that reaches {reach:.3g}, expected at most {FLOAT32_MAX:.3g}"
            raise CaseError(Reason.INCONSISTENT_PIXELS, detail)


def _check_kept(dataset: Dataset, original: Dataset) -> None:
    """Refuse an instance whose numbers change their meaning when it is de-identified."""
    form, kept = pixel_format(original), pixel_format(dataset)
    stated, left = ([rescale_of(item) for item in value_items(d)] for d in (original, dataset))
    same = len(stated) == len(left) and all(a.same(b) for a, b in zip(stated, left, strict=True))
    if replace(form, photometric="") != replace(kept, photometric="") or not same:
        detail = "found pixel attributes or a rescale that de-identification cannot read, expected plain numbers"
        raise CaseError(Reason.INCONSISTENT_PIXELS, detail)
    if padding_of(original, form) != padding_of(dataset, form):
        detail = "found a padding value that de-identification cannot read, expected a plain number"
        raise CaseError(Reason.INCONSISTENT_PIXELS, detail)


def _activity(found: Calibration, options: VolumeOptions) -> _Meaning:
    """Return the factor and meaning of a PET's numbers under the options. May raise CaseError UNKNOWN_UNITS."""
    if found.domain != ValueDomain.SUV_BW and options.pet == "require_suv":
        raise CaseError(Reason.UNKNOWN_UNITS, "; ".join(found.notes) or f"found {found.domain}, expected SUVbw")
    if options.pet == "activity" and found.factor != 1.0:
        return _Meaning(1.0, ValueDomain.ACTIVITY, ())
    return _Meaning(found.factor, found.domain, found.notes)


def _scaled(
    instances: Sequence[Instance], scales: Scales, options: VolumeOptions
) -> tuple[list[Instance], tuple[str, ...]]:
    """Return the instances at the scale that the options ask for, with notes. May raise CaseError UNKNOWN_UNITS."""
    if options.philips == "display" or not scales.slopes:
        return list(instances), scales.notes
    scaled = [
        replace(i, slices=tuple(replace(s, rescale=scales.apply(s.rescale, i.uid, s.frame)) for s in i.slices))
        for i in instances
    ]
    return scaled, (APPLIED,)


def _meaning(stack: Stack, instances: Sequence[Instance], notes: tuple[str, ...]) -> _Meaning:
    """Return the meaning of the numbers of any image other than PET."""
    stated = any(s.rescale.stated for i in instances for s in i.slices)
    kinds = {s.rescale.kind for i in instances for s in i.slices}
    if stack.modality == "CT" and stated and kinds <= {"", "HU"}:
        return _Meaning(1.0, ValueDomain.HOUNSFIELD, ())
    if stack.modality == "MR" or stated:
        kind_notes = tuple(f"rescale_type={kind}" for kind in sorted(kinds - {"", "US"}))
        return _Meaning(1.0, ValueDomain.ARBITRARY, (*notes, *kind_notes))
    return _Meaning(1.0, ValueDomain.STORED, ())
