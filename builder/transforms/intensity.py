"""Clip, scale, standardise and convert the values of the image. Masks, boxes and landmarks do not change."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from builder.errors import CaseError, Reason
from builder.model.case import DAMAGED_TABLE, Case, DisplayTable, ValueDomain, Volume
from builder.protocols import Shape
from builder.transforms.parts import find_mask, select_inside
from builder.transforms.step import Step

Percent = Annotated[float, Field(ge=0, le=100)]
Width = Annotated[float, Field(gt=0)]

DTYPES = {"int16": np.int16, "uint16": np.uint16, "uint8": np.uint8, "float32": np.float32}


class Intensity(Step):
    """Map the values of each channel of one volume: first limits, then scaling, then type.

    Limits are ``clip`` (values), ``clip_percent`` (percentiles) or ``window`` (centre and width, as LINEAR_EXACT of
    PS3.3 C.11.2.1.3.2). Scaling is ``scale`` (maps the limits, or else the lowest and highest value, to these two
    numbers) or ``zscore``. Percentiles, extremes, mean and deviation are computed from this volume without padding,
    and only within ``inside_mask`` or ``inside_above`` if given.

    The mapping is written to ``Volume.notes`` so that it can be undone: ``intensity/<channel>=factor,offset`` with
    value = stored * factor + offset, exact up to the rounding of the type. The number of voxels that the limits
    changed, which cannot be undone, is ``intensity_clipped/<channel>=n``; where a table was applied,
    ``intensity_table/<channel>=1`` says that the mapping leads back to what the table showed and not to the image. The
    domain of a scaled volume is ``arbitrary``.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["intensity"]
    clip: tuple[float, float] | None = None
    """Lowest and highest value, e.g. [-1000, 1000]; values beyond become these."""
    clip_percent: tuple[Percent, Percent] | None = None
    """The same limits as percentiles of this volume, e.g. [0.5, 99.5]."""
    window: tuple[float, Width] | Literal["voi", "voi_lut"] | None = None
    """(centre, width) in the volume's unit; ``voi`` takes the first window that a picture (radiograph, mammogram,
    still) states itself, and refuses one that states none. ``voi_lut`` shows a picture by its own VOI LUT, and by its
    window if it has no table; it needs ``scale``, as tables and windows have different units."""
    scale: tuple[float, float] | None = None
    """Values to which the lower and the upper limit are mapped, e.g. [0, 1], or [0, 255] with dtype uint8."""
    zscore: Literal["none", "volume"] = "none"
    """``volume``: subtract this volume's mean and divide by its standard deviation, after the limits."""
    inside_mask: str | None = None
    """Compute statistics within all segments of this mask."""
    inside_above: float | None = None
    """Compute statistics of voxels above this value (before the limits)."""
    dtype: Literal["int16", "uint16", "uint8", "float32"] | None = None
    """Type of the result; null keeps the type, or gives float32 after scaling."""
    of: tuple[str, ...] = ()
    """With ``cohort.images``: the images whose values are mapped; all of them if empty."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "Intensity":
        limits = [name for name in ("clip", "clip_percent", "window") if getattr(self, name) is not None]
        if len(limits) > 1:
            raise ValueError(f"found {' and '.join(limits)}, expected at most one of clip, clip_percent and window")
        for name in ("clip", "clip_percent", "scale"):
            pair = getattr(self, name)
            if pair is not None and not pair[0] < pair[1]:
                raise ValueError(f"{name}: found {list(pair)}, expected a lower value before a higher one")
        if self.scale is not None and self.zscore != "none":
            raise ValueError("found scale and zscore, expected one of them")
        if self.inside_mask is not None and self.inside_above is not None:
            raise ValueError("found inside_mask and inside_above, expected at most one of them")
        if self.window == "voi_lut" and self.scale is None:
            raise ValueError("found window: voi_lut without scale, expected the numbers that black and white become")
        if not limits and self.scale is None and self.zscore == "none" and self.dtype is None:
            raise ValueError("found no change, expected clip, clip_percent, window, scale, zscore or dtype")
        return self

    def __call__(self, case: Case) -> Case:
        """Map the values of the case. Raises CaseError if statistics cannot be computed or a value does not fit."""
        volume = case.volume
        scaled = self.scales
        dtype = np.dtype(DTYPES[self.dtype] if self.dtype else np.float32 if scaled else volume.voxels.dtype)
        out = np.empty(volume.voxels.shape, dtype)
        notes = list(volume.notes)
        display = self._display(volume)
        for number, name in enumerate(volume.channels):
            channel = volume.voxels[number] if display is None else display.shown(volume.voxels[number])
            mapping = self._find_mapping(case, channel)
            clipped = _apply(channel, mapping, out[number])
            if display is not None:
                notes.append(f"intensity_table/{name}=1")
            if mapping.factor != 1.0 or mapping.offset != 0.0:
                notes.append(f"intensity/{name}={mapping.factor!r},{mapping.offset!r}")
            if clipped:
                notes.append(f"intensity_clipped/{name}={clipped}")
        done = replace(volume, voxels=out, notes=tuple(notes))
        if scaled:  # what the picture says of its display is in the unit that its values had
            done = replace(done, domain=ValueDomain.ARBITRARY, window=None, display=None)
        return replace(case, volume=done)

    def limits(self, case: Case) -> tuple[float, float]:
        """Return the limits of the first channel, in the volume's unit. Raises CaseError where there are none."""
        channel = case.volume.voxels[0]
        return self._limits(channel, self._region(case, channel), case.volume.window)

    @property
    def scales(self) -> bool:
        """Return whether the result has another unit than the image."""
        return self.scale is not None or self.zscore != "none"

    @property
    def label_options(self) -> tuple[str, ...]:
        """Return ``inside_mask`` if statistics are computed inside a mask."""
        return () if self.inside_mask is None else ("inside_mask",)

    def item_bytes(self, item: int) -> int:
        """Return the bytes of a voxel in the stated type, or in float32 if values are scaled."""
        return np.dtype(self.dtype).itemsize if self.dtype else 4 if self.scales else item

    def scratch_bytes(self, before: Shape, after: Shape, *, item: int) -> int:
        """Return the bytes of a float32 copy of the channel if a mean is subtracted."""
        return 4 * math.prod(before) if self.zscore != "none" else 0

    def _find_mapping(self, case: Case, channel: NDArray[Any]) -> "Mapping":
        from builder.kernels.statistics import measure

        needs = self.clip_percent is not None or self.zscore != "none" or (self.scale is not None and not self._fixed)
        inside = self._region(case, channel) if needs else None
        display = self._display(case.volume)
        stated = case.volume.window if display is None else (0.0, display.highest)
        low, high = self._limits(channel, inside, stated)
        if self.scale is None and self.zscore == "none":
            return Mapping(low, high, 1.0, 0.0)
        if self.zscore == "none":
            assert self.scale is not None
            if not np.isfinite([low, high]).all():
                found = measure(channel, inside)
                low, high = found.lowest, found.highest
            _require_spread(high - low)
            factor = (high - low) / (self.scale[1] - self.scale[0])
            return Mapping(low, high, factor, low - self.scale[0] * factor)
        held = channel if not self._any_limits else np.clip(channel.astype(np.float32), low, high)
        found = measure(held, inside)
        _require_spread(found.deviation)
        return Mapping(low, high, found.deviation, found.mean)

    @property
    def fitted_on(self) -> str:
        """Return whose values the mapping depends on, for the leak certificate."""
        free = (
            self.clip_percent is not None
            or isinstance(self.window, str)
            or self.zscore != "none"
            or (self.scale is not None and not self._fixed)
        )
        return "each volume by itself" if free else "nothing"

    @property
    def _fixed(self) -> bool:
        return self.clip is not None or self.window is not None

    @property
    def _any_limits(self) -> bool:
        return self._fixed or self.clip_percent is not None

    def _limits(
        self, channel: NDArray[Any], inside: NDArray[np.bool_] | None, stated: tuple[float, float] | None
    ) -> tuple[float, float]:
        if self.clip is not None:
            return self.clip
        if isinstance(self.window, str):
            if stated is None:
                table = "no VOI LUT and " if self.window == "voi_lut" else ""
                raise CaseError(
                    Reason.INCONSISTENT_PIXELS,
                    f"intensity: found {table}no Window Center and Width in the picture, expected them for window: "
                    f"{self.window}; clip_percent works without them",
                )
            return stated
        if self.window is not None:
            centre, width = self.window
            return centre - width / 2, centre + width / 2
        if self.clip_percent is None:
            return -np.inf, np.inf
        values = channel.ravel() if inside is None else channel[inside]
        values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if values.size == 0:
            raise CaseError(
                Reason.INCONSISTENT_PIXELS, "intensity: found no voxel to take percentiles of, expected some"
            )
        low, high = np.percentile(values, self.clip_percent, method="inverted_cdf")
        return float(low), float(high)

    def _display(self, volume: Volume) -> DisplayTable | None:
        """Return the picture's own table if it has one and the option asks for it."""
        if self.window != "voi_lut":
            return None
        if DAMAGED_TABLE in volume.notes:
            raise CaseError(
                Reason.INCONSISTENT_PIXELS,
                "intensity: found a VOI LUT that cannot be read, expected a table for window: voi_lut; window: voi and "
                "clip_percent work without it",
            )
        return volume.display

    def _region(self, case: Case, channel: NDArray[Any]) -> NDArray[np.bool_] | None:
        inside: NDArray[np.bool_] | None = None
        if self.inside_mask is not None:
            mask = find_mask(case, self.inside_mask)
            if not mask.geometry.same_grid(case.volume.geometry):
                raise CaseError(
                    Reason.LABEL_OFF_GRID,
                    f"mask {mask.name!r}: found {mask.geometry.shape} voxels, expected the image's grid",
                )
            inside = select_inside(mask, ())
        elif self.inside_above is not None:
            inside = channel > self.inside_above
        if case.volume.padding is not None:
            inside = ~case.volume.padding if inside is None else inside & ~case.volume.padding
        return inside


