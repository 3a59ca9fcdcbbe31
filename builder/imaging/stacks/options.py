"""The ``volumes:`` options of a spec: one action per verdict, and limits that are checked before decoding."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from builder.errors import CaseError, Reason
from builder.imaging.pixels.stored import check_syntax
from builder.imaging.quantities.suv import WEIGHT_KG
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.stacks.stack import Stack

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


class ValueOptions(BaseModel):
    """The options of ``volumes`` that one image of a case may have for itself; what is not stated stays as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    monochrome1: Literal["invert", "keep"] | None = None
    """As ``volumes.monochrome1``, for this image."""
    padding: Literal["fill", "keep"] | None = None
    """As ``volumes.padding``, for this image."""
    pet: Literal["suv", "require_suv", "activity"] | None = None
    """As ``volumes.pet``, for this image."""
    pet_weight_kg: tuple[float, float] | None = None
    """As ``volumes.pet_weight_kg``, for this image."""
    philips: Literal["display", "precise"] | None = None
    """As ``volumes.philips``, for this image."""


class VolumeOptions(BaseModel):
    """The ``volumes:`` block of a spec.

    The first options name a verdict each and say what happens to a stack of that verdict. ``keep`` leaves its grid
    exactly as found. ``resample`` puts it on a regular grid: irregular stacks linearly along the slice axis during
    assembly; sheared stacks, with their labels, by the spec's ``resample`` transform, or at their own spacing without
    one. ``split`` makes one volume per time point, or per run without a gap. ``exclude`` writes an exclusion row.

    Parameters
    ----------
    join
        Named axes. Stacks of a series that differ only in these become channels of one volume if they share a grid.
        ``component`` is what Image Type says an image shows: magnitude, phase, water, a map, ...
    monochrome1
        ``invert`` pictures whose smallest value is white (0028,0004) when they have no physical unit, or ``keep`` them.
    padding
        ``fill`` voxels that the source marks as no data (0028,0120) with air (HU) or 0, or ``keep`` their numbers.
        The volume's padding mask marks them either way.
    pet
        ``suv`` when every input is present and consistent, else activity with the reason in the notes; ``require_suv``
        excludes a series that cannot be SUV; ``activity`` keeps what the source states.
    pet_weight_kg
        Lowest and highest weight that is accepted for SUV. The default is for people of 3 kg and more. Set other limits
        for newborns and animals; weight is then not compared with age and height.
    philips
        The numbers of a Philips MR. ``display`` takes the values of the file's rescale, and notes a private scale that
        was not applied. ``precise`` takes what the scanner measured (2005,xx0E), which is comparable between series;
        a Philips series without that scale is then excluded.
    max_voxels, max_frames
        A stack larger than this is excluded before any pixel is read.
    of
        With ``cohort.images``: other options for the values of single images, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    VERSION: ClassVar[int] = 8

    regular: KeepOrNot = "keep"
    """Slices of equal distance and orientation."""
    sheared: Literal["keep", "resample", "exclude"] = "keep"
    """Equal distances along a line that is not the slices' normal, as a tilted gantry gives. ``resample``: the spec's
    ``resample`` transform makes the grid orthogonal."""
    irregular: Literal["resample", "exclude"] = "exclude"
    """Slices whose distances differ. ``resample``: interpolate them to a regular grid."""
    gapped: Literal["resample", "split", "exclude"] = "exclude"
    """A regular grid of which slices are missing. ``resample``: interpolate them; ``split``: one volume per run without
    a gap."""
    time_series: Literal["keep", "split", "exclude"] = "exclude"
    """Several images at each position, at different times. ``split``: one volume per time point."""
    single_slice: KeepOrNot = "exclude"
    """A slice without neighbours."""
    multiframe: KeepOrNot = "keep"
    """An enhanced object whose frames form a volume."""
    mosaic: KeepOrNot = "keep"
    """A Siemens or United Imaging mosaic: the slices of a volume as tiles of one picture."""
    projection: KeepOrNot = "exclude"
    """A radiograph or mammogram: a projection without depth."""
    localizer: KeepOrNot = "exclude"
    """An overview for planning (scout, topogram)."""
    still: KeepOrNot = "exclude"
    """A single picture, such as an ultrasound still or a photograph."""
    cine: KeepOrNot = "exclude"
    """A film: frames over time without a position."""
    secondary_capture: KeepOrNot = "exclude"
    """A picture made by a screen capture, a scanner of films or other software."""
    duplicate_positions: Literal["exclude"] = "exclude"
    """Several slices at one position that nothing tells apart."""
    mixed_orientation: Literal["exclude"] = "exclude"
    """Slices of several orientations."""
    unknown_geometry: Literal["exclude"] = "exclude"
    """Slices whose positions or orientations are absent or contradict each other."""
    whole_slide: Literal["exclude"] = "exclude"
    """A whole-slide microscopy image."""
    not_an_image: Literal["exclude"] = "exclude"
    """An object without pixels."""
    channels: KeepOrNot = "keep"
    """Several images at each position that differ in a named way (see ``join``) and share a grid."""
    join: tuple[Axis, ...] = ()
    monochrome1: Literal["invert", "keep"] = "invert"
    padding: Literal["fill", "keep"] = "fill"
    pet: Literal["suv", "require_suv", "activity"] = "suv"
    pet_weight_kg: tuple[float, float] = WEIGHT_KG
    philips: Literal["display", "precise"] = "display"
    max_voxels: int = Field(default=2**30, gt=0)
    max_frames: int = Field(default=20_000, gt=0)
    of: Mapping[str, ValueOptions] = Field(default_factory=dict)

    def for_image(self, name: str) -> "VolumeOptions":
        """Return the options for one image of a case."""
        both = (self.of.get(n, ValueOptions()).model_dump(exclude_none=True) for n in (name.rpartition(".")[2], name))
        own = {option: value for stated in both for option, value in stated.items()}
        return self.model_copy(update={**own, "of": {}})


Action = Literal["keep", "resample", "split", "exclude"]


def action_on(stack: Stack, options: VolumeOptions) -> Action:
    """Return what ``options`` say to do with ``stack``."""
    action: Action = getattr(options, stack.verdict.value)
    return action


def admit(stack: Stack, options: VolumeOptions) -> tuple[Stack, ...]:
    """Return the stacks to assemble in place of ``stack``: itself, or its parts when the options say ``split``.

    Raises
    ------
    CaseError
        With the verdict's reason when the options exclude it, TOO_LARGE when it is beyond their limits, and
        UNSUPPORTED_TRANSFER_SYNTAX when no installed decoder reads its pixels.
    """
    action = action_on(stack, options)
    if action == "exclude":
        raise CaseError(REASONS[stack.verdict], f"{stack.verdict}: {stack.detail}")
    check_limits(stack, options)
    for syntax in stack.transfer_syntaxes:
        check_syntax(syntax)
    return stack.split() if action == "split" else (stack,)


def check_limits(stack: Stack, options: VolumeOptions) -> None:
    """Compare the sizes in the headers with the limits. May raise CaseError TOO_LARGE."""
    slices, rows, columns = stack.shape
    voxels = slices * rows * columns * len(stack.channels)
    check_voxels(voxels, options)
    if stack.frames > options.max_frames:
        raise CaseError(Reason.TOO_LARGE, f"{stack.frames} frames, at most {options.max_frames} (volumes.max_frames)")


def check_voxels(voxels: int, options: VolumeOptions) -> None:
    """Compare a number of values with ``volumes.max_voxels``. May raise CaseError TOO_LARGE."""
    if voxels > options.max_voxels:
        raise CaseError(Reason.TOO_LARGE, f"{voxels:,} voxels, at most {options.max_voxels:,} (volumes.max_voxels)")
