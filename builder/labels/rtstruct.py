"""RT Structure Sets (PS3.3 A.19): contours in patient space to masks on the image's grid."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.labels.contours import Filled, Gaps, Holes, Inclusion, Rules, fill_contours
from builder.labels.label import MaskLabel
from builder.labels.layers import Pattern, Structure, layer
from builder.labels.linking import RT_STRUCTURE_SET, select_named, select_references
from builder.model.case import Annotation, Code, Evidence
from builder.model.geometry import Geometry
from builder.protocols import ImageFacts, ImageRow, LabelObject, Selection

XOR = ("CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")
"""The standard's term, and what some writers make of it: contours of a plane toggle, whatever the spec's ``holes``."""

CLOSED = ("CLOSED_PLANAR", *XOR)
Frame: TypeAlias = Literal["same", "dangling", "other"]
MAX_CONTOURS = 200_000
MAX_POINTS = 20_000_000


class RtStruct(MaskLabel):
    """Masks from RTSTRUCT objects.

    Parameters
    ----------
    roi
        Structure name to a regular expression that is searched in ROI Name (3006,0026). ROIs that match one
        structure together are joined. Names of ROIs leave nowhere: only counts do.
    inclusion, holes, gaps, max_step_mm
        How contours become voxels, see ``builder.labels.contours.Rules``.
    layout
        A channel for each structure, or one label map.
    require
        ``any``: one declared structure is enough; ``all``: a case that lacks one is excluded.
    several
        More than one linked object with a declared structure: ``refuse`` the case, ``join`` all of them.

    Objects whose ROIs all say ROI Generation Algorithm AUTOMATIC (3006,0036) are of the tier ``machine``.
    """

    VERSION: ClassVar[int] = 2

    kind: Literal["rtstruct"] = "rtstruct"
    roi: dict[str, Pattern] = Field(min_length=1)
    inclusion: Inclusion = "centre"
    holes: Holes = "even_odd"
    gaps: Gaps = "leave"
    max_step_mm: float = Field(default=10.0, gt=0)
    require: Literal["any", "all"] = "any"
    several: Literal["refuse", "join"] = "refuse"

    @property
    def declared(self) -> tuple[str, ...]:
        """The structures the spec names, in order."""
        return tuple(self.roi)

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Structure sets that refer to the image by instance, series or frame of reference, and name a structure."""
        found = select_references(image, candidates, sop_classes=(RT_STRUCTURE_SET,))
        return select_named(found, candidates, self.structures_of)

    def structures_of(self, roi_name: str) -> tuple[str, ...]:
        """The structures that take a ROI of this name."""
        return tuple(segment for segment, pattern in self.roi.items() if re.search(pattern, roi_name))

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """One mask called ``name`` with a segment for each declared structure that was found.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_AMBIGUOUS, LABEL_EMPTY, LABEL_UNREADABLE, LABEL_GEOMETRY or LABEL_OFF_GRID.
        """
        rois = [roi for found in self._chosen(self._read_rois(objects, image)) for roi in found]
        rules = Rules(self.inclusion, self.holes, self.gaps, self.max_step_mm)
        measures = _coverage(rois, self.roi)
        structures = []
        for segment, pattern in self.roi.items():
            matched = [roi for roi in rois if re.search(pattern, roi.name)]
            structures.append(_fill_structure(segment, matched, image.geometry, rules, measures))
        missing = [s.name for s in structures if s.voxels is None]
        if self.require == "all" and missing:
            raise CaseError(Reason.LABEL_MISSING, f"found no contours for {', '.join(missing)}; require is all")
        taken = [roi for roi in rois if self.structures_of(roi.name)]
        evidence = Evidence(tier="machine" if taken and all(r.automatic for r in taken) else self.tier)
        mask = layer(name, structures, image.geometry, layout=self.layout, evidence=evidence, measures=measures)
        return (mask,)

    def _read_rois(self, objects: Sequence[LabelObject], image: ImageFacts) -> "list[list[_Roi]]":
        """The ROIs of each object."""
        if not objects:
            raise CaseError(Reason.LABEL_MISSING, "found no RTSTRUCT linked to the image")
        if any(not isinstance(o.content, Dataset) or o.content.get("SOPClassUID") != RT_STRUCTURE_SET for o in objects):
            raise CaseError(Reason.LABEL_UNREADABLE, "found an object that is no RT Structure Set")
        return [read_rois(item.content, frame_of_reference=image.geometry.frame_of_reference) for item in objects]

    def _chosen(self, objects: "list[list[_Roi]]") -> "list[list[_Roi]]":
        """Those with a declared structure, where any has one: others are no reason to refuse the case."""
        chosen = [rois for rois in objects if any(self.structures_of(roi.name) for roi in rois)]
        if len(chosen) > 1 and self.several == "refuse":
            raise CaseError(
                Reason.LABEL_AMBIGUOUS,
                f"found {len(chosen)} RTSTRUCTs with declared structures for the image, expected one; several: join",
            )
        return chosen or objects


