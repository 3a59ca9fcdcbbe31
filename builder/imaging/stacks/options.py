"""What a spec says about volumes: one action a verdict, and limits that hold before anything is decoded."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from builder.errors import CaseError, Reason
from builder.imaging.pixels.stored import check_syntax
from builder.imaging.quantities.suv import WEIGHT_KG
from builder.imaging.stacks.series import Stack
from builder.imaging.stacks.spacing import Verdict

REASONS = {
    Verdict.REGULAR: Reason.NOT_SELECTED,
    Verdict.SHEARED: Reason.SHEARED,
    Verdict.IRREGULAR: Reason.IRREGULAR_SPACING,
    Verdict.GAPPED: Reason.GAPPED,
    Verdict.DUPLICATE_POSITIONS: Reason.DUPLICATE_POSITIONS,
    Verdict.MIXED_ORIENTATION: Reason.MIXED_ORIENTATION,
    Verdict.SINGLE_SLICE: Reason.SINGLE_SLICE,
    Verdict.TIME_SERIES: Reason.TIME_SERIES,
    Verdict.CHANNELS: Reason.NOT_SELECTED,
    Verdict.UNKNOWN_GEOMETRY: Reason.UNKNOWN_GEOMETRY,
    Verdict.MULTIFRAME: Reason.UNSUPPORTED_OBJECT,
    Verdict.MOSAIC: Reason.UNSUPPORTED_OBJECT,
    Verdict.LOCALIZER: Reason.UNSUPPORTED_OBJECT,
    Verdict.PROJECTION: Reason.UNSUPPORTED_OBJECT,
    Verdict.STILL: Reason.UNSUPPORTED_OBJECT,
    Verdict.CINE: Reason.UNSUPPORTED_OBJECT,
    Verdict.SECONDARY_CAPTURE: Reason.UNSUPPORTED_OBJECT,
    Verdict.WHOLE_SLIDE: Reason.UNSUPPORTED_OBJECT,
    Verdict.NOT_AN_IMAGE: Reason.NOT_AN_IMAGE,
}
"""The exclusion reason of a verdict whose action is ``exclude``."""

Axis = Literal["echo_time", "b_value", "component"]
KeepOrNot = Literal["keep", "exclude"]


class VolumeOptions(BaseModel):
    """The ``volumes:`` block of a spec.

    Parameters
    ----------
    regular, sheared, ...
        What happens to a stack of that verdict. ``keep``: its grid exactly as found. ``resample``: to a regular grid
        (irregular stacks linearly along the slice axis while they are assembled; sheared ones, with their labels, by
        the spec's ``resample`` transform, or at their own spacing where it has none). ``split``: one volume a time
        point, or one a run without a gap. ``exclude``: an exclusion row.
    join
        Named axes: stacks of a series that differ only in these become channels of one volume, where they share a
        grid. ``component`` is what Image Type says an image shows: magnitude, phase, water, a map, ...
    monochrome1
        ``invert`` pictures whose smallest value is white (0028,0004) when they carry no physical unit, or ``keep``.
    padding
        ``fill`` voxels that the source marks as no data (0028,0120) with air (HU) or 0, or ``keep`` their numbers;
        the volume's padding mask holds them either way.
    pet
        ``suv`` where every input is present and consistent, else activity with the reason in the notes; ``require_suv``
        excludes a series that cannot be SUV; ``activity`` keeps what the source states.
    pet_weight_kg
        Lowest and highest weight from which SUV is made. The default is that of persons from 3 kg on; give other
        limits for newborns and animals, for whom weight is then not compared with age and height.
    philips
        Numbers of a Philips MR: ``display`` values as the file's rescale gives them, noting a private scale that is
        left alone; or ``precise``, what the scanner measured, comparable between series (2005,xx0E). A Philips series
        without that scale is then excluded.
    max_voxels, max_frames
        A stack larger than this is excluded before any pixel is read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    VERSION: ClassVar[int] = 4

    regular: KeepOrNot = "keep"
    sheared: Literal["keep", "resample", "exclude"] = "keep"
    irregular: Literal["resample", "exclude"] = "exclude"
    gapped: Literal["resample", "split", "exclude"] = "exclude"
    time_series: Literal["keep", "split", "exclude"] = "exclude"
    single_slice: KeepOrNot = "exclude"
    multiframe: KeepOrNot = "keep"
    mosaic: KeepOrNot = "keep"
    projection: KeepOrNot = "exclude"
    localizer: KeepOrNot = "exclude"
    still: KeepOrNot = "exclude"
    cine: KeepOrNot = "exclude"
    secondary_capture: KeepOrNot = "exclude"
    duplicate_positions: Literal["exclude"] = "exclude"
    mixed_orientation: Literal["exclude"] = "exclude"
    unknown_geometry: Literal["exclude"] = "exclude"
    whole_slide: Literal["exclude"] = "exclude"
    not_an_image: Literal["exclude"] = "exclude"
    channels: KeepOrNot = "keep"
    join: tuple[Axis, ...] = ()
    monochrome1: Literal["invert", "keep"] = "invert"
    padding: Literal["fill", "keep"] = "fill"
    pet: Literal["suv", "require_suv", "activity"] = "suv"
    pet_weight_kg: tuple[float, float] = WEIGHT_KG
    philips: Literal["display", "precise"] = "display"
    max_voxels: int = Field(default=2**30, gt=0)
    max_frames: int = Field(default=20_000, gt=0)


Action = Literal["keep", "resample", "split", "exclude"]


def action_on(stack: Stack, options: VolumeOptions) -> Action:
    """What ``options`` say to do with ``stack``."""
    action: Action = getattr(options, stack.verdict.value)
    return action


def admit(stack: Stack, options: VolumeOptions) -> tuple[Stack, ...]:
    """The stacks to assemble in place of ``stack``: itself, or its parts where the options say ``split``.

    Raises
    ------
    CaseError
        With the verdict's reason when the options exclude it, TOO_LARGE when it is beyond their limits,
        UNSUPPORTED_TRANSFER_SYNTAX when nothing here decodes its pixels.
    """
    action = action_on(stack, options)
    if action == "exclude":
        raise CaseError(REASONS[stack.verdict], f"{stack.verdict}: {stack.detail}")
    check_limits(stack, options)
    for syntax in stack.transfer_syntaxes:
        check_syntax(syntax)
    return stack.split() if action == "split" else (stack,)


def check_limits(stack: Stack, options: VolumeOptions) -> None:
    """Compare what the headers announce with the limits. Raises CaseError TOO_LARGE."""
    slices, rows, columns = stack.shape
    voxels = slices * rows * columns * len(stack.channels)
    check_voxels(voxels, options)
    if stack.frames > options.max_frames:
        raise CaseError(Reason.TOO_LARGE, f"{stack.frames} frames, at most {options.max_frames} (volumes.max_frames)")


def check_voxels(voxels: int, options: VolumeOptions) -> None:
    """Compare a number of values with ``volumes.max_voxels``. Raises CaseError TOO_LARGE."""
    if voxels > options.max_voxels:
        raise CaseError(Reason.TOO_LARGE, f"{voxels} voxels, at most {options.max_voxels} (volumes.max_voxels)")
