"""Regions of interest of an RT Structure Set (PS3.3 C.8.8.5, C.8.8.6, C.8.8.8): names, contours, frame of reference."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing
from builder.labels.values import value_of
from builder.model.case import Code

XOR = ("CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")
"""The standard's term and a common misspelling. Such contours toggle the area, whatever ``holes`` in the spec says."""

CLOSED = ("CLOSED_PLANAR", *XOR)
OPEN = ("OPEN_PLANAR", "OPEN_NONPLANAR")
POINT = "POINT"
Frame: TypeAlias = Literal["same", "dangling", "other"]

MAX_ROIS = 20_000
MAX_CONTOURS = 200_000
MAX_POINTS = 20_000_000
MAX_MM = 1e6
"""Largest plausible coordinate: a point a kilometre from the origin of its frame of reference is taken as damage."""


@dataclass(frozen=True, eq=False)
class Roi:
    """One region: its closed contours as (k, 3) LPS mm, and counts of contours that cannot be filled.

    ``drawn`` says whether it has contours at all. The contours of an unwanted region are not read.
    """

    name: str
    wanted: bool
    drawn: bool
    contours: tuple[NDArray[np.float64], ...] = ()
    points: int = 0
    open: int = 0
    degenerate: int = 0
    toggles: bool = False
    automatic: bool = False
    type: Code | None = None
    frame: Frame = "same"


@dataclass(frozen=True)
class StructureSet:
    """The regions of one structure set, and the number of contour items that name no region."""

    rois: tuple[Roi, ...]
    stray_items: int


@dataclass(frozen=True)
class _Tables:
    """The sequences of a structure set by ROI number. ``damaged`` holds the numbers whose contours cannot be read."""

    contours: Mapping[int, Sequence[Dataset]]
    damaged: frozenset[int]
    codes: Mapping[int, Code | None]
    frames: frozenset[str]
    stray_items: int


def read_rois(dataset: Dataset, *, wanted: Callable[[str], bool], frame_of_reference: str | None) -> StructureSet:
    """Read every region of a structure set, but contours only of those whose name is wanted.

    Damage in an unwanted region is therefore ignored. Contour items with the same region number are joined.

    Parameters
    ----------
    wanted
        Whether a structure of the spec takes a region of this name.

    Raises
    ------
    CaseError
        LABEL_UNREADABLE if a wanted region is damaged or exceeds the limits, LABEL_AMBIGUOUS if several regions share
        its number.
    """
    with parsing(Reason.LABEL_UNREADABLE, "found an RT Structure Set that does not parse"):
        items = _sequence(dataset, "StructureSetROISequence")
        if items is None:
            raise _unreadable("found a structure set whose ROIs (3006,0020) cannot be read")
        if len(items) > MAX_ROIS:
            raise _unreadable(f"found {len(items)} ROIs, expected at most {MAX_ROIS}")
        numbers = [_number(item, "ROINumber") for item in items]
        names = [_text(item, "ROIName") for item in items]
        tables = _tables(dataset)
        chosen = [wanted(name) for name in names]
        _check_numbers(numbers, chosen, tables)
        _check_limits([c for n, w in zip(numbers, chosen, strict=True) if w for c in tables.contours.get(n or 0, ())])
        order = sorted(range(len(items)), key=lambda k: (numbers[k] is None, numbers[k] or 0, k))
        rois = tuple(
            _read_roi(items[k], names[k], numbers[k], tables, wanted=chosen[k], expected=frame_of_reference)
            for k in order
        )
    return StructureSet(rois, tables.stray_items)


def _tables(dataset: Dataset) -> _Tables:
    contours: dict[int, list[Dataset]] = {}
    damaged: set[int] = set()
    stray = 0
    for item in _sequence(dataset, "ROIContourSequence") or ():
        number = _number(item, "ReferencedROINumber")
        if number is None:
            stray += 1
            continue
        own = _sequence(item, "ContourSequence")
        contours.setdefault(number, []).extend(own or ())
        if own is None:
            damaged.add(number)
    codes: dict[int, Code | None] = {}
    for item in _sequence(dataset, "RTROIObservationsSequence") or ():
        number = _number(item, "ReferencedROINumber")
        if number is not None:
            codes[number] = _code(item)
    frames = {_text(f, "FrameOfReferenceUID") for f in _sequence(dataset, "ReferencedFrameOfReferenceSequence") or ()}
    return _Tables(contours, frozenset(damaged), codes, frozenset(frames), stray)


def _check_numbers(numbers: Sequence[int | None], wanted: Sequence[bool], tables: _Tables) -> None:
    """Refuse wanted regions whose number is unreadable or shared by several, or that may have lost their contours."""
    counts = Counter(numbers)
    for number in (n for n, w in zip(numbers, wanted, strict=True) if w):
        if number is None:
            raise _unreadable("found a wanted ROI whose number (3006,0022) cannot be read")
        if number in tables.damaged:
            raise _unreadable("found a wanted ROI whose contours (3006,0040) cannot be read")
        if counts[number] > 1:
            raise CaseError(
                Reason.LABEL_AMBIGUOUS,
                f"found {counts[number]} ROIs with the number of a wanted one, expected a number of its own for each",
            )
        if tables.stray_items and not tables.contours.get(number):
            raise _unreadable("found a wanted ROI without contours, and contours whose ROI number cannot be read")


