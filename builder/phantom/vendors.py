"""Describe how vendors' archives differ: headers, stored numbers, slice order, noise, file and contour names."""

from collections.abc import Mapping
from dataclasses import dataclass

from builder.phantom.headers import Scanner, Stored

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"


@dataclass(frozen=True)
class Vendor:
    """One vendor's habits.

    Parameters
    ----------
    file_name
        Format of a file below the patient's folder: ``date``, ``series``, ``number``, ``modality``, ``uid``.
    roi_name
        Format of a lesion's contour name: ``number``.
    head_first
        InstanceNumber 1 is the uppermost slice.
    """

    site: str
    scanners: Mapping[str, Scanner]
    ct: Stored
    noise_hu: float
    slice_mm: float
    file_name: str
    roi_name: str
    head_first: bool
    transfer_syntax: str = EXPLICIT


def _ge(model: str, kernel: str, software: str) -> Scanner:
    private = (
        (0x0009, "GEMS_IDEN_01", 0x01, "LO", "GE_GENESIS_FF"),
        (0x0019, "GEMS_ACQU_01", 0x23, "DS", "27.5"),
        (0x0043, "GEMS_PARM_01", 0x10, "US", 400),
    )
    return Scanner("GE MEDICAL SYSTEMS", model, "CT01_OC0", software, "North Hospital", kernel, 120.0, 1.5, private)


def _siemens(model: str, kernel: str, software: str) -> Scanner:
    private = (
        (0x0019, "SIEMENS CT VA0  COAD", 0xB0, "SS", 12),
        (0x0029, "SIEMENS CSA HEADER", 0x08, "CS", "IMAGE NUM 4"),
        (0x0029, "SIEMENS MEDCOM HEADER", 0x31, "LO", "4.0.1"),
    )
    return Scanner("SIEMENS", model, "CTAWP66144", software, "University Clinic", kernel, 120.0, 3.0, private)


def _philips(manufacturer: str, model: str, kernel: str, software: str) -> Scanner:
    private = (
        (0x01F1, "ELSCINT1", 0x01, "CS", "HELICAL"),
        (0x2001, "Philips Imaging DD 001", 0x03, "FL", 0.0),
        (0x2005, "Philips MR Imaging DD 001", 0x05, "CS", "NO"),
    )
    return Scanner(manufacturer, model, "HOST-8051", software, "Lakeside Imaging", kernel, 120.0, 1.5, private)


def _toshiba(manufacturer: str, model: str, kernel: str, software: str) -> Scanner:
    private = ((0x7005, "TOSHIBA_MEC_CT3", 0x08, "DS", "45"), (0x7005, "TOSHIBA_MEC_CT3", 0x0B, "SH", "QDS+"))
    return Scanner(manufacturer, model, "ID_STATION", software, "City Medical Centre", kernel, 135.0, 1.5, private)


VENDORS: dict[str, Vendor] = {
    "GE": Vendor(
        site="north",
        scanners={
            "CT": _ge("LightSpeed VCT", "STANDARD", "gmp_vct.42"),
            "PT": _ge("Discovery 690", "", "61.00"),
            "MR": _ge("DISCOVERY MR750", "", "24\\LX\\MR Software release:DV24.0"),
        },
        ct=Stored(16, signed=True, intercept=-1024.0, padding=-2000),
        noise_hu=14.0,
        slice_mm=5.0,
        file_name="{date}/{series:03d}/IM-{series:04d}-{number:04d}.dcm",
        roi_name="GTV-{number}",
        head_first=True,
    ),
    "SIEMENS": Vendor(
        site="university",
        scanners={
            "CT": _siemens("SOMATOM Definition AS+", "B30f", "syngo CT 2012B"),
            "PT": _siemens("Biograph64_mCT", "", "VG60A"),
            "MR": _siemens("Skyra", "", "syngo MR E11"),
        },
        ct=Stored(12, signed=False, intercept=-1024.0),
        noise_hu=11.0,
        slice_mm=3.0,
        file_name="{modality}.{uid}.dcm",
        roi_name="gtv_{number}",
        head_first=False,
    ),
    "Philips": Vendor(
        site="lakeside",
        scanners={
            "CT": _philips("Philips", "Brilliance 64", "B", "3.5.5"),
            "PT": _philips("Philips Medical Systems", "GEMINI TF TOF 64", "", "3.5.2"),
            "MR": _philips("Philips Medical Systems", "Ingenia", "", "5.1.7"),
        },
        ct=Stored(12, signed=False, intercept=-1000.0),
        noise_hu=17.0,
        slice_mm=4.0,
        file_name="{date}/{series:05d}/IM_{number:04d}",
        roi_name="Tumor {number}",
        head_first=True,
        transfer_syntax=IMPLICIT,
    ),
    "TOSHIBA": Vendor(
        site="city",
        scanners={
            "CT": _toshiba("TOSHIBA", "Aquilion ONE", "FC08", "V4.93ER003"),
            "PT": _toshiba("TOSHIBA", "Celesteion", "", "V7.0"),
            "MR": _toshiba("TOSHIBA", "MRT200PP3", "", "V9.20*R552"),
        },
        ct=Stored(16, signed=True),
        noise_hu=20.0,
        slice_mm=5.0,
        file_name="DICOM/{date}/S{series:02d}/I{number:07X}",
        roi_name="MASS_{number}",
        head_first=False,
    ),
    "Canon": Vendor(
        site="city",
        scanners={
            "CT": _toshiba("CANON_MEC", "Aquilion Prime SP", "FC18", "V8.9SP0003"),
            "PT": _toshiba("CANON_MEC", "Cartesion Prime", "", "V10.8"),
            "MR": _toshiba("CANON_MEC", "MRT-3020", "", "V6.0"),
        },
        ct=Stored(16, signed=True),
        noise_hu=12.0,
        slice_mm=3.0,
        file_name="DICOM/{date}/S{series:02d}/I{number:07X}",
        roi_name="Mass {number}",
        head_first=False,
    ),
}
"""By the names of ``people.DISTRIBUTIONS["vendor"]``; strings as the vendors' own headers spell them."""
