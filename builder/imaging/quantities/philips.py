"""Philips' private scale of MR values, which converts display values to what the scanner measured.

RescaleSlope RS and RescaleIntercept RI turn stored values into display values. They depend on the window of the scan,
so display values of two series cannot be compared. The values (stored * RS + RI) / (RS * SS) can be compared, where SS
is the private scale slope (Chenevert et al., Translational Oncology 7(1), 2014, doi:10.1593/tlo.13811).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing
from builder.imaging.parse import leniently
from builder.imaging.pixels.rescale import Rescale

GROUP = 0x2005
CREATOR, SCALE_SLOPE = "Philips MR Imaging DD 001", 0x0E
FRAME_CREATOR, FRAME_SEQUENCE = "Philips MR Imaging DD 005", 0x0F
"""The scale slope is in (2005,xx0E) of an instance, or of an item of (2005,xx0F) in the per-frame groups."""

NOT_APPLIED = "philips_scale_not_applied"
APPLIED = "philips_scale_applied"


@dataclass(frozen=True)
class Scales:
    """The scale slope of each frame by SOPInstanceUID, None for a frame without one; only for Philips MR instances."""

    slopes: Mapping[str, tuple[float | None, ...]]

    @property
    def notes(self) -> tuple[str, ...]:
        """The note for a volume that has a scale which was not applied."""
        return (NOT_APPLIED,) if any(slope for frames in self.slopes.values() for slope in frames) else ()

    def with_uids(self, mapping: Mapping[str, str]) -> "Scales":
        """Return the same scales with other UIDs."""
        return replace(self, slopes={mapping[uid]: frames for uid, frames in self.slopes.items()})

    def apply(self, rescale: Rescale, uid: str, frame: int) -> Rescale:
        """Return the rescale of a frame to scanner values, or the given rescale for images of other vendors.

        Raises
        ------
        CaseError
            UNKNOWN_UNITS when a Philips frame states no scale, because display and scanner values must not be mixed.
        """
        frames = self.slopes.get(uid)
        if frames is None:
            return rescale
        slope = frames[min(frame, len(frames) - 1)]
        if slope is None or rescale.table is not None:
            raise CaseError(
                Reason.UNKNOWN_UNITS,
                "found a Philips MR image without its private scale slope, expected one (volumes.philips: precise)",
            )
        factor = 1.0 / (rescale.slope * slope)
        return replace(rescale, slope=1.0 / slope, intercept=rescale.intercept * factor, stated=True)


NO_SCALES = Scales({})


@leniently()
def scales_of(datasets: Sequence[Dataset]) -> Scales:
    """Read the scale slopes of Philips MR instances from original headers, because a profile may remove them."""
    philips = [d for d in datasets if is_philips_mr(d.get("Modality"), d.get("Manufacturer"))]
    with parsing(Reason.UNREADABLE, "found functional groups that do not parse"):
        return Scales({str(d.get("SOPInstanceUID", "")): _frames(d) for d in philips})


def is_philips_mr(modality: object, manufacturer: object) -> bool:
    """Return whether an instance is an MR by Philips, however the name is written."""
    return modality == "MR" and "philips" in str(manufacturer or "").lower()


def _frames(dataset: Dataset) -> tuple[float | None, ...]:
    own = _slope(dataset)
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if own is not None or not groups:
        return (own,)
    return tuple(_in_group(group) for group in groups)


def _in_group(group: Dataset) -> float | None:
    items = _private(group, FRAME_CREATOR, FRAME_SEQUENCE)
    return _slope(items[0]) if items else None


def _slope(dataset: Dataset) -> float | None:
    try:
        number = float(_private(dataset, CREATOR, SCALE_SLOPE))
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number != 0 else None


def _private(dataset: Dataset, creator: str, element: int) -> Any:
    try:
        return dataset.private_block(GROUP, creator)[element].value
    except KeyError:
        return None
