"""Turning frames of enhanced, legacy converted and mosaic objects into rows, so that one set of rules splits them.

Enhanced objects keep per-frame attributes in functional groups (PS3.3 C.7.6.16), which the table of instances does not
hold. Their stacks are therefore made from the data sets themselves.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, TypeAlias

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing
from builder.imaging.parse import leniently
from builder.imaging.rows import Row, header_values, instance_row
from builder.imaging.stacks.axes import joined
from builder.imaging.stacks.mosaic import tiles_of
from builder.imaging.stacks.options import REASONS, VolumeOptions, action_on, check_limits
from builder.imaging.stacks.series import split_rows
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.stacks.stack import Stack
from builder.model.tables import HEADER_COLUMNS, REALS, TEXT

MAX_FRAMES = 100_000
PIXEL_VALUES = "PixelValueTransformationSequence"
"""The functional group of a frame's rescale (PS3.3 C.7.6.16.2.9)."""

Frames: TypeAlias = Mapping[str, Set[int]]
"""Maps a SOPInstanceUID to its frames (from 0) that belong to one stack."""

FRAME_VALUES = {
    "image_position_patient": ("PlanePositionSequence", "ImagePositionPatient"),
    "image_orientation_patient": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "pixel_spacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "slice_thickness": ("PixelMeasuresSequence", "SliceThickness"),
    "spacing_between_slices": ("PixelMeasuresSequence", "SpacingBetweenSlices"),
    "echo_time": ("MREchoSequence", "EffectiveEchoTime"),
    "b_value": ("MRDiffusionSequence", "DiffusionBValue"),
    "trigger_time": ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    "temporal_position": ("FrameContentSequence", "TemporalPositionIndex"),
    "acquisition_number": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "acquisition_time": ("FrameContentSequence", "FrameAcquisitionDateTime"),
    "flip_angle": ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    "convolution_kernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "rescale_slope": ("PixelValueTransformationSequence", "RescaleSlope"),
    "rescale_intercept": ("PixelValueTransformationSequence", "RescaleIntercept"),
}
"""Maps a column to its functional group (PS3.3 C.7.6.16.2) and the attribute in that group."""

_TYPES = {column.name: column.type for column in HEADER_COLUMNS if column.name in FRAME_VALUES}

COMPLETE = (
    ("image_position_patient", "ImagePositionPatient", Reason.UNKNOWN_GEOMETRY),
    ("image_orientation_patient", "ImageOrientationPatient", Reason.UNKNOWN_GEOMETRY),
    ("pixel_spacing", "PixelSpacing", Reason.UNKNOWN_GEOMETRY),
    ("rescale_slope", "RescaleSlope", Reason.INCONSISTENT_PIXELS),
    ("rescale_intercept", "RescaleIntercept", Reason.INCONSISTENT_PIXELS),
)
"""Attributes that either all frames of an object must state, or none."""

FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
SPATIAL_DIMENSIONS = frozenset({0x00200032, 0x00209057, 0x00209056, 0x00201041})
"""Dimension Index Pointers (0020,9165) that give a frame's place: position, in-stack number, stack, location."""


@leniently()
def resolve(stack: Stack, datasets: Sequence[Dataset], frames: Frames | None = None) -> tuple[Stack, ...]:
    """Return the stacks inside multi-frame and mosaic objects; any other stack is returned as it is.

    Parameters
    ----------
    stack
        A stack from ``split_stacks``, with the UIDs of the data sets.
    datasets
        Headers of its instances, in any order and not de-identified: mosaics need Siemens' private CSA header, and a
        profile may remove attributes from functional groups. Use ``Stack.with_uids`` afterwards.
    frames
        The frames to look at; all of them by default.

    Raises
    ------
    CaseError
        UNSUPPORTED_OBJECT or UNKNOWN_GEOMETRY, with the name of what is missing.
    """
    if stack.verdict not in (Verdict.MULTIFRAME, Verdict.MOSAIC):
        return (stack,)
    wanted = {uid for channel in stack.uids for uid in channel}
    held = {str(d.get("SOPInstanceUID", "")): d for d in datasets}
    missing = sum(uid not in held for uid in wanted)
    if missing:
        raise CaseError(Reason.SOURCE_MISSING, f"{missing} of {len(wanted)} instances are absent")
    rows_of = mosaic_rows if stack.verdict == Verdict.MOSAIC else frame_rows
    with parsing(Reason.UNREADABLE, "found functional groups or a private header that do not parse"):
        rows = [
            row for uid in sorted(wanted) for row in rows_of(held[uid])
            if frames is None or row.frame in frames.get(uid, ())
        ]  # fmt: skip
    found = split_rows(rows)
    return tuple(replace(s, split_rule=s.split_rule or stack.split_rule) for s in found)