@dataclass(frozen=True, eq=False)
class _Roi:
    """One ROI: closed contours as (k, 3) LPS mm, and counts of what cannot be filled."""

    name: str
    contours: tuple[NDArray[np.float64], ...]
    points: int
    open: int
    degenerate: int
    toggles: bool
    automatic: bool
    type: Code | None
    frame: Frame


def read_rois(dataset: Dataset, *, frame_of_reference: str | None) -> list[_Roi]:
    """Every ROI of a structure set with its contours (PS3.3 C.8.8.5, C.8.8.6, C.8.8.8).

    Raises
    ------
    CaseError
        LABEL_UNREADABLE when contour data is damaged or beyond the limits.
    """
    stated = {str(f.get("FrameOfReferenceUID")) for f in dataset.get("ReferencedFrameOfReferenceSequence") or []}
    names = {int(item.ROINumber): item for item in dataset.get("StructureSetROISequence") or []}
    types = {
        int(item.ReferencedROINumber): _code(item) for item in dataset.get("RTROIObservationsSequence") or []
        if "ReferencedROINumber" in item
    }  # fmt: skip
    contours = {int(item.ReferencedROINumber): item for item in dataset.get("ROIContourSequence") or []}
    _check_limits(contours)
    rois = []
    for number in sorted(names):
        item = names[number]
        sequence = (contours[number].get("ContourSequence") or []) if number in contours else []
        frame = _frame_of(item, stated, frame_of_reference)
        rois.append(_read_roi(item, sequence, types.get(number), frame))
    return rois


def _frame_of(item: Dataset, stated: set[str], expected: str | None) -> Frame:
    """How a ROI's frame of reference (3006,0024) stands to the image's.

    Some archives rewrote UIDs and left ROIs that name a frame the structure set itself does not know (3006,0010);
    such a ROI is taken at the structure set's word, and counted.
    """
    frame = str(item.get("ReferencedFrameOfReferenceUID") or "")
    if expected is None or not frame or frame == expected:
        return "same"
    return "dangling" if expected in stated and frame not in stated else "other"


def _read_roi(item: Dataset, sequence: Sequence[Dataset], code: Code | None, frame: Frame) -> _Roi:
    closed: list[NDArray[np.float64]] = []
    points = opened = degenerate = 0
    toggles = False
    for contour in sequence:
        form = str(contour.get("ContourGeometricType") or "").strip().upper()
        data = _contour_data(contour)
        if form == "POINT":
            points += 1
        elif form not in CLOSED:
            opened += 1
        elif len(np.unique(data, axis=0)) < 3:
            degenerate += 1
        else:
            closed.append(data)
            toggles |= form in XOR
    automatic = str(item.get("ROIGenerationAlgorithm") or "").upper() == "AUTOMATIC"
    name = str(item.get("ROIName") or "")
    return _Roi(name, tuple(closed), points, opened, degenerate, toggles, automatic, code, frame)


def _contour_data(contour: Dataset) -> NDArray[np.float64]:
    """(k, 3) LPS mm of Contour Data (3006,0050), read from the raw bytes where pydicom has not parsed them yet."""
    element = contour.get_item("ContourData") if "ContourData" in contour else None
    if element is None or not element.value:
        return np.empty((0, 3))
    try:
        if isinstance(element, RawDataElement):
            values = np.array([float(v) for v in bytes(element.value).split(b"\\")])
        else:
            values = np.atleast_1d(np.array(element.value, dtype=np.float64))
    except (ValueError, TypeError) as error:
        raise CaseError(Reason.LABEL_UNREADABLE, "found contour data that is not a list of numbers") from error
    if values.size % 3 or not np.isfinite(values).all():
        raise CaseError(Reason.LABEL_UNREADABLE, f"found {values.size} contour coordinates, expected finite triplets")
    return values.reshape(-1, 3)


