"""AIM 4 XML (National Cancer Institute's Annotation and Image Markup, as ePAD writes it): markup and calculations."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal
from xml.etree import ElementTree

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from builder.errors import CaseError, Reason
from builder.labels.linking import ImageRow, Selection, check_pattern, select_files
from builder.labels.rows import load_rows, number
from builder.model.case import Annotation, Classes, Evidence, Landmarks, Measurement, Measurements
from builder.protocols import ImageFacts, LabelObject

FORMATS = ("xml", "text")
MAX_BYTES = 64 * 2**20


class Aim(BaseModel):
    """Annotations from AIM files.

    Parameters
    ----------
    match
        Glob over paths, see ``builder.labels.linking.select_files``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    VERSION: ClassVar[int] = 1

    kind: Literal["aim"] = "aim"
    match: str
    tier: str = "single_reader"

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """AIM files whose path fits the pattern."""
        return select_files(image, candidates, pattern=check_pattern(self.match), formats=FORMATS)

    def cut(self, content: bytes, image: ImageRow, *, map_uid: Callable[[str], str]) -> bytes:
        """What a fetched file says of the image, with mapped UIDs; person, user and free text stay behind."""
        rows = [
            {**row, "instance": map_uid(row["instance"])} if row["kind"] == "markup" else row
            for row in parse_aim(content)
            if row["kind"] != "markup" or row["instance"] in image.sop_uids
        ]
        return json.dumps(rows, sort_keys=True, separators=(",", ":")).encode()

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Landmarks ``name/points``, measurements ``name`` and coded observations ``name/codes``, as far as there are.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_UNREADABLE, LABEL_OFF_GRID or LABEL_EMPTY.
        """
        rows = load_rows(objects)
        if any(row.get("kind") not in ("markup", "calculation", "observation") for row in rows):
            raise CaseError(Reason.LABEL_UNREADABLE, "found rows that are no annotation cut from an AIM file")
        evidence = Evidence(tier=self.tier)
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


def parse_aim(content: bytes) -> list[dict[str, Any]]:
    """Rows of an AIM 4 document: ``markup`` (a point each), ``calculation`` and ``observation``.

    Document types and entities are refused, so nothing outside the file is ever opened and nothing expands.

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
    annotations = [element for element in root.iter() if _tag(element) in ("ImageAnnotation", "ImageAnnotationItem")]
    if "Annotation" not in _tag(root) or not annotations:
        raise _unreadable("found an XML file that is no AIM 4 annotation")
    rows: list[dict[str, Any]] = []
    for index, annotation in enumerate(annotations):
        for element in annotation.iter():
            if _tag(element) == "MarkupEntity":
                rows.extend(_markup(element, index))
            elif _tag(element) == "CalculationEntity":
                rows.extend(_calculation(element, index))
            elif _tag(element) in ("ImagingPhysicalEntity", "ImagingObservationEntity"):
                code = _code(element, "typeCode")
                if code:
                    rows.append({"kind": "observation", "annotation": index, "what": _tag(element), "code": code})
    return rows


def _landmarks(name: str, rows: Sequence[Any], image: ImageFacts, evidence: Evidence) -> Landmarks:
    voxels = []
    for row in rows:
        index = image.uid_to_slice.get(str(row.get("instance")))
        if index is None:
            raise CaseError(Reason.LABEL_OFF_GRID, "found AIM markup on an instance that is none of the image's")
        # pixel corners, as in DICOM's SCOORD, which AIM 4 took over
        voxels.append((index, number(row, "y") - 0.5, number(row, "x") - 0.5))
    classes = tuple(str(row["shape"]) for row in rows)
    groups = tuple(f"{row['annotation']}.{row['markup']}" for row in rows)
    return Landmarks(name, image.geometry.to_world(voxels), classes, groups, evidence)


def _markup(element: ElementTree.Element, index: int) -> list[dict[str, Any]]:
    kind = next((v for k, v in element.attrib.items() if k.endswith("}type")), "").split(":")[-1]
    if not kind.startswith("TwoDimension"):
        return []
    instance = _attribute(element, "imageReferenceUid", "root")
    order = _attribute(element, "shapeIdentifier", "value") or "0"
    points = []
    for point in (e for e in element.iter() if _tag(e) == "TwoDimensionSpatialCoordinate"):
        try:
            place = int(_attribute(point, "coordinateIndex", "value") or 0)
            x, y = float(_attribute(point, "x", "value")), float(_attribute(point, "y", "value"))
        except ValueError as error:
            raise _unreadable("found AIM coordinates that are no numbers") from error
        points.append((place, x, y))
    shape = kind.removeprefix("TwoDimension").lower()
    return [
        {"kind": "markup", "annotation": index, "markup": order, "shape": shape, "instance": instance, "x": x, "y": y}
        for _, x, y in sorted(points)
    ]


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
    """``<scheme>:<code>`` of a direct child, "" without one."""
    child = next((c for c in element if _tag(c) == name), None)
    if child is None or not child.attrib.get("code"):
        return ""
    return f"{child.attrib.get('codeSystemName', '')}:{child.attrib['code']}"


def _attribute(element: ElementTree.Element, name: str, attribute: str) -> str:
    """An attribute of a direct child, "" without one."""
    return next((c.attrib.get(attribute, "") for c in element if _tag(c) == name), "")


def _tag(element: ElementTree.Element) -> str:
    """The element's name without its namespace."""
    return str(element.tag).rsplit("}", 1)[-1]


def _unreadable(detail: str) -> CaseError:
    return CaseError(Reason.LABEL_UNREADABLE, detail)
