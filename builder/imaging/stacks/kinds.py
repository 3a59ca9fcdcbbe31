"""Classifying an instance by its SOP class, modality and Image Type, before its geometry is looked at."""

from enum import StrEnum
from functools import lru_cache

from builder.imaging.rows import Row

STORAGE = "1.2.840.10008.5.1.4.1.1."
"""Root of the storage SOP classes (PS3.4 B.5)."""


class Kind(StrEnum):
    """The kind of an instance. Only ``SLICE`` and frames of ``MULTIFRAME`` and ``MOSAIC`` form volumes of slices."""

    SLICE = "slice"
    MULTIFRAME = "multiframe"
    MOSAIC = "mosaic"
    LOCALIZER = "localizer"
    PROJECTION = "projection"
    STILL = "still"
    CINE = "cine"
    SECONDARY_CAPTURE = "secondary_capture"
    WHOLE_SLIDE = "whole_slide"
    NOT_AN_IMAGE = "not_an_image"


ENHANCED = frozenset(STORAGE + s for s in ("2.1", "2.2", "4.1", "4.3", "4.4", "130", "128.1", "6.2", "30"))
"""Multi-frame classes with functional groups: enhanced and legacy converted CT, MR, PET, US volume, parametric map."""

ANNOTATIONS = frozenset(
    STORAGE + s for s in ("66.4", "66.5", "66.7", "481.2", "481.3", "481.5", "66", "66.1", "66.2", "66.3", "66.6")
)
"""Objects that describe an image instead of being one, with or without pixels: SEG, RT dose, registrations."""

CAPTURES = frozenset(STORAGE + s for s in ("7", "7.1", "7.2", "7.3", "7.4"))
SLIDES = frozenset(STORAGE + s for s in ("77.1.6",))
SLICED = frozenset(STORAGE + s for s in ("2", "4", "20", "128"))
PROJECTED_CLASSES = frozenset(
    STORAGE + s
    for s in (
        *("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "12.1", "12.1.1", "12.2", "12.2.1", "12.3"),
        "481.1",
    )
)
SLICED_MODALITIES = frozenset({"CT", "MR", "PT", "NM"})
PROJECTED_MODALITIES = frozenset({"CR", "DX", "MG", "XA", "RF", "IO", "PX", "RG", "RTIMAGE"})
SCREENS = frozenset({"SCREEN SAVE", "PATIENT_INFO", "DOSE_INFO", "RESULTS", "PROTOCOL", "DOSE REPORT", "REPORT"})
SCOUTS = frozenset({"LOCALIZER", "SURVIEW", "REF_SURVIEW", "SCOUT", "TOPOGRAM"})

COMPONENTS = frozenset(
    {
        *("M", "P", "R", "I", "MAGNITUDE", "PHASE", "PHASE MAP", "REAL", "IMAGINARY", "VELOCITY", "MAG", "B0 MAP"),
        *("WATER", "FAT", "W", "F", "IN_PHASE", "OUT_PHASE", "IP", "OP", "IN-PHASE", "OPP_PHASE", "W_ONLY", "F_ONLY"),
        *("FIELD_MAP", "ADC", "TRACEW", "TRACE", "FA", "EADC", "ISOTROPIC", "DIFFUSION", "T1 MAP", "T2 MAP", "R2 MAP"),
        *("CBF", "CBV", "MTT", "TTP", "RCBF", "RCBV", "RMTT", "TMAX", "PBP", "PERFUSION", "SUBTRACT", "SUBTRACTION"),
        *("T2_STAR MAP", "MPR", "CSA MPR", "MIP", "MINIP", "PROJECTION IMAGE", "REFORMATTED", "AVERAGE"),
        *("MEAN", "STDDEV", "LOCALIZER", "SCREEN SAVE", "ATTENUATION", "NAC"),
    }
)
"""Values of Image Type that mark a different quantity or view (PS3.3 C.7.6.1.1.2, C.8.3.1.1.1, C.8.13.3.1.1 and what
vendors write). All other values (ND, NORM, ADD, FILTERED, ...) may vary inside a stack."""


def kind_of(row: Row) -> Kind:
    """Return the kind of an INSTANCES row; the row of a frame (``builder.imaging.multiframe``) is always a slice."""
    if row.frame is not None:
        return Kind.SLICE
    sop_class = row.sop_class_uid or ""
    modality = row.modality or ""
    tokens = image_tokens(row)
    frames = row.number_of_frames or 1
    if not row.rows or not row.columns or sop_class in ANNOTATIONS or modality in {"SEG", "RTDOSE", "SR", "PR"}:
        return Kind.NOT_AN_IMAGE
    if sop_class in SLIDES or modality == "SM":
        return Kind.WHOLE_SLIDE
    if sop_class in CAPTURES or tokens & SCREENS:
        return Kind.SECONDARY_CAPTURE
    if sop_class in ENHANCED:
        return Kind.MULTIFRAME
    if sop_class in PROJECTED_CLASSES or modality in PROJECTED_MODALITIES:
        return Kind.PROJECTION if frames == 1 else Kind.CINE
    if sop_class in SLICED or modality in SLICED_MODALITIES:
        return _sliced(row, tokens, frames)
    return Kind.STILL if frames == 1 else Kind.CINE


def _sliced(row: Row, tokens: frozenset[str], frames: int) -> Kind:
    """Return the kind of a CT, MR, PET or NM instance: mostly slices, but their series hold other objects too."""
    if (row.samples_per_pixel or 1) != 1:
        return Kind.SECONDARY_CAPTURE
    if frames > 1:
        return Kind.MULTIFRAME
    if row.modality == "CT" and tokens & SCOUTS:
        return Kind.LOCALIZER
    if "MOSAIC" in tokens or (row.grid_tiles or 0) > 1:
        return Kind.MOSAIC
    return Kind.SLICE


def image_tokens(row: Row) -> frozenset[str]:
    """Return the values of Image Type (0008,0008) in capitals."""
    return _tokens(row.image_type or "")


@lru_cache(maxsize=4096)  # the slices of a series share a few values
def _tokens(image_type: str) -> frozenset[str]:
    return frozenset(value.strip().upper() for value in image_type.split("\\") if value.strip())


def component_of(row: Row) -> tuple[str, ...]:
    """Return the values of Image Type that separate an image from its neighbours, with DERIVED when it is derived."""
    tokens = image_tokens(row)
    return tuple(sorted(tokens & COMPONENTS | tokens & {"DERIVED"}))