def _check_limits(contours: Sequence[Dataset]) -> None:
    points = 0
    for raw in map(_raw, contours):
        points += (raw.count(b"\\") + 1 if isinstance(raw, bytes) else len(raw or ())) // 3
    if len(contours) > MAX_CONTOURS or points > MAX_POINTS:
        raise _unreadable(
            f"found {len(contours)} contours with {points} points, expected at most {MAX_CONTOURS} and {MAX_POINTS}"
        )


def _read_roi(
    item: Dataset, name: str, number: int | None, tables: _Tables, *, wanted: bool, expected: str | None
) -> Roi:
    contours = tables.contours.get(number, ()) if number is not None else ()
    if not wanted:
        return Roi(name, wanted, bool(contours), frame=_frame_of(item, tables.frames, expected))
    closed: list[NDArray[np.float64]] = []
    points = opened = degenerate = 0
    toggles = False
    for contour in contours:
        form = _text(contour, "ContourGeometricType").upper()
        if form not in (*CLOSED, *OPEN, POINT):
            raise _unreadable("found a contour of a wanted ROI whose geometric type (3006,0042) is unknown")
        data = _contour_data(contour)
        if form == POINT:
            points += 1
        elif form in OPEN:
            opened += 1
        elif len(np.unique(data, axis=0)) < 3:
            degenerate += 1
        else:
            closed.append(data)
            toggles |= form in XOR
    return Roi(
        name,
        wanted,
        bool(closed),
        tuple(closed),
        points,
        opened,
        degenerate,
        toggles,
        _text(item, "ROIGenerationAlgorithm").upper() == "AUTOMATIC",
        tables.codes.get(number) if number is not None else None,
        _frame_of(item, tables.frames, expected),
    )


def _frame_of(item: Dataset, stated: frozenset[str], expected: str | None) -> Frame:
    """Compare the region's frame of reference (3006,0024) with the image's.

    Some archives rewrote UIDs and left ROIs that name a frame missing from the structure set itself (3006,0010). Such a
    ROI is taken to lie in the frame that the structure set states, and it is counted.
    """
    frame = _text(item, "ReferencedFrameOfReferenceUID")
    if expected is None or not frame or frame == expected:
        return "same"
    return "dangling" if expected in stated and frame not in stated else "other"


def _contour_data(contour: Dataset) -> NDArray[np.float64]:
    """Return (k, 3) LPS mm of Contour Data (3006,0050), or (0, 3) for a contour that states it has no points."""
    stated, raw = _number(contour, "NumberOfContourPoints"), _raw(contour)
    if raw is None or len(raw) == 0:
        if stated == 0:
            return np.empty((0, 3))
        raise _unreadable("found a contour of a wanted ROI without readable contour data")
    try:
        parts = raw.split(b"\\") if isinstance(raw, bytes) else raw
        if isinstance(raw, bytes) and b"_" in raw:  # float() would read 1_0 as ten
            raise ValueError("underscore")
        values = np.array([float(p.strip(b" \0") if isinstance(p, bytes) else p) for p in parts])
    except (ValueError, TypeError) as error:
        raise _unreadable("found contour data of a wanted ROI that is not a list of numbers") from error
    if values.size % 3 or not np.isfinite(values).all() or np.abs(values).max() > MAX_MM:
        raise _unreadable(f"found {values.size} contour coordinates, expected finite triplets of less than 1 km")
    if stated is not None and stated != values.size // 3:
        raise _unreadable(f"found {values.size // 3} contour points where {stated} are stated (3006,0046)")
    return values.reshape(-1, 3)


def _raw(contour: Dataset) -> Any:
    """Return the bytes of Contour Data if pydicom has not parsed them, else its numbers, or None without any."""
    element = contour.get_item("ContourData") if "ContourData" in contour else None
    if element is None or element.value is None:
        return None
    if isinstance(element, RawDataElement):
        return bytes(element.value).rstrip(b" \0")
    value = element.value
    return value if hasattr(value, "__len__") and not isinstance(value, str) else [value]


def _number(item: Dataset, keyword: str) -> int | None:
    """Return a whole number, or None if none can be read."""
    value = value_of(item, keyword)
    try:
        return int(value) if value is not None and int(value) == value else None
    except (TypeError, ValueError, OverflowError):
        return None


def _text(item: Dataset, keyword: str) -> str:
    return str(value_of(item, keyword) or "").strip(" \0")


def _sequence(item: Dataset, keyword: str) -> list[Dataset] | None:
    """Return the items of a sequence, none if it is absent, or None if the element cannot be read as a sequence."""
    if keyword not in item:
        return []
    value = value_of(item, keyword)
    return list(value) if isinstance(value, Sequence) and all(isinstance(i, Dataset) for i in value) else None


def _code(item: Dataset) -> Code | None:
    """Return the coded identification of a region (3006,0086), else its interpreted type (3006,00A4) as a code."""
    coded = _sequence(item, "RTROIIdentificationCodeSequence")
    if coded:
        names = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
        value, scheme, meaning = (_text(coded[0], name) for name in names)
        return Code(value, scheme, meaning)
    interpreted = _text(item, "RTROIInterpretedType")
    return Code(interpreted, "99DICOM-RTROI", interpreted) if interpreted else None


def _unreadable(detail: str) -> CaseError:
    return CaseError(Reason.LABEL_UNREADABLE, detail)
