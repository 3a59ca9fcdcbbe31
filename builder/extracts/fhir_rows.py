"""Rows of FHIR R4 resources: which headings each type of resource has, and where in the resource their values are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

Kind: TypeAlias = Literal[
    "Patient", "Condition", "Observation", "Procedure", "MedicationRequest", "DiagnosticReport", "ImagingStudy"
]
Resource: TypeAlias = Mapping[str, Any]
Row: TypeAlias = dict[str, str | None]

UCUM: Final = "http://unitsofmeasure.org"
_NO_COLUMN: Final = ("valueRange", "valueRatio", "valueSampledData", "valuePeriod")


@dataclass(frozen=True)
class Layout:
    """Where the values of one type of resource are.

    ``cells`` maps a heading to places, of which the first that is filled counts; ``coded`` is the place of the code, of
    which each coding is a row.
    """

    cells: Mapping[str, tuple[str, ...]]
    coded: str = ""
    more: tuple[str, ...] = ()


LAYOUTS: Final[Mapping[Kind, Layout]] = {
    "Patient": Layout({
        "birth_date": ("birthDate",), "gender": ("gender",), "deceased": ("deceasedBoolean",),
        "death_date": ("deceasedDateTime",),
    }),
    "Condition": Layout({
        "date": ("onsetDateTime", "onsetPeriod.start", "recordedDate"), "recorded": ("recordedDate",),
        "ended": ("abatementDateTime", "abatementPeriod.end"), "status": ("verificationStatus.coding.code",),
        "clinical_status": ("clinicalStatus.coding.code",), "category": ("category.coding.code",),
    }, "code"),
    "Observation": Layout({
        "date": ("effectiveDateTime", "effectivePeriod.start", "effectiveInstant"), "recorded": ("issued",),
        "status": ("status",), "category": ("category.coding.code",),
    }, "code", ("value", "unit", "value_code", "value_system", "value_display")),
    "Procedure": Layout({
        "date": ("performedDateTime", "performedPeriod.start"), "ended": ("performedPeriod.end",),
        "status": ("status",), "category": ("category.coding.code",),
    }, "code"),
    "MedicationRequest": Layout({
        "date": ("authoredOn",), "status": ("status",), "intent": ("intent",), "category": ("category.coding.code",),
    }, "medicationCodeableConcept"),
    "DiagnosticReport": Layout({
        "date": ("effectiveDateTime", "effectivePeriod.start"), "recorded": ("issued",), "status": ("status",),
        "category": ("category.coding.code",),
    }, "code"),
    "ImagingStudy": Layout({
        "date": ("started",), "status": ("status",),
    }, "", ("study_uid", "accession", "series_uid", "modality", "body_site")),
}  # fmt: skip
"""The types of resource that become tables. Names, addresses and free text of reports are in none of them."""


def headings(kind: Kind) -> tuple[str, ...]:
    """Return the headings of the table of one type of resource."""
    layout = LAYOUTS[kind]
    coded = ("code", "system", "display") if layout.coded else ()
    return ("id", "patient", "person", "issuer", *coded, *layout.more, *layout.cells)


def rows(kind: Kind, resource: Resource) -> Iterator[Row]:
    """Yield the rows of a resource without who it is of: one a coding, a component of an observation, or a series."""
    layout = LAYOUTS[kind]
    shared: Row = {"id": _text(resource.get("id"))}
    shared |= {name: _first(resource, places) for name, places in layout.cells.items()}
    if kind == "ImagingStudy":
        yield from _series(resource, shared)
    elif kind == "Observation":
        for part in (resource, *resource.get("component", ())):
            for coding in _codings(part.get("code")):
                yield {**shared, **coding, **_value(part)}
    elif layout.coded:
        yield from ({**shared, **coding} for coding in _codings(resource.get(layout.coded)))
    else:
        yield shared


def has_no_column(resource: Resource) -> bool:
    """Return whether an observation holds a value that no column can take: a range, ratio, period or curve."""
    return any(name in part for part in (resource, *resource.get("component", ())) for name in _NO_COLUMN)


def is_mistake(resource: Resource) -> bool:
    """Return whether a resource is marked as entered in error, so that nothing of it is true."""
    codes = (_first(resource, (place,)) for place in ("status", "verificationStatus.coding.code"))
    return "entered-in-error" in codes


def _series(resource: Resource, shared: Row) -> Iterator[Row]:
    shared = {**shared, "study_uid": None, "accession": None}
    for identifier in resource.get("identifier", ()):
        value = _text(identifier.get("value")) or ""
        if value.startswith("urn:oid:") or identifier.get("system") == "urn:dicom:uid":
            shared["study_uid"] = shared["study_uid"] or value.removeprefix("urn:oid:")
        elif "ACSN" in (coding.get("code") for coding in identifier.get("type", {}).get("coding", ())):
            shared["accession"] = shared["accession"] or value
    listed: Sequence[Resource] = resource.get("series") or ({},)
    for series in listed:
        yield {
            **shared,
            "series_uid": _text(series.get("uid")),
            "modality": _first(series, ("modality.code",)),
            "body_site": _first(series, ("bodySite.code",)),
        }


def _value(part: Resource) -> Row:
    """Return the value of an observation or component. A bound stays in the text (``<5``), so that it is no number."""
    found: Row = dict.fromkeys(("value", "unit", "value_code", "value_system", "value_display"))
    quantity = part.get("valueQuantity")
    if quantity is not None and "value" in quantity:
        found["value"] = f"{quantity.get('comparator', '')}{_text(quantity['value'])}"
        in_ucum = quantity.get("system") == UCUM
        found["unit"] = _text(quantity.get("code") if in_ucum else quantity.get("unit"))
    elif "valueCodeableConcept" in part:
        coding = next(_codings(part["valueCodeableConcept"]))
        found |= {f"value_{name}": text for name, text in coding.items()}
    else:
        places = ("valueInteger", "valueBoolean", "valueString", "valueDateTime", "valueTime")
        found["value"] = _first(part, places)
    return found


def _codings(concept: Resource | None) -> Iterator[Row]:
    """Yield code, system and words of each coding; of a concept without one, its words alone."""
    concept = concept or {}
    for coding in concept.get("coding", ()) or ({"display": concept.get("text")},):
        yield {name: _text(coding.get(name)) for name in ("code", "system", "display")}


def _first(resource: Any, places: tuple[str, ...]) -> str | None:
    """Return the text at the first place that holds one; of a list, the first entry counts."""
    for place in places:
        node = resource
        for step in place.split("."):
            node = node[0] if isinstance(node, list) and node else node
            node = node.get(step) if isinstance(node, dict) else None
        if (text := _text(node)) is not None:
            return text
    return None


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None or isinstance(value, dict | list) else str(value)
