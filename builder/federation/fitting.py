"""The spacing that all sites resample to, fitted on the histograms of their offers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from builder.errors import LayoutError, SpecError
from builder.federation.counting import EDGES, HISTOGRAM
from builder.federation.documents import Offer
from builder.federation.estimates import median_bands
from builder.federation.tallies import merge, tally
from builder.federation.told import disclosed
from builder.spec import DatasetSpec
from builder.transforms.resample import Resample

QUANTITIES: Final = ("spacing_slice_mm", "spacing_row_mm", "spacing_row_mm")
"""What the spacing along slice, row and column is fitted on: an offer tells one spacing within slices."""

RULE: Final = (
    "images are resampled to the spacing where the band begins in which the median person of all sites lies, so that a "
    "median image loses nothing; an axis whose spacing the spec leaves alone stays so"
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


def fit_spacing(spec: DatasetSpec, offers: Mapping[str, Offer]) -> Spacing:
    """Return the spacing that the persons of all offers together give.

    Scanners have round spacings, at which bands begin, so where a band begins is the median itself more often than
    not. The first band, which begins at nothing, is taken to begin at its end. Numbers that sites hide are taken to be
    in the middle of what they can be.

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
    found = {quantity: _median(quantity, offers) for quantity in dict.fromkeys(q for q, wanted in axes if wanted)}
    mm = [found[quantity][0] if wanted else None for quantity, wanted in axes]
    return Spacing(mm, [RULE, *(line for _, line in found.values())])


def _median(quantity: str, offers: Mapping[str, Offer]) -> tuple[float, str]:
    name, edges = f"{HISTOGRAM}{quantity}", EDGES[quantity]
    told = {
        site: next((tally(disclosed(table, offer.k)) for table in offer.tables if table.name == name), None)
        for site, offer in sorted(offers.items())
    }
    silent = [site for site, found in told.items() if found is None]
    if silent:
        raise LayoutError(
            f"{silent[0]}: found no {name} in the offer, or not how many persons it counts, expected it of every site; "
            "ask the site to name the quantity under histograms in its policy, or plan without fitting"
        )
    joint = merge(told.values())
    known = sum(joint.ranges[(level,)][0] for level in joint.columns[0].levels)
    if 2 * known < joint.total:
        raise LayoutError(
            f"{name}: found {known} of {joint.total} persons in bands that the sites tell, expected half or more; plan "
            "without fitting, and state the spacing in the spec"
        )
    first, last, likely = (edges[band] or edges[1] for band in median_bands(joint))
    return likely, f"{quantity}: the median's band begins at {likely:g} mm, by what is hidden at {first:g} to {last:g}"