@dataclass(frozen=True)
class Mapping:
    """A mapping that limits values to ``low`` and ``high``; after that, value = stored * factor + offset."""

    low: float
    high: float
    factor: float
    offset: float


def place_of_percent(transforms: Sequence[object]) -> int | None:
    """Return the place of the first step with ``clip_percent``; None where values have another unit before it."""
    for place, step in enumerate(transforms):
        if isinstance(step, Intensity) and step.clip_percent is not None:
            return place
        if isinstance(step, Intensity) and step.scales:
            return None
    return None


def sets_type(transform: object) -> bool:
    """Return whether a transform gives every image the same number type, whatever its type was."""
    if not isinstance(transform, Intensity):
        return False
    return transform.dtype is not None or transform.scales


def recorded_mapping(volume: Volume, channel: str) -> tuple[float, float]:
    """Return the factor and offset that undo all intensity steps: value = stored * factor + offset."""
    factor, offset = 1.0, 0.0
    for note in volume.notes:
        if note.startswith(f"intensity/{channel}="):
            f, o = (float(part) for part in note.rsplit("=", 1)[1].split(","))
            factor, offset = factor * f, factor * o + offset  # later steps lie inside earlier ones
    return factor, offset


def _require_spread(spread: float) -> None:
    if not spread > 0:
        raise CaseError(
            Reason.INCONSISTENT_PIXELS,
            "intensity: found one value in all voxels chosen, or none, expected at least two to scale by",
        )


def _apply(channel: NDArray[Any], mapping: Mapping, out: NDArray[Any]) -> int:
    """Write the mapped channel and return the number of voxels that the limits changed.

    It works slice by slice, which avoids a float copy of the channel.
    """
    whole = out.dtype.kind in "iu"
    clipped = 0
    for plane, target in zip(channel, out, strict=True):
        values = plane.astype(np.float64)
        held = np.clip(values, mapping.low, mapping.high)
        clipped += int(np.count_nonzero(held != values) - np.count_nonzero(np.isnan(values)))
        held -= mapping.offset
        held /= mapping.factor
        if whole:
            np.rint(held, out=held)
            limits = np.iinfo(out.dtype)
            if not (held.min() >= limits.min and held.max() <= limits.max):
                raise CaseError(
                    Reason.INCONSISTENT_PIXELS,
                    f"intensity: found values from {held.min():g} to {held.max():g}, expected what {out.dtype} holds; "
                    "clip or scale first",
                )
        target[...] = held
    return clipped
