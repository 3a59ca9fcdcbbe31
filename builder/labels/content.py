"""Tolerant reader of structured report content (PS3.3 C.17.3): measurements, codes and graphics by group."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing
from builder.labels.values import value_of
from builder.model.case import Code
from builder.protocols import LabelObject

MAX_DEPTH = 64
MAX_ITEMS = 200_000

MEASUREMENT_GROUP = ("DCM", "125007")
IMAGE_LIBRARY = ("DCM", "111028")
FINDING = {("DCM", "121071")}
FINDING_SITE = {("SCT", "363698007"), ("SRT", "G-C0E3"), ("SNM3", "G-C0E3"), ("99SDM", "G-C0E3")}
DERIVATION = {("DCM", "121401")}
TRACKING_UID = ("DCM", "112040")
OBSERVER_TYPE, PERSON_OBSERVER, DEVICE = ("DCM", "121005"), ("DCM", "121008"), ("DCM", "121007")
DEVICE_OBSERVERS = {("DCM", "121012"), ("DCM", "121013")}
CONTEXT = ("HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD", "HAS PROPERTIES")


@dataclass(frozen=True, eq=False)
class Graphic:
    """A SCOORD (column, row of ``instance``) or SCOORD3D (LPS mm of a frame): its type and (n, 2 or 3) points."""

    type: str
    points: NDArray[np.float64]
    concept: Code | None
    instance: str = ""
    frame_of_reference: str = ""


@dataclass(frozen=True)
class Number:
    """A NUM item: its concept, derivation, value and unit."""

    concept: Code
    derivation: Code | None
    value: float
    unit: Code


@dataclass(eq=False)
class Group:
    """Content of one measurement group, or of the whole document if it has no groups.

    ``tracking_uid`` identifies the same finding across reports.
    """

    number: int
    tracking_uid: str = ""
    finding: Code | None = None
    site: Code | None = None
    numbers: list[Number] = field(default_factory=list)
    codes: list[tuple[Code, Code]] = field(default_factory=list)
    graphics: list[Graphic] = field(default_factory=list)


def read_groups(dataset: Dataset) -> list[Group]:
    """Read the groups of a report in document order. Group 0 holds everything outside measurement groups.

    Content need not follow a template: any NUM, CODE, SCOORD and SCOORD3D counts, wherever it stands. Image libraries
    are skipped because they describe the images, and so are items given by reference.

    Raises
    ------
    CaseError
        LABEL_UNREADABLE if the content exceeds the limits.
    """
    with parsing(Reason.LABEL_UNREADABLE, "found a structured report that does not parse"):
        return _walk(dataset)


def _walk(dataset: Dataset) -> list[Group]:
    outside = Group(0)
    groups = [outside]
    seen = 0
    stack: list[tuple[Dataset, Group, int, Dataset | None]] = [(item, outside, 1, None) for item in _children(dataset)]
    stack.reverse()
    while stack:
        item, group, depth, parent = stack.pop()
        seen += 1
        if seen > MAX_ITEMS or depth > MAX_DEPTH:
            raise CaseError(Reason.LABEL_UNREADABLE, "found a structured report beyond the limits of depth and size")
        concept = code_of(item.get("ConceptNameCodeSequence"))
        name = (concept.scheme, concept.value) if concept else ("", "")
        if name == IMAGE_LIBRARY:
            continue
        if name == MEASUREMENT_GROUP and str(item.get("ValueType")) == "CONTAINER":
            group = Group(len(groups))
            groups.append(group)
        _take(item, concept, group, parent)
        stack.extend((child, group, depth + 1, item) for child in reversed(_children(item)))
    return groups


@dataclass(frozen=True)
class Observers:
    """The number of persons who observed the content of a report, and whether a device did (PS3.16 TID 1001)."""

    persons: int
    device: bool


def read_observers(dataset: Dataset) -> Observers:
    """Read the observers from the contexts at the top of a report. An observer of unstated type counts as a person.

    Persons are only counted, because their names have already been removed from the report.
    """
    with parsing(Reason.LABEL_UNREADABLE, "found a structured report whose observers do not parse"):
        return _observers(dataset)


def _observers(dataset: Dataset) -> Observers:
    named = devices = persons = 0
    for item in _children(dataset):
        if str(item.get("RelationshipType") or "") != "HAS OBS CONTEXT":
            continue
        concept = code_of(item.get("ConceptNameCodeSequence"))
        name = (concept.scheme, concept.value) if concept else ("", "")
        if name == OBSERVER_TYPE:
            said = code_of(item.get("ConceptCodeSequence"))
            device = said is not None and (said.scheme, said.value) == DEVICE
            devices, persons = devices + device, persons + (not device)
        named += name == PERSON_OBSERVER
        devices += name in DEVICE_OBSERVERS
    return Observers(max(named, persons), devices > 0)


def code_of(sequence: Any) -> Code | None:
    """Return the first code of a sequence, from whichever of the three value attributes holds it (PS3.3 8.8)."""
    if not sequence:
        return None
    item = sequence[0]
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue") or ""
    return Code(str(value), str(item.get("CodingSchemeDesignator") or ""), str(item.get("CodeMeaning") or ""))


def instances_of(dataset: Dataset) -> Iterator[str]:
    """Yield the SOP Instance UIDs (0008,1155) in an item's Referenced SOP Sequence."""
    for reference in dataset.get("ReferencedSOPSequence") or []:
        yield str(reference.get("ReferencedSOPInstanceUID") or "")