def settle(stack: Stack, datasets: Sequence[Dataset], options: VolumeOptions, frames: Frames | None = None) -> Stack:
    """Return the stack to assemble: ``stack`` itself, or the one stack inside a multi-frame or mosaic object.

    Stacks inside the object are joined as the options say. ``frames`` selects one stack when the object holds several.

    Raises
    ------
    CaseError
        As ``resolve``. Also UNSUPPORTED_OBJECT when the object holds several stacks, the inner verdict's reason when
        the options exclude it, and TOO_LARGE when it is beyond their limits.
    """
    if action_on(stack, options) != "exclude" and stack.verdict in (Verdict.MULTIFRAME, Verdict.MOSAIC):
        check_limits(stack, options)
        found = joined(resolve(stack, datasets, frames), options)
        if len(found) != 1:
            names = ", ".join(sorted({f"{s.split_rule or 'instance'}: {s.verdict}" for s in found}))
            detail = f"{stack.verdict} with {len(found)} stacks ({names}), expected 1"
            raise CaseError(Reason.UNSUPPORTED_OBJECT, detail)
        stack = found[0]
    if action_on(stack, options) == "exclude":
        raise CaseError(REASONS[stack.verdict], f"{stack.verdict}: {stack.detail}")
    check_limits(stack, options)
    return stack


def frame_rows(dataset: Dataset) -> list[Row]:
    """Return one row per frame of a multi-frame object, as if each were an instance; ``frame`` counts from 0."""
    base = _base_row(dataset)
    frames = base["number_of_frames"] or 1
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if frames > MAX_FRAMES:
        raise CaseError(Reason.TOO_LARGE, f"{frames} frames, at most {MAX_FRAMES}")
    if groups and len(groups) != frames:
        raise CaseError(Reason.INCONSISTENT_PIXELS, f"{len(groups)} per-frame groups for {frames} frames")
    spatial = _spatial_dimensions(dataset)
    rows = []
    for index in range(frames):
        own = groups[index] if groups else None
        number = (base["instance_number"] or 0) * MAX_FRAMES + index
        stated = _frame_values(own, shared[0] if len(shared) else None)
        place = {"number_of_frames": 1, "frame": index, "instance_number": number}
        rows.append(Row.of({**base, **place, **stated, "dimension": _dimension(own, spatial)}))
    _check_complete(rows)
    return rows


def _check_complete(rows: Sequence[Row]) -> None:
    """Refuse an object when some frames lack an attribute that the others state.

    A volume of the other frames alone would be incomplete without showing it.
    """
    for column, what, reason in COMPLETE:
        absent = sum(getattr(row, column) is None for row in rows)
        if 0 < absent < len(rows):
            raise CaseError(reason, f"{absent} of {len(rows)} frames have no {what}, the others have one")


def mosaic_rows(dataset: Dataset) -> list[Row]:
    """Return one row per tile of a mosaic, with the position from the manufacturer's private header."""
    base = _base_row(dataset)
    tiles = tiles_of(dataset)
    image_type = "\\".join(t for t in (base["image_type"] or "").split("\\") if t != "MOSAIC")
    tile = {"rows": tiles.rows, "columns": tiles.columns, "tiles": tiles.across, "image_type": image_type}
    plain = Row.of({**base, **tile})
    return [
        plain._replace(frame=index, image_position_patient=list(position))
        for index, position in enumerate(tiles.positions)
    ]


def functional_group(dataset: Dataset, frame: int, name: str) -> Dataset | None:
    """Return the functional group item that applies to a frame: its own, else the shared one, else None."""
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    own = groups[frame] if frame < len(groups) else None
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    return _item(own, name) or _item(shared[0] if len(shared) else None, name)


