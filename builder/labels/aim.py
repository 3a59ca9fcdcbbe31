"""Reader for AIM 4 XML, the National Cancer Institute's Annotation and Image Markup format, as written by ePAD."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.labels.evidence import reader_name
from builder.labels.label import Label
from builder.labels.linking import check_pattern, select_files
from builder.labels.rows import load_rows, number
from builder.model.case import Annotation, Classes, Evidence, Landmarks, Measurement, Measurements
from builder.model.linking import ImageRow, Mentions, Selection
from builder.protocols import ImageFacts, LabelObject

FORMATS = ("xml", "text")
KINDS = ("markup", "calculation", "observation", "observer")
MAX_BYTES = 64 * 2**20
MAX_DEPTH = 32


class Aim(Label):
    """Annotations from AIM files.

    Parameters
    ----------
    match
        Glob over file paths; see ``builder.labels.linking.select_files``.
    """

    VERSION: ClassVar[int] = 2
    SHARED_FILES: ClassVar[bool] = True

    kind: Literal["aim"] = "aim"
    match: str

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Select the AIM files whose path matches the pattern."""
        return select_files(image, candidates, pattern=check_pattern(self.match), formats=FORMATS)

    def mentions(self, content: bytes) -> Mentions:
        """Return a test of whether any annotation in the file is on an image. Raises CaseError LABEL_UNREADABLE."""
        annotations = parse_aim(content)
        return lambda image: any(annotation.is_on(image) for annotation in annotations)

    def cut(self, content: bytes, image: ImageRow, *, map_uid: Callable[[str], str]) -> bytes:
        """Keep the rows about one image, with mapped UIDs and without names of people or free text.

        Annotations on other images are dropped. When one annotation covers several images, so is its markup on the
        others.
        """
        rows = [
            _keyed(row, map_uid)
            for annotation in parse_aim(content)
            if annotation.is_on(image)
            for row in annotation.rows
            if _lies_on(row, image)
        ]
        return json.dumps(rows, sort_keys=True, separators=(",", ":")).encode()

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return landmarks ``name/points``, measurements ``name`` and coded observations ``name/codes``, where present.

        Observers get keyed names, which are the same in every case.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_UNREADABLE, LABEL_OFF_GRID or LABEL_EMPTY.
        """
        rows = load_rows(objects)
        if any(row.get("kind") not in KINDS for row in rows):
            raise CaseError(Reason.LABEL_UNREADABLE, "found rows that are no annotation cut from an AIM file")
        observers = {str(row["name"]) for row in rows if row["kind"] == "observer"}
        evidence = Evidence(tier=self.tier, readers=tuple(sorted(observers)))
        annotations: list[Annotation] = []
        items = tuple(
            Measurement(
                str(row["quantity"]), number(row, "value"), str(row["unit"]), tracking_id=str(row["annotation"])
            )
            for row in rows
            if row["kind"] == "calculation"
        )
        if items:
            annotations.append(Measurements(name, items, evidence))
        markup = [row for row in rows if row["kind"] == "markup"]
        if markup:
            annotations.append(_landmarks(f"{name}/points", markup, image, evidence))
        codes = {f"{row['annotation']}/{row['what']}": str(row["code"]) for row in rows if row["kind"] == "observation"}
        if codes:
            annotations.append(Classes(f"{name}/codes", codes, evidence))
        if not annotations:
            raise CaseError(Reason.LABEL_EMPTY, "found an AIM file without markup, calculation or observation")
        return tuple(annotations)


@dataclass(frozen=True)
class AimAnnotation:
    """One image annotation: its rows, and the instances and series that it refers to."""

    rows: tuple[Mapping[str, Any], ...]
    instances: frozenset[str]
    series: frozenset[str]

    def is_on(self, image: ImageRow) -> bool:
        """Compare by instance if any is named, else by series. If neither is, trust the path that linked the file."""
        if self.instances:
            return not self.instances.isdisjoint(image.sop_uids)
        return not self.series or image.series_uid in self.series


def parse_aim(content: bytes) -> list[AimAnnotation]:
    """Read the annotations of an AIM 4 document.

    The rows have the kind ``markup`` (one row per point), ``calculation``, ``observation`` or ``observer``.

    Document types and entities are refused, so the parser never opens another file and never expands anything.

    Raises
    ------
    CaseError
        LABEL_UNREADABLE.
    """
    if len(content) > MAX_BYTES or b"\0" in content or re.search(rb"<!(DOCTYPE|ENTITY)", content, re.IGNORECASE):
        raise _unreadable("found an XML file that is too large, not UTF-8 or declares entities")
    try:
        text = content.decode("utf-8-sig")
        root = ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError, RecursionError) as error:
        raise _unreadable("found an XML file that does not parse") from error
    _check_depth(root)
    annotations = [element for element in root.iter() if _tag(element) in ("ImageAnnotation", "ImageAnnotationItem")]
    if "Annotation" not in _tag(root) or not annotations:
        raise _unreadable("found an XML file that is no AIM 4 annotation")
    everybodys = [user for user in root if _tag(user) == "user"]
    return [_annotation(element, index, everybodys) for index, element in enumerate(annotations)]


def _check_depth(root: ElementTree.Element) -> None:
    """Refuse deeply nested elements, because the readers below rescan nested elements once per level."""
    level = [root]
    for _ in range(MAX_DEPTH):
        level = [child for element in level for child in element]
        if not level:
            return
    raise _unreadable(f"found an XML file with elements nested deeper than {MAX_DEPTH} levels")


def _annotation(annotation: ElementTree.Element, index: int, users: Sequence[ElementTree.Element]) -> AimAnnotation:
    rows: list[dict[str, Any]] = []
    instances, series = set(), set()
    for user in [child for child in annotation if _tag(child) == "user"] or users:
        name = _attribute(user, "loginName", "value") or _attribute(user, "name", "value")
        if name:
            rows.append({"kind": "observer", "annotation": index, "name": name})
    markups = 0
    for element in annotation.iter():
        if _tag(element) == "MarkupEntity":
            markups += 1
            rows.extend(_markup(element, index, markups))
        elif _tag(element) == "CalculationEntity":
            rows.extend(_calculation(element, index))
        elif _tag(element) in ("ImagingPhysicalEntity", "ImagingObservationEntity"):
            code = _code(element, "typeCode")
            if code:
                rows.append({"kind": "observation", "annotation": index, "what": _tag(element), "code": code})
        elif _tag(element) == "imageSeries":
            series.add(_attribute(element, "instanceUid", "root"))
        elif _tag(element) == "Image":
            instances.add(_attribute(element, "sopInstanceUid", "root"))
    instances |= {str(row["instance"]) for row in rows if row.get("instance")}
    return AimAnnotation(tuple(rows), frozenset(instances - {""}), frozenset(series - {""}))


def _keyed(row: Mapping[str, Any], map_uid: Callable[[str], str]) -> dict[str, Any]:
    """Return the row with mapped UIDs, or with a keyed name if it is an observer."""
    if row["kind"] == "observer":
        return {**row, "name": reader_name(str(row["name"]), map_uid=map_uid)}
    return {**row, **{uid: map_uid(str(row[uid])) for uid in ("instance", "frame") if row.get(uid)}}


def _lies_on(row: Mapping[str, Any], image: ImageRow) -> bool:
    """Return True for markup on one of the image's instances or in its frame of reference, and for all other rows."""
    if row["kind"] != "markup":
        return True
    if "z" in row:
        return row["frame"] in ("", image.frame_of_reference_uid)
    return row["instance"] in image.sop_uids


