"""PET series whose quantities agree, or contradict one another or physics."""

from dataclasses import replace
from datetime import datetime, timedelta

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from tests.truth.chooser import Chooser
from tests.truth.images import Case, scan, shuffled, slices, whole
from tests.truth.objects import code, item, number

NUCLIDES = {
    "F-18": ("C-111A1", "^18^Fluorine", 6586.2), "C-11": ("C-105A1", "^11^Carbon", 1223.4),
    "Ga-68": ("C-131A3", "^68^Gallium", 4062.6), "Cu-64": ("C-127A2", "^64^Copper", 45723.6),
    "Zr-89": ("C-168A4", "^89^Zirconium", 282240.0),
}  # fmt: skip
"""Code, meaning and half-life in seconds (PS3.16 CID 4020; half-lives of the Nuclear Data Sheets)."""

FAULTS = (
    *(
        "none",
        "none",
        "none",
        "half-life of another nuclide",
        "half-life in minutes",
        "half-life absent",
        "dose in MBq",
    ),
    *(
        "dose absent",
        "weight tiny",
        "weight in grams",
        "weight absent",
        "injected after the scan",
        "injected days before",
    ),
    *("no time of injection", "not corrected for decay", "correction not stated", "corrected to injection"),
    *("doses differ", "two drugs", "counts", "already SUV", "no attenuation correction", "two nuclides"),
)


def pet(c: Chooser, case: Case) -> None:
    """Activity concentrations, with all that SUV needs or with one input that is absent or wrong."""
    plan = replace(scan(c, "PT", slices=c.between(3, 6)), dtype="uint16", intercept="0")
    nuclide, fault = c.one(tuple(NUCLIDES)), c.one(FAULTS)
    value, meaning, half_life = NUCLIDES[nuclide]
    weight, dose = float(c.between(45, 110)), c.between(100, 600) * 1e6
    injected = datetime(2020, 3, 1, 8, 10, 0) + timedelta(minutes=c.between(0, 959))
    wait = float(c.between(600, int(min(3 * half_life, 80_000))))
    start = injected + timedelta(seconds=wait)
    dated = c.flag() or half_life > 9000  # a time of day alone says the day only of nuclides that live shortly
    images = slices(plan, case.number)
    scale = c.one((1.0, 2.5, 0.37))
    for k, ds in enumerate(images):
        ds.RescaleSlope, ds.RescaleIntercept = number(scale * (1 + k / 8)), "0"
        ds.Units, ds.DecayCorrection, ds.CorrectedImage = "BQML", "START", ["NORM", "DTIM", "ATTN", "SCAT", "DECY"]
        ds.PatientWeight = number(weight)
        ds.SeriesDate = ds.AcquisitionDate = f"{start:%Y%m%d}"
        ds.SeriesTime = ds.AcquisitionTime = f"{start:%H%M%S}"
        drug = item(
            RadionuclideTotalDose=number(dose), RadionuclideHalfLife=number(half_life),
            RadionuclideCodeSequence=[code(value, "SRT", meaning)], RadiopharmaceuticalStartTime=f"{injected:%H%M%S}",
        )  # fmt: skip
        if dated:
            drug.RadiopharmaceuticalStartDateTime = f"{injected:%Y%m%d%H%M%S}"
        ds.RadiopharmaceuticalInformationSequence = Items([drug])
        _spoil(ds, drug, fault, index=k, times=(injected, start, half_life))
    case.add(images, order=shuffled(c, len(images)))
    case.right, case.story = [whole(images)], f"{nuclide} {fault}{'' if dated else ' clock'}"
    case.suv = weight * 1000 / (dose * 2 ** (-wait / half_life)) if fault == "none" else None
    if fault == "corrected to injection":
        case.suv = weight * 1000 / dose
    elif fault == "already SUV":
        case.suv = 1.0


def _spoil(  # noqa: C901 - one fault a branch
    ds: Dataset, drug: Dataset, fault: str, *, index: int, times: tuple[datetime, datetime, float]
) -> None:
    injected, start, half_life = times
    if fault == "half-life of another nuclide":
        drug.RadionuclideHalfLife = "1223.4" if half_life > 2000 else "6586.2"
    elif fault == "half-life in minutes":
        drug.RadionuclideHalfLife = number(half_life / 60)
    elif fault == "half-life absent":
        del drug.RadionuclideHalfLife
    elif fault == "dose in MBq":
        drug.RadionuclideTotalDose = number(float(drug.RadionuclideTotalDose) / 1e6)
    elif fault == "dose absent":
        drug.RadionuclideTotalDose = None
    elif fault == "weight tiny":
        ds.PatientWeight = "0.7"
    elif fault == "weight in grams":
        ds.PatientWeight = number(float(ds.PatientWeight) * 1000)
    elif fault == "weight absent":
        ds.PatientWeight = None
    elif fault in ("injected after the scan", "injected days before"):
        late = fault == "injected after the scan"
        other = start + timedelta(seconds=600) if late else injected - timedelta(days=1 + int(9 * half_life // 86400))
        drug.RadiopharmaceuticalStartDateTime = f"{other:%Y%m%d%H%M%S}"
        drug.RadiopharmaceuticalStartTime = f"{other:%H%M%S}"
    elif fault == "no time of injection":
        drug.RadiopharmaceuticalStartTime = None
        if "RadiopharmaceuticalStartDateTime" in drug:
            del drug.RadiopharmaceuticalStartDateTime
    elif fault == "not corrected for decay":
        ds.DecayCorrection, ds.CorrectedImage = "NONE", ["NORM", "ATTN"]
    elif fault == "correction not stated":
        ds.DecayCorrection = None
    elif fault == "corrected to injection":
        ds.DecayCorrection = "ADMIN"
    elif fault == "doses differ" and index == 1:
        drug.RadionuclideTotalDose = number(float(drug.RadionuclideTotalDose) * 2)
    elif fault == "two drugs":
        ds.RadiopharmaceuticalInformationSequence.append(drug)
    elif fault == "counts":
        ds.Units = "CNTS"
    elif fault == "already SUV":
        ds.Units, ds.SUVType = "GML", "BW"
    elif fault == "no attenuation correction":
        ds.CorrectedImage = ["NORM", "DECY"]
    elif fault == "two nuclides":
        drug.RadiopharmaceuticalCodeSequence = Items([code("C-B1043", "SRT", "Carbon^11^ acetate")])
        drug.Radiopharmaceutical = "Acetate C^11^" if half_life > 2000 else "Fluorodeoxyglucose F^18^"
