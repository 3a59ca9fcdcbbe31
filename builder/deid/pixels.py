"""Text and faces in pixels: which images to refuse, which to blank, and which get a note."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sequence import Sequence as Items

from builder.deid import Deid, MaskRegion
from builder.errors import CaseError, Reason
from builder.headers.boundary import elements_as

FACE_RISK = "face_risk"
"""Note on a volume from whose surface a face could be rendered."""

_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
_ULTRASOUND = ("1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.3")
_ANGIOGRAPHY = ("1.2.840.10008.5.1.4.1.1.12",)
_VISIBLE_LIGHT = ("1.2.840.10008.5.1.4.1.1.77.1",)
_SLIDES = "1.2.840.10008.5.1.4.1.1.77.1.6"
_ENCAPSULATED = ("1.2.840.10008.5.1.4.1.1.104",)
_RISKY_MODALITIES = frozenset({"US", "IVUS", "XA", "RF", "SC", "OT", "XC", "ES", "GM", "SM", "DOC", "BDUS", "OP", "EC"})
_HEAD = frozenset({"NECK", "HEADNECK", "ORBIT", "EYE", "JAW", "MAXILLA", "SINUS", "TMJ", "IAC", "EAR", "NOSE"})
_HEAD_WORDS = re.compile(r"HEAD|BRAIN|SKULL|FACE|FACIAL|CRANI|NEURO|MPRAGE|KOPF|SCHAEDEL|CEREBR")
_DESCRIPTIONS = ("StudyDescription", "SeriesDescription", "ProtocolName")
_RENDERABLE = frozenset({"CT", "MR", "PT"})


class Risk(StrEnum):
    """Why an image may show whose it is."""

    DECLARED = "declares burned-in annotation"
    CAPTURE = "is a secondary capture or screen save"
    ULTRASOUND = "is ultrasound"
    ANGIOGRAPHY = "is angiography or fluoroscopy"
    PHOTOGRAPH = "is a photograph or visible-light image"
    DOCUMENT = "is an encapsulated document"
    OVERLAY_IN_PIXELS = "carries an overlay in unused pixel bits"
    OTHER = "is of a modality whose images often show text"


@dataclass(frozen=True)
class PixelVerdict:
    """What to do before the pixels are used: rectangles to blank, rectangles to keep alone, and notes to keep.

    Pixels outside ``regions`` are blanked; without any, all are kept.
    """

    blank: tuple[MaskRegion, ...] = ()
    notes: tuple[str, ...] = ()
    regions: tuple[MaskRegion, ...] = ()


def judge_pixels(dataset: Dataset, *, deid: Deid) -> PixelVerdict:
    """Judge from the header as fetched, before de-identification, whether the pixels of an image may be used.

    Raises
    ------
    CaseError
        BURNED_IN if the pixels may show identifying text and the spec neither blanks them nor vouches for them.

    Notes
    -----
    Ultrasound, angiography, photographs and captures are refused unless BurnedInAnnotation (0028,0301) says NO *and*
    the spec's ``reviewed`` names the modality: in archives the attribute is often wrong. CT, MR and PET straight from
    the scanner pass unless the header declares annotation.
    """
    risk = pixel_risk(dataset)
    notes = (FACE_RISK,) if shows_face(dataset) else ()
    kept = stated_regions(dataset) if deid.outside_regions == "blank" else ()
    notes = (*notes, "outside_regions_blanked") if kept else notes
    modality = str(dataset.get("Modality") or "")
    # A region that somebody drew is blanked whatever the header says, because many images with text do not declare it.
    if deid.burned_in == "mask" and risk is not Risk.OVERLAY_IN_PIXELS:
        regions = tuple(r for r in deid.mask_regions if _covers(r, dataset, modality))
        if regions:
            return PixelVerdict(blank=regions, notes=(*notes, "pixels_blanked"), regions=kept)
    if risk is None:
        return PixelVerdict(notes=notes, regions=kept)
    if modality in deid.reviewed and risk not in (Risk.DECLARED, Risk.OVERLAY_IN_PIXELS, Risk.DOCUMENT):
        return PixelVerdict(notes=(*notes, "pixels_reviewed"), regions=kept)
    raise CaseError(
        Reason.BURNED_IN,
        f"found an image that {risk.value}, expected pixels without text; look at the images, then name the modality "
        "under deid.reviewed or give deid.mask_regions",
    )


def pixel_risk(dataset: Dataset) -> Risk | None:
    """Return the first reason in the header to distrust the pixels; None if it gives none."""
    if str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES":
        return Risk.DECLARED
    if _overlay_in_pixels(dataset):
        return Risk.OVERLAY_IN_PIXELS
    by_class = _class_risk(str(dataset.get("SOPClassUID") or ""))
    if by_class is not None:
        return by_class
    stated = dataset.get("ImageType") or ()
    if isinstance(stated, Items):  # items of a damaged file say nothing and may be unreadable
        stated = ()
    image_type = {str(v).upper() for v in stated}
    conversion = str(dataset.get("ConversionType") or "").upper()
    if conversion not in ("", "SYN", "SI") or image_type & {"SCREEN SAVE", "SCREEN_SAVE", "SCREENSHOT"}:
        return Risk.CAPTURE
    return Risk.OTHER if str(dataset.get("Modality") or "").upper() in _RISKY_MODALITIES else None


def shows_face(dataset: Dataset) -> bool:
    """Return whether this is CT, MR or PET of the head, by body part or description: its surface shows a face."""
    if str(dataset.get("Modality") or "") not in _RENDERABLE:
        return False
    part = str(dataset.get("BodyPartExamined") or "").upper().replace(" ", "").replace("-", "")
    described = " ".join(str(dataset.get(keyword) or "") for keyword in _DESCRIPTIONS)
    return part in _HEAD or _HEAD_WORDS.search(part) is not None or _HEAD_WORDS.search(described.upper()) is not None


def blank(voxels: NDArray[Any], regions: Sequence[MaskRegion]) -> NDArray[Any]:
    """Return a copy of ``voxels`` (..., row, column) with every region set to the smallest value outside of them.

    Colour planes must come before the rows. The filler is a value of the image, so it is plausible in any unit.
    """
    return _blanked(voxels, _within_any(voxels, regions)) if regions else voxels


def blank_outside(voxels: NDArray[Any], regions: Sequence[MaskRegion]) -> NDArray[Any]:
    """Return a copy of ``voxels`` (..., row, column) with what no region holds set to the smallest value inside them.

    Without regions nothing changes.
    """
    return _blanked(voxels, ~_within_any(voxels, regions)) if regions else voxels


def _within_any(voxels: NDArray[Any], regions: Sequence[MaskRegion]) -> NDArray[np.bool_]:
    """Return (row, column) bool, True inside a region. Raises CaseError for a region drawn for another size."""
    inside = np.zeros(voxels.shape[-2:], dtype=np.bool_)
    for region in regions:
        if region.size != voxels.shape[-2:]:
            found = "x".join(str(n) for n in voxels.shape[-2:])
            raise CaseError(Reason.BURNED_IN, f"mask_regions: found images of {found}, expected size {region.size}")
        inside[slice(*region.rows), slice(*region.columns)] = True
    return inside


def _blanked(voxels: NDArray[Any], gone: NDArray[np.bool_]) -> NDArray[Any]:
    result = voxels.copy()
    left = voxels[..., ~gone]
    result[..., gone] = left.min() if left.size else 0
    return result


def stated_regions(dataset: Dataset) -> tuple[MaskRegion, ...]:
    """Return the regions that an ultrasound image states (PS3.3 C.8.5.5), none if it states none.

    Raises
    ------
    CaseError
        BURNED_IN if a region has no four whole numbers, or lies outside the image: what it hides is then unknown. One
        that reaches beyond an edge is cut there, as some makers state the first row and column after a region.
    """
    with elements_as(Reason.BURNED_IN):
        size = (int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0))
        items = list(dataset.get("SequenceOfUltrasoundRegions") or ())
        try:
            return tuple(
                MaskRegion(
                    rows=(max(0, int(item.RegionLocationMinY0)), min(size[0], int(item.RegionLocationMaxY1) + 1)),
                    columns=(max(0, int(item.RegionLocationMinX0)), min(size[1], int(item.RegionLocationMaxX1) + 1)),
                    size=size,
                )
                for item in items
            )
        except (AttributeError, TypeError, ValueError):
            raise CaseError(
                Reason.BURNED_IN,
                f"found an ultrasound region that is no rectangle in an image of {size[0]} x {size[1]}, expected one: "
                "what lies outside cannot be blanked",
            ) from None


def _covers(region: MaskRegion, dataset: Dataset, modality: str) -> bool:
    """Return whether a region was drawn for images like this one."""
    size = (int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0))
    return region.size == size and region.modality in (None, modality)


def _class_risk(sop_class: str) -> Risk | None:
    """Return the risk of a SOP class (PS3.4 Table B.5-1)."""
    if _within(sop_class, (_CAPTURES,)):
        return Risk.CAPTURE
    if _within(sop_class, _ULTRASOUND):
        return Risk.ULTRASOUND
    if _within(sop_class, _ANGIOGRAPHY):
        return Risk.ANGIOGRAPHY
    if _within(sop_class, _VISIBLE_LIGHT):
        return None if sop_class == _SLIDES else Risk.PHOTOGRAPH
    return Risk.DOCUMENT if _within(sop_class, _ENCAPSULATED) else None


def _within(uid: str, roots: Sequence[str]) -> bool:
    return any(uid == root or uid.startswith(root + ".") for root in roots)


def _overlay_in_pixels(dataset: Dataset) -> bool:
    """Return whether an overlay lies in unused bits of Pixel Data (PS3.3 C.9.2), without Overlay Data of its own."""
    groups = range(0x6000, 0x6020, 2)
    return any((group, 0x0010) in dataset and (group, 0x3000) not in dataset for group in groups)
