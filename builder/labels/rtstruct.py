"""Reader for RT Structure Sets (PS3.3 A.19): contours in patient space become masks on the image's grid."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from builder.errors import CaseError, Reason
from builder.labels.content import datasets_of
from builder.labels.contours import Filled, Gaps, Holes, Inclusion, Rules, fill_contours
from builder.labels.label import MaskLabel
from builder.labels.layers import LayerRules, Pattern, Structure, layer
from builder.labels.linking import RT_STRUCTURE_SET, select_named, select_references
from builder.labels.rois import Roi, StructureSet, read_rois
from builder.model.case import Annotation, Evidence
from builder.model.geometry import Geometry
from builder.model.linking import ImageRow, Selection
from builder.model.patterns import occurs
from builder.protocols import ImageFacts, LabelObject


class RtStruct(MaskLabel):
    """Masks from RTSTRUCT objects.

    Parameters
    ----------
    roi
        Maps the name of a structure to a regular expression that is searched in ROI Name (3006,0026). ROIs that match
        the same structure are joined. Names of ROIs are never published, only counts.
    inclusion, holes, gaps, max_step_mm
        How contours become voxels; see ``builder.labels.contours.Rules``.
    layout
        One channel per structure, or one label map.
    require
        ``any``: one declared structure is enough. ``all``: a case that lacks one is excluded.
    several
        What to do with more than one linked object with a declared structure: ``refuse`` the case, or ``join`` them.

    If all ROIs that are taken have the ROI Generation Algorithm AUTOMATIC (3006,0036), the tier is ``machine``.
    """

    VERSION: ClassVar[int] = 3

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
        """The structures that the spec names, in order."""
        return tuple(self.roi)

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Select structure sets that name a structure and refer to the image by instance, series or frame."""
        found = select_references(image, candidates, sop_classes=(RT_STRUCTURE_SET,))
        return select_named(found, candidates, self.structures_of)

    def structures_of(self, roi_name: str) -> tuple[str, ...]:
        """Return the structures that take a ROI of this name."""
        return tuple(segment for segment, pattern in self.roi.items() if occurs(pattern, roi_name))

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return one mask called ``name`` with a segment for each declared structure that was found.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_AMBIGUOUS, LABEL_EMPTY, LABEL_UNREADABLE, LABEL_GEOMETRY or LABEL_OFF_GRID.
        """
        sets = self._chosen(self._structure_sets(objects, image))
        rois = [roi for found in sets for roi in found.rois]
        rules = Rules(self.inclusion, self.holes, self.gaps, self.max_step_mm)
        measures = _coverage(sets)
        structures = []
        for segment, pattern in self.roi.items():
            matched = [roi for roi in rois if roi.wanted and occurs(pattern, roi.name)]
            structures.append(_fill_structure(segment, matched, image.geometry, rules, measures))
        missing = [s.name for s in structures if s.voxels is None]
        if self.require == "all" and missing:
            raise CaseError(Reason.LABEL_MISSING, f"found no contours for {', '.join(missing)}; require is all")
        taken = [roi for roi in rois if roi.wanted]
        evidence = Evidence(tier="machine" if taken and all(r.automatic for r in taken) else self.tier)
        mask = layer(
            name, structures, image.geometry, rules=LayerRules(self.layout), evidence=evidence, measures=measures
        )
        return (mask,)

    def _structure_sets(self, objects: Sequence[LabelObject], image: ImageFacts) -> list[StructureSet]:
        return [
            read_rois(
                dataset,
                wanted=lambda name: bool(self.structures_of(name)),
                frame_of_reference=image.geometry.frame_of_reference,
            )
            for dataset in datasets_of(objects, "RT Structure Set", sop_class=RT_STRUCTURE_SET)
        ]

    def _chosen(self, sets: list[StructureSet]) -> list[StructureSet]:
        """Drop sets without a declared structure if another has one, so that they do not make the case ambiguous."""
        chosen = [found for found in sets if any(roi.wanted for roi in found.rois)]
        if len(chosen) > 1 and self.several == "refuse":
            raise CaseError(
                Reason.LABEL_AMBIGUOUS,
                f"found {len(chosen)} RTSTRUCTs with declared structures for the image, expected one; several: join",
            )
        return chosen or sets


def _coverage(sets: Sequence[StructureSet]) -> dict[str, float]:
    rois = [roi for found in sets for roi in found.rois]
    matched = sum(roi.wanted for roi in rois)
    return {
        "rois": float(len(rois)),
        "rois_matched": float(matched),
        "rois_unmatched": float(len(rois) - matched),
        "rois_with_dangling_frame": float(sum(roi.frame == "dangling" for roi in rois)),
        "rois_without_contours": float(sum(not roi.drawn for roi in rois)),
        "contour_items_without_roi": float(sum(found.stray_items for found in sets)),
    }


def _fill_structure(
    segment: str, rois: Sequence[Roi], geometry: Geometry, rules: Rules, measures: dict[str, float]
) -> Structure:
    """Fill one declared structure on the grid, and add its figures to ``measures`` under ``<segment>/``."""
    measures[f"{segment}/rois"] = float(len(rois))
    measures[f"{segment}/point_contours"] = float(sum(r.points for r in rois))
    measures[f"{segment}/open_contours"] = float(sum(r.open for r in rois))
    measures[f"{segment}/degenerate_contours"] = float(sum(r.degenerate for r in rois))
    drawn = [roi for roi in rois if roi.contours]
    if not drawn:
        return Structure(segment, None)
    if any(roi.frame == "other" for roi in drawn):
        raise CaseError(Reason.LABEL_GEOMETRY, f"found {segment} in another frame of reference than the image's")
    toggled = replace(rules, holes="xor")
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
        f"{segment}/repeated_contours": float(sum(f.repeated_contours for f in filled)),
        f"{segment}/overlapping_contours": float(sum(f.overlapping_contours for f in filled)),
        f"{segment}/nested_contours": float(sum(f.nested_contours for f in filled)),
        f"{segment}/farthest_plane_mm": max(f.farthest_plane_mm for f in filled),
        f"{segment}/contour_volume_mm3": contour_volume,
        f"{segment}/voxel_volume_mm3": voxel_volume,
        f"{segment}/volume_ratio": voxel_volume / contour_volume if contour_volume else 0.0,
    }