def datasets_of(objects: Sequence[LabelObject], what: str, *, sop_class: str) -> list[Dataset]:
    """Return the data sets of ``objects`` after checking that each SOP class starts with ``sop_class``.

    ``what`` names the expected kind of object in messages.

    Raises
    ------
    CaseError
        LABEL_MISSING without objects, LABEL_UNREADABLE for objects of another SOP class.
    """
    if not objects:
        raise CaseError(Reason.LABEL_MISSING, f"found no {what} linked to the image")
    datasets = [item.content for item in objects]
    fits = [isinstance(d, Dataset) and str(value_of(d, "SOPClassUID") or "").startswith(sop_class) for d in datasets]
    if not all(fits):
        raise CaseError(Reason.LABEL_UNREADABLE, f"found an object that is no {what}")
    return datasets


def _children(item: Dataset) -> Sequence[Dataset]:
    return list(item.get("ContentSequence") or [])


def _take(item: Dataset, concept: Code | None, group: Group, parent: Dataset | None) -> None:
    """Add the content of an item to its group."""
    kind = str(item.get("ValueType") or "")
    relation = str(item.get("RelationshipType") or "")
    name = (concept.scheme, concept.value) if concept else ("", "")
    if kind == "NUM" and concept is not None and relation != "HAS ACQ CONTEXT":
        number = _number(item, concept)
        if number is not None:
            group.numbers.append(number)
    elif kind == "CODE" and concept is not None:
        value = code_of(item.get("ConceptCodeSequence"))
        inside_number = parent is not None and str(parent.get("ValueType")) == "NUM"
        if value is None or inside_number:
            return
        if name in FINDING:
            group.finding = group.finding or value
        elif name in FINDING_SITE:
            group.site = group.site or value
        elif relation not in CONTEXT:
            group.codes.append((concept, value))
    elif kind == "UIDREF" and name == TRACKING_UID:
        group.tracking_uid = group.tracking_uid or str(item.get("UID") or "")
    elif kind in ("SCOORD", "SCOORD3D"):
        group.graphics.append(_graphic(item, kind, concept))


def _number(item: Dataset, concept: Code) -> Number | None:
    """Return the value of a NUM item, or None if it has none; a qualifier then gives the reason (PS3.3 C.18.1)."""
    measured = item.get("MeasuredValueSequence")
    if not measured:
        return None
    try:
        value = float(measured[0].get("FloatingPointValue") or measured[0].get("NumericValue"))
    except (TypeError, ValueError) as error:
        raise CaseError(Reason.LABEL_UNREADABLE, "found a measurement whose value is no number") from error
    unit = code_of(measured[0].get("MeasurementUnitsCodeSequence"))
    if unit is None or not math.isfinite(value):
        raise CaseError(Reason.LABEL_UNREADABLE, "found a measurement without a unit or a finite value")
    derivation = None
    for child in _children(item):
        about = code_of(child.get("ConceptNameCodeSequence"))
        if about is not None and (about.scheme, about.value) in DERIVATION:
            derivation = code_of(child.get("ConceptCodeSequence"))
    return Number(concept, derivation, value, unit)


def _graphic(item: Dataset, kind: str, concept: Code | None) -> Graphic:
    width = 2 if kind == "SCOORD" else 3
    try:
        points = np.array(item.get("GraphicData"), dtype=np.float64).reshape(-1, width)
    except (TypeError, ValueError) as error:
        raise CaseError(Reason.LABEL_UNREADABLE, f"found {kind} data that are no points") from error
    if not np.isfinite(points).all():
        raise CaseError(Reason.LABEL_UNREADABLE, f"found {kind} data that are not finite")
    instance = ""
    for child in _children(item):
        instance = next(instances_of(child), instance)
    frame = str(item.get("ReferencedFrameOfReferenceUID") or "") if kind == "SCOORD3D" else ""
    return Graphic(str(item.get("GraphicType") or ""), points, concept, instance, frame)
