"""Converting activity to standardised uptake value by body weight, only when every input is present and consistent.

The rules follow the QIBA vendor-neutral SUV pseudo-code and PS3.3 C.8.9.1 (PET Series, PET Isotope).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

from builder.errors import Reason
from builder.headers.boundary import parsing
from builder.imaging.parse import leniently
from builder.imaging.quantities.nuclides import agrees, nearest, nuclides_of
from builder.imaging.quantities.pet_frames import pet_headers
from builder.model.case import ValueDomain

PHILIPS_SUV = Tag(0x7053, 0x1000)
PHILIPS_ACTIVITY = Tag(0x7053, 0x1009)
"""Philips' factors that convert counts to SUV and to Bq/ml; private creator ``Philips PET Private Group``."""

GE_SCAN_TIME = Tag(0x0009, 0x100D)
"""GE's scan date and time, which series reconstructed later still contain; private creator ``GEMS_PETD_01``."""

SUV_TAGS = (
    *("Units", "SUVType", "CorrectedImage", "DecayCorrection", "DecayFactor", "FrameReferenceTime", "PatientWeight"),
    *("SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "RadiopharmaceuticalInformationSequence"),
    *("SOPClassUID", "TimezoneOffsetFromUTC", "PatientAge", "PatientSize"),
    *(PHILIPS_SUV, PHILIPS_ACTIVITY, GE_SCAN_TIME),
)
"""All attributes that ``calibrate`` reads, as keywords and private tags."""

DOSE_BQ = (1e6, 1e10)
DOSE_BQ_KG = (2e4, 3e8)
"""Plausible injected activity per kg, from low-dose whole-body scans to therapy with Lu-177 or Y-90."""

WEIGHT_KG = (3.0, 350.0)
"""Plausible weights of people; set ``volumes.pet_weight_kg`` for newborns and animals."""

ADULT_YEARS, ADULT_KG = 18, 25.0
"""Lowest plausible weight of an adult; a lower one means another unit or a misplaced decimal point in the file."""

MASS_INDEX = (8.0, 120.0)
TALL_M = (1.2, 2.3)
"""Plausible body mass index (kg/m2), and the heights for which it is checked; other heights are not plausible."""

HALF_LIVES = 8
"""Longest plausible wait from injection to scan, in half-lives."""

DAY_S = 86_400.0

DECAY_FACTOR_SPREAD = (0.97, 1.06)
"""Accepted ratio of DecayFactor (0054,1321) to the decay until the frame; decay during the frame makes it larger."""


@dataclass(frozen=True)
class Calibration:
    """The ``factor`` that turns a PET's rescaled values into ``domain``; ``notes`` say why that is not SUV."""

    factor: float
    domain: ValueDomain
    notes: tuple[str, ...] = ()


class _NoSUV(Exception):
    """Raised when an input is missing or contradicts another; the message is the code for the notes."""


@leniently()
def calibrate(datasets: Sequence[Dataset], *, weight_kg: tuple[float, float] = WEIGHT_KG) -> Calibration:
    """Determine how to convert the values of a PET series.

    Parameters
    ----------
    datasets
        Headers of all slices, or of enhanced or legacy converted objects. They need Units, CorrectedImage,
        DecayCorrection, PatientWeight, dates and times of series and acquisition, DecayFactor, FrameReferenceTime and
        Radiopharmaceutical Information Sequence. PatientAge and PatientSize are compared with the weight.
    weight_kg
        Lowest and highest weight that is accepted. Limits other than the default turn off the comparison of the weight
        with age and height.

    Returns
    -------
    Calibration
        SUVbw when it is certain; otherwise Bq/ml or arbitrary units, with a code that says why. Dates may be shifted,
        as long as all are shifted by the same time.
    """
    with parsing(Reason.UNREADABLE, "found a PET header that does not parse"):
        datasets = [header for dataset in datasets for header in pet_headers(dataset)]
    units = _shared(datasets, "Units")
    if units == "GML":
        kind = _shared(datasets, "SUVType")
        if kind in (None, "", "BW"):
            return Calibration(1.0, ValueDomain.SUV_BW, () if kind else ("suv_type_absent_taken_as_bw",))
        return Calibration(1.0, ValueDomain.ARBITRARY, (f"suv_type={_code(kind)}",))
    if units == "CNTS":
        return _philips(datasets, weight_kg)
    if units != "BQML":
        return Calibration(1.0, ValueDomain.ARBITRARY, (f"pet_units={_code(units)}",))
    try:
        return Calibration(_factor(datasets, weight_kg), ValueDomain.SUV_BW)
    except _NoSUV as why:
        return Calibration(1.0, ValueDomain.ACTIVITY, (f"no_suv:{why}",))


def _philips(datasets: Sequence[Dataset], weight_kg: tuple[float, float]) -> Calibration:
    """Calibrate counts with Philips' private factors."""
    suv = {_number(dataset.get(PHILIPS_SUV)) for dataset in datasets}
    if len(suv) == 1 and (factor := suv.pop()) is not None and factor > 0:
        return Calibration(factor, ValueDomain.SUV_BW, ("philips_suv_factor",))
    activity = {_number(dataset.get(PHILIPS_ACTIVITY)) for dataset in datasets}
    if len(activity) == 1 and (factor := activity.pop()) is not None and factor > 0:
        try:
            return Calibration(factor * _factor(datasets, weight_kg), ValueDomain.SUV_BW, ("philips_activity_factor",))
        except _NoSUV as why:
            return Calibration(factor, ValueDomain.ACTIVITY, ("philips_activity_factor", f"no_suv:{why}"))
    return Calibration(1.0, ValueDomain.ARBITRARY, ("pet_units=CNTS",))


def _factor(datasets: Sequence[Dataset], weight_kg: tuple[float, float]) -> float:
    """Return the SUVbw of 1 Bq/ml, in g/ml."""
    corrected = {str(value).upper() for value in _values(_same(datasets, "CorrectedImage"))}
    for needed in ("ATTN", "DECY"):
        if needed not in corrected:
            raise _NoSUV(f"not_corrected_{needed.lower()}")
    weight = _weight(datasets, weight_kg)
    drug = _drug(datasets)
    dose = _within(_number(drug.get("RadionuclideTotalDose")), DOSE_BQ, "dose")
    if weight >= WEIGHT_KG[0] and not DOSE_BQ_KG[0] <= dose / weight <= DOSE_BQ_KG[1]:
        raise _NoSUV("dose_implausible")
    correction = _same(datasets, "DecayCorrection")
    if correction == "ADMIN":
        stated = _number(drug.get("RadionuclideHalfLife"))
        if stated is not None:
            _check_half_life(datasets, stated)
        return weight * 1000.0 / dose
    if correction != "START":
        raise _NoSUV("decay_correction_" + _code(correction).lower())
    half_life = _within(_number(drug.get("RadionuclideHalfLife")), (1.0, 1e7), "half_life")
    _check_half_life(datasets, half_life)
    scan = _scan_start(datasets)
    zone = str(datasets[0].get("TimezoneOffsetFromUTC") or "").strip()
    wait = _wait_seconds(drug, scan, half_life, zone=zone)
    _check_decay_factors(datasets, scan, half_life)
    return weight * 1000.0 / (dose * math.pow(2.0, -wait / half_life))


def _weight(datasets: Sequence[Dataset], limits: tuple[float, float]) -> float:
    """Return PatientWeight in kg, compared with age and height when the limits are the default."""
    weight = _within(_number(_same(datasets, "PatientWeight")), limits, "weight")
    if limits != WEIGHT_KG:
        return weight
    age = str(datasets[0].get("PatientAge") or "").strip().upper()
    if age[-1:] == "Y" and age[:-1].isdigit() and int(age[:-1]) >= ADULT_YEARS and weight < ADULT_KG:
        raise _NoSUV("weight_contradicts_age")
    size = _number(datasets[0].get("PatientSize"))
    if size is not None and TALL_M[0] <= size <= TALL_M[1]:
        index = weight / size**2
        if not MASS_INDEX[0] <= index <= MASS_INDEX[1]:
            raise _NoSUV("weight_contradicts_size")
    return weight


def _check_half_life(datasets: Sequence[Dataset], half_life: float) -> None:
    """Compare a half-life with that of the nuclide that the slices name, or with all nuclides when they name none."""
    named = {name for dataset in datasets for name in nuclides_of(dataset.RadiopharmaceuticalInformationSequence[0])}
    if len(named) > 1:
        raise _NoSUV("nuclides_differ")
    if named and not agrees(next(iter(named)), half_life):
        raise _NoSUV("half_life_contradicts_nuclide")
    if not named and nearest(half_life) is None:
        raise _NoSUV("half_life_of_no_nuclide")


def _drug(datasets: Sequence[Dataset]) -> Dataset:
    """Return the radiopharmaceutical item, which must be one and equal in all slices."""
    found = {}
    for dataset in datasets:
        items = dataset.get("RadiopharmaceuticalInformationSequence")
        if not isinstance(items, Items) or len(items) == 0:
            raise _NoSUV("radiopharmaceutical_absent")
        if len(items) > 1:
            raise _NoSUV("several_radiopharmaceuticals")
        key = tuple(
            str(items[0].get(name))
            for name in (
                *("RadionuclideTotalDose", "RadionuclideHalfLife"),
                *("RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime"),
            )
        )
        found[key] = items[0]
    if len(found) != 1:
        raise _NoSUV("radiopharmaceutical_differs_between_slices")
    item: Dataset = next(iter(found.values()))
    return item


def _scan_start(datasets: Sequence[Dataset]) -> datetime:
    """Return the moment to which values are decay-corrected.

    This is the series time, unless the series was written after the acquisition; then it is GE's private scan time.
    """
    series = _moment(_same(datasets, "SeriesDate"), _same(datasets, "SeriesTime"), "series_time")
    acquired = min(
        _moment(dataset.get("AcquisitionDate"), dataset.get("AcquisitionTime"), "acquisition_time")
        for dataset in datasets
    )
    if series <= acquired + timedelta(seconds=1):
        return series
    scan = datasets[0].get(GE_SCAN_TIME)
    if scan is not None:
        text = str(scan.value).strip()
        return _moment(text[:8], text[8:], "ge_scan_time")
    raise _NoSUV("series_time_after_acquisition")


def _wait_seconds(drug: Dataset, scan: datetime, half_life: float, *, zone: str) -> float:
    """Return the seconds from injection to scan; an injection later in the day than the scan was the day before.

    A time of day without a date is accepted only when the nuclide would have decayed since the same time one day
    earlier, so that this day can be ruled out.

    ``zone`` is the UTC offset of the scan's times, "" when it is not stated.
    """
    clock = drug.get("RadiopharmaceuticalStartTime")
    stamp = drug.get("RadiopharmaceuticalStartDateTime")
    if not clock and not stamp:
        raise _NoSUV("injection_time_absent")
    if stamp:
        text = str(stamp)
        plain = text.split("+")[0].split("-")[0]
        injected = _moment(plain[:8], plain[8:], "injection_time") + _shift(text[len(plain) :], zone)
        apart = _moment(f"{injected:%Y%m%d}", clock, "injection_time") - injected if clock else timedelta(0)
        if abs(apart.total_seconds()) > 1:  # start times are often truncated to whole seconds
            raise _NoSUV("injection_times_differ")
    else:
        injected = _moment(f"{scan:%Y%m%d}", clock, "injection_time")
        if injected > scan:
            injected -= timedelta(days=1)
        if (scan - injected).total_seconds() + DAY_S <= HALF_LIVES * half_life:
            raise _NoSUV("injection_day_unknown")
    wait = (scan - injected).total_seconds()
    if not 0 <= wait <= HALF_LIVES * half_life:
        raise _NoSUV("injection_to_scan_implausible")
    return wait


def _shift(own: str, zone: str) -> timedelta:
    """Return the shift of a time with its own UTC offset to the offset of the others; zero when one is unknown."""
    if not own or not zone:
        return timedelta(0)
    return _offset(zone) - _offset(own)


def _offset(text: str) -> timedelta:
    """Parse a UTC offset, ``&ZZXX`` (PS3.5 6.2 DT)."""
    digits = text[1:]
    if text[:1] not in ("+", "-") or len(digits) != 4 or not digits.isdigit():
        raise _NoSUV("utc_offset_malformed")
    span = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return span if text[0] == "+" else -span


def _check_decay_factors(datasets: Sequence[Dataset], scan: datetime, half_life: float) -> None:
    """Compare DecayFactor, when the file states it, with the decay from the start of the scan to each frame."""
    for dataset in datasets:
        stated = _number(dataset.get("DecayFactor"))
        if stated is None:
            continue
        acquired = _moment(dataset.get("AcquisitionDate"), dataset.get("AcquisitionTime"), "acquisition_time")
        offset = (_number(dataset.get("FrameReferenceTime")) or 0.0) / 1000.0
        elapsed = max((acquired - scan).total_seconds(), offset)
        ratio = stated / math.pow(2.0, elapsed / half_life)
        if not DECAY_FACTOR_SPREAD[0] <= ratio <= DECAY_FACTOR_SPREAD[1]:
            raise _NoSUV("decay_factor_inconsistent")


def _same(datasets: Sequence[Dataset], keyword: str) -> Any:
    """Return the value that all slices share, or None when it is absent."""
    values = {str(dataset.get(keyword)) for dataset in datasets}
    if len(values) > 1:
        raise _NoSUV(f"{keyword.lower()}_differs_between_slices")
    return datasets[0].get(keyword)


def _shared(datasets: Sequence[Dataset], keyword: str) -> Any:
    """Return the value that all slices share, or "MIXED" when they differ."""
    values = {str(dataset.get(keyword)) for dataset in datasets}
    return datasets[0].get(keyword) if len(values) == 1 else "MIXED"


def _values(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return [value] if isinstance(value, str) else list(value)


def _moment(date: Any, clock: Any, name: str) -> datetime:
    """Combine a DICOM date (DA) and time (TM) into a moment."""
    day, time = str(date or "").strip(), str(clock or "").strip().replace(":", "")
    if len(day) != 8 or len(time) < 4:
        raise _NoSUV(f"{name}_absent")
    whole, _, fraction = time.partition(".")
    try:
        moment = datetime.strptime(day + whole.ljust(6, "0")[:6], "%Y%m%d%H%M%S")
    except ValueError:
        raise _NoSUV(f"{name}_malformed") from None
    return moment + timedelta(microseconds=int(fraction.ljust(6, "0")[:6]) if fraction.isdigit() else 0)


def _number(value: Any) -> float | None:
    raw = getattr(value, "value", value)
    try:
        number = float(raw)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _within(value: float | None, limits: tuple[float, float], name: str) -> float:
    if value is None:
        raise _NoSUV(f"{name}_absent")
    if not limits[0] <= value <= limits[1]:
        raise _NoSUV(f"{name}_implausible")
    return value


def _code(value: Any) -> str:
    """Reduce a coded string to at most 16 letters, digits and underscores, so that it is safe in a note."""
    text = "".join(c for c in str(value or "absent") if c.isalnum() or c == "_")
    return text[:16]