def value_items(dataset: Dataset) -> list[Dataset]:
    """Return what may state the rescale of each frame: its functional group item, or else the data set."""
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    return [functional_group(dataset, frame, PIXEL_VALUES) or dataset for frame in range(max(1, len(groups)))]


def _base_row(dataset: Dataset) -> Mapping[str, Any]:
    """Return the values of the whole instance, on which the rows of its frames are based."""
    return {**instance_row(dataset), "status": None}


def _frame_values(own: Dataset | None, shared: Dataset | None) -> Mapping[str, Any]:
    """Return the values that the functional groups state, by column; the top level applies to all other columns."""
    found = _unassigned(own, shared)
    for column, (group, keyword) in FRAME_VALUES.items():
        item = _item(own, group) or _item(shared, group)
        value = item.get(keyword) if item is not None else None
        if value is not None and value != "":
            found[column] = _of_column(column, _plain_value(value))
    for group in FRAME_TYPES:
        item = _item(own, group) or _item(shared, group)
        if item is not None and item.get("FrameType"):
            part = item.get("ComplexImageComponent")
            found["image_type"] = "\\".join(str(v) for v in (*item.FrameType, *([part] if part else [])))
    diffusion = _item(own, "MRDiffusionSequence")
    if diffusion is not None:
        found["diffusion_direction"] = _direction(diffusion)
    return found


def _unassigned(own: Dataset | None, shared: Dataset | None) -> dict[str, Any]:
    """Return the attributes of a legacy converted object's slices that no group holds (PS3.3 C.7.6.16.2.25)."""
    found: dict[str, Any] = {}
    for group, name in (
        (shared, "UnassignedSharedConvertedAttributesSequence"),
        (own, "UnassignedPerFrameConvertedAttributesSequence"),
    ):
        item = _item(group, name)
        found |= header_values(item) if item is not None else {}
    found.pop("instance_number", None)
    return found


def _direction(diffusion: Dataset) -> tuple[float, ...] | None:
    item = _item(diffusion, "DiffusionGradientDirectionSequence")
    value = item.get("DiffusionGradientOrientation") if item is not None else None
    return tuple(float(v) for v in value) if value else None


def _item(group: Dataset | None, name: str) -> Dataset | None:
    sequence = group.get(name) if group is not None else None
    item: Dataset | None = sequence[0] if sequence is not None and len(sequence) else None
    return item


def _plain_value(value: Any) -> Any:
    if isinstance(value, (MultiValue, list, tuple)):
        return [float(v) for v in value] if not isinstance(value[0], str) or _numeric(value[0]) else "\\".join(value)
    return float(value) if _numeric(value) else str(value)


def _of_column(column: str, value: Any) -> Any:
    """Return a value in the form that its column has in the index. May raise CaseError UNREADABLE."""
    kind = _TYPES[column]
    if kind == TEXT:
        return "\\".join(map(str, value)) if isinstance(value, list) else str(value)
    numbers = value if isinstance(value, list) else [value]
    if not all(isinstance(number, float) for number in numbers):
        detail = f"found a functional group whose {FRAME_VALUES[column][1]} is text, expected numbers"
        raise CaseError(Reason.UNREADABLE, detail)
    return numbers if kind == REALS else numbers[0]


def _numeric(value: Any) -> bool:
    return isinstance(value, (int, float)) or type(value).__name__ in ("DSfloat", "DSdecimal", "IS")


def _spatial_dimensions(dataset: Dataset) -> list[bool]:
    """Return for each dimension whether it gives the place of a frame."""
    items = dataset.get("DimensionIndexSequence") or []
    return [int(item.get("DimensionIndexPointer", 0) or 0) in SPATIAL_DIMENSIONS for item in items]


def _dimension(own: Dataset | None, spatial: Sequence[bool]) -> tuple[int, ...] | None:
    """Return the frame's indices (0020,9157) along the dimensions that are not spatial."""
    content = _item(own, "FrameContentSequence")
    values = content.get("DimensionIndexValues") if content is not None else None
    if values is None:
        return None
    values = list(values) if isinstance(values, (MultiValue, list, tuple)) else [values]
    if len(values) != len(spatial):
        return None
    return tuple(int(v) for v, where in zip(values, spatial, strict=True) if not where)