def _check_limits(contours: Mapping[int, Dataset]) -> None:
    sequences = [item.get("ContourSequence") or [] for item in contours.values()]
    total = sum(len(s) for s in sequences)
    points = sum(int(c.get("NumberOfContourPoints") or 0) for s in sequences for c in s)
    if total > MAX_CONTOURS or points > MAX_POINTS:
        raise CaseError(
            Reason.LABEL_UNREADABLE,
            f"found {total} contours with {points} points, expected at most {MAX_CONTOURS} and {MAX_POINTS}",
        )


def _code(item: Dataset) -> Code | None:
    """The coded identification of a ROI (3006,0086), else its interpreted type (3006,00A4) as a code of scheme DCM."""
    sequence: Any = item.get("RTROIIdentificationCodeSequence") or []
    if sequence:
        first = sequence[0]
        return Code(str(first.get("CodeValue", "")), str(first.get("CodingSchemeDesignator", "")),
                    str(first.get("CodeMeaning", "")))  # fmt: skip
    interpreted = str(item.get("RTROIInterpretedType") or "").strip()
    return Code(interpreted, "99DICOM-RTROI", interpreted) if interpreted else None


def _coverage(rois: Sequence[_Roi], patterns: Mapping[str, str]) -> dict[str, float]:
    matched = [any(re.search(p, roi.name) for p in patterns.values()) for roi in rois]
    return {
        "rois": float(len(rois)),
        "rois_matched": float(sum(matched)),
        "rois_unmatched": float(len(rois) - sum(matched)),
        "rois_with_dangling_frame": float(sum(roi.frame == "dangling" for roi in rois)),
        "rois_without_contours": float(sum(not roi.contours for roi in rois)),
    }


def _fill_structure(
    segment: str, rois: Sequence[_Roi], geometry: Geometry, rules: Rules, measures: dict[str, float]
) -> Structure:
    """One declared structure on the grid; its figures go into ``measures`` under ``<segment>/``."""
    measures[f"{segment}/rois"] = float(len(rois))
    measures[f"{segment}/point_contours"] = float(sum(r.points for r in rois))
    measures[f"{segment}/open_contours"] = float(sum(r.open for r in rois))
    measures[f"{segment}/degenerate_contours"] = float(sum(r.degenerate for r in rois))
    drawn = [roi for roi in rois if roi.contours]
    if not drawn:
        return Structure(segment, None)
    if any(roi.frame == "other" for roi in drawn):
        raise CaseError(Reason.LABEL_GEOMETRY, f"found {segment} in another frame of reference than the image's")
    toggled = replace(rules, holes="even_odd")
    filled = [fill_contours(roi.contours, geometry, toggled if roi.toggles else rules) for roi in drawn]
    inside = np.logical_or.reduce([f.inside for f in filled])
    planes = sum(f.planes for f in filled)
    if sum(f.planes_outside for f in filled) == planes:
        raise CaseError(Reason.LABEL_OFF_GRID, f"found all {planes} planes of {segment} beyond the image's slices")
    measures.update(_figures(segment, filled, inside, geometry))
    codes = {roi.type for roi in drawn}
    return Structure(segment, inside, type=codes.pop() if len(codes) == 1 else None)


def _figures(segment: str, filled: Sequence[Filled], inside: NDArray[np.bool_], geometry: Geometry) -> dict[str, float]:
    planes = sum(f.planes for f in filled)
    contour_volume = sum(f.contour_volume_mm3 for f in filled)
    voxel_volume = float(np.count_nonzero(inside)) * geometry.voxel_volume_mm3
    return {
        f"{segment}/planes": float(planes),
        f"{segment}/planes_on_slice_fraction": sum(f.planes_on_slice for f in filled) / planes,
        f"{segment}/planes_outside": float(sum(f.planes_outside for f in filled)),
        f"{segment}/oblique_contours": float(sum(f.oblique_contours for f in filled)),
        f"{segment}/farthest_plane_mm": max(f.farthest_plane_mm for f in filled),
        f"{segment}/contour_volume_mm3": contour_volume,
        f"{segment}/voxel_volume_mm3": voxel_volume,
        f"{segment}/volume_ratio": voxel_volume / contour_volume if contour_volume else 0.0,
    }
