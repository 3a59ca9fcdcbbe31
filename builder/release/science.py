"""What of science survives: attributes that measurements need, what keeps each, and in how many objects it was lost."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag

LISTED = "list of attributes"
"""Kept under every profile, because the list of permitted attributes names it."""


@dataclass(frozen=True)
class Attribute:
    """An attribute that science needs.

    Parameters
    ----------
    use
        What it is needed for.
    keyword
        Keyword, or for a private attribute what it says.
    kept_by
        Option of the profile that keeps it, ``LISTED``, or "" where nothing does.
    private
        Group, creator and element within the block of a private attribute.
    """

    use: str
    keyword: str
    kept_by: str = LISTED
    private: tuple[int, str, int] | None = None

    @property
    def name(self) -> str:
        """Its name in a report."""
        if self.private is None:
            return self.keyword
        group, creator, element = self.private
        return f"{self.keyword} ({group:04X},{creator},{element:02X})"


_DATES, _PERSON, _PRIVATE = (
    "retain_longitudinal_modified_dates",
    "retain_patient_characteristics",
    "retain_safe_private",
)
_SUV, _DIFFUSION, _TIMING, _GEOMETRY, _DOSE = "SUV", "diffusion", "slice timing", "private geometry", "dose"
SCIENCE: Final = (
    *(Attribute(_SUV, k, _PERSON) for k in ("PatientWeight", "PatientSize")),
    *(Attribute(_SUV, k, _DATES) for k in ("SeriesTime", "AcquisitionTime", "RadiopharmaceuticalStartTime")),
    Attribute(_SUV, "RadiopharmaceuticalStartDateTime", _DATES),
    *(Attribute(_SUV, k) for k in ("RadionuclideTotalDose", "RadionuclideHalfLife", "Units", "DecayCorrection")),
    *(Attribute(_SUV, k) for k in ("RescaleSlope", "FrameReferenceTime", "DecayFactor")),
    Attribute(_SUV, "SUV factor", _PRIVATE, (0x7053, "Philips PET Private Group", 0x00)),
    Attribute(_SUV, "activity concentration factor", _PRIVATE, (0x7053, "Philips PET Private Group", 0x09)),
    Attribute(_SUV, "scan date and time", _PRIVATE, (0x0009, "GEMS_PETD_01", 0x0D)),
    *(Attribute(_DIFFUSION, k) for k in ("DiffusionBValue", "DiffusionGradientOrientation")),
    Attribute(_DIFFUSION, "b value", _PRIVATE, (0x0019, "SIEMENS MR HEADER", 0x0C)),
    Attribute(_DIFFUSION, "gradient direction", _PRIVATE, (0x0019, "SIEMENS MR HEADER", 0x0E)),
    Attribute(_DIFFUSION, "b matrix", "", (0x0019, "SIEMENS MR HEADER", 0x27)),
    Attribute(_DIFFUSION, "b value", _PRIVATE, (0x2001, "Philips Imaging DD 001", 0x03)),
    Attribute(_DIFFUSION, "b value", "", (0x0043, "GEMS_PARM_01", 0x39)),
    *(Attribute(_TIMING, k) for k in ("RepetitionTime", "TriggerTime", "TemporalPositionIdentifier")),
    Attribute(_TIMING, "acquisition times of a mosaic", "", (0x0019, "SIEMENS MR HEADER", 0x29)),
    Attribute(_GEOMETRY, "slices of a mosaic", _PRIVATE, (0x0019, "SIEMENS MR HEADER", 0x0A)),
    Attribute(_GEOMETRY, "CSA image header (two numbers)", _PRIVATE, (0x0029, "SIEMENS CSA HEADER", 0x10)),
    Attribute(_GEOMETRY, "CSA series header", "", (0x0029, "SIEMENS CSA HEADER", 0x20)),
    Attribute(_GEOMETRY, "tiles of a grid", "", (0x0065, "Image Private Header", 0x50)),
    *(Attribute(_DOSE, k) for k in ("CTDIvol", "Exposure", "XRayTubeCurrent", "KVP", "DoseGridScaling")),
)
"""What is looked for, by use. The table of docs/release.md says the same."""

_TAGS: Final = {a.keyword: BaseTag(tag_for_keyword(a.keyword) or 0) for a in SCIENCE if a.private is None}


def found_in(dataset: Dataset) -> frozenset[int]:
    """Return the positions in ``SCIENCE`` of what an object states, at any depth; empty values do not count."""
    tags, creators = _stated(dataset)
    return frozenset(
        place
        for place, attribute in enumerate(SCIENCE)
        if (attribute.private in creators if attribute.private is not None else _TAGS[attribute.keyword] in tags)
    )


def _stated(dataset: Dataset) -> tuple[set[int], set[tuple[int, str, int]]]:
    tags: set[int] = set()
    private: set[tuple[int, str, int]] = set()
    todo = [dataset]
    while todo:
        item = todo.pop()
        for tag, element in item.items():
            if isinstance(element.value, Items):
                todo += list(element.value)[:1]  # the frames of an object state the same attributes
            elif element.value in (None, "", b""):
                continue
            elif tag.is_private and tag.element > 0xFF:
                private.add((tag.group, _creator(item, tag), tag.element & 0xFF))
            tags.add(int(tag))
    return tags, private


def _creator(item: Dataset, tag: BaseTag) -> str:
    place = BaseTag(tag.group << 16 | tag.element >> 8)
    value: Any = item.get_item(place).value if place in item else ""
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")).strip(" \0")


def table_of(tallies: Iterable[Mapping[str, tuple[int, int]]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each attribute that the sources state: in how many objects, and in how many it is left.

    ``tallies`` map positions in ``SCIENCE``, as text, to both numbers.
    """
    sums: dict[int, list[int]] = {}
    for tally in tallies:
        for name, (stated, kept) in tally.items():
            own = sums.setdefault(int(name), [0, 0])
            own[0] += stated
            own[1] += kept
    for place in sorted(sums):
        attribute, (stated, kept) = SCIENCE[place], sums[place]
        yield {
            "use": attribute.use,
            "attribute": attribute.name,
            "kept_by": attribute.kept_by,
            "objects": stated,
            "kept": kept,
        }


def lint(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each use that lost an attribute in any object, and what would keep it."""
    lost: dict[str, list[str]] = {}
    for row in rows:
        if row["kept"] < row["objects"]:
            advice = {"": "nothing keeps it", LISTED: "its value was not of its kind"}.get(
                row["kept_by"], f"kept by deid.options {row['kept_by']}"
            )
            share = f"{row['objects'] - row['kept']} of {row['objects']} objects"
            lost.setdefault(row["use"], []).append(f"{row['attribute']} in {share} ({advice})")
    for use, attributes in lost.items():
        yield f"{use}: lost {'; '.join(attributes)}"
