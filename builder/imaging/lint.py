"""Checks that a volume is physically plausible. Findings are recorded beside the data, and nothing is corrected."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from pydicom.dataset import Dataset

from builder.imaging.parse import leniently
from builder.imaging.stacks.stack import Stack
from builder.model.case import NO_SPACING, ValueDomain, Volume
from builder.model.geometry import Geometry

AIR_HU = (-1100.0, -900.0)
"""Range of the first percentile of a CT with air around or inside the body; a crop without air lies above it."""

LOWEST_HU, HIGHEST_HU = -1200.0, 31_000.0
KVP = (40.0, 160.0)
"""Range of peak tube voltages used on patients, dual energy included, kV."""

SPACING_MM = (0.05, 20.0)
EXTENT_MM = (10.0, 2500.0)
HIGHEST_SUV = 1000.0
CLIPPED_SHARE = 0.001
"""Share of voxels at the maximum of an integer volume above which it looks clipped at the end of the stored bits."""


class Rule(StrEnum):
    """The property that a check looks at."""

    AIR = "ct_air"
    RANGE = "value_range"
    CONSTANT = "constant"
    KVP = "kvp"
    SPACING = "spacing"
    EXTENT = "field_of_view"
    NEGATIVE = "pet_negative"
    CLIPPED = "clipped"


@dataclass(frozen=True)
class Finding:
    """A rule that did not hold, and the number that broke it."""

    rule: Rule
    value: float

    def __str__(self) -> str:
        return f"{self.rule}={self.value:.5g}"


@leniently()
def lint(volume: Volume, datasets: Sequence[Dataset] = ()) -> tuple[Finding, ...]:
    """Check whether one volume is physically plausible.

    Parameters
    ----------
    volume
        The assembled volume. Voxels that the source marks as no data are left out.
    datasets
        Headers of its instances, for the tube voltage (0018,0060).

    Returns
    -------
    tuple of Finding
        In the order of ``Rule``; empty when everything is plausible.
    """
    return tuple(
        sorted(
            [*_of_values(volume), *_of_grid(volume.geometry, volume.notes), *_of_headers(datasets)],
            key=lambda f: [*Rule].index(f.rule),
        )
    )


def lint_stack(stack: Stack, kvp: float | None) -> tuple[Finding, ...]:
    """Run the checks that need only headers, before decoding: tube voltage, spacing and field of view."""
    found = [] if kvp is None or stack.modality != "CT" else _of_voltage(kvp)
    if stack.geometry is not None:
        found = [*_of_grid(stack.geometry, stack.notes), *found]
    return tuple(sorted(found, key=lambda f: [*Rule].index(f.rule)))


def _of_values(volume: Volume) -> list[Finding]:
    """Check the values of every n-th voxel, about a million in all."""
    voxels = volume.voxels[0]
    stride = max(1, voxels.size // 1_000_000)
    sample = voxels.reshape(-1)[::stride]
    if volume.padding is not None:
        sample = sample[~volume.padding.reshape(-1)[::stride]]
    if sample.size == 0 or sample.min() == sample.max():
        return [Finding(Rule.CONSTANT, float(sample[0]) if sample.size else 0.0)]
    low, high = float(sample.min()), float(sample.max())
    found = []
    if volume.domain == ValueDomain.HOUNSFIELD:
        # Only a volume that contains air can show where air lies.
        air = float(np.percentile(sample, 1))
        if low < -500 and not (AIR_HU[0] <= air <= -500 or AIR_HU[0] <= low <= AIR_HU[1]):
            found.append(Finding(Rule.AIR, air))
        if low < LOWEST_HU or high > HIGHEST_HU or low > 500:
            found.append(Finding(Rule.RANGE, low if low < LOWEST_HU or low > 500 else high))
    if volume.domain in (ValueDomain.SUV_BW, ValueDomain.ACTIVITY) and low < 0:
        found.append(Finding(Rule.NEGATIVE, low))
    if volume.domain == ValueDomain.SUV_BW and high > HIGHEST_SUV:
        found.append(Finding(Rule.RANGE, high))
    share = float(np.mean(sample == sample.max()))
    if voxels.dtype.kind in "iu" and share > CLIPPED_SHARE and _at_end_of_bits(high):
        found.append(Finding(Rule.CLIPPED, share))
    return found


def _at_end_of_bits(value: float) -> bool:
    """Return whether a value is the largest of 8 to 16 bits, with or without one of the usual CT offsets."""
    return any(int(value) + offset + 1 == 1 << bits for bits in range(8, 17) for offset in (0, 1000, 1024))


def _of_grid(geometry: Geometry, notes: Sequence[str]) -> list[Finding]:
    """Check spacing and field of view, unless the image states no millimetres: its grid then counts pixels."""
    if NO_SPACING in notes:
        return []
    spacing = geometry.spacing_mm
    extent = [n * s for n, s in zip(geometry.shape, spacing, strict=True)]
    wide = [s for s in spacing if not SPACING_MM[0] <= s <= SPACING_MM[1]]
    long = [e for e in extent[1:] if not EXTENT_MM[0] <= e <= EXTENT_MM[1]]
    return [Finding(Rule.SPACING, s) for s in wide[:1]] + [Finding(Rule.EXTENT, e) for e in long[:1]]


def _of_headers(datasets: Sequence[Dataset]) -> list[Finding]:
    for dataset in datasets:
        if dataset.get("Modality") == "CT" and dataset.get("KVP") is not None:
            try:
                kvp = float(dataset.KVP)
            except (TypeError, ValueError):
                continue
            if found := _of_voltage(kvp):
                return found
    return []


def _of_voltage(kvp: float) -> list[Finding]:
    return [] if KVP[0] <= kvp <= KVP[1] else [Finding(Rule.KVP, kvp)]
