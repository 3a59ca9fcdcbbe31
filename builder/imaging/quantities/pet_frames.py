"""Converting frames of enhanced and legacy converted PET to the single-frame headers that ``suv`` reads.

Legacy converted objects keep the attributes of the slices in the unassigned converted attributes (PS3.3 C.7.6.16.2.25
and 26). Enhanced PET states them in other ways (PS3.3 C.8.22): corrections as flags, the moment of decay correction as
a date and time, units in the Real World Value Mapping, and the injected dose in MBq instead of Bq.
"""

import math
from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset

ENHANCED_PET = "1.2.840.10008.5.1.4.1.1.130"
LEGACY_PET = "1.2.840.10008.5.1.4.1.1.128.1"

UNITS = {"Bq/ml": "BQML", "{SUVbw}g/ml": "GML", "g/ml{SUVbw}": "GML"}
"""Maps UCUM codes of units (PS3.16 CID 84 and 85) to Units (0054,1001); GML means SUV by body weight here."""

LARGEST_MBQ = 1e5
"""Largest dose that can be in MBq, because no patient gets 0.1 TBq."""

SAME_SLOPE = 1e-5
"""Largest relative difference at which two slopes count as equal."""


def pet_headers(dataset: Dataset) -> list[Dataset]:
    """Return one header per frame of an enhanced or legacy converted PET, without pixels; else the data set itself."""
    sop_class = str(dataset.get("SOPClassUID") or "")
    if sop_class == LEGACY_PET:
        return [_legacy(dataset, shared, own) for shared, own in _groups(dataset)]
    if sop_class == ENHANCED_PET:
        return [_enhanced(dataset, shared, own) for shared, own in _groups(dataset)]
    return [dataset]


def _groups(dataset: Dataset) -> Iterator[tuple[Dataset, Dataset]]:
    """Yield the shared functional groups with the own groups of each frame."""
    shared = _first(dataset.get("SharedFunctionalGroupsSequence"))
    for own in dataset.get("PerFrameFunctionalGroupsSequence") or [Dataset()]:
        yield shared, own


def _first(sequence: Any) -> Dataset:
    """Return the first item of a sequence, or an empty data set when there is none."""
    return sequence[0] if sequence is not None and len(sequence) else Dataset()


def _stated(shared: Dataset, own: Dataset, group: str, keyword: str) -> Any:
    """Return an attribute of a functional group, from the frame's own group or else from the shared one."""
    for groups in (own, shared):
        value = _first(groups.get(group)).get(keyword)
        if value is not None and value != "":
            return value
    return None


def _legacy(dataset: Dataset, shared: Dataset, own: Dataset) -> Dataset:
    header = _top_level(dataset)
    for unassigned in (
        _first(shared.get("UnassignedSharedConvertedAttributesSequence")),
        _first(own.get("UnassignedPerFrameConvertedAttributesSequence")),
    ):
        for element in unassigned:
            header.add(element)
    acquired = str(_stated(shared, own, "FrameContentSequence", "FrameAcquisitionDateTime") or "")
    if acquired and "AcquisitionTime" not in header:
        header.AcquisitionDate, header.AcquisitionTime = acquired[:8], _without_offset(acquired)[8:]
    return header


def _enhanced(dataset: Dataset, shared: Dataset, own: Dataset) -> Dataset:
    header = _top_level(dataset)
    flags = (("AttenuationCorrected", "ATTN"), ("DecayCorrected", "DECY"))
    header.CorrectedImage = [code for keyword, code in flags if str(dataset.get(keyword) or "").upper() == "YES"]
    header.DecayCorrection = "START" if "DECY" in header.CorrectedImage else "NONE"
    moment = str(dataset.get("DecayCorrectionDateTime") or "")
    header.SeriesDate = header.AcquisitionDate = moment[:8]
    header.SeriesTime = header.AcquisitionTime = _without_offset(moment)[8:]
    if len(moment) > len(_without_offset(moment)):
        header.TimezoneOffsetFromUTC = moment[len(_without_offset(moment)) :]
    units = _units(shared, own)
    if units is not None:
        header.Units = units
        header.SUVType = "BW"
    drugs = _drugs(dataset, own if "RadiopharmaceuticalUsageSequence" in own else shared)
    if drugs:
        header.RadiopharmaceuticalInformationSequence = drugs
    return header


def _top_level(dataset: Dataset) -> Dataset:
    """Copy the top level without the functional groups and the pixels."""
    header = Dataset()
    for element in dataset:
        if element.tag.group not in (0x5200, 0x7FE0):
            header.add(element)
    return header


def _without_offset(moment: str) -> str:
    """Return a DT value (PS3.5 6.2) without its UTC offset."""
    return moment.split("+")[0].split("-")[0]


def _units(shared: Dataset, own: Dataset) -> str | None:
    """Return the units of the rescaled values: those of the Real World Value Mapping that equals the rescale.

    Return None when no mapping is stated, and ``OTHER_SCALE`` when none of them equals the rescale.
    """
    mappings = own.get("RealWorldValueMappingSequence") or shared.get("RealWorldValueMappingSequence")
    if not mappings:
        return None
    group = "PixelValueTransformationSequence"
    rescale = (_stated(shared, own, group, "RescaleSlope"), _stated(shared, own, group, "RescaleIntercept"))
    for mapping in mappings:
        stated = (mapping.get("RealWorldValueSlope"), mapping.get("RealWorldValueIntercept"))
        if _alike(stated[0], rescale[0]) and _alike(stated[1], rescale[1]):
            code = str(_first(mapping.get("MeasurementUnitsCodeSequence")).get("CodeValue") or "")
            return UNITS.get(code, code)
    return "OTHER_SCALE"


def _alike(first: Any, second: Any) -> bool:
    try:
        return math.isclose(float(first), float(second), rel_tol=SAME_SLOPE, abs_tol=1e-12)
    except (TypeError, ValueError):
        return False


def _drugs(dataset: Dataset, groups: Dataset) -> list[Dataset]:
    """Return the radiopharmaceuticals that a frame shows, with doses in Bq."""
    used = groups.get("RadiopharmaceuticalUsageSequence") or []
    numbers = {item.get("RadiopharmaceuticalAgentNumber") for item in used} - {None}
    items = dataset.get("RadiopharmaceuticalInformationSequence") or []
    return [_in_becquerel(i) for i in items if not numbers or i.get("RadiopharmaceuticalAgentNumber") in numbers]


def _in_becquerel(item: Dataset) -> Dataset:
    """Return a copy of an item with its dose in Bq.

    Enhanced objects state MBq, but some writers use Bq. The size of the number tells which, as the ranges do not
    overlap.
    """
    copy = Dataset()
    for element in item:
        copy.add(element)
    try:
        dose = float(item.RadionuclideTotalDose)
    except (AttributeError, TypeError, ValueError):
        return copy
    if 0 < dose <= LARGEST_MBQ:
        copy.RadionuclideTotalDose = f"{dose * 1e6:.10g}"
    return copy
