"""The spacing that all sites resample to, and the limits of intensities, fitted on the histograms of their offers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from builder.errors import LayoutError, SpecError
from builder.federation.counting import CLIPS, EDGES, HISTOGRAM, UNITS
from builder.federation.documents import Offer
from builder.federation.estimates import median_bands
from builder.federation.tallies import merge, tally
from builder.federation.told import disclosed
from builder.spec import DatasetSpec
from builder.transforms.intensity import place_of_percent
from builder.transforms.resample import Resample

QUANTITIES: Final = ("spacing_slice_mm", "spacing_row_mm", "spacing_row_mm")
"""What the spacing along slice, row and column is fitted on: an offer tells one spacing within slices."""

RULE: Final = (
    "images are resampled to the spacing where the band begins in which the median person of all sites lies, so that a "
    "median image loses nothing; an axis whose spacing the spec leaves alone stays so"
)
"""The rule in words, for a plan and a report."""


CLIP_RULE: Final = (
    "intensities are limited to where the bands begin and end in which the limits lie that clip_percent gives the "
    "median person of all sites: one clip for everybody"
)
"""The rule in words, for a plan and a report."""


@dataclass(frozen=True)
class Spacing:
    """A fitted spacing.

    Parameters
    ----------
    mm
        Along slice, row and column; None where the spec keeps the spacing of an axis.
    rules
        How it was found, in words, with what it could be as well where sites hide numbers.
    """

    mm: list[float | None]
    rules: list[str]


@dataclass(frozen=True)
class Clip:
    """Fitted limits of intensities, in the unit of the images' values, and how they were found, in words."""

    limits: list[float]
    rules: list[str]


def fit_spacing(spec: DatasetSpec, offers: Mapping[str, Offer]) -> Spacing:
    """Return the spacing that the persons of all offers together give.

    Scanners have round spacings, at which bands begin, so where a band begins is the median itself more often than
    not. The first band, which begins at nothing, is taken to begin at its end. Those whom sites hide are shared out
    evenly over the bands that they can be in.

    Raises
    ------
    SpecError
        If the spec does not resample to a spacing.
    LayoutError
        If a site does not tell a histogram that is needed, or more persons are in hidden bands than in others.
    """
    steps = [step.spacing_mm for step in spec.transforms if isinstance(step, Resample)]
    resampled = [any(spacing[axis] is not None for spacing in steps) for axis in range(len(QUANTITIES))]
    if not any(resampled):
        raise SpecError(
            "spec: found no resample step with a spacing under transforms, expected one whose spacing is to be "
            "fitted; add it, or plan without fitting"
        )
    axes = list(zip(QUANTITIES, resampled, strict=True))
    found = {quantity: _spacing(quantity, offers) for quantity in dict.fromkeys(q for q, wanted in axes if wanted)}
    mm = [found[quantity][0] if wanted else None for quantity, wanted in axes]
    return Spacing(mm, [RULE, *(line for _, line in found.values())])


def fit_clip(spec: DatasetSpec, offers: Mapping[str, Offer]) -> Clip:
    """Return the limits that the persons of all offers together give.

    They begin where the band of the median person's lower limit begins, and end where that of the upper one ends, so
    that a median image loses no more than the spec says. Those whom sites hide are shared out evenly over the bands
    that they can be in.

    Raises
    ------
    SpecError
        If the spec limits no intensities by ``clip_percent``, or has cases of several images.
    LayoutError
        If a site does not tell a histogram that is needed, more persons are in hidden bands than in others, or a limit
        lies beyond all bands.
    """
    if spec.cohort.images or place_of_percent(spec.transforms) is None:
        raise SpecError(
            "spec: found no intensity step with clip_percent under transforms whose values have the unit of the image, "
            "or cases of several images, expected one step with clip_percent and cases of one image; plan without "
            "fitting"
        )
    told = {table.name for offer in offers.values() for table in offer.tables}
    units = [unit for unit in UNITS if f"{HISTOGRAM}{CLIPS[0]} of {unit}" in told]
    if len(units) != 1:
        raise LayoutError(
            f"offers: found limits of intensities in {' and '.join(units) or 'no unit'}, expected them in one; ask "
            f"each site to name {CLIPS[0]} and {CLIPS[1]} of the unit under histograms in its policy, for instance "
            f"'{CLIPS[0]} of HU', and to offer with --measure"
        )
    edges = UNITS[units[0]]
    bands = {f"{end} of {units[0]}": _median(f"{end} of {units[0]}", offers) for end in CLIPS}
    low, high = (likely for _, _, likely in bands.values())
    if max(low, high) == len(edges) - 1 or low > high:
        raise LayoutError(
            f"{HISTOGRAM}{CLIPS[1]}: found the median person beyond {edges[-1]:g}, or a lower limit above the upper "
            "one, expected both in bands that end; plan without fitting, and state clip in the spec"
        )
    return Clip(
        [edges[low], edges[high + 1]],
        [CLIP_RULE, *(_line(quantity, edges, *found) for quantity, found in bands.items())],
    )


def _line(quantity: str, edges: Sequence[float], first: int, last: int, likely: int) -> str:
    ends = [f"{edges[band + 1]:g}" if band + 1 < len(edges) else "above" for band in (likely, last)]
    band = f"{quantity}: the median lies in the band from {edges[likely]:g} to {ends[0]}"
    return f"{band}; what is hidden leaves it between {edges[first]:g} and {ends[1]}"


def _spacing(quantity: str, offers: Mapping[str, Offer]) -> tuple[float, str]:
    edges = EDGES[quantity]
    first, last, likely = (edges[band] or edges[1] for band in _median(quantity, offers))
    band = f"{quantity}: the band of the median begins at {likely:g} mm"
    return likely, f"{band}; what is hidden leaves that between {first:g} and {last:g} mm"


def _median(quantity: str, offers: Mapping[str, Offer]) -> tuple[int, int, int]:
    """Return the bands in which the median person of all sites can lie first and last, and a likely one."""
    name = f"{HISTOGRAM}{quantity}"
    told = {
        site: next((tally(disclosed(table, offer.k)) for table in offer.tables if table.name == name), None)
        for site, offer in sorted(offers.items())
    }
    silent = [site for site, found in told.items() if found is None]
    if silent:
        raise LayoutError(
            f"{silent[0]}: found no {name} in the offer, or not how many persons it counts, expected it of every site; "
            "ask the site to name the quantity under histograms in its policy (and to offer with --measure, for limits "
            "of intensities), or plan without fitting"
        )
    joint = merge(told.values())
    known = sum(joint.ranges[(level,)][0] for level in joint.columns[0].levels)
    if 2 * known < joint.total:
        raise LayoutError(
            f"{name}: found {known} of {joint.total} persons in bands that the sites tell, expected half or more; plan "
            "without fitting, and state the value in the spec"
        )
    return median_bands(joint)