def _landmarks(name: str, rows: Sequence[Any], image: ImageFacts, evidence: Evidence) -> Landmarks:
    points = np.stack([_point(row, image) for row in rows])
    classes = tuple(str(row["shape"]) for row in rows)
    groups = tuple(f"{row['annotation']}.{row['markup']}" for row in rows)
    return Landmarks(name, points, classes, groups, evidence)


def _point(row: Mapping[str, Any], image: ImageFacts) -> NDArray[np.float64]:
    """Return the point of a row, (3,) in LPS mm."""
    if "z" in row:
        return np.array([number(row, axis) for axis in "xyz"])
    index = image.uid_to_slice.get(str(row.get("instance")))
    if index is None:
        raise CaseError(Reason.LABEL_OFF_GRID, "found AIM markup on an instance that is none of the image's")
    # The -0.5 is there because AIM 4 counts from pixel corners, as DICOM's SCOORD does.
    return np.asarray(image.geometry.to_world([(index, number(row, "y") - 0.5, number(row, "x") - 0.5)])[0])


def _markup(element: ElementTree.Element, index: int, number: int) -> list[dict[str, Any]]:
    """Return one row per point: pixels of an instance, or LPS mm in a frame of reference for 3D markup."""
    kind = next((v for k, v in element.attrib.items() if k.endswith("}type")), "").split(":")[-1]
    flat = kind.startswith("TwoDimension")
    if not flat and not kind.startswith("ThreeDimension"):
        return []
    identifier = _attribute(element, "shapeIdentifier", "value") or "0"
    uid, axes = ("imageReferenceUid", "xy") if flat else ("frameOfReferenceUid", "xyz")
    facts = {
        "kind": "markup",
        "annotation": index,
        "markup": identifier if re.fullmatch(r"\d{1,6}", identifier) else f"{number}",
        "shape": kind.removeprefix("TwoDimension").removeprefix("ThreeDimension").lower(),
        "instance" if flat else "frame": _attribute(element, uid, "root"),
    }
    points: list[tuple[int, dict[str, float]]] = []
    for point in (e for e in element.iter() if _tag(e).endswith("DimensionSpatialCoordinate")):
        try:
            place = int(_attribute(point, "coordinateIndex", "value") or 0)
            points.append((place, {axis: float(_attribute(point, axis, "value")) for axis in axes}))
        except ValueError as error:
            raise _unreadable("found AIM coordinates that are no numbers") from error
    return [{**facts, **at} for _, at in sorted(points, key=lambda p: p[0])]


def _calculation(element: ElementTree.Element, index: int) -> list[dict[str, Any]]:
    quantity = _code(element, "typeCode") or "unknown"
    rows = []
    for result in (e for e in element.iter() if _tag(e) == "CalculationResult"):
        unit = _attribute(result, "unitOfMeasure", "value")
        values = [e.attrib["value"] for e in result.iter() if _tag(e) == "value" and "value" in e.attrib]
        for value in values:
            rows.append(
                {"kind": "calculation", "annotation": index, "quantity": quantity, "value": value, "unit": unit}
            )
    return rows


def _code(element: ElementTree.Element, name: str) -> str:
    """Return ``<scheme>:<code>`` of a direct child, or "" if there is none."""
    child = next((c for c in element if _tag(c) == name), None)
    if child is None or not child.attrib.get("code"):
        return ""
    return f"{child.attrib.get('codeSystemName', '')}:{child.attrib['code']}"


def _attribute(element: ElementTree.Element, name: str, attribute: str) -> str:
    """Return an attribute of a direct child, or "" if there is none."""
    return next((c.attrib.get(attribute, "") for c in element if _tag(c) == name), "")


def _tag(element: ElementTree.Element) -> str:
    """Return the element's name without its namespace."""
    return str(element.tag).rsplit("}", 1)[-1]


def _unreadable(detail: str) -> CaseError:
    return CaseError(Reason.LABEL_UNREADABLE, detail)
